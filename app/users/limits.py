"""The limits that users and keys may have. `balances.limits` holds calls against them."""

from typing import Any, Final

from django.conf import settings

#: Fields of both models, in the order in which they are shown.
NAMES: Final = ("requests_per_minute", "tokens_per_minute", "parallel_calls")
# More than any account at OpenAI has, and small enough that a bucket's level fits into 64 bits.
MOST: Final = 1_000_000_000


def in_force(user: Any) -> dict[str, int | None]:
    """A user's limits by name, the gateway's where there are none of their own; None: unlimited."""
    own = {name: getattr(user, name) for name in NAMES}
    return {name: getattr(settings, name.upper()) if limit is None else limit for name, limit in own.items()}
