"""The lines of a file at OpenAI, in as much memory as its longest one takes."""

from collections.abc import AsyncIterable, AsyncIterator

# A line is a request or its answer, which are no larger by themselves.
MAX_LINE_BYTES = 64 * 1024 * 1024


class LineTooLongError(ValueError):
    """The file is none of lines, or one of them is longer than MAX_LINE_BYTES."""


async def lines_of(pieces: AsyncIterable[bytes]) -> AsyncIterator[list[bytes]]:
    """All lines, some at a time, without the line feeds that end them. Raises LineTooLongError."""
    begun: list[bytes] = []
    begun_bytes = 0
    async for piece in pieces:
        whole, feed, rest = piece.rpartition(b"\n")
        if feed:
            # Joined only now: to add each piece to a long line would copy it as often as there are pieces.
            yield b"".join([*begun, whole]).split(b"\n")
            begun, begun_bytes = [], 0
        if rest:
            begun.append(rest)
            begun_bytes += len(rest)
        if begun_bytes > MAX_LINE_BYTES:
            raise LineTooLongError(f"A line is longer than {MAX_LINE_BYTES} bytes.")
    if begun:
        yield [b"".join(begun)]
