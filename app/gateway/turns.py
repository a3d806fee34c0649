"""Django's share of a process: only so many requests at once, each read whole before it takes its turn, and
answered when that is over: neither a slow upload nor a slow reader keeps a turn or a database connection."""

import asyncio
from collections import deque
from collections.abc import Callable

from asgiref.sync import ThreadSensitiveContext, sync_to_async
from django.db import connections

from common.asgi import (
    Application,
    ClientLeftError,
    Message,
    Receive,
    Scope,
    Send,
    patient,
    punctual,
    read_body,
    respond_error,
    too_large,
    transport_of,
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
# The largest files and descriptions are two megabytes. Whatever is larger is a defect, and not kept.
MAX_ANSWER_BYTES = 16 * 1024 * 1024
# So much may wait for its readers in all: anybody may ask for files, and not read them.
MAX_UNREAD_BYTES = 64 * 1024 * 1024


class Answer:
    """What Django sends: kept until Django has ended, and then for a reader who may take their time."""

    def __init__(self) -> None:
        self.messages: deque[Message] = deque()
        self.size = 0
        self.is_given_up = False

    async def send(self, message: Message) -> None:
        """For Django: never waits. Raises ValueError for an answer that is too large."""
        self.size += _size_of(message)
        if self.size > MAX_ANSWER_BYTES:
            raise ValueError(f"An answer of Django's is larger than {MAX_ANSWER_BYTES} bytes.")
        if not self.is_given_up:
            self.messages.append(message)


class Turns:
    """Django behind a door: slow clients wait outside of it, and nobody waits for long."""

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
        #: Answers that are being read, the oldest first.
        self._readers: dict[Answer, Send] = {}
        self._unread_bytes = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            body = await _read(scope, punctual(receive))
            await self._wait()
        except ClientLeftError:
            return
        except ApiError as error:
            await respond_error(send, error)
            return
        answer = Answer()
        task = asyncio.ensure_future(self._ask(scope, _once(body), answer.send))
        # A thread that hangs keeps its turn: so many hang, and no more.
        task.add_done_callback(self._end)
        try:
            while not (await asyncio.wait({task}, timeout=LOOK_EVERY_S))[0]:
                if self._is_stuck():
                    answer.is_given_up = True
                    # Django goes on. Cancelled, it would not give its connection to the database back.
                    await respond_error(send, Unavailable("The database does not answer; try again."))
                    return
            task.result()
        except asyncio.CancelledError:
            answer.is_given_up = True
            task.cancel()
            raise
        await self._pass(answer, send)

    async def _ask(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Has Django answer. Whatever it ends with, its connections to the database are closed: those of the
        thread that it had for this request."""
        async with ThreadSensitiveContext():
            try:
                await self._django(scope, receive, send)
            finally:
                await sync_to_async(connections.close_all)()

    async def _pass(self, answer: Answer, send: Send) -> None:
        """Sends what Django has answered, as fast as it is read."""
        self._readers[answer] = send
        self._unread_bytes += answer.size
        self._make_room(answer)
        passing = patient(send)
        try:
            while answer.messages:
                message = answer.messages.popleft()
                size = _size_of(message)
                answer.size -= size
                self._unread_bytes -= size
                await passing(message)
        finally:
            self._unread_bytes -= answer.size
            self._readers.pop(answer, None)

    def _make_room(self, newest: Answer) -> None:
        """Breaks off those who have taken longest, as long as too much waits for its readers."""
        while self._unread_bytes > MAX_UNREAD_BYTES and (oldest := next(iter(self._readers))) is not newest:
            self._unread_bytes -= oldest.size
            oldest.size = 0
            oldest.messages.clear()
            transport_of(self._readers.pop(oldest)).abort()

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


def _size_of(message: Message) -> int:
    return len(message.get("body", b""))


async def _read(scope: Scope, receive: Receive) -> bytes:
    """The body. Raises PayloadTooLarge, at once where the body announces its length, RequestTimedOut and
    ClientLeftError."""
    for name, value in scope["headers"]:
        if name == b"content-length" and int(value) > MAX_BODY_BYTES:
            raise too_large(MAX_BODY_BYTES)
    return await read_body(receive, MAX_BODY_BYTES)


def _once(body: bytes) -> Receive:
    """A `receive` that answers the body, and nothing after it.

    Of a client that has left Django would hear only to cancel what a thread of its is about, which the log
    would tell as an error. It is soon done, and nobody waits for its answer.
    """
    message: Message | None = {"type": "http.request", "body": body, "more_body": False}

    async def next_message() -> Message:
        nonlocal message
        if message is None:
            never: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
            return await never
        first, message = message, None
        return first

    return next_message
