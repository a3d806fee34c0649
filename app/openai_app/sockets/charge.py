"""What is charged for on a socket: many holds, one after the other, by the rules of `charge`."""

import asyncio
import logging
import math
from collections.abc import Mapping
from typing import Any

from balances.operations import Granted, PlaceHold, Progress, Void
from balances.units import AUDIO_OUTPUT
from balances.usage import Estimate, Usage
from common.errors import BadRequest, InsufficientBalance
from openai_app.answer.passing import settled
from openai_app.answer.streaming import MAX_UNCOUNTED_BYTES
from openai_app.exchange import new_id
from openai_app.metering import Meter
from openai_app.metering.chat import count_output
from openai_app.metering.reading import mapping, without_zeros
from openai_app.metering.units import OUTPUT
from openai_app.request.request_body import MAX_MODEL_CHARACTERS
from openai_app.services import Services
from openai_app.settlement import charge
from openai_app.settlement.charge import Charge

log = logging.getLogger(__name__)

ENDED = "The gateway ended the session; charged what had been counted."

# For work that has begun without a hold: granted whatever the balance is, and charged whole when the usage is
# known.
NOTHING = Estimate({}, asked=0)


class SocketCharge(Charge):
    """The hold of one response, or of one transcription, among others on the same socket."""

    def __init__(
        self, services: Services, granted: Granted, estimate: Estimate, meter: Meter, event_id: object = None
    ) -> None:
        super().__init__(services.writer, granted, estimate, meter, {"model": granted.model})
        self.output_cap = granted.output_cap
        #: The id of the client's event that asked for it, by which an error names it.
        self.event_id = event_id
        self.has_begun = False
        self.spoken_tokens = 0.0
        self._texts: list[str] = []
        self._characters = 0
        self._tokens = 0

    def note(self, event: Mapping[str, Any]) -> None:
        """Keeps what an event adds to the output, for the case that no usage comes."""
        for _, added in self._meter.text(event):
            self._texts.append(added)
            self._characters += len(added)
        if self._characters > MAX_UNCOUNTED_BYTES:
            self._catch_up()

    def measured(self, estimate: Estimate) -> None:
        """What goes in is known now."""
        self._estimate = estimate

    def stand_by(self) -> None:
        """Nobody has asked for it yet: if this process dies before it begins, it costs nothing."""
        self._writer.submit(Progress(self._granted.hold_id, self._granted.user_id, {}))

    def over(self, event: Mapping[str, Any]) -> "asyncio.Future[Any] | None":
        """The event ends it. A charge that was cut before is put right by the usage that comes after all."""
        usage = self._meter.usage(event, self._request)
        if usage is not None:
            return self._post(usage, charge.FINISHED)
        if self.is_settled:
            return None
        if not _has_failed(event):
            return self._post(None, charge.NO_USAGE)
        counted = self._counted()
        wrote = any(counted.units.get(unit) for unit in (OUTPUT, AUDIO_OUTPUT))
        return self._post(counted, charge.BROKEN) if wrote else self.refused()

    def cut(self, reason: str) -> None:
        """The socket closed; what OpenAI broke off before it began is free, as is what was never sent."""
        if self.is_settled:
            return
        if not self.is_sent:
            self._void(charge.UNSENT)
        elif reason == charge.BROKEN and not self.has_begun:
            self._void(charge.FAILED)
        else:
            super().cut(reason)

    def _counted(self) -> Usage:
        self._catch_up()
        if self._estimate.ceiling == 0:
            return Usage(self._estimate.units)
        output = {OUTPUT: self._tokens, AUDIO_OUTPUT: math.ceil(self.spoken_tokens)}
        return Usage({**self._estimate.units, **without_zeros(output)})

    def _catch_up(self) -> None:
        self._tokens += count_output(self._granted.model, "".join(self._texts))
        self._texts.clear()
        self._characters = 0


def _has_failed(event: Mapping[str, Any]) -> bool:
    return mapping(event.get("response")).get("status") == "failed" or "error" in event


