"""What the writer does beside serving: nothing in it may keep it from serving, or cost it its lease."""

import asyncio
import threading
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.db import connection, connections, transaction

from balances import debts, leases, ledger
from balances.debts import DOUBTED, Debts
from balances.models import Hold, Worker
from balances.operations import Granted, Posted, Progress, Void
from balances.spool import Spool
from balances.tests.acting import Person, dead_worker, done, end_of
from balances.tests.test_writer import PATIENCE_S, mine, only_postgresql, until
from balances.writer import Writer
from common.errors import Unavailable

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def ann() -> Person:
    return Person("ann", 1000)


@pytest.fixture
async def started(ann: Person, tmp_path: Path) -> AsyncIterator[Writer]:
    opened = Writer(uuid.uuid4().hex, tmp_path / "spool")
    opened.start()
    yield opened
    await opened.stop()
    await sync_to_async(connections.close_all)()


@contextmanager
def locked(person: Person) -> Iterator[None]:
    """Someone else keeps the account's row locked while the block runs."""
    is_locked, may_go = threading.Event(), threading.Event()

    def keep() -> None:
        try:
            with transaction.atomic(), connection.cursor() as cursor:
                cursor.execute("SELECT 1 FROM balances_account WHERE user_id = %s FOR UPDATE", [person.id])
                is_locked.set()
                assert may_go.wait(PATIENCE_S)
        finally:
            connections.close_all()

    thread = threading.Thread(target=keep)
    thread.start()
    assert is_locked.wait(PATIENCE_S)
    try:
        yield
    finally:
        may_go.set()
        thread.join()


@only_postgresql
async def test_a_charge_that_waits_for_a_locked_account_costs_neither_the_lease_nor_others_their_turn(
    started: Writer, ann: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "RENEW_EVERY_S", 0.1)
    ben = await sync_to_async(Person)("ben", 1000)
    holds = [mine(started, ann, 1, 1) for _ in range(3)]
    await asyncio.gather(*[started.submit(hold) for hold in holds])
    block = locked(ann)
    await asyncio.to_thread(block.__enter__)
    try:
        for hold in holds:
            with pytest.raises(Unavailable):
                await started.submit(ann.post(hold, input=1))
        assert started.owed == 3
        lease = await sync_to_async(lambda: Worker.objects.get(id=started.worker_id).lease_until)()
        for _ in range(3):
            assert isinstance(await started.submit(mine(started, ben, 1, 1)), Granted)
        await until(lambda: Worker.objects.get(id=started.worker_id).lease_until > lease)
        assert started.owed == 3
    finally:
        await asyncio.to_thread(block.__exit__, None, None, None)
    await until(lambda: ann.account() == (997, 0))
    await until(lambda: started.owed == 0)


