"""Claims on `Idempotency-Key`s: made before a call, ended with what it came to.

What is written at a call's end must not be lost with it: a call that is cut, or a database that is away,
leaves the write to this process's own care.
"""

import asyncio
import hashlib
import logging
import math
from collections import deque
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from balances.leases import Suspects
from balances.operations import Defer, Progress
from common.asgi import Headers
from common.errors import BadRequest, Conflict, Unavailable, Unprocessable
from openai_app.idempotency import rows
from openai_app.idempotency.rows import Asked, Kept, Other, UnderWay
from openai_app.owned.records import Records
from openai_app.upstream import IDEMPOTENCY_KEY

log = logging.getLogger(__name__)

T = TypeVar("T")

# An image in base64, some minutes of speech, a stream of ten thousand tokens; each is a day in the database.
MOST_KEPT_BYTES = 4 * 1024 * 1024
MAX_KEY_CHARACTERS = 255
# A database that takes longer keeps an answer's end waiting no longer; the writing goes on beside it.
WRITTEN_WITHIN_S = 2.0
# While the database is away: how long between attempts, and how much waits for it.
RETRY_S = 0.5
MAX_OWED = 10_000
MAX_OWED_BYTES = 64 * 1024 * 1024
# At the end of the process, how long what is owed may wait for the database.
FAREWELL_S = 2.0
# Whoever finds its call under way is told to wait as long again: it is answered after about twice the time.
MOST_WAIT_S = 30
# Where its process has lost its lease, it will soon be known whether that is dead.
MOST_WAIT_FOR_THE_DEAD_S = 5
# These speak of the balance as it was.
_PASSING = (b"x-balance-charged", b"x-balance-remaining", b"content-length")


class AnswerNotKept(Conflict):
    """The call was served and paid for; trying again cannot help, and OpenAI's SDKs are told so."""

    code = "idempotency_answer_not_kept"

    @property
    def headers(self) -> dict[str, str]:
        return {**super().headers, "x-should-retry": "false"}


def key_in(headers: Headers) -> bytes | None:
    """The value of `Idempotency-Key`, None without one. Raises BadRequest for one that cannot be used."""
    found = [value for name, value in headers if name == IDEMPOTENCY_KEY]
    if not found:
        return None
    text = found[0].decode("latin-1")
    if (
        len(found) > 1
        or not 1 <= len(text) <= MAX_KEY_CHARACTERS
        or not (text.isascii() and text.isprintable())
    ):
        raise BadRequest(
            f"Send one Idempotency-Key of 1 to {MAX_KEY_CHARACTERS} printable ASCII characters,"
            " such as a UUID.",
            code="invalid_idempotency_key",
        )
    return found[0]


class Claims:
    """One for each serving process; `close`d at its end."""

    def __init__(self, records: Records, worker_id: str) -> None:
        self._records = records
        self._worker_id = worker_id
        self._suspects = Suspects()
        self._tasks: set[asyncio.Task[None]] = set()
        self._owed: deque[_Write] = deque()
        self._is_paying = False

    async def begin(self, key: bytes, *, key_id: int, asks_for: bytes, request_id: str) -> "Claim | Kept":
        """The call's claim, or the answer that the first call with this key came to.

        `asks_for` are bytes that tell one request from another. Raises Conflict while the first call is under
        way, AnswerNotKept, Unprocessable if it was another request, Unavailable.
        """
        row_id = hashlib.sha256(b"%d:" % key_id + key).hexdigest()
        asked = Asked(row_id, hashlib.sha256(asks_for).hexdigest(), request_id, self._worker_id)
        claim = Claim(self, asked)
        try:
            found = await self._run(partial(claim.make, self._suspects))
        except BaseException:
            # The row may have been written all the same, or will be: it would be under way for ever.
            claim.abandon()
            raise
        match found:
            case None:
                return claim
            case UnderWay():
                most_s = MOST_WAIT_S if found.has_lease else MOST_WAIT_FOR_THE_DEAD_S
                raise Conflict(
                    "A request with this Idempotency-Key is being served. Send it again after the time that"
                    " Retry-After says, to get its answer; for another request send another key.",
                    code="idempotency_key_in_use",
                    retry_after_s=min(max(1, math.ceil(found.age_s)), most_s),
                )
            case Other():
                raise Unprocessable(
                    "This Idempotency-Key came with another request in the last 24 hours. Send a new key with"
                    " each new request, and the same key and body only to repeat one.",
                    code="idempotency_key_reused",
                )
            case Kept(body=None):
                raise AnswerNotKept(
                    f"The first request with this Idempotency-Key, {found.request_id}, was served and"
                    f" charged, but its answer was not kept: none above {MOST_KEPT_BYTES} bytes is, nor those"
                    " of a long outage. Send a new key to have the call made, and charged, again."
                )
            case Kept():
                return found

    async def write(self, work: Callable[[], object], size: int = 0) -> None:
        """Has the database do `work`, now or when it is back; returns when it is done or has to wait.

        Whoever calls this may be cancelled: the work is done all the same. `size` is in bytes.
        """
        write = _Write(work, size)
        if self._owed:
            # One after the other, for two may be of the same row.
            self._owe(write)
            return
        task = self._spawn(self._attempt(write))
        await asyncio.wait({task}, timeout=WRITTEN_WITHIN_S)

    def write_soon(self, work: Callable[[], object]) -> None:
        """The same without waiting."""
        if self._owed:
            self._owe(_Write(work, 0))
        else:
            self._spawn(self._attempt(_Write(work, 0)))

    @property
    def has_room(self) -> bool:
        """Whether answers can wait for the database with their bodies."""
        return sum(write.size for write in self._owed) < MAX_OWED_BYTES

    async def close(self) -> None:
        if self._tasks:
            await asyncio.wait(tuple(self._tasks), timeout=FAREWELL_S)
        if self._owed:
            log.error("ended with %d answers or claims that the database did not take", len(self._owed))
        for task in tuple(self._tasks):
            task.cancel()

    def _spawn(self, work: "Coroutine[None, None, None]") -> "asyncio.Task[None]":
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _attempt(self, write: "_Write") -> None:
        if not await self._is_done(write):
            self._owe(write)

    async def _is_done(self, write: "_Write") -> bool:
        """False if the database is away."""
        try:
            await self._run(write.do)
        except Unavailable:
            return False
        except Exception:
            # The call itself is served and paid for; this one row is not as it should be.
            log.exception("the row of a call with an Idempotency-Key cannot be written")
        return True

    async def _run(self, work: Callable[[], T]) -> T:
        try:
            return await self._records.run(work)
        except Unavailable:
            self._suspects.forget()
            raise

    def _owe(self, write: "_Write") -> None:
        if len(self._owed) >= MAX_OWED:
            log.error("too much waits for the database: a call with an Idempotency-Key stays as under way")
            return
        self._owed.append(write)
        if not self._is_paying:
            self._is_paying = True
            self._spawn(self._pay())

    async def _pay(self) -> None:
        try:
            while self._owed:
                if await self._is_done(self._owed[0]):
                    self._owed.popleft()
                else:
                    await asyncio.sleep(RETRY_S)
        finally:
            self._is_paying = False


