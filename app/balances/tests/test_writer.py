"""The group-commit writer: an event loop on one side, a database thread on the other."""

import asyncio
import io
import threading
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.core.management import call_command
from django.db import OperationalError, connection, connections, transaction

from balances import ledger, watch, writer
from balances.models import Hold, Rate
from balances.operations import Granted, PlaceHold, Posted
from balances.tests.acting import Person, end_of
from balances.writer import Writer
from common.errors import InsufficientBalance, KeyRejected, Unavailable

pytestmark = pytest.mark.django_db(transaction=True)
PATIENCE_S = 30
only_postgresql = pytest.mark.skipif(
    "connection.vendor != 'postgresql'",
    reason="Only PostgreSQL has this: run it with DATABASE_URL naming one.",
)


@pytest.fixture
def ann() -> Person:
    return Person("ann", 1000)


@pytest.fixture
async def started(ann: Person, tmp_path: Path) -> AsyncIterator[Writer]:
    opened = Writer(uuid.uuid4().hex, tmp_path / "spool")
    opened.start()
    yield opened
    await opened.stop()
    # Those of the thread on which asynchronous tests reach the database.
    await sync_to_async(connections.close_all)()


@contextmanager
def broken(monkeypatch: pytest.MonkeyPatch, error: Exception) -> Iterator[list[int]]:
    """The database raises `error` for as long as the block runs; answers the sizes of the batches tried."""
    tried: list[int] = []

    def fail(operations: Any, book: Any = None) -> Any:
        tried.append(len(operations))
        raise error

    with monkeypatch.context() as patched:
        patched.setattr(ledger, "apply", fail)
        yield tried


async def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not await sync_to_async(condition)():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)


def mine(started: Writer, ann: Person, input: int = 10, output: int = 20) -> PlaceHold:
    return ann.hold(input, output, worker_id=started.worker_id)


async def test_a_hold_is_granted_and_its_post_answered(started: Writer, ann: Person) -> None:
    hold = mine(started, ann)
    granted = await started.submit(hold)
    assert isinstance(granted, Granted)
    assert granted.amount == 30
    assert await started.submit(ann.post(hold, input=10, output=7)) == Posted(17, 983, 983)


async def test_a_refusal_is_raised_to_who_asked_and_to_nobody_else(started: Writer, ann: Person) -> None:
    stranger = PlaceHold(uuid.uuid4().hex, "0" * 64, "x", "y", None, started.worker_id)
    answers = await asyncio.gather(
        *[started.submit(each) for each in (mine(started, ann), stranger, mine(started, ann, 5000))],
        started.submit(mine(started, ann)),
        return_exceptions=True,
    )
    assert [type(answer) for answer in answers] == [Granted, KeyRejected, InsufficientBalance, Granted]


