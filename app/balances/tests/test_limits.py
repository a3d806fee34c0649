"""Limits in the ledger: what passes, what is refused, and what comes back; at a time that stands still."""

import threading
import uuid
from typing import Any

import pytest
from django.db import connection, connections
from django.db.models import F

from balances import ledger, statements
from balances.limits import MINUTE_US, LimitReached
from balances.models import Account, Hold, Level
from balances.operations import Allowance, Defer, Granted, PlaceHold
from balances.tests.acting import Person, dead_worker, done, refused
from balances.usage import Estimate
from users.models import ApiKey, User

pytestmark = pytest.mark.django_db


class Clock:
    """The ledger's time, which passes when a test says so."""

    def __init__(self) -> None:
        self.now_us = 1_800_000_000_000_000

    def pass_by(self, seconds: float) -> None:
        self.now_us += round(seconds * 1_000_000)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    stands_still = Clock()
    monkeypatch.setattr(statements, "clock", lambda: ("%s", [stands_still.now_us]))
    return stands_still


@pytest.fixture
def ann(clock: Clock) -> Person:
    return Person("ann", 1_000_000)


def limit_user(person: Person, **limits: int | None) -> None:
    User.objects.filter(pk=person.id).update(**limits)


def limit_key(person: Person, **limits: int | None) -> None:
    ApiKey.objects.filter(pk=person.key.pk).update(**limits)


def second_key(person: Person) -> str:
    """The digest of a further key of the person's."""
    key, _ = ApiKey.issue(user=person.user, name="Another")
    return key.digest


def by(digest: str, hold: PlaceHold) -> PlaceHold:
    return PlaceHold(**{**_fields(hold), "digest": digest})


def recognise(person: Person, *, is_limited: bool = True) -> PlaceHold:
    return PlaceHold(**{**_fields(person.hold()), "estimate": None, "is_limited": is_limited})


def _fields(hold: PlaceHold) -> dict[str, Any]:
    return {name: getattr(hold, name) for name in PlaceHold.__slots__}


def limit_of(operation: PlaceHold) -> LimitReached:
    error = refused(operation)
    assert isinstance(error, LimitReached)
    return error


def granted(operation: PlaceHold) -> Granted:
    result = done(operation)
    assert isinstance(result, Granted)
    return result


# --- nobody has limits ------------------------------------------------------------------------------------


def test_without_limits_nothing_is_counted_and_nothing_told(ann: Person) -> None:
    hold = ann.hold()
    assert granted(hold).allowances is None
    done(ann.post(hold, input=10))
    assert not Level.objects.exists()
    assert Hold.objects.values_list("tokens", "tokens_until").get() == (None, None)


# --- requests ---------------------------------------------------------------------------------------------


def test_of_a_batch_exactly_so_many_requests_pass_as_the_user_may_make(ann: Person) -> None:
    limit_user(ann, requests_per_minute=3)
    results = ledger.apply([ann.hold() for _ in range(10)])
    assert [isinstance(result, Granted) for result in results] == [True] * 3 + [False] * 7
    assert ann.account() == (1_000_000, 90)


def test_a_refusal_says_which_limit_how_much_was_used_and_when_to_try_again(ann: Person) -> None:
    limit_key(ann, requests_per_minute=3)
    for _ in range(3):
        done(ann.hold())
    error = limit_of(ann.hold())
    assert error.message == (
        "Rate limit reached for gpt-4o-mini on requests per min (RPM) of your API key: Limit 3, Used 3, "
        "Requested 1. Please try again in 20s."
    )
    assert (error.status, error.type, error.code) == (429, "requests", "rate_limit_exceeded")
    assert error.headers == {"retry-after": "20", "retry-after-ms": "20000"}
    assert error.allowances.requests == Allowance(limit=3, remaining=0, reset_us=60_000_000)


def test_who_waits_as_long_as_the_refusal_says_passes(ann: Person, clock: Clock) -> None:
    limit_user(ann, requests_per_minute=600, tokens_per_minute=100)
    done(ann.hold(10, 80))
    error = limit_of(ann.hold(10, 80))
    assert (error.type, error.headers) == ("tokens", {"retry-after": "48", "retry-after-ms": "48000"})
    clock.pass_by(47.99)
    assert limit_of(ann.hold(10, 80)).headers == {"retry-after": "1", "retry-after-ms": "10"}
    clock.pass_by(0.01)
    done(ann.hold(10, 80))


