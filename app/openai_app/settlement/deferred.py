"""Calls whose work goes on after their answer: their holds stay open until OpenAI has told the end.

The end is seen in whatever answer it passes in, or asked for by a poller; of all processes on all hosts one
polls at a time. The open hold itself is the queue: it says what it awaits, survives restarts, and is never
dropped. The ledger sees to it that it is charged once, however many notice the end.
"""

import asyncio
import logging
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

from django.db.models import DateTimeField, ExpressionWrapper, Q
from django.db.models.functions import Now

from balances.models import Hold
from balances.operations import Post
from balances.usage import Usage
from balances.writer import Writer
from common.errors import ApiError, UpstreamFailed
from openai_app import catalogue, metrics
from openai_app.answer.lines import LineTooLongError, lines_of
from openai_app.answer.missing import is_missing
from openai_app.answer.passing import parse_answer, read_answer
from openai_app.catalogue import Operation
from openai_app.http.response import Response
from openai_app.idempotency import rows
from openai_app.metering import batches
from openai_app.metering.later import LATER, Later
from openai_app.models import Lease
from openai_app.owned import made
from openai_app.owned.objects import BATCH, FINE_TUNE, FINE_TUNING_JOB, RESPONSE, RUN, Kind
from openai_app.owned.records import New, Records
from openai_app.owned.referred import note_usage
from openai_app.upstream import Upstream, failure

log = logging.getLogger(__name__)

ENDED = "Ended; charged what OpenAI reported."
ENDED_WITHOUT_USAGE = "Ended, but OpenAI reported no usage; charged the whole hold."
GONE = "OpenAI no longer knows the work; charged the whole hold."

TICK_S = 1.0
# An answer that takes longer is asked for again; without a bound one would hold up all others' rounds.
ANSWER_WITHIN_S = 60.0
# The same of a file with the usage in it, which may be large.
FILE_WITHIN_S = 600.0
# Work is asked after at a twentieth of its age: at once when it is young, every few minutes when it is old.
LEAST_PAUSE_S, MOST_PAUSE_S, PAUSE_BY_AGE = 2.0, 300.0, 0.05
AT_ONCE = 8
# OpenAI may lose sight for a moment even of what it has just made: what it still does not know after this
# time is gone.
GONE_AFTER_S = 60.0
# Answers kept for repetitions are deleted by the process whose turn it is to poll, so that one alone does it.
PURGE_EVERY_S = 60.0
# A poller that has died is followed by another within this time.
LEASE = timedelta(seconds=15)
_LEASE_END = ExpressionWrapper(Now() + LEASE, output_field=DateTimeField())
_LEASE_NAME = "settle deferred work"
# By this the operator tells these calls from those of users.
POLLER = b"tollgate-poller"
# What leaves objects behind that its end names.
_KINDS: Mapping[str, Kind] = {
    "batch": BATCH,
    "fine-tune": FINE_TUNE,
    "fine_tuning.job": FINE_TUNING_JOB,
    "response": RESPONSE,
    "thread.run": RUN,
}

# What a batch's answers are found under later, each by its id, if its lines call one of these.
_MAKING = ("/responses", "/videos")


def awaited(answer: Mapping[str, Any], request: Mapping[str, Any]) -> str:
    """What an answered call leaves going on, as `<kind> <path>`; empty if it is over with its answer.

    A response that was not asked for in the background ends with its stream.
    """
    kind = answer.get("object")
    later = LATER.get(kind) if isinstance(kind, str) else None
    if later is None or later.has_ended(answer) or (kind == "response" and not request.get("background")):
        return ""
    return f"{kind} {_path(later, answer)}"


def _path(later: Later, answer: Mapping[str, Any]) -> str:
    return later.path.format_map({name: str(value) for name, value in answer.items()})


