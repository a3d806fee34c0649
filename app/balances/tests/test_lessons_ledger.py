"""What went wrong with the books of gateways like this one, and must not here; see docs/lessons.md."""

import io
import os
import uuid
from pathlib import Path
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.core.management import call_command
from django.db import connections

from balances import leases, ledger, statements
from balances.models import Entry, Hold
from balances.operations import Post, Void
from balances.spool import Spool
from balances.tests.acting import Person, dead_worker, done
from balances.tests.test_writer import until
from balances.writer import MAX_BATCH, Writer

pytestmark = pytest.mark.django_db(transaction=True)


class PowerCutError(Exception):
    """What happens between two statements."""


@pytest.fixture
def ann() -> Person:
    return Person("ann", 1000)


@pytest.mark.parametrize("statement", ["insert", "save_accounts", "touch_keys"])
def test_a_crash_between_the_holds_row_and_the_counter_leaves_neither(
    ann: Person, monkeypatch: pytest.MonkeyPatch, statement: str
) -> None:
    """They are one transaction, wherever it is cut."""
    earlier = ann.hold(10, 20)
    done(earlier)

    def cut(*_: Any) -> None:
        raise PowerCutError

    hold = ann.hold(10, 20)
    for operation in (hold, ann.post(earlier, input=10), ann.void(earlier)):
        with monkeypatch.context() as patched:
            patched.setattr(statements, statement, cut)
            with pytest.raises(PowerCutError):
                ledger.apply([operation])
        assert ann.account() == (1000, 30)
        assert ann.charges() == []
        assert [found.id.hex for found in Hold.objects.filter(state=Hold.State.OPEN)] == [earlier.hold_id]
    done(hold)
    assert ann.account() == (1000, 60)


def test_a_refund_that_is_repeated_on_a_retry_gives_back_once(ann: Person) -> None:
    other = ann.hold(10, 20)
    hold = ann.hold(10, 20)
    ledger.apply([other, hold])
    assert ann.account() == (1000, 60)
    for _ in range(3):
        ledger.apply([ann.void(hold), ann.void(hold), ann.void(hold)])
        # What another call holds is not touched by it.
        assert ann.account() == (1000, 30)
    done(ann.post(other, input=10, output=7))
    for _ in range(3):
        done(ann.void(other))
        assert ann.account() == (983, 0)
    assert ann.charges() == [("charge", -17, 983)]


def test_a_call_that_was_refused_is_given_back_what_a_sweep_had_charged_for_it(ann: Person) -> None:
    """Away from the database for longer than its lease, a process had no way to tell of the refusal."""
    hold = ann.hold(10, 20, worker_id=dead_worker())
    done(hold)
    assert leases.sweep() == 1
    assert ann.account() == (990, 0)
    for _ in range(2):
        ledger.apply([ann.void(hold), ann.void(hold)])
        assert ann.account() == (1000, 0)
        assert ann.charges() == [("charge", -10, 990), ("correction", 10, 1000)]
    assert "Refused.; 10 had been charged" in Entry.objects.get(kind=Entry.Kind.CORRECTION).reason
    call_command("audit", stdout=io.StringIO())


def owed_by_a_dead_process(ann: Person, folder: Path, count: int) -> list[Post | Void]:
    """Holds, and their ends in the file of a process that is no more; every tenth is a release.

    Its lease has run out: whoever sweeps before the file is read charges for what was released.
    """
    worker_id = dead_worker()
    holds = [ann.hold(1, 1, worker_id=worker_id) for _ in range(count)]
    for start in range(0, count, MAX_BATCH):
        ledger.apply(holds[start : start + MAX_BATCH])
    owed = [ann.void(h) if number % 10 == 0 else ann.post(h, input=1) for number, h in enumerate(holds)]
    left = Spool(folder, uuid.uuid4().hex)
    left.keep(owed)
    assert left._file is not None
    # As the system does with the file of a process that ends.
    left._file.close()
    return owed


@pytest.mark.parametrize("count", [101, 600])
async def test_more_than_100_charges_owed_are_all_written_in_one_flush(tmp_path: Path, count: int) -> None:
    """And written once, though the file is there a second time, as after a crash in the midst of it."""
    ann = await sync_to_async(Person)("ann", 5000)
    owed = await sync_to_async(owed_by_a_dead_process)(ann, tmp_path, count)
    charged = sum(isinstance(operation, Post) for operation in owed)
    (file,) = [tmp_path / name for name in os.listdir(tmp_path)]
    again = file.read_bytes()
    for _ in range(2):
        writer = Writer(uuid.uuid4().hex, tmp_path)
        writer.start()
        await until(lambda: not file.exists())
        await writer.stop()
        assert await sync_to_async(ann.account)() == (5000 - charged, 0)
        assert len(await sync_to_async(ann.charges)()) == charged
        file.write_bytes(again)
    await sync_to_async(connections.close_all)()
