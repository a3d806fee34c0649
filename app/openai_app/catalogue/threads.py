"""Threads and their messages."""

from openai_app.catalogue.operation import JSON, PAGE, Operation
from openai_app.owned.objects import MESSAGE, THREAD

_TAG = "Assistants"
_THREAD = "/threads/{thread_id}"
_MESSAGE = "/threads/{thread_id}/messages/{message_id}"
_HELLO = {"role": "user", "content": "Hello!"}

OPERATIONS = (
    Operation(
        "createThread",
        "POST",
        "/threads",
        _TAG,
        "Create a thread",
        accepts=(JSON,),
        creates=THREAD,
        example={"messages": [_HELLO]},
    ),
    # OpenAI's clients have called it, though it is not in the description.
    Operation("listThreads", "GET", "/threads", _TAG, "List the threads", query=PAGE, lists=THREAD),
    Operation("getThread", "GET", _THREAD, _TAG, "Retrieve a thread"),
    Operation(
        "modifyThread",
        "POST",
        _THREAD,
        _TAG,
        "Change a thread",
        accepts=(JSON,),
        example={"metadata": {"topic": "greeting"}},
    ),
    Operation("deleteThread", "DELETE", _THREAD, _TAG, "Delete a thread", deletes=True),
    Operation(
        "listMessages",
        "GET",
        f"{_THREAD}/messages",
        _TAG,
        "List a thread's messages",
        query=(*PAGE, "run_id"),
    ),
    Operation(
        "createMessage",
        "POST",
        f"{_THREAD}/messages",
        _TAG,
        "Add a message to a thread",
        accepts=(JSON,),
        creates=MESSAGE,
        example=_HELLO,
    ),
    Operation("getMessage", "GET", _MESSAGE, _TAG, "Retrieve a message"),
    Operation(
        "modifyMessage",
        "POST",
        _MESSAGE,
        _TAG,
        "Change a message's metadata",
        accepts=(JSON,),
        example={"metadata": {"topic": "greeting"}},
    ),
    Operation("deleteMessage", "DELETE", _MESSAGE, _TAG, "Delete a message", deletes=True),
    # Files of a message are of the first version of the API, and no longer in OpenAI's description.
    Operation(
        "listMessageFiles", "GET", f"{_MESSAGE}/files", _TAG, "List a message's files (v1)", query=PAGE
    ),
    Operation(
        "getMessageFile",
        "GET",
        f"{_MESSAGE}/files/{{message_file_id}}",
        _TAG,
        "Retrieve a message's file (v1)",
    ),
)
