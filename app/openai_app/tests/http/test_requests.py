"""What the HTTP client sends: bodies as they come, and never more than one request."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from openai_app.http.response import (
    BrokenAnswerError,
)
from openai_app.tests.http.peers import (
    HELLO,
    PATIENCE_S,
    Peer,
    client_of,
    get,
    serving,
    silent,
)


async def pieces_of(*pieces: bytes) -> AsyncIterator[bytes]:
    for piece in pieces:
        await asyncio.sleep(0)
        yield piece


@pytest.mark.parametrize(
    ("length", "framing", "sent"),
    [
        (8, b"content-length: 8", b"onethree"),
        (None, b"transfer-encoding: chunked", b"3\r\none\r\n5\r\nthree\r\n0\r\n\r\n"),
    ],
)
async def test_a_body_goes_out_as_it_comes(length: int | None, framing: bytes, sent: bytes) -> None:
    seen = []

    async def serve(peer: Peer) -> None:
        for _ in range(2):
            seen.append(await peer.reader.readuntil(b"\r\n\r\n"))
            seen.append(await peer.reader.readexactly(len(sent)))
            await peer.send(HELLO)

    async with serving(serve) as server, client_of(server.port) as client:
        for _ in range(2):
            body = pieces_of(b"one", b"", b"three")
            assert await (await client.request("POST", "/x", [], body, length)).read() == b"hello"
        assert server.accepted == 1
    assert seen[1::2] == [sent, sent]
    assert all(framing + b"\r\n" in head for head in seen[::2])


async def test_a_server_that_reads_slowly_is_waited_for() -> None:
    size, made, may_read = 64 * 1024 * 1024, 0, asyncio.Event()

    async def body() -> AsyncIterator[bytes]:
        nonlocal made
        while made < size:
            made += 65_536
            yield bytes(65_536)

    async def serve(peer: Peer) -> None:
        head = await peer.reader.readuntil(b"\r\n\r\n")
        assert b"content-length: %d\r\n" % size in head
        await may_read.wait()
        left = size
        while left:
            left -= len(await peer.reader.read(1024 * 1024))
        await peer.send(HELLO)

    async with serving(serve) as server, client_of(server.port) as client:
        call = asyncio.create_task(client.request("POST", "/x", [], body(), size))
        before = -1
        while before != made or not made:
            before = made
            await asyncio.sleep(0.1)
        assert made < size / 2
        may_read.set()
        assert await (await call).read() == b"hello"


async def test_an_answer_before_the_end_of_the_body_is_delivered_and_ends_the_upload() -> None:
    is_over, closed = asyncio.Event(), asyncio.Event()

    async def endless() -> AsyncIterator[bytes]:
        try:
            while True:
                await asyncio.sleep(0)
                yield b"x"
        finally:
            is_over.set()

    async def serve(peer: Peer) -> None:
        await peer.reader.readuntil(b"\r\n\r\n")
        await peer.send(HELLO.replace(b"200 OK", b"413 Too Large"))
        assert await peer.is_closed()
        closed.set()

    async with serving(serve) as server, client_of(server.port) as client:
        response = await client.request("POST", "/x", [], endless())
        assert (response.status, await response.read()) == (413, b"hello")
        for event in (is_over, closed):
            await asyncio.wait_for(event.wait(), PATIENCE_S)


async def test_a_body_that_fails_ends_the_connection_and_is_named() -> None:
    closed = asyncio.Event()

    async def failing() -> AsyncIterator[bytes]:
        yield b"x"
        raise KeyError("lost")

    async def serve(peer: Peer) -> None:
        await peer.reader.readuntil(b"\r\n\r\n")
        assert not (await peer.reader.read()).endswith(b"0\r\n\r\n")
        closed.set()

    async with serving(serve) as server, client_of(server.port) as client:
        with pytest.raises(BrokenAnswerError, match="KeyError"):
            await client.request("POST", "/x", [], failing())
        await asyncio.wait_for(closed.wait(), PATIENCE_S)


@pytest.mark.parametrize("length", [5, 7])
async def test_a_body_of_another_length_than_announced_ends_the_connection(length: int) -> None:
    async def serve(peer: Peer) -> None:
        head = await peer.reader.readuntil(b"\r\n\r\n")
        assert b"content-length: %d\r\n" % length in head
        assert len(await peer.reader.read()) < 7

    async with serving(serve) as server, client_of(server.port) as client:
        with pytest.raises(BrokenAnswerError, match="announced"):
            await client.request("POST", "/x", [], pieces_of(b"one", b"two"), length)


# --- what must not be sent -----------------------------------------------------------------------------


@pytest.mark.parametrize("bad", ["\r\nX: y", "\n", "\r", "\0"])
async def test_nothing_breaks_out_of_its_line(bad: str) -> None:
    async with serving(silent) as server, client_of(server.port) as client:
        for target in (f"/x{bad}", "/x y", "/ü"):
            with pytest.raises(ValueError, match="request line"):
                await get(client, target)
        for header in ((b"x", b"a" + bad.encode()), (b"x" + bad.encode(), b"a")):
            with pytest.raises(ValueError, match="control character"):
                await client.request("GET", "/x", [header], b"")
        assert server.accepted == 0
