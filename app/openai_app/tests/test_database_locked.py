"""A SQLite file that another program keeps locked: it counts as a database that is away."""

import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from django.conf import settings

from balances.database_errors import SQLITE_BUSY_S
from openai_app.settlement import charge
from openai_app.tests.harness import House, events_of, house, wait_for
from openai_app.tests.idempotent import chat
from openai_app.tests.test_database_hangs import assert_told_in_time, timed

pytestmark = pytest.mark.skipif(
    not settings.DATABASES["default"]["ENGINE"].endswith("sqlite3"), reason="a server locks rows, not files"
)


@pytest.fixture
def served(tmp_path: Path) -> Iterator[House]:
    with house(tmp_path, workers=2) as opened:
        yield opened


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """The database is another program's while the block runs."""
    with closing(sqlite3.connect(folder / "data" / "tollgate.sqlite3", isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        yield
        other.execute("ROLLBACK")


def test_calls_are_told_within_a_second_while_the_file_is_locked_and_served_afterwards(
    served: House, tmp_path: Path
) -> None:
    alice = served.caller()
    assert alice.chat().status == 200
    with locked(tmp_path):
        until = time.monotonic() + 2 * SQLITE_BUSY_S
        while time.monotonic() < until:
            assert_told_in_time(*timed(alice.chat))
            assert_told_in_time(*timed(lambda: chat(alice, "a")))
            assert_told_in_time(*timed(lambda: alice.call("GET", "/v1/files")))
            assert_told_in_time(*timed(lambda: alice.call("GET", "/readyz")))
    wait_for(lambda: alice.chat().status == 200)
    wait_for(lambda: alice.call("GET", "/readyz").status == 200)
    wait_for(lambda: chat(alice, "a").status == 200)
    alice.settled()
    assert len(served.journal()) == len(alice.charges()) == 3
    served.audit()


def test_a_stream_that_ends_while_the_file_is_locked_is_on_disk_and_charged_afterwards(
    served: House, tmp_path: Path
) -> None:
    alice = served.caller()
    served.simulator.fault("tokens=20 stall=2 stall_after=10")
    with alice.chat_stream() as response:
        assert response.readline().startswith(b"data: ")
        with locked(tmp_path):
            assert events_of(response.read().lstrip())[-1] == "[DONE]"
            wait_for(lambda: served.metric("tollgate_owed_charges") >= 1)
            assert any(path.stat().st_size for path in (tmp_path / "data" / "spool").iterdir())
    account = alice.settled()
    (call,) = served.journal()
    assert account["balance"] == 100_000 - call["usage"]["total_tokens"]
    assert [entry["reason"] for entry in alice.charges()] == [charge.FINISHED]
    served.audit()
