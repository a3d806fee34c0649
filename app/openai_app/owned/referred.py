"""What a request brings along without holding it: earlier turns at OpenAI, and the lines of a file."""

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping
from concurrent.futures import Executor
from dataclasses import replace
from typing import Any

from balances.rates import Book
from balances.units import INPUT, TOKENS
from balances.usage import Estimate, Usage
from common.errors import BadRequest, Unavailable, UpstreamFailed
from openai_app.answer.lines import LineTooLongError, lines_of
from openai_app.metering import Meter, responses
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
        return await self.add_earlier(estimate, request)

    async def add_earlier(self, estimate: Estimate, request: Mapping[str, Any]) -> Estimate:
        """The estimate with what earlier turns add, as far as the records tell."""
        earlier = [name for name in ("previous_response_id", "conversation") if request.get(name)]
        if not earlier:
            return estimate
        tokens = await _held(self._records, [_id_in(request[name]) for name in earlier])
        return with_input(estimate, tokens)

    async def rated_as(self, estimate: Estimate) -> str:
        """What the work in a file is rated as; empty where its lines do not tell.

        A charge has one rate: of lines that differ, in the sizes of their images for one, the dearest.
        Raises BadRequest for lines of different models, a batch of which OpenAI refuses too.
        """
        names = sorted(estimate.rated_as)
        if len({name.partition("/")[0] for name in names}) > 1:
            raise BadRequest(f"The lines of a batch must name one model, not {' and '.join(names[:2])}.")
        if len(names) < 2:
            return "".join(names)
        book = await self._records.run(Book.load)
        return max(names, key=lambda name: book.price(name, estimate.units))

    async def note_items(self, conversation_id: str, request: Mapping[str, Any]) -> None:
        """Adds the `items` that a conversation was given to what it holds; see `note_usage`."""
        if not request.get("items"):
            return
        # Models differ little in how they count, and which will read the items is not known yet.
        given = {"input": request["items"]}
        loop = asyncio.get_running_loop()
        counted = await loop.run_in_executor(self._threads, responses.estimate, given)
        try:
            before = await _held(self._records, [conversation_id])
            await _keep(self._records, conversation_id, before + _tokens_of(counted.units))
        except Unavailable as error:
            log.warning("what was put into %s is not noted: %s", conversation_id, error.message)

    async def _of_lines(
        self, file_id: str, least: Estimate, meter: Meter, request: Mapping[str, Any], check: Check
    ) -> Estimate:
        assert meter.estimate_lines is not None
        units: Counter[str] = Counter()
        names: frozenset[str] = frozenset()
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
                names |= counted.rated_as
        except LineTooLongError as error:
            raise BadRequest(f"The file {file_id} cannot be used: {error}", param=meter.lines_field) from None
        except OSError as error:
            raise failure(error) from error
        finally:
            response.close()
        floor = {unit: max(units[unit], n) for unit, n in least.units.items() if unit in units or not units}
        return replace(least, units={**units, **floor}, rated_as=names)


async def note_usage(records: Records, answer: Mapping[str, Any], usage: Usage | None) -> None:
    """Notes what a response and its conversation hold by now, for the turn that follows.

    A response that failed and used nothing says nothing of them. While the database is away that turn is
    counted without them: no reason to fail this one.
    """
    tokens = _tokens_of(usage.units) if usage is not None else 0
    for object_id in (_id_in(answer), _id_in(answer.get("conversation"))):
        if object_id and tokens:
            try:
                await _keep(records, object_id, tokens)
            except Unavailable as error:
                log.warning("what %s holds is not noted: %s", object_id, error.message)


def with_input(estimate: Estimate, tokens: int) -> Estimate:
    """The estimate of a request that has so many more tokens to read."""
    return replace(estimate, units={**estimate.units, INPUT: estimate.units.get(INPUT, 0) + tokens})


async def _held(records: Records, object_ids: Iterable[str]) -> int:
    known = await records.data_of([object_id for object_id in object_ids if object_id])
    return sum(int(data.get(EARLIER_TOKENS, 0)) for data in known)


async def _keep(records: Records, object_id: str, tokens: int) -> None:
    await records.refresh(object_id, {EARLIER_TOKENS: tokens})


def _tokens_of(units: Mapping[str, int]) -> int:
    return sum(units.get(unit, 0) for unit in TOKENS)


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