class Settler:
    """One for each serving process."""

    def __init__(self, writer: Writer, upstream: Upstream, records: Records) -> None:
        self._writer = writer
        self._upstream = upstream
        self._records = records
        self._polled_at: dict[str, float] = {}
        #: By hold and path, since when OpenAI does not know what is there.
        self._missed_at: dict[tuple[str, str], float] = {}
        self._purge_at = 0.0

    async def notice(self, answer: Mapping[str, Any], *, owner_id: int | None) -> None:
        """Settles what awaited the ends that an answer or a list tells of; the poller gets what fails.

        What a user is answered ends only holds of that user, `owner_id`; None is for anybody's.
        """
        listed = answer.get("data")
        ended = {}
        for one in (answer, *(listed if isinstance(listed, list) else ())):
            kind = one.get("object") if isinstance(one, Mapping) else None
            later = LATER.get(kind) if isinstance(kind, str) else None
            if later is not None and later.has_ended(one):
                ended[f"{kind} {_path(later, one)}"] = later, one
        if not ended:
            return
        whose = Q() if owner_id is None else Q(account_id=owner_id)
        try:
            holds = await self._records.run(
                lambda: list(Hold.objects.filter(whose, awaits__in=ended, state=Hold.State.OPEN))
            )
            for hold in holds:
                await self._settle(hold, *ended[hold.awaits])
        except ApiError as error:
            log.warning("an end that was seen is left to the poller: %s", error.message)

    async def close(self) -> None:
        """Lets another process poll at once."""
        with suppress(ApiError):
            await self._records.run(self._release)

    def _release(self) -> None:
        Lease.objects.filter(holder=self._writer.worker_id, name=_LEASE_NAME).update(until=Now())

    async def run(self) -> None:
        """Asks after open work, again and again, while this process is the one to do so."""
        while True:
            await asyncio.sleep(TICK_S)
            try:
                if await self._records.run(self._may_poll):
                    await self._purge()
                    await self._poll_due()
            except ApiError as error:
                log.warning("deferred work waits: %s", error.message)
            except Exception:
                # A fault in one round must not end the rounds.
                log.exception("a round of asking after deferred work failed")

    def _may_poll(self) -> bool:
        """Takes or renews the lease; on a database thread."""
        # One that ends later than any is taken for was taken before the database's clock stepped back.
        mine = Q(holder=self._writer.worker_id) | Q(until__lt=Now()) | Q(until__gt=_LEASE_END)
        if Lease.objects.filter(mine, name=_LEASE_NAME).update(
            holder=self._writer.worker_id, until=_LEASE_END
        ):
            return True
        _, created = Lease.objects.get_or_create(
            name=_LEASE_NAME, defaults={"holder": self._writer.worker_id, "until": _LEASE_END}
        )
        return created

    async def _purge(self) -> None:
        """Deletes a few of the answers whose time is over; where there are more it goes on the next time."""
        now = asyncio.get_running_loop().time()
        if now >= self._purge_at and await self._records.run(rows.purge) < rows.PURGED_AT_ONCE:
            self._purge_at = now + PURGE_EVERY_S

    async def _poll_due(self) -> None:
        holds = await self._records.run(
            lambda: list(Hold.objects.filter(state=Hold.State.OPEN).exclude(awaits=""))
        )
        now = asyncio.get_running_loop().time()
        self._polled_at = {h.id.hex: self._polled_at.get(h.id.hex, 0.0) for h in holds}
        self._missed_at = {key: at for key, at in self._missed_at.items() if key[0] in self._polled_at}
        due = [hold for hold in holds if now - self._polled_at[hold.id.hex] >= _pause(hold)]
        turn = asyncio.Semaphore(AT_ONCE)

        async def poll(hold: Hold) -> None:
            async with turn:
                self._polled_at[hold.id.hex] = now
                await self._poll(hold)

        await asyncio.gather(*map(poll, due))

    async def _poll(self, hold: Hold) -> None:
        kind, _, path = hold.awaits.partition(" ")
        later = LATER[kind]
        try:
            async with asyncio.timeout(ANSWER_WITHIN_S):
                answer = await self._read(hold, path, kind)
            if answer is None:
                await self._post(hold, None, GONE)
            elif later.has_ended(answer):
                await self._settle(hold, later, answer)
        except (ApiError, TimeoutError) as error:
            log.warning("%s cannot be asked after: %r", hold.awaits, error)

    async def _read(self, hold: Hold, path: str, kind: str) -> dict[str, Any] | None:
        """The work as it is now, empty when OpenAI does not tell; None when it is gone. Raises ApiError."""
        headers = [(b"user-agent", POLLER)]
        if kind.startswith("thread"):
            headers.append((b"openai-beta", b"assistants=v2"))
        response = await self._upstream.send("GET", path, b"", headers, b"")
        try:
            body = await read_answer(response)
            if self._is_gone(hold, path, response, body):
                return None
            return parse_answer(response, body) if response.status == 200 else {}
        finally:
            response.close()

    def _is_gone(self, hold: Hold, path: str, response: Response, body: bytes) -> bool:
        """Whether OpenAI does not know what is at a path, and did not for long."""
        key = hold.id.hex, path
        if response.status == 200:
            self._missed_at.pop(key, None)
        # A process that does not poll would not hear of the hold's end, and keep this for ever.
        if hold.id.hex not in self._polled_at or not is_missing(response, body):
            return False
        now = asyncio.get_running_loop().time()
        return now - self._missed_at.setdefault(key, now) >= GONE_AFTER_S

    async def _settle(self, hold: Hold, later: Later, answer: Mapping[str, Any]) -> None:
        made_by = _KINDS.get(hold.awaits.partition(" ")[0])
        if made_by is not None:
            # Nobody need ever have looked at it since: what came of it belongs to whom the work belongs to.
            await self._records.remember(hold.account_id, made.objects_in(made_by, answer))
        usage = later.usage(answer)
        if made_by is RESPONSE:
            await note_usage(self._records, answer, usage)
        # These may name a snapshot of the model that was asked for: rates go by what was asked.
        asked = hold.model if answer.get("object") in ("batch", "response", "thread.run") else ""
        model = asked or later.rated_as(answer) or hold.model
        file_id = answer.get(later.file_field) if later.file_field else None
        is_in_file = usage is None or later.prefers_lines(answer)
        if is_in_file and later.lines is not None and isinstance(file_id, str):
            output = later.lines(answer, model)
            await self._read_lines(hold, file_id, output, _creator(answer))
            # Where the file tells nothing, what the work itself tells is better than that.
            usage, model = output.usage() or usage, output.model
        await self._post(hold, usage, ENDED if usage is not None else ENDED_WITHOUT_USAGE, model=model)

    async def _read_lines(
        self, hold: Hold, file_id: str, output: batches.Output, creator: Operation | None
    ) -> None:
        """Reads the answers in a file, and records what they say came into being by `creator`.

        Nothing is read of a file that is gone. Raises ApiError when it cannot be read now.
        """
        loop = asyncio.get_running_loop()
        path = f"/files/{file_id}/content"

        def take_in(lines: list[bytes]) -> list[New]:
            answers = output.add(lines)
            if creator is None:
                return []
            return [new for answer in answers for new in made.new_objects(creator, answer, answer)]

        response = await self._upstream.send("GET", path, b"", [], b"")
        try:
            async with asyncio.timeout(ANSWER_WITHIN_S):
                refusal = b"" if response.status == 200 else await read_answer(response)
            if self._is_gone(hold, path, response, refusal):
                return
            if response.status != 200:
                raise UpstreamFailed(f"OpenAI answered with status {response.status} to file {file_id}.")
            async with asyncio.timeout(FILE_WITHIN_S):
                async for lines in lines_of(response):
                    new = await loop.run_in_executor(None, take_in, lines)
                    await self._records.remember(hold.account_id, new)
        except LineTooLongError as error:
            output.give_up()
            log.error("file %s tells no usage: %s", file_id, error)
        except OSError as error:
            raise failure(error) from error
        finally:
            response.close()

    async def _post(self, hold: Hold, usage: Usage | None, reason: str, *, model: str = "") -> None:
        if usage is None:
            metrics.count(metrics.USAGE_MISSING, hold.operation)
        await self._writer.submit(
            Post(
                hold_id=hold.id.hex,
                user_id=hold.account_id,
                key_id=hold.key_id,
                operation=hold.operation,
                model=model or hold.model,
                usage=usage,
                reason=reason,
            )
        )


def _creator(batch: Mapping[str, Any]) -> Operation | None:
    """The operation that makes what the answers in a batch's output are; None where they are not kept."""
    endpoint = batch.get("endpoint")
    path = endpoint.removeprefix("/v1") if isinstance(endpoint, str) else ""
    return catalogue.match("POST", path)[0] if path in _MAKING else None


def _pause(hold: Hold) -> float:
    age = (datetime.now(UTC) - hold.created_at).total_seconds()
    return min(max(LEAST_PAUSE_S, age * PAUSE_BY_AGE), MOST_PAUSE_S)
