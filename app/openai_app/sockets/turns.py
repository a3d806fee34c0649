"""What both kinds of sockets have in common: the caller's holds, whose ids are whose, errors as events."""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar

from balances.operations import Granted
from common.errors import ApiError, BadRequest, PermissionDenied
from openai_app.catalogue import Operation
from openai_app.owned import ownership
from openai_app.request.incoming import INLINE_BYTES
from openai_app.services import Services
from openai_app.sockets.charge import Holds

# An event of a client's or of OpenAI's, parsed.
Event = dict[str, Any]
# Sends OpenAI an event of the gateway's own.
Inject = Callable[[Event], Awaitable[None]]

T = TypeVar("T")


class Turns(ABC):
    """Follows the events of one socket: places a hold before work is asked for, and has its end paid for.

    `size` is that of an event's frame, in characters or bytes.
    """

    #: What is asked of an event's ids, and what may not be asked for at all.
    operation: Operation

    def __init__(self, services: Services, caller: Granted, holds: Holds, inject: Inject) -> None:
        self._services = services
        self._caller = caller
        self._holds = holds
        self._inject = inject
        #: Ids of what came into being on this socket, recorded or not.
        self._own: set[str] = set()

    @abstractmethod
    async def sending(self, event: Event, size: int) -> Event:
        """The event as it is to be passed on to OpenAI: the same object if it passes as it came.

        Raises the ApiError that the client is told instead.
        """

    @abstractmethod
    async def received(self, event: Event, size: int) -> None:
        """Reads an event of OpenAI's before the client gets it. Raises an ApiError that ends the socket."""

    @abstractmethod
    async def passed(self) -> None:
        """After an event of OpenAI's has been passed on. Raises an ApiError that ends the socket."""

    @property
    @abstractmethod
    def is_working(self) -> bool:
        """Whether OpenAI is at work on something that the client waits for."""

    @abstractmethod
    def error_event(self, error: ApiError, cause: Mapping[str, Any]) -> Event:
        """An error in the shape that OpenAI gives it on such a socket; `cause` is the client's event."""

    def cut(self, reason: str) -> None:
        """The socket closed. Safe to call again."""
        self._holds.cut(reason)

    async def check(self, fields: Mapping[str, Any]) -> None:
        """Raises if an event speaks of what is not the caller's, or asks for what is not offered."""
        if self._caller.is_superuser:
            return
        if refusal := self.operation.refusal(fields):
            raise PermissionDenied(refusal, code="operation_not_offered")
        found = [
            mention
            for mention in ownership.mentions(self.operation, {}, b"", fields)
            if mention.object_id not in self._own
        ]
        if found:
            known = await self._services.records.find({mention.object_id for mention in found})
            ownership.check(found, known, self._caller.user_id)

    async def _count(self, size: int, work: Callable[[], T]) -> T:
        """Counts what an event holds; a large one on a thread, so that nobody else waits for it."""
        if size <= INLINE_BYTES:
            return work()
        return await asyncio.get_running_loop().run_in_executor(self._services.counting, work)


def unknown_event(kind: str, known: frozenset[str]) -> ApiError:
    """What is not known might create responses that nobody pays for, so it is not passed on."""
    return BadRequest(
        f"The event type {kind[:60]!r} is not supported here. Supported are: {', '.join(sorted(known))}.",
        param="type",
        code="unknown_event_type",
    )
