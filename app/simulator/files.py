"""/v1/files: stored as they come, listed, read back whole or in ranges, deleted."""

from __future__ import annotations

import time
from typing import Any

from simulator import errors, resources
from simulator.blobs import Blob
from simulator.exchange import Exchange
from simulator.kinds import FILE
from simulator.store import Store, Thing

PURPOSES = ("fine-tune", "assistants", "batch", "user_data", "vision", "evals")
LEGACY_PURPOSES = ("answers", "search", "classifications")
MADE_PURPOSES = ("batch_output", "fine-tune-results", "assistants_output")


def add(
    store: Store, *, filename: str, purpose: str, blob: Blob, expires_after_s: int | None = None
) -> Thing:
    """Store a file."""
    expires = None if expires_after_s is None else int(time.time()) + expires_after_s
    fields: dict[str, Any] = {
        "bytes": blob.size,
        "expires_at": expires,
        "filename": filename,
        "purpose": purpose,
        "status": "processed",
        "status_details": None,
    }
    thing = store.add(FILE, fields)
    thing.hidden["blob"] = blob
    return thing


def check_purpose(purpose: object) -> str:
    """Raises ApiError: nobody may upload for this purpose."""
    if purpose is None:
        raise errors.missing("purpose")
    if purpose not in PURPOSES + LEGACY_PURPOSES:
        message = f"'{purpose}' is not one of {list(PURPOSES)} - 'purpose'"
        raise errors.ApiError(400, message, param="purpose")
    return str(purpose)


def named(store: Store, file_id: object, parameter: str) -> Thing:
    """The file that a body names.

    Raises:
        ApiError: there is none, in the words of the endpoints that take files.
    """
    if not isinstance(file_id, str):
        raise errors.missing(parameter)
    thing = store.find(FILE, file_id)
    if thing is None:
        raise errors.ApiError(400, f"invalid {parameter}: {file_id}", param=parameter)
    return thing


async def create(exchange: Exchange) -> None:
    """POST /v1/files"""
    fields = exchange.fields()
    part = exchange.form.file("file") if exchange.form is not None else None
    if part is None:
        raise errors.missing("file")
    purpose = check_purpose(fields.get("purpose"))
    seconds = fields.get("expires_after[seconds]")
    thing = add(
        exchange.world.store,
        filename=part.filename,
        purpose=purpose,
        blob=part.blob,
        expires_after_s=int(seconds) if seconds else None,
    )
    exchange.call.object_id = thing.id
    await exchange.send_object(thing.document)


async def content(exchange: Exchange, file_id: str) -> None:
    """GET /v1/files/{file_id}/content"""
    thing = exchange.world.store.get(FILE, file_id)
    name = thing.document["filename"].encode("ascii", "replace").replace(b'"', b"'")
    disposition = (b"content-disposition", b'attachment; filename="%s"' % name)
    await exchange.send_blob(b"application/octet-stream", thing.hidden["blob"], (disposition,))


ROUTES = (("POST", "files", create), ("GET", "files/{}/content", content))
RESOURCES = (resources.Resource("files", (FILE,), filters=(("purpose", "purpose"),)),)
