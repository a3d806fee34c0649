"""Django's share of a process: only so many requests at once, each read whole before it takes its turn."""

import asyncio
from collections.abc import Callable

from common.asgi import (
    Application,
    ClientLeftError,
    Message,
    Receive,
    Scope,
    Send,
    punctual,
    read_body,
    respond_error,
    too_large,
)
from common.errors import ApiError, Unavailable

# Each of Django's requests under way may hold a database connection of its own.
DJANGO_AT_ONCE = 8
# Nothing under /api/ or in the admin is near as large; OpenAI's own bodies go to the relay.
MAX_BODY_BYTES = 2 * 1024 * 1024
# A person waits so long for a page; beyond it the queue only grows.
MAX_WAIT_S = 5.0
# How often it is looked whether the database still answers, while a page of Django's is waited for.
LOOK_EVERY_S = 0.2


class Answer:
    """What Django sends, unless it comes too late."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.has_begun = False
        self.is_given_up = False

    async def send(self, message: Message) -> None:
        if not self.is_given_up:
            self.has_begun = True
            await self._send(message)


class Turns:
    """Django behind a door: a slow upload waits outside of it, and nobody waits for long."""

    def __init__(
        self,
        django: Application,
        *,
        is_stuck: Callable[[], bool] = lambda: False,
        at_once: int = DJANGO_AT_ONCE,
        wait_s: float = MAX_WAIT_S,
    ) -> None:
        """`is_stuck` says whether the database does not answer: then nobody waits for it any longer."""
        self._django = django
        self._is_stuck = is_stuck
        self._turn = asyncio.Semaphore(at_once)
        self._wait_s = wait_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            body = await _read(scope, punctual(receive))
            await self._wait()
        except ClientLeftError:
            return
        except ApiError as error:
            await respond_error(send, error)
            return
        answer = Answer(send)
        task = asyncio.ensure_future(self._django(scope, _once(body, receive), answer.send))
        # A thread that hangs keeps its turn: so many hang, and no more.
        task.add_done_callback(self._end)
        try:
            while not (await asyncio.wait({task}, timeout=LOOK_EVERY_S))[0]:
                if self._is_stuck() and not answer.has_begun:
                    answer.is_given_up = True
                    # Django goes on, and finds that its client has left. Cancelled, it would not give its
                    # connection to the database back.
                    await respond_error(send, Unavailable("The database does not answer; try again."))
                    return
            task.result()
        except asyncio.CancelledError:
            answer.is_given_up = True
            task.cancel()
            raise

    def _end(self, task: "asyncio.Future[None]") -> None:
        self._turn.release()
        if not task.cancelled():
            # Django has logged it, if nobody is left to hear of it.
            task.exception()

    async def _wait(self) -> None:
        """Takes a turn. Raises Unavailable when none is free in time."""
        try:
            async with asyncio.timeout(0 if self._is_stuck() else self._wait_s):
                await self._turn.acquire()
        except TimeoutError:
            raise Unavailable("Too many requests are under way here; try again.", retry_after_s=5) from None


async def _read(scope: Scope, receive: Receive) -> bytes:
    """The body. Raises PayloadTooLarge, at once where the body announces its length, RequestTimedOut and
    ClientLeftError."""
    for name, value in scope["headers"]:
        if name == b"content-length" and int(value) > MAX_BODY_BYTES:
            raise too_large(MAX_BODY_BYTES)
    return await read_body(receive, MAX_BODY_BYTES)


def _once(body: bytes, receive: Receive) -> Receive:
    """A `receive` that answers the body first, and then whatever comes after it: the client's leaving."""
    message: Message | None = {"type": "http.request", "body": body, "more_body": False}

    async def next_message() -> Message:
        nonlocal message
        if message is None:
            return await receive()
        first, message = message, None
        return first

    return next_message
