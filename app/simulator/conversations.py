"""/v1/conversations and their items."""

from __future__ import annotations

from typing import Any

from simulator import resources, response_context
from simulator.exchange import Exchange
from simulator.kinds import CONVERSATION, ITEM
from simulator.store import Store, Thing


def append(store: Store, conversation_id: str, items: list[dict[str, Any]]) -> list[Thing]:
    """Add items, which have ids; what is a mere reference is there already."""
    things = [
        Thing(ITEM, item["id"], conversation_id, item) for item in items if item["type"] != "item_reference"
    ]
    for thing in things:
        store.keep(thing)
    return things


async def create(exchange: Exchange) -> None:
    """POST /v1/conversations"""
    body = exchange.fields()
    store = exchange.world.store
    thing = store.add(CONVERSATION, {"metadata": body.get("metadata") or {}})
    items = response_context.items_of(body.get("items"))
    append(store, thing.id, [response_context.kept_item(item) for item in items])
    exchange.call.object_id = thing.id
    await exchange.send_object(thing.document)


async def add_items(exchange: Exchange, conversation_id: str) -> None:
    """POST /v1/conversations/{conversation_id}/items"""
    thing = exchange.world.store.get(CONVERSATION, conversation_id)
    items = response_context.items_of(exchange.fields().get("items"))
    kept = [response_context.kept_item(item) for item in items]
    append(exchange.world.store, thing.id, kept)
    await exchange.send_object(resources.listing(kept, ITEM))


async def delete_item(exchange: Exchange, conversation_id: str, item_id: str) -> None:
    """DELETE /v1/conversations/{conversation_id}/items/{item_id}: answers with the conversation."""
    thing = resources.resolve(exchange, (CONVERSATION, ITEM), (conversation_id, item_id))
    exchange.world.store.remove(thing)
    await exchange.send_object(exchange.world.store.get(CONVERSATION, conversation_id).document)


ROUTES = (
    ("POST", "conversations", create),
    ("POST", "conversations/{}/items", add_items),
    ("DELETE", "conversations/{}/items/{}", delete_item),
)
RESOURCES = (
    resources.Resource("conversations", (CONVERSATION,), "get update delete"),
    resources.Resource("conversations/{}/items", (CONVERSATION, ITEM), "list get"),
)