def test_a_refused_call_takes_from_no_limit_and_holds_nothing(ann: Person) -> None:
    limit_user(ann, requests_per_minute=5, tokens_per_minute=100)
    limit_key(ann, requests_per_minute=2)
    done(ann.hold(10, 10))
    limit_of(ann.hold(10, 90))
    limit_of(ann.hold(10, 200))
    left = granted(ann.hold(10, 10)).allowances
    assert left is not None
    assert left.requests == Allowance(limit=2, remaining=0, reset_us=60_000_000)
    assert left.tokens == Allowance(limit=100, remaining=60, reset_us=24_000_000)
    limit_of(ann.hold(10, 10))
    assert ann.account() == (1_000_000, 40)
    assert Hold.objects.count() == 2


def test_the_users_limit_is_all_keys_together_and_a_keys_its_own(ann: Person) -> None:
    limit_user(ann, requests_per_minute=3)
    limit_key(ann, requests_per_minute=1)
    other = second_key(ann)
    done(ann.hold())
    assert "of your API key" in limit_of(ann.hold()).message
    done(by(other, ann.hold()))
    done(by(other, ann.hold()))
    assert "of your account" in limit_of(by(other, ann.hold())).message


def test_one_users_limit_is_not_anothers(ann: Person) -> None:
    ben = Person("ben", 1_000)
    for person in (ann, ben):
        limit_user(person, requests_per_minute=1)
    results = ledger.apply([ann.hold(), ben.hold(), ann.hold(), ben.hold()])
    assert [isinstance(result, Granted) for result in results] == [True, True, False, False]


def test_a_free_call_counts_as_a_request_and_one_that_is_only_recognised_does_not(ann: Person) -> None:
    limit_user(ann, requests_per_minute=1, tokens_per_minute=1, parallel_calls=1)
    done(recognise(ann, is_limited=False))
    done(recognise(ann))
    assert "on requests per min" in limit_of(recognise(ann)).message
    done(recognise(ann, is_limited=False))


def test_a_balance_that_does_not_cover_the_call_takes_nothing_from_a_limit(clock: Clock) -> None:
    poor = Person("poor", 5)
    limit_user(poor, requests_per_minute=1)
    assert refused(poor.hold(10, 10)).status == 402
    ledger.set_balance(user_id=poor.id, to_credits=100, by_id=None, reason="Now")
    done(poor.hold(10, 10))


# --- limits that change -----------------------------------------------------------------------------------


def test_a_changed_limit_is_in_force_with_the_next_call(ann: Person) -> None:
    limit_user(ann, requests_per_minute=1)
    done(ann.hold())
    limit_of(ann.hold())
    limit_user(ann, requests_per_minute=3)
    done(ann.hold())
    done(ann.hold())
    limit_of(ann.hold())
    limit_user(ann, requests_per_minute=None)
    assert granted(ann.hold()).allowances is None


def test_a_user_without_limits_has_the_gateways_and_one_with_has_not(ann: Person, settings: Any) -> None:
    settings.REQUESTS_PER_MINUTE = 1
    done(ann.hold())
    assert "Limit 1" in limit_of(ann.hold()).message
    limit_user(ann, requests_per_minute=5)
    left = granted(ann.hold()).allowances
    assert left is not None
    assert left.requests == Allowance(limit=5, remaining=3, reset_us=24_000_000)


def test_operators_have_limits_like_everybody_else(ann: Person) -> None:
    User.objects.filter(pk=ann.id).update(is_superuser=True, requests_per_minute=1)
    done(ann.hold())
    limit_of(ann.hold())


# --- tokens -----------------------------------------------------------------------------------------------


def test_a_hold_takes_input_and_output_and_its_end_gives_back_what_was_not_used(ann: Person) -> None:
    limit_user(ann, tokens_per_minute=1_000)
    hold = ann.hold(100, 500)
    done(hold)
    assert "Used 600, Requested 600" in limit_of(ann.hold(100, 500)).message
    done(ann.post(hold, input=100, output=50))
    left = granted(ann.hold(100, 500)).allowances
    assert left is not None
    assert left.tokens is not None
    assert left.tokens.remaining == 1_000 - 150 - 600


