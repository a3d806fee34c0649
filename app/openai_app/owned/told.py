"""Whose the things are that one call speaks of, and what its answer tells of them."""

from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from typing import Any

from balances.operations import Granted
from common.errors import ApiError, Unavailable
from openai_app.answer.missing import is_missing
from openai_app.catalogue import Operation
from openai_app.http.response import Response
from openai_app.idempotency.claims import Claim
from openai_app.metering.reading import string
from openai_app.owned import lists, made, ownership
from openai_app.owned.objects import RESPONSE, SLOT_KINDS, Kind
from openai_app.owned.ownership import Mention
from openai_app.owned.records import write_down
from openai_app.owned.referred import note_usage
from openai_app.services import Services
from openai_app.settlement import deferred
from openai_app.settlement.charge import Charge


class Told:
    """One for each call, from when it is known what it asks for."""

    def __init__(self, services: Services, operation: Operation, slots: Mapping[str, str]) -> None:
        """`slots` are the ids in the call's path, by name, in their order."""
        self._services = services
        self._operation = operation
        self._slots = slots
        #: Ids of what is known to be recorded: a stream tells of its object again and again.
        self._recorded: set[str] = set()
        #: Whose is what the path names, if that is recorded: what is told of it is theirs as well.
        self._owner_id: int | None = None

    async def check(self, found: list[Mention], caller: Granted) -> None:
        """Raises NotFound for an id that is not the caller's. Operators may speak of everything."""
        if not found or (caller.is_superuser and not self._slots):
            return
        known = await self._services.records.find(ownership.ids(found))
        if not caller.is_superuser:
            ownership.check(found, known, caller.user_id)
        named = known.get(next(iter(self._slots.values()), ""))
        self._owner_id = named.owner_id if named is not None else self._owner_id
        self._recorded.update(known)

    async def page(self, kind: Kind, query: bytes, caller: Granted) -> bytes:
        """A page of the list of the caller's own. Raises ApiError."""

        async def saw(found: Mapping[str, Any]) -> None:
            """Notes what one of them tells that was read again."""
            new = made.new_objects(self._operation, {}, {"data": [found]})
            await self._services.records.remember(caller.user_id, new, are_new=False)
            await self._services.settler.notice(found, owner_id=caller.user_id)

        return await lists.answer(
            self._services.records, self._services.upstream, caller.user_id, kind, query, saw
        )

    async def note(
        self,
        answer: Mapping[str, Any],
        request: dict[str, Any],
        caller: Granted,
        charge: Charge | None,
        claim: Claim | None,
    ) -> None:
        """Records what an answer says came into being, before the caller hears of it. Raises Unavailable."""
        if charge is not None:
            # First of all: it goes on at OpenAI, and is paid for, whatever fails here.
            charge.awaits = charge.awaits or deferred.awaited(answer, request)
        owner_id = self._owner_for(caller)
        if owner_id is not None:
            found = made.new_objects(self._operation, request, answer, self._slots)
            new = [each for each in found if each.object_id not in self._recorded]
            try:
                are_new = self._operation.creates is not None
                await self._services.records.remember(owner_id, new, are_new=are_new)
            except Unavailable:
                if claim is not None:
                    # This answer fails, but its repetition will tell of it: by then it must be its owner's.
                    claim.owe(partial(write_down, owner_id, new))
                raise
            self._recorded.update(each.object_id for each in new)
        await self._refresh(answer, request)
        if charge is None:
            await self._services.settler.notice(
                answer, owner_id=None if caller.is_superuser else caller.user_id
            )

    async def _refresh(self, answer: Mapping[str, Any], request: dict[str, Any]) -> None:
        """Keeps what is to be known later of that which an answer speaks of."""
        operation = self._operation
        named = self._slots.get(operation.slots[-1]) if operation.slots else None
        data = made.kept(operation, answer)
        if named is not None and data and answer.get("id") == named:
            await self._services.records.refresh(named, data)
        if operation.creates is RESPONSE:
            await note_usage(self._services.records, answer, operation.meter.usage(answer, request))
        if operation.adds_items:
            # Of those added to a conversation the answer is a list, without its id.
            conversation_id = self._slots.get("conversation_id") or string(answer.get("id"))
            await self._services.referred.note_items(conversation_id, request)

    async def missed(self, response: Response, body: bytes, caller: Granted) -> None:
        """Forgets what its owner or an operator asks for by itself, and OpenAI no longer has."""
        operation = self._operation
        is_named = bool(operation.slots) and operation.path.endswith(f"{{{operation.slots[-1]}}}")
        if not is_named or operation.method not in ("GET", "DELETE"):
            return
        kind = SLOT_KINDS[operation.slots[-1]]
        # OpenAI may not yet know a tuned model of which it has just told; children are not listed from here.
        if kind.parent is not None or kind.is_model or not is_missing(response, body):
            return
        if caller.is_superuser or caller.user_id == self._owner_id:
            age_s = 0.0 if operation.deletes else deferred.GONE_AFTER_S
            with suppress(ApiError):
                await self._services.records.forget(*self.named_last, older_than_s=age_s)

    @property
    def named_last(self) -> tuple[str, str]:
        """The id that a path ends with, or nearly, and the name of its kind."""
        return ownership.named_last(self._operation, self._slots)

    def _owner_for(self, caller: Granted) -> int | None:
        """Whose the objects are that an answer tells of; None for those that nobody is known to have.

        What is made anew is the caller's; children, and what came of somebody's work, are that one's whoever
        hears of them first.
        """
        creates = self._operation.creates
        if self._owner_id is not None and (creates is None or creates.parent is not None):
            return self._owner_id
        return caller.user_id if creates is not None or not caller.is_superuser else None
