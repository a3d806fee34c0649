"""Contents of files: in memory while they are small, in an unnamed temporary file when they are not."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator

IN_MEMORY_BYTES = 1_000_000
PIECE_BYTES = 256 * 1024


class Blob:
    """Bytes, written once from the start and then read in any order.

    Attributes:
        size: in bytes.
    """

    def __init__(self, data: bytes = b"") -> None:
        self.size = 0
        self._digest = hashlib.sha256()
        self._file = tempfile.SpooledTemporaryFile(max_size=IN_MEMORY_BYTES)  # noqa: SIM115 it lives on
        self.write(data)

    def __del__(self) -> None:
        self._file.close()  # nobody says when a file is forgotten

    def write(self, data: bytes) -> None:
        self._file.seek(self.size)
        self._file.write(data)
        self._digest.update(data)
        self.size += len(data)

    @property
    def sha256(self) -> str:
        return self._digest.hexdigest()

    def read(self, start: int = 0, length: int = -1) -> bytes:
        self._file.seek(start)
        return self._file.read(length)

    def pieces(self, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        """The bytes from `start` to before `end`, a piece at a time."""
        end = self.size if end is None else end
        while start < end:
            piece = self.read(start, min(PIECE_BYTES, end - start))
            yield piece
            start += len(piece)

    def lines(self) -> Iterator[bytes]:
        """Lines without their ends; empty ones are left out."""
        rest = b""
        for piece in self.pieces():
            *whole, rest = (rest + piece).split(b"\n")
            yield from (line for line in whole if line.strip())
        if rest.strip():
            yield rest
