"""/v1/containers and their files."""

from __future__ import annotations

import time
from typing import Any

from simulator import assistants, errors, resources
from simulator.blobs import Blob
from simulator.exchange import Exchange
from simulator.kinds import CONTAINER, CONTAINER_FILE, FILE
from simulator.store import Store, Thing

IDLE_MINUTES = 20


async def create(exchange: Exchange) -> None:
    """POST /v1/containers: paid by the session."""
    body, store = exchange.json_object(), exchange.world.store
    if not body.get("name"):
        raise errors.missing("name")
    file_ids = assistants.check_files(store, body.get("file_ids"))
    fields: dict[str, Any] = {
        "status": "running",
        "expires_after": body.get("expires_after") or {"anchor": "last_active_at", "minutes": IDLE_MINUTES},
        "last_active_at": int(time.time()),
        "memory_limit": body.get("memory_limit") or "1g",
        "name": body["name"],
    }
    thing = store.add(CONTAINER, fields)
    for file_id in file_ids:
        copy(store, thing, file_id)
    exchange.call.object_id = thing.id
    exchange.call.usage = {"sessions": 1, "memory_limit": fields["memory_limit"]}
    await exchange.send_object(thing.document)


def copy(store: Store, container: Thing, file_id: object) -> Thing:
    file = store.get(FILE, file_id)
    return place(store, container, file.document["filename"], file.hidden["blob"], "assistant")


def place(store: Store, container: Thing, name: str, blob: Blob, source: str) -> Thing:
    fields = {"bytes": blob.size, "container_id": container.id, "path": f"/mnt/data/{name}", "source": source}
    thing = store.add(CONTAINER_FILE, fields, parent=container.id)
    thing.hidden["blob"] = blob
    return thing


async def add_file(exchange: Exchange, container_id: str) -> None:
    """POST /v1/containers/{container_id}/files: a file that comes along, or one that is here."""
    store = exchange.world.store
    container = store.get(CONTAINER, container_id)
    part = exchange.form.file("file") if exchange.form is not None else None
    if part is not None:
        thing = place(store, container, part.filename, part.blob, "user")
    else:
        thing = copy(store, container, exchange.fields().get("file_id"))
    exchange.call.object_id = thing.id
    await exchange.send_object(thing.document)


async def content(exchange: Exchange, *ids: str) -> None:
    """GET /v1/containers/{container_id}/files/{file_id}/content"""
    thing = resources.resolve(exchange, (CONTAINER, CONTAINER_FILE), ids)
    await exchange.send_blob(b"application/binary", thing.hidden["blob"])


ROUTES = (
    ("POST", "containers", create),
    ("POST", "containers/{}/files", add_file),
    ("GET", "containers/{}/files/{}/content", content),
)
RESOURCES = (
    resources.Resource("containers", (CONTAINER,), filters=(("name", "name"),)),
    resources.Resource("containers/{}/files", (CONTAINER, CONTAINER_FILE)),
)
