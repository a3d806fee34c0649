"""/v1/uploads: a file in parts."""

from __future__ import annotations

import time

from simulator import errors, files
from simulator.blobs import Blob
from simulator.exchange import Exchange
from simulator.kinds import PART, UPLOAD
from simulator.store import Thing

OPEN_FOR_S = 3600


async def create(exchange: Exchange) -> None:
    """POST /v1/uploads"""
    body = exchange.json_object()
    for name in ("filename", "bytes", "mime_type"):
        if body.get(name) is None:
            raise errors.missing(name)
    fields = {
        "filename": body["filename"],
        "bytes": body["bytes"],
        "purpose": files.check_purpose(body.get("purpose")),
        "status": "pending",
        "expires_at": int(time.time()) + OPEN_FOR_S,
        "file": None,
    }
    thing = exchange.world.store.add(UPLOAD, fields)
    exchange.call.object_id = thing.id
    await exchange.send_object(thing.document)


def pending(exchange: Exchange, upload_id: str) -> Thing:
    thing = exchange.world.store.get(UPLOAD, upload_id)
    if thing.document["status"] != "pending":
        raise errors.ApiError(400, f"Upload {upload_id} has status {thing.document['status']}.")
    return thing


async def add_part(exchange: Exchange, upload_id: str) -> None:
    """POST /v1/uploads/{upload_id}/parts"""
    upload = pending(exchange, upload_id)
    part = exchange.form.file("data") if exchange.form is not None else None
    if part is None:
        raise errors.missing("data")
    thing = exchange.world.store.add(PART, {"upload_id": upload.id}, parent=upload.id)
    thing.hidden["blob"] = part.blob
    exchange.call.object_id = thing.id
    await exchange.send_object(thing.document)


async def complete(exchange: Exchange, upload_id: str) -> None:
    """POST /v1/uploads/{upload_id}/complete"""
    upload = pending(exchange, upload_id)
    store = exchange.world.store
    part_ids = exchange.fields().get("part_ids")
    if not isinstance(part_ids, list):
        raise errors.missing("part_ids")
    whole = Blob()
    for part in [store.get(PART, id, upload.id) for id in part_ids]:
        for piece in part.hidden["blob"].pieces():
            whole.write(piece)
    document = upload.document
    if whole.size != document["bytes"]:
        message = f"Upload has {whole.size} bytes, but {document['bytes']} bytes were announced."
        raise errors.ApiError(400, message)
    file = files.add(store, filename=document["filename"], purpose=document["purpose"], blob=whole)
    document.update(status="completed", file=file.document)
    for part in store.all(PART, upload.id):
        store.remove(part)
    exchange.call.object_id = file.id
    await exchange.send_object(document)


async def cancel(exchange: Exchange, upload_id: str) -> None:
    """POST /v1/uploads/{upload_id}/cancel"""
    upload = pending(exchange, upload_id)
    upload.document["status"] = "cancelled"
    await exchange.send_object(upload.document)


ROUTES = (
    ("POST", "uploads", create),
    ("POST", "uploads/{}/parts", add_part),
    ("POST", "uploads/{}/complete", complete),
    ("POST", "uploads/{}/cancel", cancel),
)
RESOURCES = ()
