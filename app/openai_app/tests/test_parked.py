"""A large answer waits for its reader in a file, and in memory where the disk takes none."""

import os
import resource
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from openai_app.answer.parked import MOST_IN_MEMORY_BYTES, PIECE_BYTES, Parked, park

LARGE = os.urandom(3 * MOST_IN_MEMORY_BYTES + 1)


@pytest.fixture
def full_disk() -> Iterator[None]:
    """No file of this process may become larger than a megabyte."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1024 * 1024, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


async def test_a_large_body_comes_back_as_it_was_in_pieces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    parked = await park(LARGE)
    assert isinstance(parked, Parked)
    assert parked.length == len(LARGE)
    # Nothing is left behind, however the process ends.
    assert os.listdir(tmp_path) == []
    pieces = [piece async for piece in parked.pieces()]
    parked.close()
    assert b"".join(pieces) == LARGE
    assert max(map(len, pieces)) == PIECE_BYTES


async def test_a_small_body_stays_in_memory() -> None:
    small = LARGE[:MOST_IN_MEMORY_BYTES]
    assert await park(small) is small


@pytest.mark.usefixtures("full_disk")
async def test_a_full_disk_leaves_a_large_body_in_memory() -> None:
    assert await park(LARGE) is LARGE


async def test_a_missing_folder_leaves_a_large_body_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "none"))
    assert await park(LARGE) is LARGE
