"""A load generator that leaves the processor to what it measures: one process, raw HTTP/1.1, keep-alive.

Each connection sends a chat completion, waits for the whole answer, and sends the next, with the next of the
keys. After a warm-up, a window of time is measured; then each connection gets its last answer, so that no
call is cut. The result is one JSON object on standard output, see `Result`.
"""

import argparse
import asyncio
import gc
import json
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from itertools import cycle
from pathlib import Path
from typing import cast

import uvloop

from processes import cpu_seconds

WARM_UP_S = 0.5
FIRST_ANSWER_WITHIN_S = 30.0
# An answer that takes longer than this at the end is counted as an error.
LAST_ANSWERS_S = 10.0
END_OF_CHUNKS = b"\r\n0\r\n\r\n"


@dataclass(frozen=True)
class Result:
    """What came of a run. The first five are of the window alone, the others include warm-up and end."""

    seconds: float
    answers: int
    #: User and system time of the watched processes, all their threads; 0 when none is watched.
    cpu_s: float
    p50_ms: float
    p99_ms: float
    #: Answers with status 200, complete.
    all_answers: int
    #: Other statuses and connections that broke.
    errors: int


class Load:
    def __init__(self, requests: Sequence[bytes]) -> None:
        self.requests = cycle(requests)
        self.latencies_s: list[float] = []
        self.answers = 0
        self.errors = 0
        self.going = True
        self.waiting = 0
        self.all_answered = asyncio.Event()

    def asked(self) -> None:
        self.waiting += 1

    def ended(self) -> None:
        self.waiting -= 1
        if not self.going and not self.waiting:
            self.all_answered.set()

    def answered(self, status: bytes, took_s: float) -> None:
        if status == b"200":
            self.answers += 1
            self.latencies_s.append(took_s)
        else:
            self.errors += 1


class Connection(asyncio.Protocol):
    transport: asyncio.Transport

    def __init__(self, load: Load) -> None:
        self.load = load
        self.received = bytearray()
        self.began = 0.0
        self.is_waiting = False
        #: The length of the answer being read; 0 until its head is there, -1 when it comes in chunks.
        self.length = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are no subclasses of asyncio's.
        self.transport = cast(asyncio.Transport, transport)
        self.ask()

    def ask(self) -> None:
        self.is_waiting = self.load.going
        if self.is_waiting:
            self.load.asked()
            self.began = time.perf_counter()
            self.transport.write(next(self.load.requests))

    def data_received(self, data: bytes) -> None:
        received = self.received
        received += data
        if not self.length:
            head_end = received.find(b"\r\n\r\n")
            if head_end < 0:
                return
            head = bytes(received[:head_end]).lower()
            _, found, length = head.partition(b"\r\ncontent-length:")
            self.length = head_end + 4 + int(length.split(b"\r\n", 1)[0]) if found else -1
        if len(received) == self.length or (self.length < 0 and received.endswith(END_OF_CHUNKS)):
            self.load.answered(bytes(received[9:12]), time.perf_counter() - self.began)
            self.load.ended()
            received.clear()
            self.length = 0
            self.ask()

    def connection_lost(self, exc: Exception | None) -> None:
        if self.is_waiting:
            self.load.ended()
            self.load.errors += 1


def request(host: str, key: str, *, stream: bool) -> bytes:
    wanted = ',"stream":true,"stream_options":{"include_usage":true}' if stream else ""
    body = '{"model":"gpt-4o-mini","messages":[{"role":"user","content":"Hello!"}]' + wanted + "}"
    return (
        f"POST /v1/chat/completions HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer {key}\r\n"
        f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n{body}"
    ).encode()


async def measure(
    host: str, load: Load, *, connections: int, seconds: float, watched: Sequence[int]
) -> Result:
    loop = asyncio.get_running_loop()
    name, port = host.split(":")
    opened = [
        (await loop.create_connection(lambda: Connection(load), name, int(port)))[0]
        for _ in range(connections)
    ]
    await asyncio.sleep(WARM_UP_S)
    load.latencies_s.clear()
    began, answers_before, cpu_before_s = time.perf_counter(), load.answers, cpu_seconds(watched)
    await asyncio.sleep(seconds)
    # A busy machine may need longer for the first answer than a short window is long.
    while load.answers == answers_before and time.perf_counter() - began < FIRST_ANSWER_WITHIN_S:
        await asyncio.sleep(seconds)
    took, answers = time.perf_counter() - began, load.answers - answers_before
    cpu_s = cpu_seconds(watched) - cpu_before_s
    latencies_ms = sorted(1_000 * latency for latency in load.latencies_s) or [0.0]
    load.going = False
    if load.waiting:
        with suppress(TimeoutError):
            await asyncio.wait_for(load.all_answered.wait(), LAST_ANSWERS_S)
    for transport in opened:
        transport.abort()
    return Result(
        seconds=took,
        answers=answers,
        cpu_s=cpu_s,
        p50_ms=latencies_ms[len(latencies_ms) // 2],
        p99_ms=latencies_ms[len(latencies_ms) * 99 // 100],
        all_answers=load.answers,
        errors=load.errors + load.waiting,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("host", help="HOST:PORT to send to")
    parser.add_argument("--keys", type=Path, required=True, help="file with an API key a line")
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=3.0, help="length of the window")
    parser.add_argument("--stream", action="store_true", help="ask for streams")
    parser.add_argument("--watch", type=int, action="append", default=[], metavar="PID")
    options = parser.parse_args()
    keys = options.keys.read_text(encoding="ascii").split()
    load = Load([request(options.host, key, stream=options.stream) for key in keys])
    gc.freeze()
    gc.disable()
    result = uvloop.run(
        measure(
            options.host,
            load,
            connections=options.connections,
            seconds=options.seconds,
            watched=options.watch,
        )
    )
    sys.stdout.write(json.dumps(asdict(result)) + "\n")


if __name__ == "__main__":
    main()