def test_a_void_gives_back_all_tokens_but_no_request(ann: Person) -> None:
    limit_key(ann, requests_per_minute=2, tokens_per_minute=600)
    hold = ann.hold(100, 500)
    done(hold)
    done(ann.void(hold))
    done(ann.hold(100, 500))
    assert limit_of(ann.hold(0, 1)).type == "requests"


def test_in_one_batch_an_end_makes_room_for_the_next_call(ann: Person) -> None:
    limit_user(ann, tokens_per_minute=100, parallel_calls=1)
    hold = ann.hold(10, 90)
    done(hold)
    _, result = ledger.apply([ann.void(hold), ann.hold(10, 90)])
    assert isinstance(result, Granted)


def test_what_has_drained_in_the_meantime_is_not_given_back_again(ann: Person, clock: Clock) -> None:
    limit_user(ann, tokens_per_minute=600)
    hold = ann.hold(100, 500)
    done(hold)
    clock.pass_by(60)
    done(ann.hold(100, 400))
    done(ann.post(hold, input=1))
    assert "Used 500" in limit_of(ann.hold(100, 100)).message


def test_what_was_used_beyond_the_hold_counts_and_so_does_what_nobody_knows(ann: Person) -> None:
    limit_user(ann, tokens_per_minute=1_000)
    longer, unknown = ann.hold(10, 90), ann.hold(10, 90)
    ledger.apply([longer, unknown])
    ledger.apply([ann.post(longer, input=10, output=390), ann.post(unknown)])
    assert "Used 500" in limit_of(ann.hold(0, 600)).message


def test_what_is_counted_in_no_tokens_takes_none(ann: Person) -> None:
    limit_user(ann, tokens_per_minute=10)
    seconds = Estimate({"second": 4_000}, ceiling=0)
    done(PlaceHold(**{**_fields(ann.hold()), "estimate": seconds}))
    spread = Estimate({"input": 4_000}, ceiling=0, is_paced=False)
    done(PlaceHold(**{**_fields(ann.hold()), "estimate": spread}))
    assert list(Hold.objects.order_by("created_at").values_list("tokens", flat=True)) == [0, None]
    done(ann.hold(5, 5))


def test_a_call_that_is_larger_than_a_minutes_tokens_is_told_that_it_never_passes(ann: Person) -> None:
    limit_user(ann, tokens_per_minute=100)
    error = limit_of(ann.hold(10, 91))
    assert error.message == (
        "Request too large for gpt-4o-mini on tokens per min (TPM) of your account: Limit 100, "
        "Requested 101. The input or output tokens must be reduced in order to run successfully."
    )
    assert (error.type, error.headers) == ("tokens", {"x-should-retry": "false"})
    done(ann.hold(10, 90))


def unbounded(person: Person, input: int, **others: Any) -> PlaceHold:
    """A call that does not say how much output it wants."""
    estimate = Estimate({"input": input}, ceiling=16_384, **others)
    return PlaceHold(**{**_fields(person.hold()), "estimate": estimate})


@pytest.mark.parametrize(
    ("limit", "input", "cap"),
    [(100, 10, 90), (10_000, 10, 4_096), (5_000, 4_000, 1_000), (40_000, 10, 10_000), (100_000, 10, None)],
)
def test_output_that_nobody_bounded_is_bounded_to_fit_into_the_minute(
    ann: Person, limit: int, input: int, cap: int | None
) -> None:
    limit_key(ann, tokens_per_minute=limit)
    result = granted(unbounded(ann, input))
    assert (result.output_cap, result.amount) == (cap, input + (cap or 16_384))
    assert Hold.objects.get().tokens == result.amount


def test_several_answers_share_the_minute_and_too_long_an_input_is_too_large(ann: Person) -> None:
    limit_user(ann, tokens_per_minute=100)
    assert granted(unbounded(ann, 10, choices=3)).output_cap == 30
    assert "Requested 101" in limit_of(unbounded(ann, 100)).message


def test_a_relaxed_account_is_not_capped_by_its_limit_either(clock: Clock) -> None:
    ann = Person("ann", 1_000_000, relaxed=True)
    limit_user(ann, tokens_per_minute=100)
    assert granted(unbounded(ann, 10)).output_cap is None


# --- parallel calls ---------------------------------------------------------------------------------------


