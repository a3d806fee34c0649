"""What is left of a caller's own limits, in the headers by which OpenAI tells it.

Source: OpenAI's guide "Rate limits", "Rate limits in headers". The operator's own limits are not told.
"""

from collections.abc import Iterator

from balances.limits import duration
from balances.operations import Allowances
from common.asgi import Headers


def headers_of(allowances: Allowances | None) -> Headers:
    """Of what is limited only: none for a caller without limits."""
    if allowances is None:
        return []
    return [(name.encode(), value.encode()) for name, value in _told(allowances)]


def _told(allowances: Allowances) -> Iterator[tuple[str, str]]:
    for kind, left in (("requests", allowances.requests), ("tokens", allowances.tokens)):
        if left is not None:
            yield f"x-ratelimit-limit-{kind}", str(left.limit)
            yield f"x-ratelimit-remaining-{kind}", str(left.remaining)
            yield f"x-ratelimit-reset-{kind}", duration(left.reset_us)
