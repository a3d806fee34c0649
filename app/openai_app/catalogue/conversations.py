"""Conversations and their items."""

from openai_app.catalogue.operation import JSON, PAGE_FORWARD, Operation
from openai_app.owned.objects import CONVERSATION

_TAG = "Conversations"
_ONE = "/conversations/{conversation_id}"
_ITEM = "/conversations/{conversation_id}/items/{item_id}"
_HELLO = {"type": "message", "role": "user", "content": "Hello!"}

OPERATIONS = (
    Operation(
        "createConversation",
        "POST",
        "/conversations",
        _TAG,
        "Create a conversation",
        accepts=(JSON,),
        creates=CONVERSATION,
        adds_items=True,
        example={"items": [_HELLO]},
    ),
    Operation("getConversation", "GET", _ONE, _TAG, "Retrieve a conversation"),
    Operation(
        "updateConversation",
        "POST",
        _ONE,
        _TAG,
        "Change a conversation's metadata",
        accepts=(JSON,),
        example={"metadata": {"topic": "greeting"}},
    ),
    Operation("deleteConversation", "DELETE", _ONE, _TAG, "Delete a conversation", deletes=True),
    Operation(
        "createConversationItems",
        "POST",
        f"{_ONE}/items",
        _TAG,
        "Add items to a conversation",
        accepts=(JSON,),
        query=("include",),
        adds_items=True,
        example={"items": [_HELLO]},
    ),
    Operation(
        "listConversationItems",
        "GET",
        f"{_ONE}/items",
        _TAG,
        "List a conversation's items",
        query=(*PAGE_FORWARD, "include"),
    ),
    Operation(
        "getConversationItem", "GET", _ITEM, _TAG, "Retrieve an item of a conversation", query=("include",)
    ),
    Operation(
        "deleteConversationItem", "DELETE", _ITEM, _TAG, "Delete an item of a conversation", deletes=True
    ),
)
