"""What a unit costs. Prices are computed in millionths of a credit and rounded up once, to whole credits."""

from collections.abc import Iterable, Mapping

from balances import units
from balances.models import MAX_BALANCE_CREDITS, MICRO, Rate

# One credit is one token. The other units are set by what OpenAI charges for them, measured in tokens of
# a small model, so that nothing is free by oversight; an operator sets `Rate` rows for anything finer.
DEFAULT_MICRO_CREDITS: Mapping[str, int] = {
    **dict.fromkeys(units.TOKENS, MICRO),
    units.IMAGE: 1_000 * MICRO,
    units.SECOND: 10 * MICRO,
    units.CHARACTER: MICRO,
    units.REQUEST: 100 * MICRO,
    # 0.01, 0.0025 and 0.03 dollars, at 100,000 credits a dollar.
    units.WEB_SEARCH: 1_000 * MICRO,
    units.FILE_SEARCH: 250 * MICRO,
    units.CODE_INTERPRETER: 3_000 * MICRO,
}


class Book:
    """The rates of one moment; `load` reads them, `price` applies them."""

    def __init__(self, rates: Iterable[tuple[str, str, int]] = ()) -> None:
        """`rates` are (model pattern, unit, millionths of a credit)."""
        self._exact: dict[str, dict[str, int]] = {}
        self._beginnings: dict[str, dict[str, int]] = {}
        for pattern, unit, micro_credits in rates:
            kind = self._beginnings if pattern.endswith("*") else self._exact
            kind.setdefault(pattern.removesuffix("*"), {})[unit] = micro_credits
        self._shortest_first = sorted(self._beginnings, key=len)
        self._known: dict[str, Mapping[str, int]] = {}

    @classmethod
    def load(cls) -> "Book":
        return cls((rate.model, rate.unit, rate.micro_credits) for rate in Rate.objects.all())

    def of(self, model: str) -> Mapping[str, int]:
        """Millionths of a credit for each unit of `model`."""
        prices = self._known.get(model)
        if prices is None:
            prices = self._find(model)
            # Callers choose the model's name: a stranger's inventions must not fill the memory.
            if len(self._known) < 10_000:
                self._known[model] = prices
        return prices

    def _find(self, model: str) -> Mapping[str, int]:
        if not self._exact and not self._beginnings:
            return DEFAULT_MICRO_CREDITS
        found: dict[str, int] = {}
        for beginning in self._shortest_first:
            if model.startswith(beginning):
                found.update(self._beginnings[beginning])
        found.update(self._exact.get(model, {}))
        if units.OUTPUT in found:
            # Reasoning is output, unless somebody prices it for itself.
            found.setdefault(units.REASONING, found[units.OUTPUT])
        return {**DEFAULT_MICRO_CREDITS, **found}

    def price(self, model: str, used: Mapping[str, int]) -> int:
        """Whole credits for `used` units, rounded up, and never more than a balance can be."""
        prices = self.of(model)
        credits = credits_for(sum(prices[unit] * count for unit, count in used.items()))
        return min(credits, MAX_BALANCE_CREDITS)


def credits_for(micro_credits: int) -> int:
    """Whole credits, rounded up: a call that used anything priced is never free."""
    return -(-micro_credits // MICRO)
