"""ASGI's types, and the least that an application without a framework needs of it.

Source: the ASGI specification, "HTTP & WebSocket ASGI Message Format".
"""

import asyncio
import fcntl
import sys
import termios
import types
from collections.abc import Awaitable, Callable, Generator, Iterable, MutableMapping
from contextlib import suppress
from typing import Any, TypeVar, cast

from common.errors import ApiError, PayloadTooLarge, RequestTimedOut

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]

# A body that stops for so long will not come: nobody's connection is as bad, and what has come takes memory.
BODY_PAUSE_S = 30.0
# On the average it comes at least so fast, after a pause at its beginning: a byte now and then is no body.
LEAST_BODY_BYTES_PER_S = 1_000
# A reader who has taken nothing for so long reads no more, and keeps a connection to OpenAI: OpenAI's own
# clients give up after the same time.
READER_WITHIN_S = 600.0

JSON = (b"content-type", b"application/json")
# What a file is, OpenAI says, or whoever uploaded it: no browser may take it for a page.
NOSNIFF = (b"x-content-type-options", b"nosniff")

T = TypeVar("T")


class ClientLeftError(Exception):
    """The client closed the connection before its request was complete: there is nobody to answer."""


@types.coroutine
def _resumed(steps: Generator[Any, Any, T], waits_for: Any) -> Generator[Any, Any, T]:
    """Goes on awaiting what has taken its first step already."""
    while True:
        thrown: BaseException | None = None
        sent = None
        try:
            sent = yield waits_for
        except BaseException as error:
            thrown = error
        try:
            waits_for = steps.send(sent) if thrown is None else steps.throw(thrown)
        except StopIteration as done:
            result: T = done.value
            return result


def punctual(receive: Receive) -> Receive:
    """A `receive` for a request's body. It raises RequestTimedOut when that stops, or comes too slowly.

    Only the waiting here counts: a body may pass as slowly as whoever reads it takes it.
    """
    loop = asyncio.get_running_loop()
    left_s = BODY_PAUSE_S

    async def next_message() -> Message:
        nonlocal left_s
        steps = receive().__await__()
        try:
            waits_for = next(steps)
        except StopIteration as done:
            # It had come already, as most bodies have with their heads: to look at a clock takes longer.
            there: Message = done.value
            left_s += len(there.get("body", b"")) / LEAST_BODY_BYTES_PER_S
            return there
        began = loop.time()
        try:
            async with asyncio.timeout(min(left_s, BODY_PAUSE_S)):
                message = await _resumed(steps, waits_for)
        except TimeoutError:
            raise RequestTimedOut("The body of your request did not come in time. Send it again.") from None
        left_s += len(message.get("body", b"")) / LEAST_BODY_BYTES_PER_S - (loop.time() - began)
        return message

    return next_message


def patient(send: Send) -> Send:
    """A `send` that breaks the connection off when its reader takes nothing for READER_WITHIN_S.

    The rest is as with any client that leaves: `receive` tells of it, and `send` waits no longer.
    """

    async def send_message(message: Message) -> None:
        steps = send(message).__await__()
        try:
            waits_for = next(steps)
        except StopIteration:
            # Nearly all: a timer for each event of each stream would take longer than to send it.
            return
        watch = _Watch(send)
        try:
            await _resumed(steps, waits_for)
        finally:
            watch.end()

    return send_message


class _Watch:
    """Looks after one that is waited for, every READER_WITHIN_S, whether anything was taken since."""

    def __init__(self, send: Send) -> None:
        self._transport = transport_of(send)
        self._begin()

    def _begin(self) -> None:
        self._left = _unread_bytes(self._transport)
        self._timer = asyncio.get_running_loop().call_later(READER_WITHIN_S, self._look)

    def _look(self) -> None:
        if _unread_bytes(self._transport) < self._left:
            self._begin()
        else:
            self._transport.abort()

    def end(self) -> None:
        self._timer.cancel()


def _unread_bytes(transport: asyncio.WriteTransport) -> int:
    """What the reader's machine has not taken: here, and in the kernel, which is filled again only after much
    of it has gone; who reads slowly would seem to stand still."""
    queued = bytes(4)
    # Not every system tells it, and none of a connection that has just ended.
    with suppress(OSError, ValueError):
        connection = transport.get_extra_info("socket")
        queued = fcntl.ioctl(connection.fileno(), termios.TIOCOUTQ, queued) if connection else queued
    return transport.get_write_buffer_size() + int.from_bytes(queued, sys.byteorder)


def transport_of(send: Send) -> asyncio.WriteTransport:
    """What the server writes to. ASGI has no message to break a connection off, and the server's own way to
    close one waits until all is read that was written."""
    return cast(asyncio.WriteTransport, cast(Any, send).__self__.transport)


async def read_body(receive: Receive, most_bytes: int) -> bytes:
    """A request's body, whole. Raises PayloadTooLarge beyond `most_bytes`, ClientLeftError."""
    message = await receive()
    if message["type"] == "http.request" and not message.get("more_body"):
        body: bytes = message.get("body", b"")
        if len(body) <= most_bytes:
            return body
    parts: list[bytes] = []
    size = 0
    while message["type"] == "http.request":
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > most_bytes:
            raise too_large(most_bytes)
        if not message.get("more_body"):
            return b"".join(parts)
        message = await receive()
    raise ClientLeftError


def too_large(most_bytes: int) -> PayloadTooLarge:
    return PayloadTooLarge(f"The request body is larger than {most_bytes} bytes.")


async def respond(send: Send, status: int, headers: Headers, body: bytes) -> None:
    """A whole answer; its length is added to the headers."""
    length = (b"content-length", str(len(body)).encode())
    await send({"type": "http.response.start", "status": status, "headers": [*headers, length, NOSNIFF]})
    await send({"type": "http.response.body", "body": body})


async def respond_error(send: Send, error: ApiError, extra: Iterable[tuple[bytes, bytes]] = ()) -> None:
    own = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in error.headers.items()]
    await respond(send, error.status, [JSON, *own, *extra], error.as_bytes())
