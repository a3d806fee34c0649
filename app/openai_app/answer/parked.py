"""A large answer in one piece, in a file while its reader takes it: slow readers must not fill the memory."""

import asyncio
import logging
import tempfile
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import BinaryIO, cast

log = logging.getLogger(__name__)

# Nearly all answers are smaller, and go out at once.
MOST_IN_MEMORY_BYTES = 1024 * 1024
# So much is read at a time, when the reader has taken what came before.
PIECE_BYTES = 64 * 1024


class Parked:
    """A body in a file without a name; whoever gets it closes it."""

    def __init__(self, file: BinaryIO, length: int) -> None:
        self._file = file
        self.length = length

    async def pieces(self) -> AsyncIterator[bytes]:
        while piece := await asyncio.to_thread(self._file.read, PIECE_BYTES):
            yield piece

    def close(self) -> None:
        # There is nothing left to be written.
        with suppress(OSError):
            self._file.close()


async def park(body: bytes) -> bytes | Parked:
    """A large body in a file; a small one as it is, and any while the disk takes none.

    The memory is free when the caller has let go of its `body` as well.
    """
    if len(body) <= MOST_IN_MEMORY_BYTES:
        return body
    try:
        return Parked(await asyncio.to_thread(_written, body), len(body))
    except OSError as error:
        log.warning("a large answer waits for its reader in memory: %s", error)
        return body


def _written(body: bytes) -> BinaryIO:
    # It outlives this function.
    file = cast(BinaryIO, tempfile.TemporaryFile(buffering=0))  # noqa: SIM115
    try:
        view = memoryview(body)
        while view:
            view = view[file.write(view) :]
        file.seek(0)
    except BaseException:
        file.close()
        raise
    return file
