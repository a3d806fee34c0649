"""Chat completions and those that were stored."""

from collections.abc import Mapping
from typing import Any

from openai_app.catalogue.operation import EVENTS, JSON, PAGE_FORWARD, Operation
from openai_app.metering import CHAT
from openai_app.owned.objects import CHAT_COMPLETION


def _is_kept(request: Mapping[str, Any]) -> bool:
    """Chat completions are stored on request only; the sound of an answer always is, for an hour."""
    return request.get("store") is True or "audio" in request


OPERATIONS = (
    Operation(
        "createChatCompletion",
        "POST",
        "/chat/completions",
        "Chat",
        "Create a chat completion",
        meter=CHAT,
        accepts=(JSON,),
        answers=(JSON, EVENTS),
        creates=CHAT_COMPLETION,
        keeps=_is_kept,
        example={"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Hello!"}]},
    ),
    Operation(
        "listChatCompletions",
        "GET",
        "/chat/completions",
        "Chat",
        "List stored chat completions",
        query=(*PAGE_FORWARD, "model", "metadata"),
        lists=CHAT_COMPLETION,
    ),
    Operation(
        "getChatCompletion",
        "GET",
        "/chat/completions/{completion_id}",
        "Chat",
        "Retrieve a stored chat completion",
    ),
    Operation(
        "updateChatCompletion",
        "POST",
        "/chat/completions/{completion_id}",
        "Chat",
        "Change the metadata of a stored chat completion",
        accepts=(JSON,),
        example={"metadata": {"topic": "greeting"}},
    ),
    Operation(
        "deleteChatCompletion",
        "DELETE",
        "/chat/completions/{completion_id}",
        "Chat",
        "Delete a stored chat completion",
        deletes=True,
    ),
    Operation(
        "getChatCompletionMessages",
        "GET",
        "/chat/completions/{completion_id}/messages",
        "Chat",
        "List the messages of a stored chat completion",
        query=PAGE_FORWARD,
    ),
)
