"""A gateway whose time of day steps."""

import os
import signal
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from gateway.tests.running import Gateway, running

PATIENCE_S = 60


def preloaded() -> Path:
    """The library that gives a process a time of day of its own."""
    found = find_spec("libfaketime")
    assert found is not None
    assert found.origin is not None
    return Path(found.origin).parent / "vendor" / "libfaketime" / "src" / "libfaketime.so.1"


pytestmark = pytest.mark.skipif(
    not preloaded().exists(), reason="libfaketime has no library for this machine"
)


@pytest.fixture
def clock(tmp_path: Path) -> Path:
    """What is written into it is the difference to the machine's time, in seconds."""
    file = tmp_path / "clock"
    file.write_text("+0\n")
    return file


@pytest.fixture
def gateway(tmp_path: Path, clock: Path) -> Iterator[Gateway]:
    variables = {
        "LD_PRELOAD": str(preloaded()),
        "FAKETIME_TIMESTAMP_FILE": str(clock),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "NO_FAKE_STAT": "1",
    }
    with running(tmp_path / "data", **variables) as opened:
        yield opened


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_worker_still_gives_signs_of_life_when_the_clock_has_stepped_back(
    gateway: Gateway, clock: Path
) -> None:
    (worker,) = gateway.workers
    clock.write_text("-3600\n")
    # Each sign of life comes with a look whether the process that started it is still there.
    gateway.process.kill()
    gateway.process.wait()
    deadline = time.monotonic() + PATIENCE_S
    try:
        while is_alive(worker):
            assert time.monotonic() < deadline
            time.sleep(0.05)
    finally:
        if is_alive(worker):
            os.kill(worker, signal.SIGKILL)
