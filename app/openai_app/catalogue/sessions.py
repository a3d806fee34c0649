"""ChatKit and Realtime over HTTP: most of it hands out credentials that lead past the gateway."""

from openai_app.catalogue.operation import FORM, JSON, PAGE, Operation
from openai_app.owned.objects import CHATKIT_THREAD

_CHATKIT = "ChatKit"
_REALTIME = "Realtime"
_THREAD = "/chatkit/threads/{chatkit_thread_id}"
_PAST_US = (
    "It hands out a credential with which a client talks to OpenAI past the gateway, unmetered. Connect to "
    "/v1/realtime through the gateway instead, with your own key."
)
_WORKFLOW = (
    "It hands out a credential with which a client talks to OpenAI past the gateway, unmetered. Use the "
    "Responses API instead."
)
_CALL = (
    "Such a call is carried between its caller and OpenAI directly, past the gateway, and could not be "
    "metered. Connect to /v1/realtime through the gateway instead."
)


def _refused_call(name: str, action: str, summary: str, *accepts: str) -> Operation:
    path = f"/realtime/calls/{{call_id}}/{action}"
    return Operation(name, "POST", path, _REALTIME, summary, accepts=accepts, refused=_CALL)


OPERATIONS = (
    Operation(
        "CreateChatSessionMethod",
        "POST",
        "/chatkit/sessions",
        _CHATKIT,
        "Create a ChatKit session",
        accepts=(JSON,),
        refused=_WORKFLOW,
    ),
    Operation(
        "CancelChatSessionMethod",
        "POST",
        "/chatkit/sessions/{chatkit_session_id}/cancel",
        _CHATKIT,
        "Cancel a ChatKit session",
    ),
    Operation(
        "ListThreadsMethod",
        "GET",
        "/chatkit/threads",
        _CHATKIT,
        "List the ChatKit threads",
        query=(*PAGE, "user"),
        lists=CHATKIT_THREAD,
    ),
    Operation("GetThreadMethod", "GET", _THREAD, _CHATKIT, "Retrieve a ChatKit thread"),
    Operation("DeleteThreadMethod", "DELETE", _THREAD, _CHATKIT, "Delete a ChatKit thread", deletes=True),
    Operation(
        "ListThreadItemsMethod",
        "GET",
        f"{_THREAD}/items",
        _CHATKIT,
        "List the items of a ChatKit thread",
        query=PAGE,
    ),
    Operation(
        "create-realtime-client-secret",
        "POST",
        "/realtime/client_secrets",
        _REALTIME,
        "Create a client secret",
        accepts=(JSON,),
        refused=_PAST_US,
    ),
    Operation(
        "create-realtime-translation-client-secret",
        "POST",
        "/realtime/translations/client_secrets",
        _REALTIME,
        "Create a client secret for translation",
        accepts=(JSON,),
        refused=_PAST_US,
    ),
    Operation(
        "create-realtime-session",
        "POST",
        "/realtime/sessions",
        _REALTIME,
        "Create a session with a client secret",
        accepts=(JSON,),
        refused=_PAST_US,
    ),
    Operation(
        "create-realtime-transcription-session",
        "POST",
        "/realtime/transcription_sessions",
        _REALTIME,
        "Create a transcription session with a client secret",
        accepts=(JSON,),
        refused=_PAST_US,
    ),
    Operation(
        "create-realtime-call",
        "POST",
        "/realtime/calls",
        _REALTIME,
        "Begin a call over WebRTC",
        accepts=(FORM, "application/sdp"),
        answers=("application/sdp",),
        refused=_CALL,
    ),
    _refused_call("accept-realtime-call", "accept", "Accept an incoming call", JSON),
    _refused_call("hangup-realtime-call", "hangup", "End a call"),
    _refused_call("refer-realtime-call", "refer", "Transfer a call", JSON),
    _refused_call("reject-realtime-call", "reject", "Decline an incoming call", JSON),
)