@dataclass(slots=True)
class _Write:
    work: Callable[[], object]
    size: int
    is_done: bool = False

    def do(self) -> None:
        """On a database thread. One that hung gets to all the attempts in the end: once is enough."""
        if not self.is_done:
            self.work()
            self.is_done = True


class Claim:
    """One call's claim, with its answer as the caller gets it."""

    def __init__(self, claims: Claims, asked: Asked) -> None:
        self._claims = claims
        self._asked = asked
        self._status = 0
        self._headers: Headers = []
        self._pieces: list[bytes] = []
        self._size = 0
        self._kept_size = -1
        self._is_ended = False
        #: What is written before the answer.
        self._first: list[Callable[[], object]] = []

    def make(self, suspects: Suspects) -> Kept | UnderWay | Other | None:
        """Claims the row, on a database thread; None if it is this call's."""
        found = None if self._is_ended else rows.claim(self._asked, suspects)
        if found is None and self._is_ended:
            # The call did not wait for it, and what it did to give it up may have come before it.
            rows.release(self._asked)
        return found

    def begin(self, status: int, headers: Headers) -> None:
        """The answer begins; what it says of the balance is not for its repetitions."""
        self._status = status
        self._headers = [header for header in headers if header[0] not in _PASSING]

    def add(self, piece: bytes) -> None:
        """More of the answer has gone out."""
        self._size += len(piece)
        if self._size <= MOST_KEPT_BYTES:
            self._pieces.append(piece)
        else:
            self._pieces.clear()

    async def finish(self, last: bytes, told: Progress | Defer | None) -> None:
        """The answer is complete with `last`, which has not gone out yet: it is kept from now on.

        `told` is what the ledger is to know of the call's end in case this process dies before the charge.
        Called again, it keeps what has come since.
        """
        self._is_ended = True
        size = self._size + len(last)
        if size == self._kept_size:
            return
        self._kept_size = size
        is_kept = size <= MOST_KEPT_BYTES and self._claims.has_room
        body = b"".join([*self._pieces, last]) if is_kept else None
        await self._claims.write(
            partial(self._write, self._status, self._headers, body, told), len(body or b"")
        )

    def owe(self, work: Callable[[], object]) -> None:
        """Has the database do what else must be written before the answer can be repeated: with its end."""
        self._first.append(work)

    async def release(self) -> None:
        """Nothing came of the call that could be replayed: the next one with this key runs anew."""
        if not self._is_ended:
            self._is_ended = True
            await self._claims.write(partial(rows.release, self._asked))

    def abandon(self) -> None:
        """The same where nobody can wait for it."""
        if not self._is_ended:
            self._is_ended = True
            self._claims.write_soon(partial(rows.release, self._asked))

    def _write(
        self, status: int, headers: Headers, body: bytes | None, told: Progress | Defer | None
    ) -> None:
        for work in self._first:
            work()
        if not rows.finish(self._asked, status, headers, body, told):
            log.warning("request %s ended after another had taken its place", self._asked.request_id)


def replayed_headers(kept: Kept, available: int) -> Headers:
    """The headers of a repeated answer; `available` are the caller's credits now, of which it takes none."""
    return [
        *kept.headers,
        (b"idempotent-replayed", b"true"),
        (b"x-original-request-id", kept.request_id.encode()),
        (b"x-balance-charged", b"0"),
        (b"x-balance-remaining", str(available).encode()),
    ]
