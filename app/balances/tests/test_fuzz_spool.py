"""However a spool is spoilt, what is whole in it is read, the rest is reported, and nothing is made up."""

import logging
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from balances.operations import Defer, Post, Progress, Void
from balances.spool import Doubt, Kept, Spool, orphans
from balances.usage import Usage
from common.tests.strategies import put_together

HEX = st.binary(min_size=16, max_size=16).map(bytes.hex)
NUMBERS = st.integers(0, 10**12)
TEXTS = st.text(st.characters(codec="utf-8"), max_size=10)
USAGE = st.none() | st.builds(Usage, st.dictionaries(st.sampled_from(["input", "output"]), NUMBERS))
OWED = st.one_of(
    st.builds(Post, HEX, NUMBERS, st.none() | NUMBERS, TEXTS, TEXTS, USAGE, TEXTS),
    st.builds(Void, HEX, NUMBERS, TEXTS),
    st.builds(Defer, HEX, NUMBERS, TEXTS),
    st.builds(Doubt, HEX),
    st.builds(Progress, HEX, NUMBERS, st.dictionaries(st.sampled_from(["input", "output"]), NUMBERS)),
)
RUBBISH = put_together(
    *(
        b'{"kind": "post"',
        b'{"kind": []}',
        b'"usage": "x"',
        b"}",
        b"{",
        b"[" * 2_000,
        b"null",
        b"\n",
        b"\0" * 9,
    ),
    *(b'{"kind": "void", "hold_id": "0", "user_id": [], "reason": ""}\n', b"\xff", b"1e999", b'"\\ud800"'),
    most=6,
)


@settings(max_examples=30)
@given(st.lists(OWED, min_size=1, max_size=5), st.integers(1, 8))
def test_what_a_spool_keeps_is_read_as_it_was(operations: list[Kept], together: int) -> None:
    with kept(operations, together) as (folder, _):
        assert list(read(folder)) == what_matters(operations)


@settings(max_examples=30)
@given(
    st.lists(OWED, min_size=1, max_size=5), st.lists(st.tuples(st.integers(0, 10**6), RUBBISH, st.booleans()))
)
def test_a_spoilt_spool_gives_nothing_that_was_not_kept(
    operations: list[Kept], spoilt: list[tuple[int, bytes, bool]]
) -> None:
    with kept(operations, 5) as (folder, path):
        data = path.read_bytes()
        for place, rubbish, replaces in spoilt:
            at = place % (len(data) + 1)
            data = data[:at] + rubbish + data[at + len(rubbish) * replaces :]
        path.write_bytes(data)
        with reports() as reported:
            found = list(read(folder))
        assert all(operation in operations for operation in found)
        assert set(map(repr, found)) == set(map(repr, what_matters(operations))) or reported


@settings(max_examples=30)
@given(st.lists(OWED, min_size=1, max_size=5), st.integers(0, 10**6), st.integers(0, 7))
def test_a_bit_that_is_turned_costs_its_line_alone(operations: list[Kept], place: int, bit: int) -> None:
    with kept(operations, 5) as (folder, path):
        data = bytearray(path.read_bytes())
        head = data.index(b"\n") + 1
        at = head + place % (len(data) - head)
        data[at] ^= 1 << bit
        path.write_bytes(data)
        with reports() as reported:
            found = list(read(folder))
        # The turned bit may be a line's end, or make one.
        assert len(found) >= len(what_matters(operations)) - 2
        assert all(operation in operations for operation in found)
        assert reported


@settings(max_examples=30)
@given(st.lists(OWED, min_size=1, max_size=5), st.integers(0, 10**6))
def test_a_spool_that_breaks_off_gives_all_that_is_whole(operations: list[Kept], place: int) -> None:
    with kept(operations, 1) as (folder, path):
        data = path.read_bytes()
        path.write_bytes(data[: place % (len(data) + 1)])
        found = list(read(folder))
        whole = max(0, data[: place % (len(data) + 1)].count(b"\n") - 1)
        assert found in (what_matters(operations[:whole]), what_matters(operations[: whole + 1]))


def what_matters(operations: list[Kept]) -> list[Kept]:
    """The ends of calls in their order, then the last note of each call that has not ended after it."""
    notes: dict[str, Kept] = {}
    for operation in operations:
        if isinstance(operation, Progress):
            notes[operation.hold_id] = operation
        else:
            notes.pop(operation.hold_id, None)
    return [o for o in operations if not isinstance(o, Progress)] + list(notes.values())


@contextmanager
def kept(operations: list[Kept], together: int) -> Iterator[tuple[Path, Path]]:
    """The folder and the file of a process that kept the operations, so many at a time, and ended."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        spool = Spool(folder, "a")
        for start in range(0, len(operations), together):
            spool.keep(operations[start : start + together])
        assert spool._file is not None
        spool._file.close()
        yield folder, folder / "a.jsonl"


def read(folder: Path) -> Iterator[Kept]:
    for orphan in orphans(folder):
        with orphan:
            yield from orphan.operations()


@contextmanager
def reports() -> Iterator[list[str]]:
    """What is logged as an error while the block runs."""
    found: list[str] = []
    handler = logging.Handler(logging.ERROR)
    handler.emit = lambda record: found.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("balances.spool")
    logger.addHandler(handler)
    propagates, logger.propagate = logger.propagate, False
    try:
        yield found
    finally:
        logger.removeHandler(handler)
        logger.propagate = propagates
