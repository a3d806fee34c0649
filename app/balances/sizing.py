"""How much to hold for a call before anybody knows what it will cost."""

from collections.abc import Mapping
from dataclasses import dataclass

from balances.models import MICRO
from balances.rates import credits_for
from balances.units import REASONING
from balances.usage import Estimate
from common.errors import InsufficientBalance

# One call may reserve a quarter of what is available, so that a long one does not lock a whole balance, but
# always this many units if they are there: small balances stay usable to their end.
SMALL_RESERVATION = 4096


@dataclass(frozen=True, slots=True)
class Size:
    """`amount` in credits; `output_cap` in output units a choice, None where no cap need be written.

    `output` is what the amount covers of it, 0 where nobody knows how much may come.
    """

    amount: int
    output_cap: int | None
    output: int


def size_hold(estimate: Estimate, prices: Mapping[str, int], available: int, *, relaxed: bool) -> Size:
    """The hold for a call, from millionths of a credit a unit and the credits available.

    Raises InsufficientBalance when the input alone, or the input and the smallest possible output,
    is more than what is available. A relaxed account is only asked for the input. An estimate that names no
    units and asks for no output is never refused: it is for work that has begun, of which usage is to come.
    """
    needed = list(estimate.units.items())
    if not relaxed:
        needed += estimate.besides.items()
    input_amount = credits_for(sum(prices[unit] * count for unit, count in needed))
    left = available - input_amount
    asks_for_nothing = not needed and estimate.asked == 0
    if left < 0 and not asks_for_nothing:
        raise _too_little(input_amount, available)
    wanted = _least(estimate.asked, estimate.ceiling)
    # Any of it may turn out to be reasoning.
    output_price = max(prices[estimate.output_unit], prices[REASONING])
    unit_price = output_price * estimate.choices
    if wanted == 0 or unit_price == 0:
        return Size(input_amount, None, wanted or 0)
    budget = max(left // 4, min(left, credits_for(SMALL_RESERVATION * output_price)))
    affordable = budget * MICRO // unit_price
    if relaxed:
        output = affordable if wanted is None else min(wanted, affordable)
        return Size(input_amount + credits_for(output * unit_price), None, output)
    if wanted is not None and wanted <= affordable:
        return Size(input_amount + credits_for(wanted * unit_price), None, wanted)
    if affordable < estimate.least_cap:
        raise _too_little(input_amount + credits_for(estimate.least_cap * unit_price), available)
    return Size(input_amount + credits_for(affordable * unit_price), affordable, affordable)


def _least(asked: int | None, ceiling: int | None) -> int | None:
    if asked is None or ceiling is None:
        return ceiling if asked is None else asked
    return min(asked, ceiling)


def _too_little(needed: int, available: int) -> InsufficientBalance:
    return InsufficientBalance(
        f"Your balance does not cover this request: it needs at least {needed} credits and "
        f"{max(available, 0)} are available. Shorten the input, or ask the operator for more credits.",
        available=available,
    )