async def test_what_arrives_together_is_committed_together(
    started: Writer, ann: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches: list[int] = []
    apply = ledger.apply

    def counted(operations: Any, book: Any = None) -> Any:
        batches.append(len(operations))
        return apply(operations, book)

    monkeypatch.setattr(ledger, "apply", counted)
    await asyncio.gather(*[started.submit(mine(started, ann, 1, 1)) for _ in range(300)])
    assert sum(batches) == 300
    assert len(batches) < 30
    assert max(batches) <= writer.MAX_BATCH
    assert await sync_to_async(ann.account)() == (1000, 600)


async def test_a_hold_whose_caller_left_while_it_was_granted_is_released(
    started: Writer, ann: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop, apply = asyncio.get_running_loop(), ledger.apply
    has_left = threading.Event()

    def leave() -> None:
        answer.cancel()
        has_left.set()

    def left_meanwhile(operations: Any, book: Any = None) -> Any:
        if isinstance(operations[0], PlaceHold):
            loop.call_soon_threadsafe(leave)
            assert has_left.wait(PATIENCE_S)
        return apply(operations, book)

    monkeypatch.setattr(ledger, "apply", left_meanwhile)
    answer = started.submit(mine(started, ann))
    await until(lambda: Hold.objects.filter(state=Hold.State.VOIDED).count() == 1)
    assert await sync_to_async(ann.account)() == (1000, 0)


async def test_nothing_is_held_for_a_caller_who_left_before(started: Writer, ann: Person) -> None:
    left, stays = mine(started, ann), mine(started, ann)
    started.submit(left).cancel()
    await started.submit(stays)
    assert [hold.id.hex async for hold in Hold.objects.filter(state=Hold.State.OPEN)] == [stays.hold_id]


async def test_a_post_whose_caller_left_is_written(started: Writer, ann: Person) -> None:
    hold = mine(started, ann)
    await started.submit(hold)
    started.submit(ann.post(hold, input=10)).cancel()
    await until(lambda: ann.account() == (990, 0))


async def test_all_that_was_submitted_is_written_before_the_end(ann: Person, tmp_path: Path) -> None:
    opened = Writer(uuid.uuid4().hex, tmp_path)
    opened.start()
    holds = [mine(opened, ann, 1, 1) for _ in range(100)]
    await asyncio.gather(*[opened.submit(hold) for hold in holds])
    for hold in holds:
        opened.submit(ann.post(hold, input=1))
    await opened.stop()
    assert await sync_to_async(ann.account)() == (900, 0)


async def test_a_hold_that_was_granted_at_the_end_to_one_who_left_is_released(
    ann: Person, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened, loop = Writer(uuid.uuid4().hex, tmp_path), asyncio.get_running_loop()
    hold, apply = mine(opened, ann), ledger.apply
    answer = opened.submit(hold)

    def leaving_meanwhile(operations: Any, book: Any = None) -> Any:
        results = apply(operations, book)
        loop.call_soon_threadsafe(answer.cancel)
        return results

    monkeypatch.setattr(ledger, "apply", leaving_meanwhile)
    opened.start()
    await opened.stop()
    assert await sync_to_async(end_of)(hold) == ("voided", "The client left before the call.")


async def test_a_change_of_rates_is_in_force_within_its_time(started: Writer, ann: Person) -> None:
    first, second = mine(started, ann), mine(started, ann)
    await started.submit(first)
    await started.submit(second)
    assert (await started.submit(ann.post(first, input=10))) == Posted(10, 990, 960)
    await Rate.objects.acreate(model="*", unit="input", credits_per_unit="3")
    await asyncio.sleep(writer.BOOK_AGE_S + 0.5)
    assert (await started.submit(ann.post(second, input=10))) == Posted(30, 960, 960)


# --- a database that is away ----------------------------------------------------------------------------


async def test_without_a_database_holds_are_refused_at_once_and_posts_are_owed(
    started: Writer, ann: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    hold = mine(started, ann)
    await started.submit(hold)
    with broken(monkeypatch, OperationalError("server closed the connection unexpectedly")):
        with pytest.raises(Unavailable) as refusal:
            await started.submit(mine(started, ann))
        assert refusal.value.headers == {"retry-after": "1"}
        with pytest.raises(Unavailable):
            await started.submit(ann.post(hold, input=10, output=7))
        assert started.owed == 1
    await until(lambda: started.owed == 0)
    assert await sync_to_async(ann.account)() == (983, 0)
    assert isinstance(await started.submit(mine(started, ann)), Granted)


async def test_a_hold_that_was_committed_while_the_connection_broke_is_released(
    started: Writer, ann: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    apply = ledger.apply

    def commit_then_break(operations: Any, book: Any = None) -> Any:
        apply(operations, book)
        raise OperationalError("connection lost at the commit's answer")

    with monkeypatch.context() as patched:
        patched.setattr(ledger, "apply", commit_then_break)
        with pytest.raises(Unavailable):
            await started.submit(mine(started, ann))
    await until(lambda: ann.account() == (1000, 0))
    assert [hold.state async for hold in Hold.objects.all()] == [Hold.State.VOIDED]


async def test_a_post_that_was_committed_while_the_connection_broke_is_charged_once(
    started: Writer, ann: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    hold = mine(started, ann)
    await started.submit(hold)
    apply = ledger.apply

    def commit_then_break(operations: Any, book: Any = None) -> Any:
        apply(operations, book)
        raise OperationalError("connection lost at the commit's answer")

    with monkeypatch.context() as patched:
        patched.setattr(ledger, "apply", commit_then_break)
        with pytest.raises(Unavailable):
            await started.submit(ann.post(hold, input=10, output=7))
    await until(lambda: started.owed == 0)
    assert await sync_to_async(ann.charges)() == [("charge", -17, 983)]


async def test_one_operation_that_cannot_be_written_does_not_take_the_others_with_it(
    started: Writer, ann: Person
) -> None:
    bad = mine(started, ann)
    # Nothing of the kind is let in from outside; were it, PostgreSQL could not keep it.
    bad = PlaceHold(bad.hold_id, bad.digest, bad.operation, "a\x00b", bad.estimate, bad.worker_id)
    answers = await asyncio.gather(
        *[started.submit(each) for each in (mine(started, ann), bad, mine(started, ann))],
        return_exceptions=True,
    )
    assert [type(answer) for answer in answers][::2] == [Granted, Granted]
    assert type(answers[1]) is (Unavailable if connection.vendor == "postgresql" else Granted)


async def test_the_thread_outlives_an_error_that_nobody_expected(
    started: Writer, ann: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    with broken(monkeypatch, RuntimeError("a bug")), pytest.raises(Unavailable):
        await started.submit(mine(started, ann))
    assert isinstance(await started.submit(mine(started, ann)), Granted)


async def test_when_too_many_wait_holds_are_refused_at_once_and_posts_still_taken(
    ann: Person, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "MAX_WAITING", 2)
    # Not started yet: nobody takes anything out.
    opened = Writer(uuid.uuid4().hex, tmp_path)
    waiting = [opened.submit(mine(opened, ann)) for _ in range(3)]
    with pytest.raises(Unavailable, match="overloaded"):
        await opened.submit(mine(opened, ann))
    opened.start()
    assert {type(answer) for answer in await asyncio.gather(*waiting)} == {Granted}
    await opened.stop()


# --- locks of a real database ---------------------------------------------------------------------------


def backends_waiting_for_a_lock() -> int:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(*) FROM pg_stat_activity"
            " WHERE datname = current_database() AND wait_event_type = 'Lock'"
        )
        return int(cursor.fetchone()[0])


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waits for locks as long as the server takes to notice a deadlock, which it looks for after a second."""
    monkeypatch.setattr(writer, "LOCK_TIMEOUT_MS", PATIENCE_S * 1000)
    monkeypatch.setattr(writer, "STATEMENT_TIMEOUT_MS", PATIENCE_S * 1000)
    monkeypatch.setattr(watch, "STUCK_S", PATIENCE_S)


@only_postgresql
async def test_a_batch_that_loses_a_deadlock_is_tried_again(
    patient: None, started: Writer, ann: Person
) -> None:
    ben = await sync_to_async(Person)("ben", 1000)
    first, second = sorted((ann, ben), key=lambda person: person.id)
    has_second, writer_waits = threading.Event(), threading.Event()

    def cross() -> None:
        """Locks the accounts the wrong way round, and waits longer than the writer before it complains."""
        try:
            with transaction.atomic(), connection.cursor() as cursor:
                cursor.execute("SET LOCAL deadlock_timeout = '30s'")
                cursor.execute("SELECT 1 FROM balances_account WHERE user_id = %s FOR UPDATE", [second.id])
                has_second.set()
                assert writer_waits.wait(PATIENCE_S)
                cursor.execute("SELECT 1 FROM balances_account WHERE user_id = %s FOR UPDATE", [first.id])
        finally:
            connections.close_all()

    # Both in one batch: the writer's thread is kept busy while they arrive.
    holds = [mine(started, first), mine(started, second)]
    thread = threading.Thread(target=cross)
    thread.start()
    assert await asyncio.to_thread(has_second.wait, PATIENCE_S)
    answers = [started.submit(hold) for hold in holds]
    await until(lambda: backends_waiting_for_a_lock() == 1)
    writer_waits.set()
    assert {type(answer) for answer in await asyncio.gather(*answers)} == {Granted}
    await asyncio.to_thread(thread.join)


@only_postgresql
async def test_an_account_that_someone_keeps_locked_does_not_hold_up_the_others(
    started: Writer, ann: Person
) -> None:
    ben = await sync_to_async(Person)("ben", 1000)
    is_locked, may_go = threading.Event(), threading.Event()

    def keep() -> None:
        try:
            with transaction.atomic(), connection.cursor() as cursor:
                cursor.execute("SELECT 1 FROM balances_account WHERE user_id = %s FOR UPDATE", [ann.id])
                is_locked.set()
                assert may_go.wait(PATIENCE_S)
        finally:
            connections.close_all()

    thread = threading.Thread(target=keep)
    thread.start()
    assert await asyncio.to_thread(is_locked.wait, PATIENCE_S)
    answers = await asyncio.gather(
        started.submit(mine(started, ann)), started.submit(mine(started, ben)), return_exceptions=True
    )
    may_go.set()
    await asyncio.to_thread(thread.join)
    assert [type(answer) for answer in answers] == [Unavailable, Granted]
    await until(lambda: ann.account() == (1000, 0))


@only_postgresql
async def test_a_connection_that_the_server_ends_is_made_anew(
    started: Writer, ann: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    hold = mine(started, ann)
    backends: list[int] = []
    apply = ledger.apply

    def noting_the_backend(operations: Any, book: Any = None) -> Any:
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_backend_pid()")
            backends.append(cursor.fetchone()[0])
        return apply(operations, book)

    with monkeypatch.context() as patched:
        patched.setattr(ledger, "apply", noting_the_backend)
        await started.submit(hold)

    def end_it() -> None:
        with connection.cursor() as cursor:
            # It has said goodbye when this is true.
            cursor.execute("SELECT pg_terminate_backend(%s, 60000)", [backends[0]])
            assert cursor.fetchone() == (True,)

    await sync_to_async(end_it)()
    # Nobody is told of it.
    assert isinstance(await started.submit(ann.post(hold, input=10, output=7)), Posted)
    assert await sync_to_async(ann.account)() == (983, 0)
    assert isinstance(await started.submit(mine(started, ann)), Granted)


@only_postgresql
async def test_a_server_that_only_reads_is_away_and_what_is_owed_is_kept(
    started: Writer, ann: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one that a failover has left behind."""
    hold, apply, tries = mine(started, ann), ledger.apply, 0
    await started.submit(hold)

    def only_reading(operations: Any, book: Any = None) -> Any:
        nonlocal tries
        tries += 1
        with connection.cursor() as cursor:
            cursor.execute("SET default_transaction_read_only = on")
        return apply(operations, book)

    with monkeypatch.context() as patched:
        patched.setattr(ledger, "apply", only_reading)
        with pytest.raises(Unavailable):
            await started.submit(ann.post(hold, input=10, output=7))
        await until(lambda: tries > 2)
    await until(lambda: ann.account() == (983, 0))
    assert isinstance(await started.submit(mine(started, ann)), Granted)


async def test_the_ledger_adds_up_after_all_this(started: Writer, ann: Person) -> None:
    holds = [mine(started, ann, 1, 1) for _ in range(50)]
    await asyncio.gather(*[started.submit(hold) for hold in holds])
    ends = [ann.post(h, input=1) if i % 2 else ann.void(h) for i, h in enumerate(holds)]
    await asyncio.gather(*[started.submit(end) for end in ends])

    # It raises where it does not add up.
    await sync_to_async(call_command)("audit", stdout=io.StringIO())
    assert await sync_to_async(ann.account)() == (975, 0)
