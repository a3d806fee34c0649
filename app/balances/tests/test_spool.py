"""The file of what a process owes while the database is away, on a disk that is full for a while."""

import json
import logging
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from balances import spool as spools
from balances.operations import Void
from balances.spool import FORMAT, Kept, Spool, orphans

FIRST, SECOND, THIRD = (Void(f"{number:032x}", number, "Refused.") for number in (1, 2, 3))


@contextmanager
def no_file_longer_than(size: int) -> Iterator[None]:
    """As on a full disk: what does not fit is not written."""
    _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, most))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, most))


def read(folder: Path) -> list[Kept]:
    """What another process finds there."""
    found: list[Kept] = []
    for orphan in orphans(folder):
        with orphan:
            found += orphan.operations()
    return found


def test_a_new_file_is_synced_with_the_folders_that_must_know_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[Path] = []
    monkeypatch.setattr(os, "fsync", lambda file: synced.append(Path(f"/proc/self/fd/{file}").readlink()))
    folder = tmp_path / "spool"
    spool = Spool(folder, "a")
    spool.keep([FIRST])
    assert set(synced) == {tmp_path, folder, folder / "a.jsonl"}
    synced.clear()
    spool.keep([SECOND])
    assert synced == [folder / "a.jsonl"]
    spool.clear()
    synced.clear()
    spool.keep([THIRD])
    assert folder in synced
    spool.close()


@pytest.mark.parametrize("room", [0, 10, 60])
def test_what_did_not_fit_is_kept_with_what_comes_next(tmp_path: Path, room: int) -> None:
    spool = Spool(tmp_path, "a")
    with no_file_longer_than(room):
        spool.keep([FIRST])
    spool.keep([SECOND])
    assert spool._file is not None
    spool._file.close()
    assert read(tmp_path) == [FIRST, SECOND]


def test_a_file_without_a_line_is_nobodys_loss(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").touch()
    assert read(tmp_path) == []
    assert not list(tmp_path.glob("*.unread"))


def test_a_disk_that_is_full_in_the_middle_leaves_what_was_there(tmp_path: Path) -> None:
    spool = Spool(tmp_path, "a")
    spool.keep([FIRST])
    with no_file_longer_than((tmp_path / "a.jsonl").stat().st_size + 20):
        spool.keep([SECOND])
    spool.keep([THIRD])
    assert spool._file is not None
    spool._file.close()
    assert read(tmp_path) == [FIRST, SECOND, THIRD]


def test_beyond_its_bound_a_file_does_not_grow_and_keeps_what_it_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(spools, "MAX_UNWRITTEN", 3)
    path = tmp_path / "a.jsonl"
    spool = Spool(tmp_path, "a")
    spool.keep([FIRST])
    full = path.read_bytes()
    monkeypatch.setattr(spools, "MAX_BYTES", len(full))
    for _ in range(5):
        spool.keep([SECOND, THIRD])
    assert path.read_bytes() == full
    # What waits in memory for room on the disk has a bound too.
    assert list(spool._unwritten) == [THIRD, SECOND, THIRD]
    reports = [record.message for record in caplog.records if record.levelno == logging.ERROR]
    assert len(reports) == 1
    assert f"bound of {len(full)} bytes" in reports[0]
    assert spool._file is not None
    spool._file.close()
    assert read(tmp_path) == [FIRST]


def test_a_file_of_another_version_is_set_aside_and_reported(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    spool = Spool(tmp_path, "a")
    spool.keep([FIRST])
    assert spool._file is not None
    spool._file.close()
    path = tmp_path / "a.jsonl"
    _, _, lines = path.read_bytes().partition(b"\n")
    other = json.dumps({**FORMAT, "version": 1}).encode() + b"\n" + lines
    path.write_bytes(other)
    (orphan,) = orphans(tmp_path)
    with orphan:
        assert list(orphan.operations()) == []
        # As whoever replays it does at its end: what was not read is not removed.
        orphan.done()
    assert not path.exists()
    assert (tmp_path / "a.unread").read_bytes() == other
    (report,) = caplog.messages
    assert f"{path} is no spool of this version" in report
