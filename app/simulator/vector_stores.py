"""/v1/vector_stores: their files, file batches and search. Indexing is done as soon as it is asked for."""

from __future__ import annotations

import time
from typing import Any

from simulator import assistants, errors, resources
from simulator.blobs import Blob
from simulator.exchange import Exchange
from simulator.kinds import FILE, VECTOR_BATCH, VECTOR_FILE, VECTOR_STORE
from simulator.store import Store, Thing

CHUNKING = {"type": "static", "static": {"max_chunk_size_tokens": 800, "chunk_overlap_tokens": 400}}
SHOWN_BYTES = 4000
USUAL_RESULTS = 10
FILE_PATH = (VECTOR_STORE, VECTOR_FILE)


async def create(exchange: Exchange) -> None:
    """POST /v1/vector_stores"""
    body, store = exchange.fields(), exchange.world.store
    file_ids = assistants.check_files(store, body.get("file_ids"))
    fields = {
        "name": body.get("name"),
        "usage_bytes": 0,
        "file_counts": {},
        "status": "completed",
        "expires_after": body.get("expires_after"),
        "expires_at": None,
        "last_active_at": int(time.time()),
        "metadata": body.get("metadata") or {},
    }
    thing = store.add(VECTOR_STORE, fields)
    for file_id in file_ids:
        index(store, thing, {"file_id": file_id})
    recount(store, thing)
    exchange.call.object_id = thing.id
    await exchange.send_object(thing.document)


def index(store: Store, vector_store: Thing, entry: dict[str, Any]) -> Thing:
    """Put a file into a vector store.

    Raises:
        ApiError: there is no such file.
    """
    file = store.get(FILE, entry.get("file_id"))
    fields = {
        "usage_bytes": file.document["bytes"],
        "vector_store_id": vector_store.id,
        "status": "completed",
        "last_error": None,
        "chunking_strategy": entry.get("chunking_strategy") or CHUNKING,
        "attributes": entry.get("attributes") or {},
    }
    thing = store.add(VECTOR_FILE, fields, id=file.id, parent=vector_store.id)
    thing.hidden.update(blob=file.hidden["blob"], filename=file.document["filename"])
    return thing


def recount(store: Store, vector_store: Thing) -> None:
    things = store.all(VECTOR_FILE, vector_store.id)
    vector_store.document["usage_bytes"] = sum(one.document["usage_bytes"] for one in things)
    vector_store.document["file_counts"] = counts(len(things))


def counts(total: int) -> dict[str, int]:
    return {"in_progress": 0, "completed": total, "failed": 0, "cancelled": 0, "total": total}


async def add_file(exchange: Exchange, vector_store_id: str) -> None:
    """POST /v1/vector_stores/{vector_store_id}/files"""
    store = exchange.world.store
    vector_store = store.get(VECTOR_STORE, vector_store_id)
    thing = index(store, vector_store, exchange.json_object())
    recount(store, vector_store)
    await exchange.send_object(thing.document)


async def remove_file(exchange: Exchange, *ids: str) -> None:
    """DELETE /v1/vector_stores/{vector_store_id}/files/{file_id}: the file itself stays."""
    thing = resources.resolve(exchange, FILE_PATH, ids)
    exchange.world.store.remove(thing)
    recount(exchange.world.store, exchange.world.store.get(VECTOR_STORE, ids[0]))
    await exchange.send_object({"id": thing.id, "object": "vector_store.file.deleted", "deleted": True})


def shown(blob: Blob) -> list[dict[str, str]]:
    return [{"type": "text", "text": blob.read(0, SHOWN_BYTES).decode("utf-8", "replace")}]


async def content(exchange: Exchange, *ids: str) -> None:
    """GET /v1/vector_stores/{vector_store_id}/files/{file_id}/content"""
    thing = resources.resolve(exchange, FILE_PATH, ids)
    await exchange.send_object(
        {
            "object": "vector_store.file_content.page",
            "data": shown(thing.hidden["blob"]),
            "has_more": False,
            "next_page": None,
        }
    )


