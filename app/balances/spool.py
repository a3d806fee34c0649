"""What a process owes the ledger while the database is away, kept on disk in case the process ends first.

What open calls have used so far is kept too: a process that ends without a word leaves it to who takes over.

One file for each process, `<worker id>.jsonl`: first a line that names the format, then an operation a line
behind its checksum, each synced before it counts as kept. The file's lock tells whether its process still
lives; the file of one that does not is taken over by another process, and replayed. Replaying twice does no
harm: a hold ends once.
"""

import fcntl
import json
import logging
import os
import zlib
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

from balances.operations import Defer, Post, Progress, Void
from balances.usage import Usage

log = logging.getLogger(__name__)

FORMAT = {"format": "tollgate spool", "version": 2}
# Some hundred thousand calls: hours without a database. What comes then is kept in memory only.
MAX_BYTES = 256 * 1024 * 1024
# Notes of what open calls have used come twice a second: the room beyond this is for charges alone.
MAX_NOTED_BYTES = MAX_BYTES // 2
# A disk that is full for longer costs the oldest of these their place on it, not in memory.
MAX_UNWRITTEN = 1_000


@dataclass(frozen=True, slots=True)
class Doubt:
    """A hold that nobody was granted, and that may stand: how its transaction ended is not known."""

    hold_id: str


Owed = Post | Void | Defer
Kept = Owed | Progress | Doubt
_KINDS: dict[str, type[Post] | type[Void] | type[Defer] | type[Progress] | type[Doubt]] = {
    "post": Post,
    "void": Void,
    "defer": Defer,
    "progress": Progress,
    "doubt": Doubt,
}
_NAMES = {kind: name for name, kind in _KINDS.items()}


class Spool:
    """A process's own file; not made before something is owed."""

    def __init__(self, folder: Path, worker_id: str) -> None:
        self._folder = folder
        self._path = folder / f"{worker_id}.jsonl"
        self._file: IO[bytes] | None = None
        #: What did not fit on the disk, for the next attempt.
        self._unwritten: deque[Owed] = deque(maxlen=MAX_UNWRITTEN)
        self._is_failing = False

    def keep(self, operations: Sequence[Kept]) -> None:
        """Writes operations to disk. A disk that fails is reported once; memory has them all the same."""
        if self._bytes > MAX_NOTED_BYTES:
            operations = [operation for operation in operations if not isinstance(operation, Progress)]
        try:
            self._append(b"".join(_line(operation) for operation in (*self._unwritten, *operations)))
            self._unwritten.clear()
            self._is_failing = False
        except OSError as error:
            self._unwritten += [operation for operation in operations if isinstance(operation, Owed)]
            if not self._is_failing:
                log.error("charges that wait for the database are in memory only: %s", error)
            self._is_failing = True

    def clear(self) -> None:
        """Nothing is owed any more."""
        self._unwritten.clear()
        if self._file is not None:
            try:
                self._path.unlink(missing_ok=True)
            except OSError as error:
                # Whoever finds it replays it, which does no harm.
                log.error("%s cannot be removed: %s", self._path, error)
            self.close()

    def close(self) -> None:
        """The process ends: what is left in the file is for others."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _append(self, lines: bytes) -> None:
        if self._file is None:
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._file = self._opened()
        end = self._bytes
        if end == 0:
            # Also where the disk was full the first time.
            lines = json.dumps(FORMAT).encode() + b"\n" + lines
        if end + len(lines) > MAX_BYTES:
            raise OSError(f"{self._path} has reached its bound of {MAX_BYTES} bytes")
        written = self._file.write(lines)
        if written != len(lines):
            # The disk is full: half a line would spoil the next.
            self._file.truncate(end)
            raise OSError(f"{self._path} could not be written whole")
        os.fsync(self._file.fileno())

    @property
    def _bytes(self) -> int:
        return os.fstat(self._file.fileno()).st_size if self._file is not None else 0

    def _opened(self) -> IO[bytes]:
        """The file, locked. Raises OSError where another process was quicker to take it for an orphan's."""
        file = self._path.open("ab", buffering=0)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not _is_still(file, self._path):
                raise OSError(f"{self._path} was removed before it was locked")
            # A file that was synced is lost all the same if its folder does not know it. That one was removed
            # or renamed may be lost: it is replayed again, which does no harm.
            _sync_folder(self._folder)
            _sync_folder(self._folder.parent)
        except OSError:
            file.close()
            raise
        return file


class Orphan:
    """The file of a process that has ended, held by this one until it is `done`."""

    def __init__(self, path: Path, file: IO[bytes]) -> None:
        self._path = path
        self._file = file

    def operations(self) -> Iterator[Kept]:
        """What the process owed, and last what its open calls had used.

        A line that cannot be read is reported and passed over.
        """
        head = self._file.readline()
        if not head:
            # The disk was full before the first line.
            return
        if _parsed(head) != FORMAT:
            log.error("%s is no spool of this version: it is set aside as .unread", self._path)
            self._path.rename(self._path.with_suffix(".unread"))
            return
        #: Of what each open call has used the last note alone matters.
        notes: dict[str, Progress] = {}
        for number, line in enumerate(self._file, 2):
            operation = _operation(line)
            match operation:
                case None:
                    log.error("%s, line %d cannot be read: %d bytes are lost", self._path, number, len(line))
                case Progress():
                    notes[operation.hold_id] = operation
                case _:
                    notes.pop(operation.hold_id, None)
                    yield operation
        yield from notes.values()

    def done(self) -> None:
        """Everything in it is in the ledger."""
        self._path.unlink(missing_ok=True)

    def __enter__(self) -> "Orphan":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


def orphans(folder: Path) -> Iterator[Orphan]:
    """The files of processes that have ended, each locked so that one process alone replays it."""
    for path in sorted(folder.glob("*.jsonl")):
        try:
            file = path.open("rb")
        except OSError:
            continue
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.close()
            continue
        # Between the look and the lock another may have replayed and removed it, or its process made it anew.
        if _is_still(file, path):
            yield Orphan(path, file)
        else:
            file.close()


def _is_still(file: IO[bytes], path: Path) -> bool:
    """Whether the path leads to this very file."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except OSError:
        return False


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _line(operation: Kept) -> bytes:
    text = json.dumps({"kind": _NAMES[type(operation)], **asdict(operation)}).encode()
    return b"%08x %b\n" % (zlib.crc32(text), text)


def _operation(line: bytes) -> Kept | None:
    """The operation of a line; None if it is not one that was written here, byte for byte."""
    checksum, _, text = line.partition(b" ")
    if not text.endswith(b"\n") or checksum != b"%08x" % zlib.crc32(text[:-1]):
        return None
    fields = _parsed(text)
    kind = _KINDS.get(fields.pop("kind", ""))
    if kind is None:
        return None
    if fields.get("usage") is not None:
        fields["usage"] = Usage(**fields["usage"])
    return kind(**fields)


def _parsed(line: bytes) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}
