"""A process's claim on its holds, and what becomes of them when it ends."""

import time
import uuid
from datetime import timedelta

import pytest
from django.db.models.functions import Now

from balances import leases
from balances.models import Hold, Worker
from balances.operations import Defer, Progress
from balances.tests.acting import Person, dead_worker, done, end_of, living_worker

pytestmark = pytest.mark.django_db


@pytest.fixture
def ann() -> Person:
    return Person("ann", 100)


def test_a_hold_of_a_living_process_is_left_alone(ann: Person) -> None:
    hold = ann.hold(worker_id=living_worker())
    done(hold)
    assert leases.sweep() == 0
    assert end_of(hold) == ("open", "")


def test_a_hold_of_a_dead_process_is_charged_as_counted(ann: Person) -> None:
    hold = ann.hold(10, 20, worker_id=dead_worker())
    done(hold)
    done(Progress(hold.hold_id, ann.id, {"input": 10, "output": 5}))
    assert leases.sweep() == 1
    assert end_of(hold) == ("posted", leases.DIED)
    assert (ann.account(), ann.charges()) == ((85, 0), [("charge", -15, 85)])
    assert leases.sweep() == 0


def test_a_hold_of_a_dead_process_costs_its_input_when_no_output_was_counted(ann: Person) -> None:
    hold = ann.hold(10, 20, worker_id=dead_worker())
    done(hold)
    leases.sweep()
    assert ann.charges() == [("charge", -10, 90)]


def test_a_hold_of_which_nothing_was_counted_is_released(ann: Person) -> None:
    hold = ann.hold(10, 20, worker_id=dead_worker())
    done(hold)
    Hold.objects.update(counted={})
    assert leases.sweep() == 1
    assert end_of(hold) == ("voided", leases.DIED_UNCOUNTED)
    assert (ann.account(), ann.charges()) == ((100, 0), [])


def test_a_sweep_may_be_told_of_which_processes(ann: Person) -> None:
    first, second = dead_worker(), dead_worker()
    for worker_id in (first, second):
        done(ann.hold(1, 1, worker_id=worker_id))
    assert leases.sweep(of={uuid.UUID(second)}) == 1
    (left,) = Hold.objects.filter(state=Hold.State.OPEN)
    assert left.worker_id == uuid.UUID(first)


def test_a_lease_from_before_the_clock_stepped_back_is_none(ann: Person) -> None:
    worker_id = living_worker()
    done(ann.hold(worker_id=worker_id))
    Worker.objects.filter(id=worker_id).update(lease_until=Now() + timedelta(hours=1))
    assert leases.sweep() == 1


def test_a_process_is_dead_when_it_has_had_no_lease_for_a_while(
    ann: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "SURELY_DEAD_S", 0.05)
    done(ann.hold(worker_id=dead_worker()))
    sweeper = leases.Sweeper()
    assert sweeper.sweep() == 0
    time.sleep(0.05)
    assert sweeper.sweep() == 1


def test_who_is_found_dead_is_known_to_be_by_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "SURELY_DEAD_S", 0.05)
    living, dead = living_worker(), dead_worker()
    sweeper = leases.Sweeper()
    sweeper.sweep()
    time.sleep(0.05)
    sweeper.sweep()
    marked = Worker.objects.get(id=dead)
    assert leases.Suspects().is_dead(marked.id, marked.lease_until)
    assert Worker.objects.get(id=living).lease_until > marked.lease_until
    # If it lives after all, it says so.
    leases.take(dead)
    lease_until = Worker.objects.get(id=dead).lease_until
    assert not leases.Suspects().is_dead(marked.id, lease_until)


@pytest.mark.parametrize("event", ["it renews its lease", "the database was away"])
def test_a_process_without_a_lease_for_a_moment_lives(
    ann: Person, monkeypatch: pytest.MonkeyPatch, event: str
) -> None:
    monkeypatch.setattr(leases, "SURELY_DEAD_S", 0.05)
    worker_id = dead_worker()
    done(ann.hold(worker_id=worker_id))
    sweeper = leases.Sweeper()
    assert sweeper.sweep() == 0
    time.sleep(0.05)
    if event == "it renews its lease":
        leases.take(worker_id)
        # As when the clock steps on.
        leases.release(worker_id)
    else:
        sweeper.forget()
    assert sweeper.sweep() == 0


def test_a_hold_of_a_process_that_was_never_heard_of_is_swept(ann: Person) -> None:
    done(ann.hold(worker_id="0" * 32))
    assert leases.sweep() == 1


def test_a_hold_that_awaits_later_work_outlives_its_process(ann: Person) -> None:
    hold = ann.hold(worker_id=dead_worker())
    done(hold)
    done(Defer(hold.hold_id, ann.id, "batch_1"))
    assert leases.sweep() == 0
    assert end_of(hold) == ("open", "")


def test_a_sweep_ends_no_more_than_it_was_told_oldest_first(ann: Person) -> None:
    dead = dead_worker()
    holds = [ann.hold(1, 1, worker_id=dead) for _ in range(5)]
    for hold in holds:
        done(hold)
    assert [leases.sweep(limit=2) for _ in range(4)] == [2, 2, 1, 0]
    assert [end_of(hold)[0] for hold in holds] == ["posted"] * 5


def test_a_lease_is_renewed_and_given_up(ann: Person) -> None:
    worker_id = dead_worker()
    done(ann.hold(worker_id=worker_id))
    leases.take(worker_id)
    assert Worker.objects.count() == 1
    assert leases.sweep() == 0
    leases.release(worker_id)
    assert leases.sweep() == 1


def test_processes_long_gone_are_forgotten_unless_they_own_an_open_hold(ann: Person) -> None:
    living, owning, gone = living_worker(), dead_worker(), dead_worker()
    done(ann.hold(worker_id=owning))
    Worker.objects.filter(id__in=(owning, gone)).update(lease_until=Now() - timedelta(days=2))
    assert leases.forget_old_workers() == 1
    assert {worker.id.hex for worker in Worker.objects.all()} == {living, owning}
