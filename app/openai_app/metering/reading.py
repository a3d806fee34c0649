"""Reading JSON that may hold anything: each function answers something usable and none raises."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

# Far more than any call can use: what claims more is nonsense, which must fit into the ledger all the same.
MOST = 10**12


def whole(value: object) -> int | None:
    """A JSON number as a whole one, rounded up and at most `MOST`; a form's digits likewise."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return max(min(value, MOST), -MOST)
    if isinstance(value, str):
        # No field that is read here has more than so many digits, and longer ones take long to convert.
        return min(int(value), MOST) if value.isascii() and value.isdigit() and len(value) < 16 else None
    if isinstance(value, float) and math.isfinite(value):
        return max(min(math.ceil(value), MOST), -MOST)
    return None


def amount(value: object) -> int:
    """A number of tokens or of other units: whole, never below zero, zero for what is no number."""
    return max(whole(value) or 0, 0)


def above_zero(value: object) -> int | None:
    """A limit that somebody set; None for what is none."""
    number = whole(value)
    return number if number is not None and number > 0 else None


def model_name(value: object) -> str:
    """The name of a model as the ledger can keep it; empty for what is none."""
    return value if isinstance(value, str) and value.isprintable() and len(value) <= 200 else ""


def mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def items(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def string(value: object) -> str:
    return value if isinstance(value, str) else ""


def without_zeros(counts: Mapping[str, int]) -> dict[str, int]:
    return {name: count for name, count in counts.items() if count}
