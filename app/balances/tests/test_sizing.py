"""How much is held for a call, and which cap is written into it."""

import pytest

from balances.models import MICRO
from balances.rates import DEFAULT_MICRO_CREDITS
from balances.sizing import SMALL_RESERVATION, Size, size_hold
from balances.usage import Estimate
from common.errors import InsufficientBalance

CEILING = 16_384


def sized(
    available: int,
    *,
    input: int = 10,
    asked: int | None = None,
    ceiling: int | None = CEILING,
    choices: int = 1,
    relaxed: bool = False,
    output_price: int = MICRO,
    reasoning_price: int | None = None,
    least_cap: int = 1,
) -> Size:
    estimate = Estimate({"input": input}, asked=asked, ceiling=ceiling, choices=choices, least_cap=least_cap)
    reasoning = output_price if reasoning_price is None else reasoning_price
    prices = {**DEFAULT_MICRO_CREDITS, "output": output_price, "reasoning": reasoning}
    return size_hold(estimate, prices, available, relaxed=relaxed)


def test_a_call_that_may_be_as_long_as_it_likes_needs_no_cap() -> None:
    assert sized(10 + 4 * CEILING) == Size(10 + CEILING, None, CEILING)


def test_a_call_that_might_lock_more_than_a_quarter_is_capped() -> None:
    assert sized(10 + 4 * CEILING - 4) == Size(10 + CEILING - 1, CEILING - 1, CEILING - 1)


def test_a_small_balance_may_be_reserved_whole() -> None:
    assert sized(10 + SMALL_RESERVATION) == Size(10 + SMALL_RESERVATION, SMALL_RESERVATION, SMALL_RESERVATION)
    assert sized(10 + 7) == Size(17, 7, 7)


def test_between_small_and_large_the_small_reservation_holds() -> None:
    assert sized(10 + 2 * SMALL_RESERVATION) == Size(
        10 + SMALL_RESERVATION, SMALL_RESERVATION, SMALL_RESERVATION
    )


def test_output_that_may_all_be_reasoning_is_held_at_the_dearer_of_the_two() -> None:
    assert sized(100_000, asked=50, reasoning_price=3 * MICRO) == Size(10 + 150, None, 50)
    assert sized(100_000, asked=50, output_price=2 * MICRO, reasoning_price=0) == Size(10 + 100, None, 50)
    assert sized(10 + 30, asked=50, reasoning_price=3 * MICRO) == Size(40, 10, 10)


def test_what_the_caller_asked_for_is_held_and_no_more() -> None:
    assert sized(100_000, asked=50) == Size(60, None, 50)


def test_asking_for_more_than_the_model_gives_is_asking_for_all_of_it() -> None:
    assert sized(10**9, asked=10**6) == Size(10 + CEILING, None, CEILING)


def test_asking_for_more_than_there_is_is_capped() -> None:
    assert sized(10 + 30, asked=50) == Size(40, 30, 30)


def test_a_model_that_nobody_knows_is_always_capped() -> None:
    assert sized(10 + 400_000, ceiling=None) == Size(10 + 100_000, 100_000, 100_000)


def test_a_call_without_output_holds_its_input() -> None:
    assert sized(10, ceiling=0) == Size(10, None, 0)


def test_the_choices_share_what_may_be_spent() -> None:
    assert sized(10 + 100, choices=3) == Size(10 + 99, 33, 33)
    assert sized(1000, asked=50, choices=3) == Size(10 + 150, None, 50)


def test_dear_output_is_reserved_at_its_price() -> None:
    assert sized(10 + 100, output_price=4 * MICRO) == Size(10 + 100, 25, 25)
    assert sized(10 + 103, output_price=4 * MICRO) == Size(10 + 100, 25, 25)


