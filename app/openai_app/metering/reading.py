"""Reading JSON that may hold anything: each function answers something usable and none raises."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

# Far more than any call can use: what claims more is nonsense, which must fit into the ledger all the same.
MOST = 10**12
# No field that is read here has more digits, and longer ones take long to convert.
_DECIMAL = re.compile(r"[0-9]{1,15}(?:\.[0-9]{1,30})?")


def whole(value: object) -> int | None:
    """A JSON number as a whole one, rounded up and at most `MOST`; decimal digits in a text likewise."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return max(min(value, MOST), -MOST)
    if isinstance(value, str):
        value = float(value) if _DECIMAL.fullmatch(value) else None
    if isinstance(value, float) and math.isfinite(value):
        return max(min(math.ceil(value), MOST), -MOST)
    return None


def amount(value: object) -> int:
    """A number of tokens or of other units: whole, never below zero, zero for what is no number."""
    return max(whole(value) or 0, 0)


def told(value: object) -> int | None:
    """A number that was reported as used; None for what is none, or is below zero: then it is not known."""
    number = whole(value)
    return number if number is not None and number >= 0 else None


def totals(reported: Mapping[str, Any], *names: str) -> list[int] | None:
    """The numbers reported under these names, zero for one that is left out.

    None, which is missing usage, where all are left out or any of them is no number from zero up.
    """
    found = [told(reported[name]) if name in reported else 0 for name in names]
    if None in found or not any(name in reported for name in names):
        return None
    return [number for number in found if number is not None]


def above_zero(value: object) -> int | None:
    """A limit that somebody set; None for what is none."""
    number = whole(value)
    return number if number is not None and number > 0 else None


def asks_for_stream(request: Mapping[str, Any]) -> bool:
    """Whether the answer is to come in events. What OpenAI refuses, others take for a yes, such as 1."""
    return request.get("stream") in (True, "true")


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