def test_so_many_calls_run_at_the_same_time_and_the_next_when_one_has_ended(ann: Person) -> None:
    limit_user(ann, parallel_calls=2)
    first, second, third = (ann.hold() for _ in range(3))
    results = ledger.apply([first, second, third])
    assert [isinstance(result, Granted) for result in results] == [True, True, False]
    error = limit_of(ann.hold())
    assert error.message == (
        "Rate limit reached for gpt-4o-mini on parallel calls of your account: Limit 2, Used 2, Requested 1. "
        "Please try again when one of them has ended."
    )
    assert (error.type, error.headers) == ("requests", {"retry-after": "1", "retry-after-ms": "1000"})
    done(recognise(ann))
    done(ann.post(first, input=1))
    done(ann.hold())
    limit_of(ann.hold())


def test_each_key_has_its_own_parallel_calls(ann: Person) -> None:
    limit_key(ann, parallel_calls=1)
    done(ann.hold())
    done(by(second_key(ann), ann.hold()))
    assert "of your API key" in limit_of(ann.hold()).message


def test_work_that_goes_on_after_its_answer_is_no_parallel_call(ann: Person) -> None:
    limit_user(ann, parallel_calls=1)
    hold = ann.hold()
    done(hold)
    done(Defer(hold.hold_id, ann.id, "batch /batches/batch_1"))
    done(ann.hold())


def test_the_calls_of_a_worker_that_died_make_room_when_they_are_swept(ann: Person) -> None:
    from balances import leases

    limit_user(ann, parallel_calls=1)
    done(ann.hold(worker_id=dead_worker()))
    limit_of(ann.hold())
    leases.sweep()
    done(ann.hold())


# --- what is asked no more --------------------------------------------------------------------------------


def test_work_that_has_begun_is_counted_and_never_refused(ann: Person) -> None:
    limit_user(ann, requests_per_minute=2, tokens_per_minute=100, parallel_calls=1)
    done(ann.hold(10, 90))
    begun = PlaceHold(**{**_fields(ann.hold(10, 900)), "is_limited": False})
    assert granted(begun).output_cap is None
    assert Hold.objects.get(id=uuid.UUID(begun.hold_id)).tokens == 910
    assert limit_of(recognise(ann)).type == "requests"


def test_a_clock_that_was_set_back_locks_nobody_out_for_longer_than_a_minute(ann: Person) -> None:
    limit_user(ann, requests_per_minute=1)
    done(ann.hold())
    Level.objects.update(at=F("at") + 3_600_000_000)
    later = Level.objects.values_list("at", flat=True).get()
    limit_of(ann.hold())
    # The level drains from the clock's new time on.
    assert Level.objects.values_list("at", flat=True).get() <= later - 3_590_000_000


# --- exactness --------------------------------------------------------------------------------------------


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    "limits", [{"requests_per_minute": 7}, {"tokens_per_minute": 7 * 30}, {"parallel_calls": 7}]
)
@pytest.mark.parametrize("limited", [User, ApiKey])
def test_of_many_parallel_transactions_exactly_so_many_calls_pass(
    ann: Person, limits: dict[str, int], limited: type[User | ApiKey]
) -> None:
    limited.objects.update(**limits)
    holds = [[ann.hold(10, 20) for _ in range(5)] for _ in range(8)]
    passed: list[int] = []

    def run(batch: list[PlaceHold]) -> None:
        try:
            passed.append(sum(isinstance(result, Granted) for result in ledger.apply(batch)))
        finally:
            connections.close_all()

    threads = [threading.Thread(target=run, args=[batch]) for batch in holds]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(passed), sum(passed)) == (8, 7)
    assert Account.objects.get(user_id=ann.id).held == 7 * 30


def test_the_databases_own_clock_counts_microseconds_since_1970() -> None:
    """Between this test's writing and the year 2100."""
    expression, parameters = statements.clock()
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT {expression}", parameters)
        (now_us,) = cursor.fetchone()
    assert isinstance(now_us, int)
    assert 1_760_000_000 < now_us / 1_000_000 < 4_102_444_800


def test_levels_of_calls_long_ago_are_empty(ann: Person, clock: Clock) -> None:
    limit_user(ann, requests_per_minute=1)
    done(ann.hold())
    level = Level.objects.get()
    assert (level.owner, level.requests, level.at) == (f"user:{ann.id}", MINUTE_US, clock.now_us)
    clock.pass_by(3_600)
    done(ann.hold())
