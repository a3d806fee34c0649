"""Which connections the HTTP client uses again, and which it gives up."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import suppress

import pytest

from openai_app.http.client import HttpClient
from openai_app.http.response import (
    MOST_UNREAD_BYTES,
    BrokenAnswerError,
    DisconnectedError,
    NotConnectedError,
)
from openai_app.tests.http.peers import (
    CHUNKED,
    HELLO,
    PATIENCE_S,
    Peer,
    answering,
    client_of,
    get,
    serving,
    silent,
    until,
)


async def test_a_connection_is_used_again_whether_or_not_its_answer_was_read() -> None:
    async with serving(answering(*[HELLO] * 10)) as server, client_of(server.port) as client:
        for number in range(10):
            response = await get(client)
            if number % 2:
                assert await response.read() == b"hello"
            response.close()
            response.close()
        assert server.accepted == 1


async def test_calls_at_once_have_a_connection_each_and_get_their_own_answers() -> None:
    async def serve(peer: Peer) -> None:
        while True:
            request = await peer.request()
            number = request.split(b" ")[1].rpartition(b"/")[2]
            await asyncio.sleep(0)
            await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(number), number))

    async def call(client: HttpClient, number: int) -> bytes:
        return await (await get(client, f"/{number}")).read()

    async with serving(serve) as server, client_of(server.port) as client:
        for _ in range(5):
            answers = await asyncio.gather(*(call(client, number) for number in range(20)))
            assert answers == [b"%d" % number for number in range(20)]
        assert server.accepted <= 20


@pytest.mark.parametrize(
    "answer",
    [
        HELLO.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"),
        HELLO.replace(b"1.1", b"1.0"),
        HELLO + b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil",
        HELLO + b"nonsense",
    ],
    ids=["close", "1.0", "another answer", "nonsense"],
)
async def test_a_connection_that_may_not_be_used_again_is_not(answer: bytes) -> None:
    async def serve(peer: Peer) -> None:
        await peer.request()
        await peer.send(answer)
        assert await peer.is_closed()

    async with serving(serve) as server, client_of(server.port) as client:
        for accepted in (1, 2):
            assert await (await get(client)).read() == b"hello"
            assert server.accepted == accepted


async def test_an_answer_that_nobody_asked_for_ends_an_idle_connection() -> None:
    may_send, closed = asyncio.Event(), asyncio.Event()

    async def serve(peer: Peer) -> None:
        await peer.request()
        await peer.send(HELLO)
        await may_send.wait()
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil")
        assert await peer.is_closed()
        closed.set()

    async with serving(serve, answering(HELLO)) as server, client_of(server.port) as client:
        assert await (await get(client)).read() == b"hello"
        may_send.set()
        await asyncio.wait_for(closed.wait(), PATIENCE_S)
        assert await (await get(client)).read() == b"hello"
        assert server.accepted == 2


async def test_a_connection_that_the_server_closed_while_it_was_idle_is_not_used() -> None:
    async with serving(answering(HELLO)) as server, client_of(server.port) as client:
        for accepted in (1, 2):
            response = await client.request("POST", "/x", [], b"{}")
            assert await response.read() == b"hello"
            assert server.accepted == accepted
            await until(lambda: not client._connections)


async def closing_at_the_second_request(peer: Peer) -> None:
    await peer.request()
    await peer.send(HELLO)
    await peer.request()


async def test_a_get_that_met_a_closing_connection_is_sent_again_on_a_new_one() -> None:
    async with (
        serving(closing_at_the_second_request, answering(HELLO)) as server,
        client_of(server.port) as client,
    ):
        for _ in range(2):
            assert await (await get(client)).read() == b"hello"
        assert server.accepted == 2


async def test_a_post_that_met_a_closing_connection_is_not_sent_again() -> None:
    async with (
        serving(closing_at_the_second_request, answering(HELLO)) as server,
        client_of(server.port) as client,
    ):
        assert await (await client.request("POST", "/x", [], b"{}")).read() == b"hello"
        with pytest.raises(DisconnectedError):
            await client.request("POST", "/x", [], b"{}")
        assert server.accepted == 1


async def test_an_idle_connection_is_closed_in_time() -> None:
    closed = asyncio.Event()

    async def serve(peer: Peer) -> None:
        await peer.request()
        await peer.send(HELLO)
        assert await peer.is_closed()
        closed.set()

    async with (
        serving(serve) as server,
        client_of(server.port, keep_alive_s=0.05, read_timeout_s=2) as client,
    ):
        await (await get(client)).read()
        await asyncio.wait_for(closed.wait(), PATIENCE_S)


async def test_nothing_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    async with client_of(port) as client:
        with pytest.raises(NotConnectedError):
            await get(client)


async def test_a_name_that_nobody_has() -> None:
    async with client_of(0, base_url="http://nowhere.invalid/v1") as client:
        with pytest.raises(NotConnectedError):
            await get(client)


# --- patience ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("begun", [b"", HELLO[:10], HELLO[:-1], CHUNKED + b"5\r\nhe"])
async def test_a_server_that_says_no_more_is_not_waited_for(begun: bytes) -> None:
    closed = asyncio.Event()

    async def serve(peer: Peer) -> None:
        await peer.request()
        await peer.send(begun)
        assert await peer.is_closed()
        closed.set()

    async with serving(serve) as server, client_of(server.port, read_timeout_s=0.5) as client:
        with pytest.raises(TimeoutError):
            await (await get(client)).read()
        await asyncio.wait_for(closed.wait(), PATIENCE_S)


async def test_a_connection_that_is_not_made_in_time_is_given_up() -> None:
    # TLS to a server that says nothing.
    async with (
        serving(silent) as server,
        client_of(server.port, base_url=f"https://127.0.0.1:{server.port}", connect_timeout_s=0.1) as client,
    ):
        with pytest.raises(TimeoutError):
            await get(client)


async def test_a_slow_reader_is_waited_for_and_the_server_with_it() -> None:
    size = 64 * 1024 * 1024
    sent = 0

    async def serve(peer: Peer) -> None:
        nonlocal sent
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
        while sent < size:
            await peer.send(bytes(65_536))
            sent += 65_536

    async with serving(serve) as server, client_of(server.port, read_timeout_s=1) as client:
        response = await get(client)
        # Longer than the server may be silent: it is not the server that is waited for.
        before = -1
        while before != sent or not sent:
            before = sent
            await asyncio.sleep(1.2)
        assert sent < size
        assert response._unread_bytes <= MOST_UNREAD_BYTES + 256 * 1024
        received = 0
        async for piece in response:
            received += len(piece)
            assert len(piece) <= MOST_UNREAD_BYTES + 256 * 1024
        assert received == size
        response = await get(client)


# --- whoever leaves ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "begun", [b"", HELLO[:10], HELLO[:-1]], ids=["no byte", "half a head", "half a body"]
)
async def test_a_call_that_is_cancelled_ends_its_connection(begun: bytes) -> None:
    began, closed = asyncio.Event(), asyncio.Event()

    async def serve(peer: Peer) -> None:
        await peer.request()
        await peer.send(begun)
        began.set()
        assert await peer.is_closed()
        closed.set()

    async def call(client: HttpClient) -> None:
        response = await get(client)
        try:
            await response.read()
        finally:
            response.close()

    async with serving(serve) as server, client_of(server.port) as client:
        task = asyncio.create_task(call(client))
        await began.wait()
        await asyncio.sleep(0.02)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.wait_for(closed.wait(), PATIENCE_S)


async def test_a_call_can_be_cancelled_at_any_step() -> None:
    async def body() -> AsyncIterator[bytes]:
        for _ in range(3):
            await asyncio.sleep(0)
            yield b"x"

    async def call(client: HttpClient) -> None:
        response = await client.request("POST", "/x", [], body(), 3)
        try:
            assert await response.read() == b"hello"
        finally:
            response.close()

    async with serving(answering(*[HELLO] * 100)) as server, client_of(server.port) as client:
        for steps in range(60):
            task = asyncio.create_task(call(client))
            for _ in range(steps):
                await asyncio.sleep(0)
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        await call(client)
        # This one, and the server's.
        await until(lambda: len(asyncio.all_tasks()) <= 1 + len(client._connections))


async def test_closing_an_answer_before_its_end_ends_the_connection() -> None:
    closed = asyncio.Event()

    async def serve(peer: Peer) -> None:
        await peer.request()
        await peer.send(CHUNKED + b"5\r\nhello\r\n")
        assert await peer.is_closed()
        closed.set()

    async with serving(serve) as server, client_of(server.port) as client:
        response = await get(client)
        assert await anext(response) == b"hello"
        response.close()
        await asyncio.wait_for(closed.wait(), PATIENCE_S)
        with pytest.raises(BrokenAnswerError):
            await response.read()


async def test_closing_the_client_ends_what_goes_on() -> None:
    async with serving(silent) as server, client_of(server.port) as client:
        task = asyncio.create_task(get(client))
        await until(lambda: server.accepted)
        await client.close()
        with pytest.raises(OSError, match=r"lost|closed"):
            await asyncio.wait_for(task, PATIENCE_S)
