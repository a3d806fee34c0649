"""Django's requests: read whole first, then served a few at a time."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from threading import get_ident
from typing import Any

import pytest
from asgiref.sync import sync_to_async

from common.asgi import Message, Receive, Scope, Send, read_body, respond
from gateway.turns import MAX_BODY_BYTES, Turns


class Client:
    """One request to an ASGI application, and what it was answered."""

    def __init__(self, *messages: Message, length: int | None = None) -> None:
        self.sending: asyncio.Queue[Message] = asyncio.Queue()
        self.got: list[Message] = []
        self.scope: Scope = {"type": "http", "headers": []}
        if length is not None:
            self.scope["headers"].append((b"content-length", str(length).encode()))
        for message in messages:
            self.sending.put_nowait(message)

    async def send(self, message: Message) -> None:
        self.got.append(message)

    async def call(self, application: Turns) -> None:
        await application(self.scope, self.sending.get, self.send)

    @property
    def status(self) -> int:
        return int(self.got[0]["status"])

    @property
    def error(self) -> dict[str, Any]:
        error: dict[str, Any] = json.loads(self.got[1]["body"])["error"]
        return error


class Echo:
    """An application that answers a request's body once it is let."""

    def __init__(self) -> None:
        self.has_begun = asyncio.Event()
        self.may_end = asyncio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = await read_body(receive, MAX_BODY_BYTES)
        self.has_begun.set()
        await self.may_end.wait()
        await respond(send, 200, [], body)


def part(body: bytes, *, more: bool = False) -> Message:
    return {"type": "http.request", "body": body, "more_body": more}


@asynccontextmanager
async def busy(turns: Turns, echo: Echo) -> AsyncIterator[None]:
    """The only turn is taken while the block runs."""
    task = asyncio.ensure_future(Client(part(b"")).call(turns))
    await echo.has_begun.wait()
    yield
    echo.may_end.set()
    await task


