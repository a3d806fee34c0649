"""/v1/responses over a WebSocket: each `response.create` is answered by the events of a stream."""

from __future__ import annotations

from typing import Any

from simulator import errors, response_context, response_stream, responses
from simulator.sockets import Left, Socket

Contexts = dict[str, list[dict[str, Any]]]


async def talk(socket: Socket) -> None:
    """Answer the events of one connection, which remembers even what is not stored."""
    contexts: Contexts = {}
    while True:
        event = await socket.next()
        try:
            if event.get("type") != "response.create":
                message = f"Invalid value: '{event.get('type')}'. Supported values are: 'response.create'."
                raise errors.ApiError(400, message, param="type", code="invalid_value")
            body = event.get("response") or {k: v for k, v in event.items() if k not in ("type", "event_id")}
            await respond(socket, body, contexts)
        except errors.ApiError as error:
            await socket.tell({"type": "error", "status": error.status, **error.document()})


async def respond(socket: Socket, body: dict[str, Any], contexts: Contexts) -> None:
    wish, world = socket.directives(), socket.world
    previous = body.get("previous_response_id")
    if previous in contexts:
        given = response_context.items_of(body.get("input"))
        made = await responses.plan(
            world, body | {"previous_response_id": None, "input": [*contexts[previous], *given]}, wish
        )
        made.document["previous_response_id"] = previous
    else:
        made = await responses.plan(world, body, wish)
    thing = responses.keep(world, made, dict(made.document))
    state, outcome, sent = "finished", "completed", 0
    try:
        events = response_stream.documents(made, ends_well=not wish.no_done)
        sent = await socket.tell_all(events, wish)
        responses.settle(world, thing, made.finished())
        contexts[thing.id] = made.context
        outcome = thing.document["status"]
    except Left as left:
        thing.document["status"] = outcome = "cancelled"
        state, sent = "cut", left.args[0] if left.args else 0
        raise
    finally:
        model = made.document["model"]
        socket.record("response", thing.id, model, made.usage, outcome, sent, state)
