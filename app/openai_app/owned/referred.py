"""What a request brings along without holding it: earlier turns at OpenAI, and the lines of a file."""

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import Executor
from dataclasses import replace
from typing import Any

from balances.units import INPUT, TOKENS
from balances.usage import Estimate, Usage
from common.errors import BadRequest, Unavailable, UpstreamFailed
from openai_app.answer.lines import LineTooLongError, lines_of
from openai_app.metering import Meter
from openai_app.owned import ownership
from openai_app.owned.objects import FILE
from openai_app.owned.records import Records
from openai_app.upstream import Upstream, failure

log = logging.getLogger(__name__)

Check = Callable[[list[ownership.Mention]], Awaitable[None]]


class Referred:
    """Adds to an estimate what the request refers to."""

    def __init__(self, upstream: Upstream, records: Records, threads: Executor) -> None:
        self._upstream = upstream
        self._records = records
        self._threads = threads

    async def add_to(
        self, estimate: Estimate, meter: Meter, request: Mapping[str, Any], check: Check
    ) -> Estimate:
        """The estimate with what earlier turns and files add.

        Ids in a file's lines are shown to `check`, which raises for what is not the caller's. Raises ApiError
        if a file cannot be read.
        """
        file_id = request.get(meter.lines_field) if meter.lines_field else None
        if isinstance(file_id, str) and meter.estimate_lines is not None:
            return await self._of_lines(file_id, estimate, meter, request, check)
        earlier = [name for name in ("previous_response_id", "conversation") if request.get(name)]
        if not earlier:
            return estimate
        ids = [_id_in(request[name]) for name in earlier]
        known = await self._records.data_of([object_id for object_id in ids if object_id])
        tokens = sum(int(data.get(EARLIER_TOKENS, 0)) for data in known)
        return replace(estimate, units={**estimate.units, INPUT: estimate.units.get(INPUT, 0) + tokens})

    async def note(self, answer: Mapping[str, Any], usage: Usage | None) -> None:
        """Notes what a response and its conversation hold by now, for the turn that follows.

        While the database is away that turn is counted without them: no reason to fail this one.
        """
        if usage is None:
            return
        held = {EARLIER_TOKENS: sum(usage.units.get(unit, 0) for unit in TOKENS)}
        for object_id in (_id_in(answer), _id_in(answer.get("conversation"))):
            if object_id:
                try:
                    await self._records.refresh(object_id, held)
                except Unavailable as error:
                    log.warning("what %s holds is not noted: %s", object_id, error.message)

    async def _of_lines(
        self, file_id: str, least: Estimate, meter: Meter, request: Mapping[str, Any], check: Check
    ) -> Estimate:
        assert meter.estimate_lines is not None
        units: Counter[str] = Counter()
        loop = asyncio.get_running_loop()
        response = await self._upstream.send("GET", f"/files/{file_id}/content", b"", [], b"")
        try:
            if response.status != 200:
                return _unread(response.status, file_id, least, meter)
            async for lines in lines_of(response):
                await check(ownership.mentions_in_lines(lines))
                counted = await loop.run_in_executor(
                    self._threads, meter.estimate_lines, lines, dict(request)
                )
                units.update(counted.units)
        except LineTooLongError as error:
            raise BadRequest(f"The file {file_id} cannot be used: {error}", param=meter.lines_field) from None
        except OSError as error:
            raise failure(error) from error
        finally:
            response.close()
        return replace(least, units=dict(units)) if sum(units.values()) > sum(least.units.values()) else least


def _unread(status: int, file_id: str, least: Estimate, meter: Meter) -> Estimate:
    """A file of examples may not be shown to anybody; one of requests must be, for the ids in them."""
    if meter.lines_field != _REQUESTS:
        return least
    if status == 404:
        raise ownership.missing(FILE, file_id)
    raise UpstreamFailed("The batch's input file could not be read at OpenAI. Try again.")


_REQUESTS = "input_file_id"
# Under this name the records keep how many tokens a response or a conversation holds.
EARLIER_TOKENS = "tokens"


def _id_in(value: Any) -> str:
    """The id in a reference, which is a string or an object."""
    found = value.get("id") if isinstance(value, Mapping) else value
    return found if isinstance(found, str) else ""
