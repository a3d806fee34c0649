"""Chat completions made with `store: true`: listed, looked at, labelled, deleted."""

from __future__ import annotations

from typing import Any

from simulator import resources
from simulator.exchange import Exchange
from simulator.kinds import COMPLETION
from simulator.store import Store, Thing


def keep(store: Store, document: dict[str, Any], body: dict[str, Any]) -> None:
    messages = [
        {"id": f"{document['id']}-{index}", "content": None, **message, "content_parts": None}
        for index, message in enumerate(body["messages"])
    ]
    kept = document | {"metadata": body.get("metadata") or {}}
    store.keep(Thing(COMPLETION, document["id"], "", kept, {"messages": messages}))


async def messages(exchange: Exchange, completion_id: str) -> None:
    """GET /v1/chat/completions/{completion_id}/messages"""
    thing = exchange.world.store.get(COMPLETION, completion_id)
    listed = [Thing(COMPLETION, message["id"], "", message) for message in thing.hidden["messages"]]
    await exchange.send_object(resources.page(exchange, listed, COMPLETION))


ROUTES = (("GET", "chat/completions/{}/messages", messages),)
RESOURCES = (
    resources.Resource(
        "chat/completions", (COMPLETION,), "list get update delete", filters=(("model", "model"),)
    ),
)