async def test_a_body_reaches_django_whole_and_after_it_nothing() -> None:
    seen: list[Message] = []

    async def listen(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(await receive())
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await receive()

    client = Client(part(b"ab", more=True), part(b"cd"), {"type": "http.disconnect"})
    await client.call(Turns(listen))
    assert seen == [part(b"abcd")]


async def test_a_body_that_announces_too_much_is_refused_before_it_is_sent() -> None:
    client = Client(length=MAX_BODY_BYTES + 1)
    await client.call(Turns(Echo()))
    assert (client.status, client.error["code"]) == (413, "payload_too_large")


async def test_a_body_that_turns_out_too_large_is_refused() -> None:
    half = bytes(MAX_BODY_BYTES // 2)
    client = Client(part(half, more=True), part(half, more=True), part(b"x", more=True))
    await client.call(Turns(Echo()))
    assert client.status == 413


async def test_a_slow_upload_takes_no_turn() -> None:
    echo = Echo()
    echo.may_end.set()
    turns = Turns(echo, at_once=1, wait_s=60)
    slow, quick = Client(part(b"a", more=True)), Client(part(b"quick"))
    uploading = asyncio.ensure_future(slow.call(turns))
    await asyncio.sleep(0)
    await quick.call(turns)
    assert (quick.status, quick.got[1]["body"]) == (200, b"quick")
    slow.sending.put_nowait(part(b"b"))
    await uploading
    assert slow.got[1]["body"] == b"ab"


async def test_who_gets_no_turn_in_time_is_told_when_to_come_back() -> None:
    echo = Echo()
    turns = Turns(echo, at_once=1, wait_s=0.01)
    late = Client(part(b""))
    async with busy(turns, echo):
        await late.call(turns)
    assert (late.status, late.error["code"]) == (503, "service_unavailable")
    assert dict(late.got[0]["headers"])[b"retry-after"] == b"5"
    again = Client(part(b"again"))
    await again.call(turns)
    assert again.status == 200


async def test_django_goes_on_and_keeps_its_turn_when_the_database_does_not_answer() -> None:
    echo, stuck = Echo(), [True]
    turns = Turns(echo, is_stuck=lambda: stuck[0], at_once=1, wait_s=60)
    given_up, next_one = Client(part(b"")), Client(part(b"next"))
    await given_up.call(turns)
    assert given_up.status == 503
    stuck[0] = False
    waiting = asyncio.ensure_future(next_one.call(turns))
    await asyncio.sleep(0)
    assert next_one.got == []
    echo.may_end.set()
    await waiting
    assert next_one.status == 200
    assert len(given_up.got) == 2


async def test_a_turn_is_given_back_when_django_fails() -> None:
    async def fail(scope: Scope, receive: Receive, send: Send) -> None:
        raise LookupError

    turns = Turns(fail, at_once=1, wait_s=0.01)
    for _ in range(2):
        with pytest.raises(LookupError):
            await Client(part(b"")).call(turns)


async def test_a_client_that_leaves_its_upload_is_answered_nothing() -> None:
    client = Client(part(b"a", more=True), {"type": "http.disconnect"})
    await client.call(Turns(Echo()))
    assert client.got == []


class SlowClient(Client):
    """One that takes the head of an answer, and the rest when it is let; its connection can be broken off."""

    def __init__(self) -> None:
        super().__init__(part(b""))
        self.transport = self
        self.has_begun = asyncio.Event()
        self.may_read = asyncio.Event()
        self.is_aborted = False

    async def send(self, message: Message) -> None:
        await super().send(message)
        self.has_begun.set()
        await self.may_read.wait()

    def abort(self) -> None:
        self.is_aborted = True
        self.may_read.set()

    def get_write_buffer_size(self) -> int:
        return 0

    def get_extra_info(self, name: str) -> None:
        return None


async def test_a_slow_reader_keeps_no_turn() -> None:
    echo = Echo()
    echo.may_end.set()
    turns = Turns(echo, at_once=1, wait_s=60)
    slow, quick = SlowClient(), Client(part(b"quick"))
    reading = asyncio.ensure_future(slow.call(turns))
    await slow.has_begun.wait()
    await quick.call(turns)
    assert (quick.status, quick.got[1]["body"]) == (200, b"quick")
    slow.may_read.set()
    await reading
    assert [message["type"] for message in slow.got] == ["http.response.start", "http.response.body"]


async def test_of_slow_readers_the_oldest_are_broken_off_when_too_much_waits_for_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("gateway.turns.MAX_UNREAD_BYTES", 250)

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        await respond(send, 200, [], bytes(100))

    turns = Turns(answer)
    clients = [SlowClient() for _ in range(4)]
    reading = []
    for client in clients:
        reading.append(asyncio.ensure_future(client.call(turns)))
        await client.has_begun.wait()
    assert [client.is_aborted for client in clients] == [True, True, False, False]
    for client in clients:
        client.may_read.set()
    await asyncio.gather(*reading)
    assert [len(client.got) for client in clients] == [1, 1, 2, 2]
    # All of it is gone: there is room for as much again.
    again = [SlowClient() for _ in range(2)]
    reading = [asyncio.ensure_future(client.call(turns)) for client in again]
    await asyncio.gather(*(client.has_begun.wait() for client in again))
    assert not any(client.is_aborted for client in again)
    for client in again:
        client.may_read.set()
    await asyncio.gather(*reading)


async def test_an_answer_without_bounds_is_not_kept() -> None:
    async def stream(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        while True:
            await send({"type": "http.response.body", "body": bytes(1024 * 1024), "more_body": True})

    client = Client(part(b""))
    with pytest.raises(ValueError, match="larger"):
        await client.call(Turns(stream))
    assert client.got == []


async def test_the_connections_of_djangos_thread_are_closed_whatever_happens(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked_in: list[int] = []
    closed_in: list[int] = []
    monkeypatch.setattr("gateway.turns.connections.close_all", lambda: closed_in.append(get_ident()))

    async def fail(scope: Scope, receive: Receive, send: Send) -> None:
        asked_in.append(await sync_to_async(get_ident)())
        raise LookupError

    with pytest.raises(LookupError):
        await Client(part(b"")).call(Turns(fail))
    assert asked_in == closed_in
    assert asked_in != [get_ident()]
