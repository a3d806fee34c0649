"""What the HTTP client makes of answers: whole, cut anywhere, broken, packed, or none at all."""

import asyncio
import gzip
import zlib
from collections.abc import Callable
from contextlib import suppress

import pytest

from openai_app.http.connection import MOST_HEAD_BYTES
from openai_app.http.response import (
    MOST_UNREAD_BYTES,
    BrokenAnswerError,
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
)


async def test_a_request_goes_out_as_it_should() -> None:
    seen = []

    async def serve(peer: Peer) -> None:
        seen.append(await peer.request())
        await peer.send(HELLO)

    async with serving(serve) as server, client_of(server.port) as client:
        response = await client.request("POST", "/chat?a=%20b", [(b"content-type", b"text/plain")], b"abc")
        assert await response.read() == b"hello"
        assert (response.status, response.content_type, response.length) == (200, "text/plain", 5)
    assert seen == [
        b"POST /v1/chat?a=%20b HTTP/1.1\r\ncontent-type: text/plain\r\n"
        + b"host: 127.0.0.1:%d\r\nauthorization: Bearer sk-x\r\ncontent-length: 3\r\n\r\nabc" % server.port
    ]


@pytest.mark.parametrize(("method", "length"), [("GET", None), ("POST", b"0"), ("DELETE", b"0")])
async def test_a_request_without_a_body_has_no_other_length_than_none(
    method: str, length: bytes | None
) -> None:
    seen = []

    async def serve(peer: Peer) -> None:
        seen.append(await peer.request())
        await peer.send(HELLO)

    async with serving(serve) as server, client_of(server.port) as client:
        await (await client.request(method, "/x", [], b"")).read()
    assert (b"content-length: 0" in seen[0]) == (length is not None)


ANSWERS = {
    "length": HELLO,
    "chunks": CHUNKED + b"3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n",
    "extensions and trailers": CHUNKED + b'5;a=b;c="d"\r\nhello\r\n0\r\nX-Sum: 1\r\nY: 2\r\n\r\n',
    "after interim answers": b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"
    + HELLO,
}


@pytest.mark.parametrize("answer", ANSWERS.values(), ids=list(ANSWERS))
async def test_an_answer_is_the_same_wherever_it_is_cut(answer: bytes) -> None:
    async def serve(peer: Peer) -> None:
        for cut in range(1, len(answer)):
            await peer.request()
            await peer.send(answer[:cut])
            # So that it arrives by itself.
            await asyncio.sleep(0.001)
            await peer.send(answer[cut:])

    async with serving(serve) as server, client_of(server.port) as client:
        for _ in range(1, len(answer)):
            response = await get(client)
            assert (response.status, await response.read()) == (200, b"hello")
            response.close()
        assert server.accepted == 1


async def test_an_answer_that_comes_byte_by_byte_is_whole() -> None:
    async def serve(peer: Peer) -> None:
        for answer in ANSWERS.values():
            await peer.request()
            for byte in answer:
                await peer.send(bytes([byte]))
                await asyncio.sleep(0)

    async with serving(serve) as server, client_of(server.port) as client:
        for _ in ANSWERS:
            assert b"".join([piece async for piece in await get(client)]) == b"hello"
        assert server.accepted == 1


@pytest.mark.parametrize("status", [204, 304])
async def test_some_answers_have_no_body(status: int) -> None:
    async with (
        serving(answering(b"HTTP/1.1 %d X\r\nContent-Length: 5\r\n\r\n" % status, HELLO)) as server,
        client_of(server.port) as client,
    ):
        assert await (await get(client)).read() == b""
        assert await (await get(client)).read() == b"hello"
        assert server.accepted == 1


async def test_the_answer_to_head_has_no_body() -> None:
    async with serving(answering(HELLO[:-5])) as server, client_of(server.port) as client:
        response = await client.request("HEAD", "/x", [], b"")
        assert (response.status, await response.read()) == (200, b"")


