"""One connection to a server that speaks HTTP/1.1: requests and their answers, one at a time.

Leaner than a general client, without redirects, cookies or upgrades: a relay spends much of its time there.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import cast

import httptools

from openai_app.http.response import BrokenAnswerError, DisconnectedError, Response

# So much may come without a byte of a body in it: heads, sizes of chunks, trailers. The parser sets no bound.
MOST_HEAD_BYTES = 64 * 1024

# A request's body: whole, or as it comes.
Body = bytes | AsyncIterator[bytes]


class Connection(asyncio.Protocol):
    """Serves one request at a time, and says when it is free for the next one and when it is gone."""

    def __init__(
        self, when_free: Callable[["Connection"], None], when_gone: Callable[["Connection"], None]
    ) -> None:
        self._when_free, self._when_gone = when_free, when_gone
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport
        self._parser = httptools.HttpResponseParser(self)
        self._response: Response | None = None
        self._upload: asyncio.Task[None] | None = None
        #: Set while the transport takes no more of an upload.
        self._may_write: asyncio.Future[None] | None = None
        #: When the server last did something, on the loop's clock.
        self._active_at = self._loop.time()
        self._is_reading_paused = False
        # Of the answer that is coming:
        self._headers: list[tuple[bytes, bytes]] = []
        self._bytes_without_body = 0
        self._has_begun = False
        self._is_without_body = False
        self._is_interim = False
        self._is_over = False
        self._keeps_alive = False
        self._ends_with_connection = False

    # --- for its owner ------------------------------------------------------------------------------------

    def send(self, head: bytes, body: Body, length: int | None, *, is_without_body: bool) -> Response:
        """Sends a request; the head of its answer is still to be waited for.

        `length` is that of a body that comes in pieces; None sends it in chunks. `is_without_body` says that
        the answer has none whatever its head says, as that to a HEAD.
        """
        self._response = response = Response(self)
        self._active_at = self._loop.time()
        self._bytes_without_body = 0
        self._has_begun = self._is_over = self._is_interim = self._ends_with_connection = False
        self._is_without_body = is_without_body
        if not isinstance(body, bytes):
            self._transport.write(head)
            self._upload = self._loop.create_task(self._send_pieces(body, length))
        elif body:
            self._transport.writelines((head, body))
        else:
            self._transport.write(head)
        return response

    def expire(self, now: float, *, read_timeout_s: float, keep_alive_s: float) -> None:
        """Ends what has been waited for, or kept, too long at `now` on the loop's clock."""
        quiet_s = now - self._active_at
        if self._response is None:
            if quiet_s >= keep_alive_s:
                self.abort()
        elif self._is_reading_paused or (self._upload is not None and self._may_write is None):
            # It is not the server that is waited for.
            self._active_at = now
        elif quiet_s >= read_timeout_s:
            self._fail(TimeoutError(f"The server was silent for {read_timeout_s:g} s."))

    def abort(self) -> None:
        """Ends the connection at once, and the server's work with it."""
        response, self._response = self._response, None
        if response is not None:
            response.fail(BrokenAnswerError("The connection was closed before the end of the answer."))
        if self._upload is not None:
            self._upload.cancel()
        self._transport.abort()
        self._when_gone(self)

    def resume_reading(self) -> None:
        if self._is_reading_paused:
            self._is_reading_paused = False
            self._active_at = self._loop.time()
            self._transport.resume_reading()

    # --- the request's body -------------------------------------------------------------------------------

    async def _send_pieces(self, body: AsyncIterator[bytes], length: int | None) -> None:
        left = length
        try:
            async for piece in body:
                if not piece:
                    continue
                if left is None:
                    self._transport.writelines((b"%x\r\n" % len(piece), piece, b"\r\n"))
                else:
                    left -= len(piece)
                    if left < 0:
                        # The surplus would be taken for another request.
                        raise ValueError(f"The body is longer than the {length} bytes announced.")
                    self._transport.write(piece)
                self._active_at = self._loop.time()
                if self._may_write is not None:
                    await self._may_write
            if left:
                raise ValueError(f"The body is shorter than the {length} bytes announced.")
        except Exception as error:
            broken = BrokenAnswerError(f"The request's body broke off: {type(error).__name__}: {error}")
            broken.__cause__ = error
            self._fail(broken)
            return
        if left is None:
            self._transport.write(b"0\r\n\r\n")
        self._active_at = self._loop.time()
        self._upload = None

    def pause_writing(self) -> None:
        self._may_write = self._loop.create_future()

    def resume_writing(self) -> None:
        if self._may_write is not None and not self._may_write.done():
            self._may_write.set_result(None)
        self._may_write = None

    # --- what the transport tells -------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's is one without being its subclass.
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        if self._response is None:
            # Nobody asked: it must not be taken for the next answer.
            self.abort()
            return
        self._active_at = self._loop.time()
        self._has_begun = True
        self._bytes_without_body += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._keeps_alive = False
            if not self._is_over:
                self._fail(BrokenAnswerError(f"The answer is no HTTP/1.1: {error!r}"))
        if self._is_over:
            self._end()
        elif self._bytes_without_body > MOST_HEAD_BYTES:
            self._fail(BrokenAnswerError("The answer's head or trailers are too large."))

    def eof_received(self) -> None:
        """The transport closes by itself; what is idle must not be used in the meantime."""
        if self._response is None:
            self._when_gone(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._when_gone(self)
        if self._upload is not None:
            self._upload.cancel()
        response, self._response = self._response, None
        if response is None:
            return
        if self._ends_with_connection and exc is None:
            response.finish()
        elif self._has_begun:
            response.fail(BrokenAnswerError(f"The connection was lost amid the answer: {exc!r}"))
        else:
            response.fail(DisconnectedError(f"The connection was lost before an answer: {exc!r}"))

    def _fail(self, error: Exception) -> None:
        if self._response is not None:
            self._response.fail(error)
            self.abort()

    def _end(self) -> None:
        """After all of an answer has come."""
        self.resume_reading()
        if self._keeps_alive and self._upload is None and not self._transport.is_closing():
            self._response = None
            self._when_free(self)
        else:
            self.abort()

    # --- what the parser tells ----------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        if self._is_over:
            raise ValueError("Another answer follows that nobody asked for.")
        self._headers = []

    def on_header(self, name: bytes, value: bytes) -> None:
        # Trailers come here too, when nobody looks any more.
        self._headers.append((name, value))

    def on_headers_complete(self) -> None:
        assert self._response is not None
        status = self._parser.get_status_code()
        self._is_interim = status < 200
        if self._is_interim:
            return
        self._response.begin(status, self._headers)
        self._keeps_alive = self._parser.should_keep_alive()
        if self._is_without_body:
            # The parser knows nothing of it, and goes on to wait for a body.
            self._keeps_alive = False
            self.on_message_complete()
        elif not self._keeps_alive:
            names = {name for name, _ in self._response.headers}
            self._ends_with_connection = not names & {b"content-length", b"transfer-encoding"}

    def on_body(self, data: bytes) -> None:
        self._bytes_without_body = 0
        if self._response is None or self._is_over or self._is_interim:
            return
        if self._response.feed(data) and not self._is_reading_paused:
            self._is_reading_paused = True
            self._transport.pause_reading()

    def on_message_complete(self) -> None:
        if self._is_interim:
            return
        if self._response is not None and not self._is_over:
            self._is_over = True
            self._response.finish()
