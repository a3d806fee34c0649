"""What a unit of a model costs."""

import pytest

from balances.models import MICRO
from balances.rates import DEFAULT_MICRO_CREDITS, Book, credits_for
from balances.units import UNITS

BOOK = Book(
    [
        ("gpt-4o*", "output", 4 * MICRO),
        ("gpt-4o-mini*", "output", 2 * MICRO),
        ("gpt-4o-mini*", "cached_input", MICRO // 2),
        ("gpt-4o-mini-2024-07-18", "output", 3 * MICRO),
        ("*", "image", 5 * MICRO),
    ]
)


def test_every_unit_has_a_price_without_any_rate() -> None:
    assert Book().of("anything").keys() == DEFAULT_MICRO_CREDITS.keys() == set(UNITS)


def test_a_token_costs_a_credit_unless_a_rate_says_otherwise() -> None:
    assert Book().price("gpt-4o", {"input": 3, "cached_input": 2, "output": 5}) == 10


@pytest.mark.parametrize(
    ("model", "credits"),
    [
        ("gpt-4o", 4),
        ("gpt-4o-2024-08-06", 4),
        ("gpt-4o-mini", 2),
        ("gpt-4o-mini-2024-07-18", 3),
        ("gpt-4o-mini-2024-07-19", 2),
        ("gpt-4.1", 1),
        ("ft:gpt-4o:x", 1),
        ("", 1),
    ],
)
def test_the_longest_pattern_that_fits_decides(model: str, credits: int) -> None:
    assert BOOK.of(model)["output"] == credits * MICRO


def test_unit_by_unit_a_shorter_pattern_still_counts() -> None:
    prices = BOOK.of("gpt-4o-mini-2024-07-18")
    assert (prices["output"], prices["cached_input"], prices["image"]) == (3 * MICRO, MICRO // 2, 5 * MICRO)
    assert prices["input"] == MICRO


def test_reasoning_costs_what_output_does_unless_it_has_a_rate_of_its_own() -> None:
    assert BOOK.of("gpt-4o")["reasoning"] == 4 * MICRO
    assert BOOK.of("gpt-4o-mini-2024-07-18")["reasoning"] == 3 * MICRO
    assert BOOK.of("gpt-4.1")["reasoning"] == MICRO
    priced = Book([("*", "reasoning", 2 * MICRO), ("o3", "output", 8 * MICRO), ("o4", "output", 0)])
    assert (priced.of("o3")["reasoning"], priced.of("o4")["reasoning"]) == (2 * MICRO, 2 * MICRO)
    assert Book([("o4", "output", 0)]).of("o4")["reasoning"] == 0


def test_fractions_are_added_up_before_they_are_rounded() -> None:
    assert Book([("m", "input", 1), ("m", "output", 1)]).price("m", {"input": 1, "output": 1}) == 1
    assert Book([("m", "input", MICRO // 2)]).price("m", {"input": 3}) == 2


@pytest.mark.parametrize(
    ("micro", "credits"), [(0, 0), (1, 1), (MICRO - 1, 1), (MICRO, 1), (MICRO + 1, 2), (10**30, 10**24)]
)
def test_credits_are_whole_and_rounded_up(micro: int, credits: int) -> None:
    assert credits_for(micro) == credits


def test_a_strangers_inventions_do_not_fill_the_memory() -> None:
    book = Book([("m*", "output", 7)])
    for number in range(11_000):
        assert book.of(f"m{number}")["output"] == 7
    assert len(book._known) == 10_000