def test_cheap_output_is_rounded_up_to_whole_credits() -> None:
    assert sized(1000, asked=15, output_price=MICRO // 10) == Size(10 + 2, None, 15)


def test_free_output_is_neither_held_nor_capped() -> None:
    assert sized(10, output_price=0) == Size(10, None, CEILING)


@pytest.mark.parametrize("available", [9, 0, -5])
def test_input_above_what_is_available_is_refused(available: int) -> None:
    with pytest.raises(InsufficientBalance, match=f"at least 10 credits and {max(available, 0)} are"):
        sized(available)


def test_nothing_left_for_any_output_is_refused() -> None:
    with pytest.raises(InsufficientBalance, match="at least 11 credits and 10 are"):
        sized(10)


def test_too_little_for_the_smallest_cap_that_the_upstream_takes_is_refused() -> None:
    with pytest.raises(InsufficientBalance, match="at least 26 credits"):
        sized(10 + 15, least_cap=16)
    assert sized(10 + 16, least_cap=16) == Size(26, 16, 16)


def test_a_choice_each_must_be_affordable() -> None:
    with pytest.raises(InsufficientBalance):
        sized(10 + 2, choices=3)
    assert sized(10 + 3, choices=3) == Size(13, 1, 1)


def test_a_relaxed_account_is_asked_for_its_input_only_and_never_capped() -> None:
    assert sized(10, relaxed=True) == Size(10, None, 0)
    assert sized(60, relaxed=True) == Size(60, None, 50)
    with pytest.raises(InsufficientBalance):
        sized(9, relaxed=True)


# What may be available when usage went beyond holds, or the operator took credits away.
BELOW_ZERO = pytest.mark.parametrize("available", [-1, -100_000])
EITHER = pytest.mark.parametrize("relaxed", [False, True], ids=["strict", "relaxed"])


@BELOW_ZERO
@EITHER
def test_work_that_has_begun_gets_a_hold_of_nothing_whatever_the_balance(
    available: int, relaxed: bool
) -> None:
    nothing = Estimate({}, asked=0)
    assert size_hold(nothing, DEFAULT_MICRO_CREDITS, available, relaxed=relaxed) == Size(0, None, 0)


@BELOW_ZERO
@EITHER
@pytest.mark.parametrize(
    "estimate",
    [
        Estimate({"input": 10}, asked=0),
        Estimate({"input": 10}, ceiling=0),
        Estimate({"input": 0}, asked=5, ceiling=CEILING),
        Estimate({}, asked=5, ceiling=CEILING),
        Estimate({}, ceiling=CEILING),
        Estimate({}),
        # Whose input could not be counted.
        Estimate({"second": 0}, ceiling=0),
        Estimate({}, ceiling=0),
    ],
    ids=repr,
)
def test_below_zero_every_call_is_refused(available: int, relaxed: bool, estimate: Estimate) -> None:
    with pytest.raises(InsufficientBalance, match="and 0 are available"):
        size_hold(estimate, DEFAULT_MICRO_CREDITS, available, relaxed=relaxed)


@BELOW_ZERO
def test_below_zero_what_may_be_used_besides_is_refused(available: int) -> None:
    with pytest.raises(InsufficientBalance):
        size_hold(
            Estimate({}, asked=0, besides={"request": 1}), DEFAULT_MICRO_CREDITS, available, relaxed=False
        )


@pytest.mark.parametrize("available", [*range(10, 60), 4_000, 5_000, 20_000, 65_000, 66_000, 10**7])
@pytest.mark.parametrize("choices", [1, 2, 7])
@pytest.mark.parametrize("output_price", [1, MICRO // 3, MICRO, 7 * MICRO])
def test_a_hold_never_exceeds_what_is_available_and_always_covers_its_cap(
    available: int, choices: int, output_price: int
) -> None:
    try:
        size = sized(available, choices=choices, output_price=output_price)
    except InsufficientBalance:
        return
    assert size.amount <= available
    output = CEILING if size.output_cap is None else size.output_cap
    assert size.amount * MICRO >= 10 * MICRO + output * choices * output_price