@pytest.mark.parametrize("version", [b"1.0", b"1.1"])
async def test_a_body_without_a_length_ends_with_the_connection(version: bytes) -> None:
    async with (
        serving(answering(b"HTTP/%b 200 OK\r\n\r\nhello" % version)) as server,
        client_of(server.port) as client,
    ):
        for accepted in (1, 2):
            response = await get(client)
            assert (response.length, await response.read()) == (None, b"hello")
            assert server.accepted == accepted


@pytest.mark.parametrize(
    "answer",
    [
        HELLO[:-1],
        HELLO.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")[:-1],
        CHUNKED + b"5\r\nhel",
        CHUNKED + b"5\r\nhello\r\n",
        CHUNKED + b"5\r\nhello\r\n0\r\n",
        CHUNKED + b"xyz\r\n",
        CHUNKED + b"5\r\nhelloo",
    ],
)
async def test_an_answer_that_breaks_off_gives_what_had_come_and_then_an_error(answer: bytes) -> None:
    async with serving(answering(answer)) as server, client_of(server.port) as client:
        response, pieces = await get(client), []
        with suppress(BrokenAnswerError):
            async for piece in response:
                pieces.append(piece)
        assert b"hello".startswith(b"".join(pieces))
        with pytest.raises(BrokenAnswerError):
            await response.read()


@pytest.mark.parametrize(
    "answer",
    [
        b"nonsense\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Le",
        b"HTTP/1.1 200 OK\r\nbad header\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\nhello",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Encoding: br\r\nContent-Length: 5\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\n" + b"X: %b\r\n" % (b"x" * 1000) * (MOST_HEAD_BYTES // 1000 + 1),
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * (MOST_HEAD_BYTES + 1),
        b"HTTP/1.1 100 Continue\r\n\r\n" * (MOST_HEAD_BYTES // 25 + 1),
    ],
)
async def test_what_is_no_answer_is_an_error_and_ends_the_connection(answer: bytes) -> None:
    closed = asyncio.Event()

    async def serve(peer: Peer) -> None:
        await peer.request()
        await peer.send(answer)
        peer.writer.write_eof()
        await peer.is_closed()
        closed.set()

    async with serving(serve) as server, client_of(server.port) as client:
        with pytest.raises(BrokenAnswerError):
            await get(client)
        await asyncio.wait_for(closed.wait(), PATIENCE_S)


async def test_trailers_without_end_are_an_error() -> None:
    answer = CHUNKED + b"5\r\nhello\r\n0\r\n" + b"X: y\r\n" * MOST_HEAD_BYTES
    async with serving(answering(answer)) as server, client_of(server.port) as client:
        with pytest.raises(BrokenAnswerError):
            await (await get(client)).read()


# --- content encodings ---------------------------------------------------------------------------------


def bare_deflate(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return packer.compress(data) + packer.flush()


PACKERS = [("gzip", gzip.compress), ("deflate", zlib.compress), ("deflate", bare_deflate)]


def packed_answer(encoding: str, packed: bytes) -> bytes:
    head = f"HTTP/1.1 200 OK\r\nContent-Encoding: {encoding}\r\nContent-Length: {len(packed)}\r\n\r\n"
    return head.encode() + packed


@pytest.mark.parametrize(("encoding", "pack"), PACKERS)
async def test_a_packed_body_is_unpacked_a_little_at_a_time(
    encoding: str, pack: Callable[[bytes], bytes]
) -> None:
    whole = b"word " * 4_000_000
    async with (
        serving(answering(*[packed_answer(encoding, pack(whole))] * 2)) as server,
        client_of(server.port) as client,
    ):
        response = await get(client)
        pieces = [piece async for piece in response]
        assert (response.length, b"".join(pieces)) == (None, whole)
        assert max(map(len, pieces)) <= MOST_UNREAD_BYTES
        assert await (await get(client)).read() == whole


@pytest.mark.parametrize(
    "packed",
    [gzip.compress(b"hello")[:-9], b"no gzip", gzip.compress(b"hello") + b"x"],
    ids=["short", "no gzip", "more"],
)
async def test_a_body_that_is_packed_wrongly_is_an_error(packed: bytes) -> None:
    async with (
        serving(answering(packed_answer("gzip", packed))) as server,
        client_of(server.port) as client,
    ):
        with pytest.raises(BrokenAnswerError):
            await (await get(client)).read()
