"""The rows of calls with an Idempotency-Key: each belongs to one call at a time."""

import time
import uuid
from collections.abc import Callable
from unittest.mock import ANY

import pytest

from balances import leases
from balances.leases import Suspects
from balances.models import Hold
from balances.operations import Defer, Progress
from balances.tests.acting import Person, dead_worker, done, living_worker
from openai_app.idempotency import rows
from openai_app.idempotency.rows import Asked, Kept, Other, UnderWay
from openai_app.models import IdempotentCall
from openai_app.tests.idempotent import grow_older

pytestmark = pytest.mark.django_db

ROW = "0" * 64


def claim(asked: Asked, suspects: Suspects | None = None) -> Kept | UnderWay | Other | None:
    """Claims as one who has seen nobody without a lease so far, or those whom `suspects` has seen."""
    return rows.claim(asked, suspects or Suspects())


def asked(worker_id: str = "", digest: str = "d" * 64) -> Asked:
    return Asked(ROW, digest, uuid.uuid4().hex, worker_id or living_worker())


def test_the_first_call_has_the_row_and_the_second_is_told() -> None:
    assert claim(asked()) is None
    assert isinstance(claim(asked()), UnderWay)
    assert isinstance(claim(asked(digest="e" * 64)), Other)


def test_a_finished_call_is_told_as_it_was() -> None:
    first = asked()
    claim(first)
    headers = [(b"content-type", b"text/plain"), (b"openai-model", b"gr\xf6\xdfe")]
    assert rows.finish(first, 201, headers, b"\0\xff", None)
    assert claim(asked()) == Kept(first.request_id, 201, headers, b"\0\xff")
    rows.release(first)
    assert isinstance(claim(asked()), Kept)


def test_a_released_row_is_the_next_calls() -> None:
    first = asked()
    claim(first)
    rows.release(first)
    assert claim(asked(digest="e" * 64)) is None


def test_the_row_of_a_process_that_is_gone_is_the_next_calls_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "SURELY_DEAD_S", 0)
    abandoned = asked(dead_worker())
    claim(abandoned)
    assert claim(second := asked()) is None
    assert isinstance(claim(asked()), UnderWay)
    # The first one was not dead after all: what is the second one's is not touched.
    assert not rows.finish(abandoned, 200, [], b"late", None)
    rows.release(abandoned)
    assert rows.finish(second, 200, [], b"second", None)
    assert claim(asked()) == Kept(second.request_id, 200, [], b"second")


@pytest.mark.parametrize("is_known", [True, False], ids=["its lease ran out", "unheard of"])
def test_a_row_is_another_calls_when_its_process_has_had_no_lease_for_a_while(
    monkeypatch: pytest.MonkeyPatch, is_known: bool
) -> None:
    monkeypatch.setattr(leases, "SURELY_DEAD_S", 0.05)
    claim(asked(dead_worker() if is_known else uuid.uuid4().hex))
    suspects = Suspects()
    assert isinstance(claim(asked(), suspects), UnderWay)
    time.sleep(0.05)
    # Who has not seen it so long must not believe it.
    assert isinstance(claim(asked()), UnderWay)
    assert claim(asked(), suspects) is None


def test_a_row_is_another_calls_as_soon_as_any_process_has_found_its_own_dead(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(leases, "SURELY_DEAD_S", 0.05)
    claim(asked(dead_worker()))
    sweeper = leases.Sweeper()
    sweeper.sweep()
    assert claim(asked()) == UnderWay(ANY, has_lease=False)
    time.sleep(0.05)
    sweeper.sweep()
    # By one who has never looked before.
    assert claim(asked()) is None


def test_a_row_stays_with_a_process_that_renews_its_lease(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "SURELY_DEAD_S", 0.05)
    claim(first := asked(dead_worker()))
    suspects = Suspects()
    assert isinstance(claim(asked(), suspects), UnderWay)
    time.sleep(0.05)
    leases.take(first.worker_id)
    assert isinstance(claim(asked(), suspects), UnderWay)
    # As when the clock steps on.
    leases.release(first.worker_id)
    assert isinstance(claim(asked(), suspects), UnderWay)
    assert rows.finish(first, 200, [], b"first", None)
    assert claim(asked(), suspects) == Kept(first.request_id, 200, [], b"first")


def test_a_finished_row_stays_when_its_process_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "SURELY_DEAD_S", 0)
    first = asked(dead_worker())
    claim(first)
    rows.finish(first, 200, [], b"kept", None)
    assert isinstance(claim(asked()), Kept)


def test_a_row_is_kept_for_a_day() -> None:
    first = asked()
    claim(first)
    rows.finish(first, 200, [], b"kept", None)
    grow_older(23.9)
    assert isinstance(claim(asked()), Kept)
    grow_older(0.2)
    assert claim(asked(digest="e" * 64)) is None


@pytest.mark.parametrize("count", [0, 1, 5])
def test_old_rows_are_deleted_in_pieces(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "PURGED_AT_ONCE", 2)
    worker = living_worker()
    for number in range(count):
        claim(Asked(f"{number:064}", "d" * 64, uuid.uuid4().hex, worker))
    grow_older(24.1)
    claim(Asked("f" * 64, "d" * 64, uuid.uuid4().hex, worker))
    pieces = []
    while some := rows.purge():
        pieces.append(some)
    assert sum(pieces) == count
    assert all(some <= 2 for some in pieces)
    assert [row.id for row in IdempotentCall.objects.all()] == ["f" * 64]


@pytest.mark.parametrize(
    ("told", "field", "value"),
    [
        (
            lambda hold, user: Progress(hold, user, {"input": 3, "output": 4}),
            "counted",
            {"input": 3, "output": 4},
        ),
        (lambda hold, user: Defer(hold, user, "batch /batches/b"), "awaits", "batch /batches/b"),
    ],
    ids=["usage", "deferred"],
)
def test_with_the_answer_the_hold_knows_how_it_ends(
    told: Callable[[str, int], Progress | Defer], field: str, value: object
) -> None:
    ann = Person("ann", 100)
    done(hold := ann.hold())
    first = Asked(ROW, "d" * 64, hold.hold_id, hold.worker_id)
    claim(first)
    rows.finish(first, 200, [], b"", told(hold.hold_id, ann.id))
    assert getattr(Hold.objects.get(id=hold.hold_id), field) == value
