"""The load of the soak: calls at a fixed rate, each answer looked at. `soak_calls` has their kinds.

What was answered and must have been charged is written to a file, a line `x-request-id total_tokens` for each
call (tokens -1: not told), so that the books can be held against it; see `soak_books.py`.
"""

import asyncio
import random
import socket
import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TextIO

import aiohttp

# More calls under way than this mean that the gateway cannot keep up: the rate is then not held, and said so.
MOST_UNDER_WAY = 200
# A call that takes longer has failed. Slow readers take a few seconds by design.
CALL_S = 60.0
# What the slow readers' sockets take in by themselves, so that it is the gateway that waits for them.
SLOW_READERS_BUFFER_BYTES = 16 * 1024
# The first keys are those of the callers over WebSockets, whose calls have no x-request-id.
SOCKET_KEYS = 8
FAILURES_TOLD = 20


@dataclass
class Tally:
    """What came of the load so far."""

    calls: int = 0
    #: Calls whose client left before their end: charged or not, as far as they had come.
    left: int = 0
    #: Turns over WebSockets that were answered to their end, and those that were not waited for.
    turns: int = 0
    turns_left: int = 0
    replays: int = 0
    #: Answers that should not have been, by what was asked and what came; the first ones in words.
    failures: Counter[str] = field(default_factory=Counter)
    #: Told to come back: 503 with Retry-After, as is meant when a machine has too much else to do.
    busy: int = 0
    #: Starts that were late because too many calls were under way, in seconds.
    late_s: float = 0.0
    #: Of the window since the last look, in seconds: chat completions by the gateway, and past it.
    latencies_s: list[float] = field(default_factory=list)
    direct_s: list[float] = field(default_factory=list)


class Unexpected(Exception):
    """An answer that should not have been."""


class Busy(Exception):
    """The gateway, or its database, has too much to do just now."""


@dataclass(frozen=True)
class Kind:
    """One kind of work: how often it is drawn, and how many HTTP calls it makes."""

    weight: int
    calls: int
    name: str
    run: Callable[["Load"], Awaitable[None]]


class Load:
    def __init__(
        self,
        kinds: Sequence[Kind],
        host: str,
        upstream_host: str,
        keys: Sequence[str],
        operator_key: str,
        record: TextIO,
    ) -> None:
        self._kinds = kinds
        self.url = f"http://{host}"
        self.upstream_url = f"http://{upstream_host}"
        self.keys = keys
        self.operator_key = operator_key
        self.tally = Tally()
        self.chance = random.Random(20261121)
        self._record = record
        self._tasks: set[asyncio.Task[None]] = set()
        #: Answered calls with an Idempotency-Key, to be asked again: key, its own key, body.
        self.repeatable: deque[tuple[str, str, dict[str, Any]]] = deque(maxlen=100)
        self.session: aiohttp.ClientSession
        self.slow_session: aiohttp.ClientSession

    async def run(self, calls_a_second: float, seconds: float) -> None:
        """Makes calls of all kinds at this rate for this time, waits for the last answers, and hangs up."""
        timeout = aiohttp.ClientTimeout(total=CALL_S)
        connector = aiohttp.TCPConnector(limit=0)
        slow = aiohttp.TCPConnector(limit=0, force_close=True, socket_factory=_small_socket)
        async with (
            aiohttp.ClientSession(connector=connector, timeout=timeout) as self.session,
            aiohttp.ClientSession(
                connector=slow, timeout=timeout, read_bufsize=SLOW_READERS_BUFFER_BYTES
            ) as self.slow_session,
        ):
            try:
                await self._pace(calls_a_second, seconds)
                await asyncio.gather(*self._tasks)
            finally:
                for task in self._tasks:
                    task.cancel()
                await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _pace(self, calls_a_second: float, seconds: float) -> None:
        weights = [kind.weight for kind in self._kinds]
        due = time.monotonic()
        end = due + seconds
        while due < end:
            kind = self.chance.choices(self._kinds, weights)[0]
            due += kind.calls / calls_a_second
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            while len(self._tasks) >= MOST_UNDER_WAY:
                await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)
            late_s = time.monotonic() - due
            if late_s > 1.0:
                # Not made up for: a burst would be another load than the one that is measured.
                self.tally.late_s += late_s
                due += late_s
            task = asyncio.create_task(self._one(kind))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _one(self, kind: Kind) -> None:
        try:
            await kind.run(self)
        except Busy:
            self.tally.busy += 1
        except Unexpected as error:
            self.failed(f"{kind.name}: {error}")
        except aiohttp.WSServerHandshakeError as error:
            if error.status == 503:
                self.tally.busy += 1
            else:
                # Its own words hold the key.
                self.failed(f"{kind.name}: handshake {error.status}")
        except (aiohttp.ClientError, TimeoutError, ValueError, KeyError) as error:
            self.failed(f"{kind.name}: {error!r}")

    @property
    def under_way(self) -> int:
        return len(self._tasks)

    def failed(self, words: str) -> None:
        known = self.tally.failures
        known[words if len(known) < FAILURES_TOLD or words in known else "others"] += 1

    def key(self) -> str:
        return self.chance.choice(self.keys[SOCKET_KEYS:])

    def answered(self, answer: aiohttp.ClientResponse, tokens: int) -> None:
        """A metered call has come to its end: it must be in the books."""
        if answer.headers.get("idempotent-replayed") == "true":
            self.tally.replays += 1
        else:
            self._record.write(f"{answer.headers['x-request-id']} {tokens}\n")

    async def ask(
        self,
        method: str,
        path: str,
        *,
        key: str,
        expect: tuple[int, ...] = (200,),
        headers: Mapping[str, str] | None = None,
        metered: bool = False,
        **body: Any,
    ) -> bytes:
        """The body of an answer, read to its end. Raises Unexpected for another status."""
        self.tally.calls += 1
        bearer = {"Authorization": f"Bearer {key}", **(headers or {})}
        async with self.session.request(method, self.url + path, headers=bearer, **body) as answer:
            data = await answer.read()
            if answer.status == 503 and "retry-after" in answer.headers:
                raise Busy
            if answer.status not in expect:
                raise Unexpected(f"{method} {path.partition('?')[0]} {answer.status} {data[:200]!r}")
            if metered and answer.status == 200:
                self.answered(answer, _total(data))
        return data


def _total(data: bytes) -> int:
    """The `total_tokens` that a JSON answer or a stream tells, -1 if it tells none."""
    at = data.rfind(b'"total_tokens"')
    if at < 0:
        return -1
    digits = data[at + len(b'"total_tokens"') : at + 40].lstrip(b": ")
    return int(digits[: len(digits) - len(digits.lstrip(b"0123456789"))])


def _small_socket(address: Any) -> socket.socket:
    made = socket.socket(address[0], address[1], address[2])
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SLOW_READERS_BUFFER_BYTES)
    return made