@only_postgresql
async def test_of_a_batch_the_calls_of_a_locked_account_wait_once(
    started: Writer, ann: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    ben = await sync_to_async(Person)("ben", 1000)
    tried: list[int] = []
    apply = started._apply

    def counted(operations: object) -> object:
        tried.append(len(operations))  # type: ignore[arg-type]
        return apply(operations)  # type: ignore[arg-type]

    monkeypatch.setattr(started, "_apply", counted)
    block = locked(ann)
    await asyncio.to_thread(block.__enter__)
    try:
        answers = [started.submit(mine(started, ann, 1, 1)) for _ in range(20)]
        answers.append(started.submit(mine(started, ben, 1, 1)))
        results = await asyncio.gather(*answers, return_exceptions=True)
    finally:
        await asyncio.to_thread(block.__exit__, None, None, None)
    assert [type(result) for result in results] == [Unavailable] * 20 + [Granted]
    # The batch, or the two that it came in; then of each account one by itself.
    assert len(tried) <= 6


async def test_a_fault_in_what_others_left_keeps_nobody_from_being_served(
    ann: Person, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[None] = []

    def fail(self: leases.Sweeper) -> int:
        tried.append(None)
        raise KeyError("a unit of a later version")

    monkeypatch.setattr(leases.Sweeper, "sweep", fail)
    # On a slow machine the calls below may last until the next turn of the house.
    monkeypatch.setattr(leases, "RENEW_EVERY_S", 60.0)
    opened = Writer(uuid.uuid4().hex, tmp_path)
    opened.start()
    for _ in range(5):
        hold = mine(opened, ann, 1, 1)
        assert isinstance(await opened.submit(hold), Granted)
        assert isinstance(await opened.submit(ann.post(hold, input=1)), Posted)
    # Not with every turn of the thread.
    assert len(tried) == 1
    assert await sync_to_async(Worker.objects.filter(id=opened.worker_id).exists)()
    await opened.stop()
    await sync_to_async(connections.close_all)()


async def test_a_dead_processes_file_that_cannot_be_read_keeps_nobody_from_being_served(
    ann: Person, tmp_path: Path
) -> None:
    # A folder in the place of a file: whatever is done with it fails.
    (tmp_path / "0.jsonl").mkdir()
    owing = Spool(tmp_path, "1")
    hold = ann.hold(10, 20, worker_id=await sync_to_async(dead_worker)())
    await sync_to_async(done)(hold)
    owing.keep([ann.post(hold, input=10, output=5)])
    assert owing._file is not None
    owing._file.close()
    opened = Writer(uuid.uuid4().hex, tmp_path)
    opened.start()
    assert isinstance(await opened.submit(mine(opened, ann, 1, 1)), Granted)
    await until(lambda: end_of(hold)[0] == "posted")
    await opened.stop()
    await sync_to_async(connections.close_all)()


async def test_calls_are_served_between_the_parts_of_a_long_replay(
    ann: Person, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(debts, "AT_ONCE", 2)
    owing = Spool(tmp_path, "1")
    holds = [ann.hold(1, 1, worker_id=await sync_to_async(dead_worker)()) for _ in range(40)]
    for hold in holds:
        await sync_to_async(done)(hold)
    owing.keep([Void(hold.hold_id, ann.id, "Refused.") for hold in holds])
    assert owing._file is not None
    owing._file.close()
    opened = Writer(uuid.uuid4().hex, tmp_path)
    voided: list[int] = []
    answer = opened._answer

    def noted(outcomes: Any) -> None:
        # On the thread that goes on with the replay, which may be over by the time that the caller looks.
        voided.append(Hold.objects.filter(state="voided").count())
        answer(outcomes)

    monkeypatch.setattr(opened, "_answer", noted)
    granted = opened.submit(mine(opened, ann, 1, 1))
    opened.start()
    assert isinstance(await granted, Granted)
    assert voided[0] < 40
    await until(lambda: Hold.objects.filter(state="voided").count() == 40)
    await until(lambda: not list(tmp_path.glob("1.jsonl")))
    await opened.stop()
    await sync_to_async(connections.close_all)()


async def test_a_hold_that_was_in_doubt_when_its_process_died_costs_nothing(
    ann: Person, tmp_path: Path
) -> None:
    """Its caller had been told that the database was away."""
    hold = ann.hold(10, 20, worker_id=await sync_to_async(dead_worker)())
    await sync_to_async(done)(hold)
    ended = Debts(tmp_path, "1", ledger.apply, nullcontext)
    ended.doubt([hold.hold_id, uuid.uuid4().hex])
    assert ended._spool._file is not None
    ended._spool._file.close()
    opened = Writer(uuid.uuid4().hex, tmp_path)
    opened.start()
    await until(lambda: end_of(hold) == ("voided", DOUBTED))
    await until(lambda: not list(tmp_path.glob("1.jsonl")))
    assert await sync_to_async(ann.account)() == (1000, 0)
    await opened.stop()
    await sync_to_async(connections.close_all)()


@pytest.mark.parametrize(("noted_since", "counts"), [(3, 7), (40, 40)])
def test_a_note_that_a_dead_process_left_counts_where_the_ledger_has_heard_of_no_later_one(
    ann: Person, tmp_path: Path, noted_since: int, counts: int
) -> None:
    """The file stays for as long as anything in it is open, and meanwhile the ledger hears of later notes."""
    hold = ann.hold(10, 50)
    done(hold)
    dead = Spool(tmp_path, "1")
    dead.keep([Progress(hold.hold_id, ann.id, {"input": 10, "output": 7})])
    dead.close()
    done(Progress(hold.hold_id, ann.id, {"input": 10, "output": noted_since}))
    for _ in Debts(tmp_path, "2", ledger.apply, nullcontext).adopt_orphans():
        pass
    assert Hold.objects.get().counted == {"input": 10, "output": counts}
    assert not list(tmp_path.glob("1.jsonl"))


def test_one_hold_that_cannot_be_swept_leaves_the_others_to_be(ann: Person) -> None:
    holds = [ann.hold(10, 20, worker_id=dead_worker()) for _ in range(3)]
    for hold in holds:
        done(hold)
        done(Progress(hold.hold_id, ann.id, {"input": 10}))
    # As a later version has written it.
    Hold.objects.filter(id=holds[1].hold_id).update(counted={"unheard_of": 3})
    assert leases.sweep() == 2
    assert [end_of(hold)[0] for hold in holds] == ["posted", "open", "posted"]