async def search(exchange: Exchange, vector_store_id: str) -> None:
    """POST /v1/vector_stores/{vector_store_id}/search: paid by the call."""
    vector_store = exchange.world.store.get(VECTOR_STORE, vector_store_id)
    body = exchange.json_object()
    query = body.get("query")
    if not query:
        raise errors.missing("query")
    queries = query if isinstance(query, list) else [query]
    words = {word for text in queries for word in str(text).lower().split()}
    found = []
    for thing in exchange.world.store.all(VECTOR_FILE, vector_store.id):
        parts = shown(thing.hidden["blob"])
        hits = len(words & set(parts[0]["text"].lower().split()))
        found.append(
            {
                "file_id": thing.id,
                "filename": thing.hidden["filename"],
                "score": hits / max(1, len(words)),
                "attributes": thing.document["attributes"],
                "content": parts,
            }
        )
    found.sort(key=lambda one: float(one["score"]), reverse=True)
    exchange.call.usage = {"searches": 1}
    await exchange.send_object(
        {
            "object": "vector_store.search_results.page",
            "search_query": queries,
            "data": found[: body.get("max_num_results") or USUAL_RESULTS],
            "has_more": False,
            "next_page": None,
        }
    )


async def add_batch(exchange: Exchange, vector_store_id: str) -> None:
    """POST /v1/vector_stores/{vector_store_id}/file_batches"""
    store, body = exchange.world.store, exchange.json_object()
    vector_store = store.get(VECTOR_STORE, vector_store_id)
    entries = body.get("files") or [body | {"file_id": id} for id in body.get("file_ids") or []]
    if not entries:
        raise errors.missing("file_ids")
    assistants.check_files(store, [entry.get("file_id") for entry in entries])
    things = [index(store, vector_store, entry) for entry in entries]
    recount(store, vector_store)
    fields = {
        "vector_store_id": vector_store.id,
        "status": "completed",
        "file_counts": counts(len(things)),
    }
    thing = store.add(VECTOR_BATCH, fields, parent=vector_store.id)
    thing.hidden["files"] = things
    exchange.call.object_id = thing.id
    await exchange.send_object(thing.document)


async def cancel_batch(exchange: Exchange, *ids: str) -> None:
    """POST /v1/vector_stores/{vector_store_id}/file_batches/{batch_id}/cancel: too late, always."""
    thing = resources.resolve(exchange, (VECTOR_STORE, VECTOR_BATCH), ids)
    await exchange.send_object(thing.document)


async def batch_files(exchange: Exchange, *ids: str) -> None:
    """GET /v1/vector_stores/{vector_store_id}/file_batches/{batch_id}/files"""
    thing = resources.resolve(exchange, (VECTOR_STORE, VECTOR_BATCH), ids)
    filters = {"filter": "status"}
    await exchange.send_object(resources.page(exchange, thing.hidden["files"], VECTOR_FILE, filters))


ROUTES = (
    ("POST", "vector_stores", create),
    ("POST", "vector_stores/{}/search", search),
    ("POST", "vector_stores/{}/files", add_file),
    ("DELETE", "vector_stores/{}/files/{}", remove_file),
    ("GET", "vector_stores/{}/files/{}/content", content),
    ("POST", "vector_stores/{}/file_batches", add_batch),
    ("POST", "vector_stores/{}/file_batches/{}/cancel", cancel_batch),
    ("GET", "vector_stores/{}/file_batches/{}/files", batch_files),
)
RESOURCES = (
    resources.Resource("vector_stores", (VECTOR_STORE,), "list get update delete"),
    resources.Resource(
        "vector_stores/{}/files", FILE_PATH, "list get update", filters=(("filter", "status"),)
    ),
    resources.Resource("vector_stores/{}/file_batches", (VECTOR_STORE, VECTOR_BATCH), "get"),
)