def check_name(model: str) -> None:
    """Raises BadRequest for what is no model's name."""
    if len(model) > MAX_MODEL_CHARACTERS:
        raise BadRequest("The model's name is too long.", param="model")
    if not model.isprintable():
        # PostgreSQL takes no null character: all that is written together with it would fail.
        raise BadRequest("The model's name holds characters that no name has.", param="model")


class Holds:
    """All holds of one socket, so that none is forgotten when it closes."""

    def __init__(self, services: Services, digest: str, operation: str) -> None:
        self._services = services
        self._digest = digest
        self._operation = operation
        self._open: set[SocketCharge] = set()

    def __len__(self) -> int:
        return len(self._open)

    async def recognise(self, model: str) -> Granted:
        """Whose key it is. Raises KeyRejected, PermissionDenied for a model that it may not call."""
        return await self._ask(model, None)

    async def place(
        self,
        model: str,
        estimate: Estimate,
        meter: Meter,
        event_id: object = None,
        *,
        has_begun: bool = False,
    ) -> SocketCharge:
        """Raises the ApiError that the ledger refuses with. Limits do not refuse what has begun already."""
        granted = await self._ask(model, estimate, is_limited=not has_begun)
        placed = SocketCharge(self._services, granted, estimate, meter, event_id)
        self._open.add(placed)
        return placed

    async def place_late(
        self, model: str, estimate: Estimate, meter: Meter
    ) -> tuple[SocketCharge, InsufficientBalance | None]:
        """For what has begun without a hold: it is charged whole, even if the balance does not cover it.

        Answers the refusal as well, after which the socket must close.
        """
        try:
            return await self.place(model, estimate, meter, has_begun=True), None
        except InsufficientBalance as refusal:
            log.warning("work began without a hold, and the balance does not cover it")
            placed = await self.place(model, NOTHING, meter, has_begun=True)
            # OpenAI has read it all the same.
            placed.measured(estimate)
            return placed, refusal

    def begin(self, charge_: SocketCharge) -> None:
        """OpenAI is at work on it: from now on the ledger hears of its progress."""
        charge_.is_sent = charge_.has_begun = True
        self._services.open_charges.add(charge_)
        # At once: until now a hold that stood by was noted as costing nothing.
        charge_.report_progress()

    async def end(self, charge_: SocketCharge, event: Mapping[str, Any]) -> None:
        """The event ends the work; returns when the charge is in."""
        self._forget(charge_)
        posting = charge_.over(event)
        if posting is not None:
            await settled(posting)

    async def release(self, charge_: SocketCharge) -> None:
        """OpenAI refused the work."""
        self._forget(charge_)
        if not charge_.is_settled:
            await settled(charge_.refused())

    def drop(self, charge_: SocketCharge, reason: str = charge.UNSENT) -> None:
        """It is not needed any more, or was cut off."""
        self._forget(charge_)
        charge_.cut(reason)

    def cut(self, reason: str) -> None:
        """The socket closed: whatever is open ends now."""
        for charge_ in tuple(self._open):
            self.drop(charge_, reason)

    def _forget(self, charge_: SocketCharge) -> None:
        self._open.discard(charge_)
        self._services.open_charges.discard(charge_)

    async def _ask(self, model: str, estimate: Estimate | None, *, is_limited: bool = True) -> Granted:
        check_name(model)
        writer = self._services.writer
        answer = writer.submit(
            PlaceHold(
                hold_id=new_id(),
                digest=self._digest,
                operation=self._operation,
                model=model,
                estimate=estimate,
                worker_id=writer.worker_id,
                is_limited=is_limited,
            )
        )
        try:
            granted = await answer
        except asyncio.CancelledError:
            # It may have been granted in the moment in which its socket closed; else the writer voids it.
            if estimate is not None and answer.done() and not answer.cancelled() and not answer.exception():
                held = answer.result()
                assert isinstance(held, Granted)
                writer.submit(Void(held.hold_id, held.user_id, charge.UNSENT))
            raise
        assert isinstance(granted, Granted)
        return granted
