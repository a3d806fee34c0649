"""/v1/assistants, /v1/threads and messages, with the files of version 1."""

from __future__ import annotations

from typing import Any

from simulator import errors, resources
from simulator.exchange import Exchange
from simulator.kinds import ASSISTANT, ASSISTANT_FILE, FILE, MESSAGE, MESSAGE_FILE, THREAD
from simulator.store import Store, Thing

ASSISTANT_FIELDS: dict[str, Any] = {
    "name": None,
    "description": None,
    "model": None,
    "instructions": None,
    "tools": [],
    "tool_resources": {},
    "file_ids": [],
    "metadata": {},
    "temperature": 1.0,
    "top_p": 1.0,
    "reasoning_effort": None,
    "response_format": "auto",
}


def filled(body: dict[str, Any], fields: dict[str, Any]) -> dict[str, Any]:
    """The fields, as the body has them or as they are when it hasn't."""
    return {name: value if body.get(name) is None else body[name] for name, value in fields.items()}


def check_files(store: Store, ids: object) -> list[str]:
    """Raises ApiError: one isn't there."""
    wanted = [str(id) for id in ids] if isinstance(ids, list) else []
    for id in wanted:
        store.get(FILE, id)
    return wanted


async def create_assistant(exchange: Exchange) -> None:
    """POST /v1/assistants"""
    body = exchange.json_object()
    if not body.get("model"):
        raise errors.missing("model")
    store = exchange.world.store
    file_ids = check_files(store, body.get("file_ids"))
    thing = store.add(ASSISTANT, filled(body, ASSISTANT_FIELDS))
    for id in file_ids:
        store.add(ASSISTANT_FILE, {"assistant_id": thing.id}, id=id, parent=thing.id)
    exchange.call.object_id = thing.id
    await exchange.send_object(thing.document)


async def add_assistant_file(exchange: Exchange, assistant_id: str) -> None:
    """POST /v1/assistants/{assistant_id}/files (version 1)"""
    store = exchange.world.store
    assistant = store.get(ASSISTANT, assistant_id)
    [file_id] = check_files(store, [exchange.json_object().get("file_id")])
    thing = store.add(ASSISTANT_FILE, {"assistant_id": assistant.id}, id=file_id, parent=assistant.id)
    assistant.document["file_ids"] = [one.id for one in store.all(ASSISTANT_FILE, assistant.id)]
    await exchange.send_object(thing.document)


async def create_thread(exchange: Exchange) -> None:
    """POST /v1/threads"""
    thing = new_thread(exchange.world.store, exchange.fields())
    exchange.call.object_id = thing.id
    await exchange.send_object(thing.document)


def new_thread(store: Store, body: dict[str, Any]) -> Thing:
    """Raises ApiError: a message is none."""
    thing = store.add(THREAD, filled(body, {"metadata": {}, "tool_resources": {}}))
    for message in body.get("messages") or []:
        new_message(store, thing.id, message)
    return thing


async def create_message(exchange: Exchange, thread_id: str) -> None:
    """POST /v1/threads/{thread_id}/messages"""
    store = exchange.world.store
    thing = new_message(store, store.get(THREAD, thread_id).id, exchange.json_object())
    exchange.call.object_id = thing.id
    await exchange.send_object(thing.document)


def new_message(store: Store, thread_id: str, body: dict[str, Any], **more: Any) -> Thing:
    """Add a message to a thread.

    Raises:
        ApiError: it has no role or content, or names a file that isn't there.
    """
    for name in ("role", "content"):
        if body.get(name) is None:
            raise errors.missing(name)
    content = body["content"]
    parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
    attached = [entry.get("file_id") for entry in body.get("attachments") or []]
    file_ids = check_files(store, [*(body.get("file_ids") or []), *(id for id in attached if id)])
    fields: dict[str, Any] = {
        "assistant_id": None,
        "thread_id": thread_id,
        "run_id": None,
        "role": body["role"],
        "content": [_text_part(part) for part in parts],
        "attachments": body.get("attachments") or [],
        "file_ids": body.get("file_ids") or [],
        "metadata": body.get("metadata") or {},
        "status": "completed",
        "completed_at": None,
        "incomplete_at": None,
        "incomplete_details": None,
    }
    thing = store.add(MESSAGE, fields | more, parent=thread_id)
    for id in file_ids:
        store.add(MESSAGE_FILE, {"message_id": thing.id}, id=id, parent=thing.id)
    return thing


def _text_part(part: dict[str, Any]) -> dict[str, Any]:
    if part.get("type") == "text" and isinstance(part.get("text"), str):
        return {"type": "text", "text": {"value": part["text"], "annotations": []}}
    return part


async def list_threads(exchange: Exchange) -> None:
    """GET /v1/threads: never documented, but there."""
    things = exchange.world.store.all(THREAD)
    await exchange.send_object(resources.page(exchange, things, THREAD))


ROUTES = (
    ("POST", "assistants", create_assistant),
    ("POST", "assistants/{}/files", add_assistant_file),
    ("POST", "threads", create_thread),
    ("GET", "threads", list_threads),
    ("POST", "threads/{}/messages", create_message),
)
RESOURCES = (
    resources.Resource("assistants", (ASSISTANT,), "list get update delete"),
    resources.Resource("assistants/{}/files", (ASSISTANT, ASSISTANT_FILE)),
    resources.Resource("threads", (THREAD,), "get update delete"),
    resources.Resource(
        "threads/{}/messages",
        (THREAD, MESSAGE),
        "list get update delete",
        filters=(("run_id", "run_id"),),
    ),
    resources.Resource("threads/{}/messages/{}/files", (THREAD, MESSAGE, MESSAGE_FILE), "list get"),
)
