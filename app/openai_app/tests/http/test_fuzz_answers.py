"""Whatever bytes an upstream sends, they are an answer or an OSError, and the same however they are cut."""

import asyncio
import gzip
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from common.tests.strategies import cut, cuts, put_together
from openai_app.http.connection import Connection

OK = b"HTTP/1.1 200 OK\r\n"
ANSWERS = put_together(
    *(
        OK,
        b"HTTP/1.0 200 OK\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n",
        b"HTTP/1.1 101 Switching\r\n",
        b"HTTP/1.1 204 x\r\n",
    ),
    *(
        b"Content-Length: 5\r\n",
        b"content-length: 0\r\n",
        b"Content-Length: 99999999999999999999\r\n",
        b"hello",
    ),
    *(
        b"Transfer-Encoding: chunked\r\n",
        b"5\r\nhello\r\n",
        b"0\r\n\r\n",
        b"0\r\nTrailer: x\r\n\r\n",
        b"ffffffffffffffff\r\n",
    ),
    *(
        b"Content-Encoding: gzip\r\n",
        b"content-encoding: deflate\r\n",
        b"Content-Encoding: br\r\n",
        gzip.compress(b"hi", mtime=0),
    ),
    *(
        b"Connection: close\r\n",
        b"Connection: upgrade\r\nUpgrade: x\r\n",
        b"\r\n",
        b"\n",
        b"\r",
        b": ",
        b"\x00",
        b"\xff",
    ),
    OK + b"Content-Length: 5\r\n\r\nhello",
    OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    most=14,
)


class Wire(asyncio.Transport):
    """A connection's transport without a network: it only notes whether it has been closed."""

    def __init__(self) -> None:
        super().__init__()
        self.is_closed = False
        self.is_paused = False

    def write(self, data: Any) -> None:
        pass

    def writelines(self, data: Any) -> None:
        pass

    def is_closing(self) -> bool:
        return self.is_closed

    def close(self) -> None:
        self.is_closed = True

    def abort(self) -> None:
        self.is_closed = True

    def pause_reading(self) -> None:
        self.is_paused = True

    def resume_reading(self) -> None:
        self.is_paused = False


@given(ANSWERS, cuts(), st.booleans(), st.booleans(), st.booleans())
def test_an_answer_is_the_same_however_its_bytes_are_cut(
    data: bytes, lengths: list[int], is_head: bool, breaks: bool, reads_meanwhile: bool
) -> None:
    async def both() -> None:
        at_once = await answer_of([data], is_head=is_head, breaks=breaks, reads_meanwhile=False)
        pieces = cut(data, lengths)
        in_pieces = await answer_of(pieces, is_head=is_head, breaks=breaks, reads_meanwhile=reads_meanwhile)
        assert in_pieces[:3] == at_once[:3]
        # Of an answer that fails, more may have come before it did when it came in pieces.
        assert in_pieces[3] == at_once[3] or (at_once[0] == "failed" and in_pieces[3].startswith(at_once[3]))

    with asyncio.Runner() as runner:
        runner.run(both())


async def answer_of(
    pieces: list[bytes], *, is_head: bool, breaks: bool, reads_meanwhile: bool
) -> tuple[Any, ...]:
    """Status, headers and body of an answer in these pieces, or what had come of it when it failed."""
    free: list[Connection] = []
    gone: list[Connection] = []
    connection, wire = Connection(free.append, gone.append), Wire()
    connection.connection_made(wire)
    response = connection.send(b"", b"", None, is_without_body=is_head)
    reading = asyncio.ensure_future(read(response))
    for piece in pieces:
        if wire.is_closed:
            break
        connection.data_received(piece)
        if reads_meanwhile:
            await asyncio.sleep(0)
    if not wire.is_closed:
        connection.eof_received()
    connection.connection_lost(ConnectionResetError() if breaks else None)
    found = await reading
    assert gone
    assert not wire.is_paused or wire.is_closed
    return found


async def read(response: Any) -> tuple[Any, ...]:
    body = b""
    try:
        await response.head()
        length = response.length
        assert length is None or length >= 0
        async for piece in response:
            body += piece
    except OSError:
        return "failed", response.status, response.headers, body
    finally:
        response.close()
    return "whole", response.status, response.headers, body
