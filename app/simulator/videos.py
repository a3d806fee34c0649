"""/v1/videos: work that is paid by the second of film."""

from __future__ import annotations

import time
from typing import Any

from simulator import errors, model_list, resources
from simulator.blobs import Blob
from simulator.exchange import Exchange
from simulator.kinds import CHARACTER, VIDEO
from simulator.store import Thing

USUAL_SECONDS = "4"
BYTES_A_SECOND = 100_000
MP4_HEAD = b"\x00\x00\x00\x18ftypisom\x00\x00\x02\x00isomiso2mp41"
LASTS_S = 86_400
CONTENT_TYPES = {"video": b"video/mp4", "thumbnail": b"image/webp", "spritesheet": b"image/jpeg"}


async def create(exchange: Exchange) -> None:
    """POST /v1/videos"""
    await film(exchange, exchange.fields())


async def remix(exchange: Exchange, video_id: str) -> None:
    """POST /v1/videos/{video_id}/remix"""
    await film(exchange, exchange.fields(), exchange.world.store.get(VIDEO, video_id))


async def change(exchange: Exchange) -> None:
    """POST /v1/videos/edits and /v1/videos/extensions, of a film that is here or comes along."""
    body = exchange.fields()
    named = body.get("video")
    id = named.get("id") if isinstance(named, dict) else body.get("video[id]") or named
    if id is None and (exchange.form is None or exchange.form.file("video") is None):
        raise errors.missing("video")
    await film(exchange, body, exchange.world.store.get(VIDEO, id) if id else None)


async def film(exchange: Exchange, body: dict[str, Any], source: Thing | None = None) -> None:
    """Begin a film; what isn't said is as in the film that it comes from."""
    if not body.get("prompt"):
        raise errors.missing("prompt")
    known = source.document if source else {}
    model = str(body.get("model") or known.get("model") or "sora-2")
    if not model_list.exists(model):
        raise errors.ApiError(400, f"Invalid value: '{model}'.", param="model", code="invalid_value")
    fields = {
        "status": "queued",
        "model": model,
        "progress": 0,
        "completed_at": None,
        "expires_at": None,
        "prompt": body["prompt"],
        "seconds": str(body.get("seconds") or known.get("seconds") or USUAL_SECONDS),
        "size": body.get("size") or known.get("size") or "720x1280",
        "remixed_from_video_id": source.id if source else None,
        "error": None,
    }
    thing = exchange.world.store.add(VIDEO, fields)
    exchange.call.object_id, exchange.call.model = thing.id, model

    async def finish(status: str, share: float) -> dict[str, Any] | None:
        now = int(time.time())
        if status != "completed":
            error = {"code": "server_error", "message": "The simulator was told to fail."}
            thing.document.update(status="failed", error=error)
            return None
        thing.document.update(status=status, progress=100, completed_at=now, expires_at=now + LASTS_S)
        return {"seconds": float(thing.document["seconds"]), "size": thing.document["size"]}

    finish_after = exchange.directives.finish_after
    exchange.world.work.begin(thing, finish, model=model, finish_after=finish_after)
    await exchange.send_object(thing.document)


async def content(exchange: Exchange, video_id: str) -> None:
    """GET /v1/videos/{video_id}/content"""
    thing = exchange.world.store.get(VIDEO, video_id)
    if thing.document["status"] != "completed":
        message = f"Video is not ready yet, use GET /v1/videos/{thing.id} to check status."
        raise errors.ApiError(404, message)
    kind = exchange.query().get("variant", "video")
    if kind not in CONTENT_TYPES:
        message = f"Invalid value: '{kind}'."
        raise errors.ApiError(400, message, param="variant", code="invalid_value")
    size = round(float(thing.document["seconds"]) * BYTES_A_SECOND) if kind == "video" else 1000
    await exchange.send_blob(CONTENT_TYPES[kind], Blob(MP4_HEAD + bytes(size - len(MP4_HEAD))))


async def create_character(exchange: Exchange) -> None:
    """POST /v1/videos/characters"""
    if exchange.form is None or exchange.form.file("video") is None:
        raise errors.missing("video")
    thing = exchange.world.store.add(CHARACTER, {"name": exchange.fields().get("name")})
    exchange.call.object_id = thing.id
    await exchange.send_object(thing.document)


ROUTES = (
    ("POST", "videos", create),
    ("POST", "videos/edits", change),
    ("POST", "videos/extensions", change),
    ("POST", "videos/characters", create_character),
    ("POST", "videos/{}/remix", remix),
    ("GET", "videos/{}/content", content),
)
RESOURCES = (
    resources.Resource("videos/characters", (CHARACTER,), "get"),
    resources.Resource("videos", (VIDEO,)),
)
