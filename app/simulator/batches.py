"""/v1/batches: each line of a file is answered as its endpoint would, when the batch ends."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import orjson

from simulator import chat, completions, embeddings, errors, files, resources, responses
from simulator.blobs import Blob
from simulator.directives import NOTHING, DirectiveError, Directives, in_body, parse
from simulator.exchange import Exchange, new_id
from simulator.kinds import BATCH, FILE
from simulator.store import Thing
from simulator.world import World

WINDOW_S = 86_400
BURST_LINES = 100  # answered before the event loop has its turn
Answer = Callable[[World, dict[str, Any], Directives], Awaitable[tuple[dict[str, Any], dict[str, Any]]]]
ENDPOINTS: dict[str, Answer] = {
    "/v1/chat/completions": chat.whole,
    "/v1/completions": completions.whole,
    "/v1/embeddings": embeddings.whole,
    "/v1/responses": responses.whole,
}


def no_usage() -> dict[str, Any]:
    return {
        "input_tokens": 0,
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens": 0,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": 0,
    }


def add_usage(total: dict[str, Any], usage: dict[str, Any]) -> None:
    """Add the usage of one line, in the words of either generation of endpoints, to the batch's."""
    read = usage.get("input_tokens", usage.get("prompt_tokens", 0))
    told = usage.get("output_tokens", usage.get("completion_tokens", 0))
    read_details = usage.get("input_tokens_details") or usage.get("prompt_tokens_details") or {}
    told_details = usage.get("output_tokens_details") or usage.get("completion_tokens_details") or {}
    total["input_tokens"] += read
    total["output_tokens"] += told
    total["total_tokens"] += read + told
    total["input_tokens_details"]["cached_tokens"] += read_details.get("cached_tokens", 0)
    total["output_tokens_details"]["reasoning_tokens"] += told_details.get("reasoning_tokens", 0)


async def create(exchange: Exchange) -> None:
    """POST /v1/batches"""
    body = exchange.json_object()
    store = exchange.world.store
    for name in ("input_file_id", "endpoint", "completion_window"):
        if body.get(name) is None:
            raise errors.missing(name)
    if body["endpoint"] not in ENDPOINTS:
        known = ", ".join(f"'{name}'" for name in ENDPOINTS)
        message = f"Invalid value: '{body['endpoint']}'. Supported values are: {known}."
        raise errors.ApiError(400, message, param="endpoint", code="invalid_value")
    file = store.find(FILE, body["input_file_id"])
    if file is None or file.document["purpose"] != "batch":
        message = f"Invalid 'input_file_id': no batch file with id '{body['input_file_id']}'."
        raise errors.ApiError(400, message, param="input_file_id")
    fields: dict[str, Any] = {
        "endpoint": body["endpoint"],
        "errors": None,
        "input_file_id": file.id,
        "completion_window": body["completion_window"],
        "status": "validating",
        "output_file_id": None,
        "error_file_id": None,
        "expires_at": int(time.time()) + WINDOW_S,
        "request_counts": {"total": 0, "completed": 0, "failed": 0},
        "usage": no_usage(),
        "metadata": body.get("metadata"),
    }
    for moment in ("in_progress", "finalizing", "completed", "failed", "expired", "cancelling", "cancelled"):
        fields[f"{moment}_at"] = None
    thing = store.add(BATCH, fields)
    exchange.call.object_id = thing.id
    blob: Blob = file.hidden["blob"]
    world = exchange.world

    async def finish(status: str, share: float) -> dict[str, Any]:
        return await run(world, thing, blob, status, share)

    world.work.begin(thing, finish, model="", finish_after=exchange.directives.finish_after)
    await exchange.send_object(thing.document)


async def run(world: World, thing: Thing, blob: Blob, status: str, share: float) -> dict[str, Any]:
    """Answer this share of the lines; return what that used."""
    document = thing.document
    if document["status"] == "cancelling" and status == "completed":
        status, share = "cancelled", 0.5
    lines = list(blob.lines())
    output, failures, usage = Blob(), Blob(), no_usage()
    counts = {"total": len(lines), "completed": 0, "failed": 0}
    for number, line in enumerate(lines[: round(len(lines) * share)], 1):
        answered, used = await answer_line(world, document["endpoint"], line)
        well = answered["response"]["status_code"] == 200
        (output if well else failures).write(orjson.dumps(answered) + b"\n")
        counts["completed" if well else "failed"] += 1
        add_usage(usage, used)
        if number % BURST_LINES == 0:
            await asyncio.sleep(0)
    for name, blob_made in (("output", output), ("error", failures)):
        if blob_made.size:
            made = files.add(
                world.store, filename=f"{thing.id}_{name}.jsonl", purpose="batch_output", blob=blob_made
            )
            document[f"{name}_file_id"] = made.id
    now = int(time.time())
    document.update(status=status, request_counts=counts, usage=usage, in_progress_at=now)
    document[f"{status}_at"] = now
    if status == "failed":
        error = {"code": "server_error", "message": "Told to fail.", "param": None, "line": None}
        document["errors"] = {"object": "list", "data": [error]}
    return usage


async def answer_line(world: World, endpoint: str, line: bytes) -> tuple[dict[str, Any], dict[str, Any]]:
    """One line of the output or error file, and what it used."""
    used: dict[str, Any] = {}
    custom_id = None
    request_id = f"req_{new_id()}"
    try:
        request = orjson.loads(line)
        custom_id = request["custom_id"]
        text = in_body(line)
        wish = parse(text) if text else NOTHING
        if wish.status is not None and wish.status >= 400:
            raise errors.of_status(
                wish.status, model="", key="", request_id=request_id, quota=False, retry_after_s=None
            )
        document, used = await ENDPOINTS[endpoint](world, request["body"], wish)
        status = 200
    except errors.ApiError as error:
        document, status = error.document(), error.status
    except (orjson.JSONDecodeError, DirectiveError, KeyError, TypeError) as error:
        document, status = errors.ApiError(400, f"Invalid line: {error}").document(), 400
    answer = {"status_code": status, "request_id": request_id, "body": document}
    return {"id": f"batch_req_{new_id()}", "custom_id": custom_id, "response": answer, "error": None}, used


async def cancel(exchange: Exchange, batch_id: str) -> None:
    """POST /v1/batches/{batch_id}/cancel"""
    thing = exchange.world.store.get(BATCH, batch_id)
    if not exchange.world.work.pending(thing.id):
        message = f"Cannot cancel a batch with status '{thing.document['status']}'."
        raise errors.ApiError(409, message)
    thing.document.update(status="cancelling", cancelling_at=int(time.time()))
    await exchange.send_object(thing.document)


ROUTES = (("POST", "batches", create), ("POST", "batches/{}/cancel", cancel))
RESOURCES = (resources.Resource("batches", (BATCH,), "list get"),)
