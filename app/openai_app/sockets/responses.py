"""Responses over a socket: each `response.create` is a request as over HTTP, its events those of the stream.

Requests with the same `stream_id` are answered one after the other, others at the same time. Source: OpenAI's
guide "WebSocket mode", and the schemas ResponsesClientEvent and ResponsesServerEvent of its description.
"""

import logging
from collections import deque
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from balances.operations import Granted
from balances.usage import Estimate
from common.errors import ApiError, BadRequest, Unavailable
from openai_app.catalogue import CATALOGUE
from openai_app.metering import RESPONSES, responses
from openai_app.metering.reading import items, mapping, string
from openai_app.owned import made
from openai_app.owned.referred import note_usage, with_input
from openai_app.services import Services
from openai_app.settlement import charge
from openai_app.sockets.charge import NOTHING, Holds, SocketCharge, check_name
from openai_app.sockets.turns import Event, Inject, Turns, unknown_event

log = logging.getLogger(__name__)

_KNOWN = frozenset({"response.create"})
# What belongs to the socket, not to the request.
_ENVELOPE = frozenset({"type", "stream_id", "event_id"})


class ResponsesTurns(Turns):
    """A lane is a `stream_id`; requests without one share a lane."""

    operation = next(row for row in CATALOGUE if row.name == "createResponse")

    def __init__(self, services: Services, caller: Granted, holds: Holds, inject: Inject) -> None:
        super().__init__(services, caller, holds, inject)
        #: Each request with its hold.
        self._asked: dict[str, deque[tuple[SocketCharge, Event]]] = {}
        self._working: dict[str, tuple[SocketCharge, Event]] = {}
        #: Tokens that a later response reads which goes on from one on this socket.
        self._context: dict[str, int] = {}

    @property
    def is_working(self) -> bool:
        return bool(self._working) or any(self._asked.values())

    async def sending(self, event: Event, size: int) -> Event:
        kind = string(event.get("type"))
        if kind not in _KNOWN:
            raise unknown_event(kind, _KNOWN)
        request = {name: value for name, value in event.items() if name not in _ENVELOPE}
        if "response" in request:
            # Whoever reads it there would serve a request that has not been looked at.
            raise BadRequest("Unknown parameter: 'response'.", param="response", code="unknown_parameter")
        if request.get("background"):
            raise BadRequest("Responses cannot run in the background over a WebSocket.", param="background")
        model = string(request.get("model"))
        check_name(model)
        await self.check(request)
        estimate = await self._estimate(request, size)
        if request.get("generate") is False:
            estimate = replace(estimate, asked=0)
        placed = await self._holds.place(model, estimate, RESPONSES)
        placed.is_sent = True
        self._asked.setdefault(_lane(event), deque()).append((placed, request))
        if placed.output_cap is None:
            return event
        return {**event, **RESPONSES.cap(request, placed.output_cap)}

    async def received(self, event: Event, size: int) -> None:
        lane, kind = _lane(event), event.get("type")
        if kind == "response.created":
            await self._begin(lane, event, size)
            await self._saw(lane, event)
        elif RESPONSES.ends(event):
            if lane not in self._working:
                await self._begin(lane, event, size)
            await self._saw(lane, event)
            placed, _ = self._working.pop(lane)
            await self._remember_context(mapping(event.get("response")))
            await self._holds.end(placed, event)
        elif kind == "error":
            await self._fail(lane)
        elif lane in self._working:
            self._working[lane][0].note(event)

    async def passed(self) -> None:
        """Nothing comes that was not asked for."""

    def error_event(self, error: ApiError, cause: Mapping[str, Any]) -> Event:
        lane = {"stream_id": cause["stream_id"]} if "stream_id" in cause else {}
        return {"type": "error", "status": error.status, **lane, **error.as_dict()}

    async def _estimate(self, request: Event, size: int) -> Estimate:
        """What a request needs, with what earlier turns add to it, on this socket or elsewhere."""
        estimate = await self._count(size, lambda: responses.estimate(request))
        previous = string(request.get("previous_response_id"))
        if previous in self._context:
            # It need not be stored, nor recorded.
            estimate = with_input(estimate, self._context[previous])
            request = {**request, "previous_response_id": None}
        return await self._services.referred.add_earlier(estimate, request)

    async def _begin(self, lane: str, event: Event, size: int) -> None:
        """The oldest request of the lane is answered now; what was answered before is over, or broke off."""
        if before := self._working.pop(lane, None):
            self._holds.drop(before[0], charge.BROKEN)
        asked = self._asked.get(lane)
        if asked:
            placed, request = asked.popleft()
        else:
            response, request = dict(mapping(event.get("response"))), {}
            # Of what was read it repeats the instructions and tools, and names the response it goes on from.
            read = await self._estimate(response, size)
            model = string(response.get("model"))
            placed = await self._holds.place(model, NOTHING, RESPONSES, has_begun=True)
            placed.measured(read)
        self._holds.begin(placed)
        self._working[lane] = placed, request

    async def _fail(self, lane: str) -> None:
        """An error refuses what has not begun, else it ends what has."""
        if asked := self._asked.get(lane):
            await self._holds.release(asked.popleft()[0])
        elif working := self._working.pop(lane, None):
            self._holds.drop(working[0], charge.BROKEN)

    async def _saw(self, lane: str, event: Event) -> None:
        """Records a response, and what came into being by it, before the client hears of it."""
        response = event.get("response")
        if not isinstance(response, dict) or not isinstance(response.get("id"), str):
            return
        self._own.add(response["id"])
        self._own.update(string(mapping(item).get("id")) for item in items(response.get("output")))
        found = made.new_objects(self.operation, self._working[lane][1], response)
        try:
            await self._services.records.remember(self._caller.user_id, found)
        except Unavailable:
            log.warning("a response could not be recorded: its caller cannot go on from it elsewhere")

    async def _remember_context(self, response: Mapping[str, Any]) -> None:
        usage = RESPONSES.usage(response, {})
        await note_usage(self._services.records, response, usage)
        if usage is not None and isinstance(response.get("id"), str):
            self._context[response["id"]] = sum(usage.units.values())


def _lane(event: Mapping[str, Any]) -> str:
    return string(event.get("stream_id"))
