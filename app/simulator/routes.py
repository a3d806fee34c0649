"""Which handler answers which call."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from urllib.parse import unquote

from simulator import (
    assistants,
    audio,
    batches,
    chat,
    completions,
    containers,
    conversations,
    embeddings,
    engines,
    errors,
    evals,
    files,
    fine_tunes,
    fine_tuning,
    images,
    model_list,
    moderations,
    realtime,
    response_socket,
    responses,
    runs,
    skills,
    stored_chats,
    uploads,
    vector_stores,
    videos,
)
from simulator.exchange import Exchange
from simulator.resources import Handler
from simulator.sockets import Talk

FAMILIES = (
    responses,
    conversations,
    stored_chats,
    files,
    uploads,
    batches,
    embeddings,
    completions,
    engines,
    moderations,
    images,
    audio,
    vector_stores,
    assistants,
    runs,
    fine_tuning,
    fine_tunes,
    evals,
    containers,
    videos,
    skills,
)

# Whole paths, looked up before anything else; then those with ids, by their number of segments.
WHOLE: dict[tuple[str, str], Callable[[Exchange], Awaitable[None]]] = {
    ("POST", "/v1/chat/completions"): chat.create,
    ("GET", "/v1/models"): model_list.list_models,
}
TEMPLATES: dict[int, list[tuple[str, re.Pattern[str], Handler]]] = {}
TALKS: dict[str, Talk] = {"/v1/realtime": realtime.talk, "/v1/responses": response_socket.talk}
MODEL_PREFIX = "/v1/models/"  # what follows, whole, is a model's name, slashes and all
MODELS: dict[str, Callable[[Exchange, str], Awaitable[None]]] = {
    "GET": model_list.retrieve_model,
    "DELETE": model_list.delete_model,
}


def add(method: str, path: str, handler: Handler) -> None:
    if "{}" not in path:
        WHOLE[method, path] = handler
        return
    pattern = re.compile("([^/]+)".join(re.escape(part) for part in path.split("{}")))
    TEMPLATES.setdefault(path.count("/"), []).append((method, pattern, handler))


for _family in FAMILIES:
    for _method, _path, _handler in _family.ROUTES:
        add(_method, f"/v1/{_path}", _handler)
    for _resource in _family.RESOURCES:
        for _row in _resource.routes():
            add(*_row)


async def route(exchange: Exchange, method: str, path: str) -> None:
    """Answer by the handler of this path.

    Raises:
        ApiError: there is none, or as the handler does.
    """
    handler = WHOLE.get((method, path))
    if handler is not None:
        await handler(exchange)
        return
    if path.startswith(MODEL_PREFIX) and len(path) > len(MODEL_PREFIX) and method in MODELS:
        await MODELS[method](exchange, path[len(MODEL_PREFIX) :])
        return
    known = any(whole == path for _, whole in WHOLE)
    for template_method, pattern, template_handler in TEMPLATES.get(path.count("/"), ()):
        found = pattern.fullmatch(path)
        if found is None:
            continue
        known = True
        if template_method == method:
            await template_handler(exchange, *(unquote(id) for id in found.groups()))
            return
    raise errors.wrong_method(method, path) if known else errors.unknown_url(method, path)
