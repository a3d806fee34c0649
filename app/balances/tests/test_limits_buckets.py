"""The arithmetic of limits by the minute: pure, at any time."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from balances.limits import MINUTE_US, Bucket, duration
from users.limits import MOST

# The largest whole number that the database keeps.
MOST_KEPT = 2**63 - 1


def test_a_minutes_allowance_may_come_at_once_and_no_more() -> None:
    bucket = Bucket(3, 0)
    for _ in range(3):
        assert bucket.wait_us(1) == 0
        bucket.take(1)
    assert bucket.wait_us(1) == 20_000_000
    assert (bucket.used, bucket.allowance.remaining, bucket.empty_in_us) == (3, 0, MINUTE_US)


def test_who_waits_as_long_as_was_said_passes_and_a_microsecond_less_does_not() -> None:
    full = Bucket(7, 7 * MINUTE_US)
    wait_us = full.wait_us(2)
    assert wait_us == 17_142_858
    assert Bucket.now(7, full.level, wait_us).wait_us(2) == 0
    assert Bucket.now(7, full.level, wait_us - 1).wait_us(2) == 1


def test_a_clock_that_was_set_back_drains_nothing() -> None:
    assert Bucket.now(10, 5 * MINUTE_US, -1_000_000).level == 5 * MINUTE_US


def test_a_limit_that_was_lowered_keeps_nobody_waiting_for_more_than_a_minute() -> None:
    assert Bucket.now(2, 500 * MINUTE_US, 0).wait_us(1) == 30_000_000


def test_a_limit_that_was_raised_leaves_what_had_been_used() -> None:
    assert Bucket.now(600, 1 * MINUTE_US, 0).allowance.remaining == 599


def test_the_largest_limit_fits_into_the_databases_numbers() -> None:
    bucket = Bucket(MOST, 0)
    bucket.take(10 * MOST)
    assert bucket.level <= MOST_KEPT


def test_what_has_drained_is_not_given_back() -> None:
    bucket = Bucket(60, 60 * MINUTE_US)
    bucket.give_back(30, 10_000_000)
    assert bucket.used == 50
    bucket.give_back(30, -5)
    assert bucket.used == 50


@pytest.mark.parametrize(
    ("microseconds", "shown"),
    [
        (0, "0s"),
        (1, "1ms"),
        (17_000, "17ms"),
        (999_001, "1s"),
        (1_000_000, "1s"),
        (8_640_000, "8.64s"),
        (59_999_500, "1m0s"),
        (86_400_000, "1m26.4s"),
        (360_000_000, "6m0s"),
    ],
)
def test_times_are_written_as_openai_writes_them(microseconds: int, shown: str) -> None:
    assert duration(microseconds) == shown


@given(
    limit=st.integers(1, MOST),
    asked=st.lists(st.tuples(st.integers(0, 2 * MINUTE_US), st.integers(1, MOST)), max_size=60),
)
def test_never_more_passes_than_the_burst_and_what_has_drained_since(
    limit: int, asked: list[tuple[int, int]]
) -> None:
    """In no window of time, however the calls are spread: `asked` are pauses, and amounts."""
    now_us, level, passed = 0, 0, []
    for pause_us, amount in asked:
        now_us += pause_us
        bucket = Bucket.now(limit, level, pause_us)
        if bucket.wait_us(amount) == 0:
            bucket.take(amount)
            passed.append((now_us, amount))
        else:
            later = Bucket.now(limit, bucket.level, bucket.wait_us(amount))
            assert amount > limit or later.wait_us(amount) == 0
        level = bucket.level
    for first, (start_us, _) in enumerate(passed):
        total = 0
        for end_us, amount in passed[first:]:
            total += amount
            assert total * MINUTE_US <= limit * (MINUTE_US + end_us - start_us)


@st.composite
def calls(draw: st.DrawFn) -> tuple[int, list[tuple[int, int, int, int]]]:
    """A limit, and calls: the pause before each, how long it lasts, tokens that it takes, and uses."""
    limit = draw(st.integers(1, 1000))
    found = []
    for _ in range(draw(st.integers(0, 40))):
        taken = draw(st.integers(1, limit))
        pause_us, lasts_us = draw(st.integers(0, MINUTE_US)), draw(st.integers(0, 3 * MINUTE_US))
        found.append((pause_us, lasts_us, taken, draw(st.integers(0, taken))))
    return limit, found


@given(calls())
def test_what_calls_use_never_exceeds_the_limit_over_time_when_the_rest_is_given_back(
    given_calls: tuple[int, list[tuple[int, int, int, int]]],
) -> None:
    limit, asked = given_calls
    begins_us, events = 0, []
    for number, (pause_us, lasts_us, taken, used) in enumerate(asked):
        begins_us += pause_us
        events += [(begins_us, 0, number, taken, used), (begins_us + lasts_us, 1, number, taken, used)]
    bucket, at_us, total = Bucket(limit, 0), 0, 0
    until: dict[int, int] = {}
    for now_us, is_end, number, taken, used in sorted(events):
        bucket, at_us = Bucket.now(limit, bucket.level, now_us - at_us), now_us
        if is_end and number in until:
            bucket.give_back(taken - used, until[number] - now_us)
        elif not is_end and bucket.wait_us(taken) == 0:
            bucket.take(taken)
            until[number] = now_us + bucket.level // limit
            total += used
            assert total * MINUTE_US <= limit * (MINUTE_US + now_us)
