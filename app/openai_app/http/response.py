"""The answer to an HTTP request, read as it comes or whole."""

import asyncio
import zlib
from typing import Protocol

# So much of an answer waits here for a slow reader; the rest waits at the server.
MOST_UNREAD_BYTES = 64 * 1024
# An answer that is read whole is no larger: some pictures of the largest kind.
MOST_WHOLE_BYTES = 256 * 1024 * 1024


class HttpError(OSError):
    """There is no answer, or only a part of one.

    HttpError
    ├── NotConnectedError     nothing was sent: it may be tried again
    │   └── ConnectTimeoutError   … but that took long already; a TimeoutError, too
    ├── DisconnectedError     the connection ended before a byte of the answer came
    └── BrokenAnswerError     the answer broke off or is no HTTP, or the request's body broke off
    """


class NotConnectedError(HttpError):
    pass


class ConnectTimeoutError(NotConnectedError, TimeoutError):
    pass


class DisconnectedError(HttpError):
    pass


class BrokenAnswerError(HttpError):
    pass


class Line(Protocol):
    """What an answer asks of the connection that it comes on."""

    def resume_reading(self) -> None: ...

    def abort(self) -> None: ...


class Response:
    """An answer whose body may still be coming; whoever gets it closes it.

    Iterating gives the body as it comes. That and `read` raise HttpError or TimeoutError where it breaks off,
    after all that had come.
    """

    __slots__ = (
        "_connection",
        "_error",
        "_is_complete",
        "_pieces",
        "_unpacker",
        "_unread_bytes",
        "_waiter",
        "headers",
        "status",
    )

    def __init__(self, connection: Line) -> None:
        #: 0 as long as the head has not come.
        self.status = 0
        #: Names in lower case.
        self.headers: list[tuple[bytes, bytes]] = []
        self._connection = connection
        self._pieces: list[bytes] = []
        self._unread_bytes = 0
        self._is_complete = False
        self._error: Exception | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._unpacker: _Unpacker | None = None

    def header(self, name: bytes) -> str:
        """The first value of a header, empty without one; `name` in lower case."""
        for each, value in self.headers:
            if each == name:
                return value.decode("latin-1")
        return ""

    @property
    def content_type(self) -> str:
        return self.header(b"content-type")

    @property
    def length(self) -> int | None:
        """Bytes that reading the whole body gives, as far as the server has told."""
        announced = self.header(b"content-length")
        return int(announced) if announced.isdecimal() and self._unpacker is None else None

    async def read(self) -> bytes:
        """The whole body, or what has not been read of it yet."""
        first = await self._next()
        if self._is_complete and not self._pieces and self._unpacker is None:
            return first
        pieces, size = [first], len(first)
        while piece := await self._next():
            pieces.append(piece)
            size += len(piece)
            if size > MOST_WHOLE_BYTES:
                raise BrokenAnswerError(f"The answer is larger than {MOST_WHOLE_BYTES} bytes.")
        return b"".join(pieces)

    def __aiter__(self) -> "Response":
        return self

    async def __anext__(self) -> bytes:
        piece = await self._next()
        if not piece:
            raise StopAsyncIteration
        return piece

    def close(self) -> None:
        """Lets go of the connection, and ends the server's work unless all of the answer has come."""
        if not self._is_complete and self._error is None:
            self._connection.abort()

    async def _next(self) -> bytes:
        """All that has come of the body since the last time, nothing at its end."""
        if self._unpacker is None:
            return await self._next_packed()
        while not (piece := self._unpacker.unpack()):
            packed = await self._next_packed()
            if not packed:
                self._unpacker.finish()
                return b""
            self._unpacker.add(packed)
        return piece

    async def _next_packed(self) -> bytes:
        while not self._pieces:
            if self._error is not None:
                raise self._error
            if self._is_complete:
                return b""
            await self._wait()
        data = self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)
        self._pieces.clear()
        self._unread_bytes = 0
        if not self._is_complete:
            self._connection.resume_reading()
        return data

    async def _wait(self) -> None:
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    # --- for the connection and its owner -----------------------------------------------------------------

    async def head(self) -> None:
        """Waits for the status and the headers. Raises HttpError, TimeoutError."""
        while not self.status:
            if self._error is not None:
                raise self._error
            await self._wait()
        encoding = self.header(b"content-encoding").strip().lower()
        if encoding not in ("", "identity"):
            self._unpacker = _Unpacker(encoding)

    def begin(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        self.status = status
        self.headers = [(name.lower(), value) for name, value in headers]
        self._wake()

    def feed(self, data: bytes) -> bool:
        """Whether there is more than the reader should be given."""
        self._pieces.append(data)
        self._unread_bytes += len(data)
        self._wake()
        return self._unread_bytes > MOST_UNREAD_BYTES

    def finish(self) -> None:
        self._is_complete = True
        self._wake()

    def fail(self, error: Exception) -> None:
        if not self._is_complete and self._error is None:
            self._error = error
            self._wake()


class _Unpacker:
    """Takes a body out of its Content-Encoding, which some servers apply even though nobody accepts one."""

    def __init__(self, encoding: str) -> None:
        if encoding not in ("gzip", "x-gzip", "deflate"):
            raise BrokenAnswerError(f"The answer has an unknown content encoding: {encoding[:40]!r}")
        self._is_deflate = encoding == "deflate"
        self._zlib: zlib._Decompress | None = None
        self._packed = b""

    def add(self, packed: bytes) -> None:
        """More of the packed body, once `unpack` has given nothing more."""
        if self._zlib is None:
            # Some take "deflate" for the bare stream, which has no header to begin with.
            is_bare = self._is_deflate and packed[0] & 0x0F != 8
            self._zlib = zlib.decompressobj(-zlib.MAX_WBITS if is_bare else zlib.MAX_WBITS | 32)
        self._packed = packed

    def unpack(self) -> bytes:
        """The next so many bytes, however much a small piece holds."""
        if self._zlib is None:
            return b""
        try:
            piece = self._zlib.decompress(self._packed, MOST_UNREAD_BYTES)
        except zlib.error as error:
            raise BrokenAnswerError(f"The answer is packed wrongly: {error}") from None
        self._packed = self._zlib.unconsumed_tail
        if self._zlib.unused_data and not piece:
            raise BrokenAnswerError("The answer goes on after its packed body.")
        return piece

    def finish(self) -> None:
        if self._zlib is not None and not self._zlib.eof:
            raise BrokenAnswerError("The answer's packed body is not complete.")
