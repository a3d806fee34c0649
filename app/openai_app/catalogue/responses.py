"""Responses."""

from collections.abc import Mapping
from typing import Any

from openai_app.catalogue.operation import EVENTS, JSON, PAGE_FORWARD, Operation
from openai_app.metering import COMPACTION, RESPONSES
from openai_app.owned.objects import RESPONSE

_HELLO = {"model": "gpt-4o-mini", "input": "Hello!"}


def _is_kept(request: Mapping[str, Any]) -> bool:
    """Responses are stored unless the request says otherwise; what runs in the background always is."""
    return request.get("store") is not False or request.get("background") is True


OPERATIONS = (
    Operation(
        "createResponse",
        "POST",
        "/responses",
        "Responses",
        "Create a model response",
        meter=RESPONSES,
        accepts=(JSON,),
        answers=(JSON, EVENTS),
        creates=RESPONSE,
        keeps=_is_kept,
        example=_HELLO,
    ),
    Operation(
        "getResponse",
        "GET",
        "/responses/{response_id}",
        "Responses",
        "Retrieve a response, or go on with its stream",
        answers=(JSON, EVENTS),
        query=("include", "stream", "starting_after", "include_obfuscation"),
    ),
    Operation(
        "deleteResponse",
        "DELETE",
        "/responses/{response_id}",
        "Responses",
        "Delete a response",
        deletes=True,
    ),
    Operation(
        "cancelResponse",
        "POST",
        "/responses/{response_id}/cancel",
        "Responses",
        "Cancel a response that runs in the background",
    ),
    Operation(
        "listInputItems",
        "GET",
        "/responses/{response_id}/input_items",
        "Responses",
        "List the input items of a response",
        query=(*PAGE_FORWARD, "include"),
    ),
    Operation(
        "Getinputtokencounts",
        "POST",
        "/responses/input_tokens",
        "Responses",
        "Count the input tokens of a request",
        accepts=(JSON,),
        example=_HELLO,
    ),
    Operation(
        "Compactconversation",
        "POST",
        "/responses/compact",
        "Responses",
        "Compact a conversation",
        meter=COMPACTION,
        accepts=(JSON,),
        example=_HELLO,
    ),
)
