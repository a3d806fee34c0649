"""/v1/fine-tunes: fine-tuning as it was before jobs."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import orjson

from simulator import errors, files, fine_tuning, resources
from simulator.blobs import Blob
from simulator.exchange import Exchange
from simulator.kinds import FINE_TUNE
from simulator.store import Thing

USUAL_EPOCHS = 4
LOOK_EVERY_S = 0.05


async def create(exchange: Exchange) -> None:
    """POST /v1/fine-tunes"""
    body, world = exchange.json_object(), exchange.world
    file = files.named(world.store, body.get("training_file"), "training_file")
    model = str(body.get("model") or "curie")
    epochs = body.get("n_epochs") or USUAL_EPOCHS
    validation = body.get("validation_file")
    thing = world.store.add(
        FINE_TUNE,
        {
            "fine_tuned_model": None,
            "hyperparams": {
                "batch_size": body.get("batch_size"),
                "learning_rate_multiplier": body.get("learning_rate_multiplier"),
                "n_epochs": epochs,
                "prompt_loss_weight": body.get("prompt_loss_weight") or 0.1,
            },
            "model": model,
            "organization_id": "org-simulator",
            "result_files": [],
            "status": "pending",
            "training_files": [file.document],
            "updated_at": int(time.time()),
            "validation_files": [files.named(world.store, validation, "validation_file").document]
            if validation
            else [],
            "events": [],
        },
    )
    exchange.call.object_id, exchange.call.model = thing.id, model
    tell(thing, f"Created fine-tune: {thing.id}")
    blob: Blob = file.hidden["blob"]

    async def finish(status: str, share: float) -> dict[str, Any] | None:
        trained = round(fine_tuning.tokens_in(model, blob) * epochs * share)
        thing.document.update(status=status, updated_at=int(time.time()))
        if status == "completed":
            thing.document["status"] = "succeeded"
            tuned = fine_tuning.tuned_model(world.store, model, "", legacy=True)
            results = files.add(
                world.store,
                filename="compiled_results.csv",
                purpose="fine-tune-results",
                blob=Blob(fine_tuning.RESULTS),
            )
            thing.document.update(fine_tuned_model=tuned, result_files=[results.document])
            tell(thing, f"Uploaded model: {tuned}")
        tell(thing, f"Fine-tune {thing.document['status']}")
        return {"trained_tokens": trained} if trained else None

    world.work.begin(thing, finish, model=model, finish_after=exchange.directives.finish_after)
    await exchange.send_object(thing.document)


def tell(thing: Thing, message: str) -> None:
    thing.document["events"].append(
        {"object": "fine-tune-event", "created_at": int(time.time()), "level": "info", "message": message}
    )


async def events(exchange: Exchange, fine_tune_id: str) -> None:
    """GET /v1/fine-tunes/{fine_tune_id}/events, as a list or, with `stream=true`, to the end of the work."""
    thing = exchange.world.store.get(FINE_TUNE, fine_tune_id)
    told: list[dict[str, Any]] = thing.document["events"]
    if exchange.query().get("stream") != "true":
        await exchange.send_object({"object": "list", "data": told})
        return
    exchange.call.stream = True
    while exchange.world.work.pending(thing.id):
        await exchange.pause(LOOK_EVERY_S)
    await exchange.send_stream(_framed(told))


def _framed(told: list[dict[str, Any]]) -> Iterator[tuple[bytes, int]]:
    for event in told:
        yield b"data: %s\n\n" % orjson.dumps(event), 0


async def cancel(exchange: Exchange, fine_tune_id: str) -> None:
    """POST /v1/fine-tunes/{fine_tune_id}/cancel"""
    thing = exchange.world.store.get(FINE_TUNE, fine_tune_id)
    if not await exchange.world.work.finish(thing.id, "cancelled", 0.0):
        message = f'Cannot cancel a job {thing.id} that already has status "{thing.document["status"]}".'
        raise errors.ApiError(400, message)
    await exchange.send_object(thing.document)


ROUTES = (
    ("POST", "fine-tunes", create),
    ("GET", "fine-tunes/{}/events", events),
    ("POST", "fine-tunes/{}/cancel", cancel),
)
RESOURCES = (resources.Resource("fine-tunes", (FINE_TUNE,), "list get"),)
