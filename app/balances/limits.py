"""Limits of users and keys, held against calls in the transaction that places their holds.

Requests and tokens by the minute are buckets: what is asked for goes in, a minute's allowance drains away
each minute, and what does not fit is refused. So a whole minute's allowance may come at once, and never more
than that and what has drained since. This is the generic cell rate algorithm as a "continuous-state leaky
bucket" (ITU-T I.371, annex A), in integers: nothing is rounded. Time is the database's, so hosts agree.

Tokens are taken as OpenAI takes them: what is counted of the input, and the longest output. When the call has
ended, what it did not use goes back, as far as it has not drained away by then; what it used more is added.
So over time the tokens that are used never exceed the limit, whatever was asked for.

Parallel calls are open holds, less those that wait for the end of later work.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from typing import Any

from django.conf import settings

from balances import statements
from balances.operations import Allowance, Allowances, PlaceHold
from balances.sizing import SMALL_RESERVATION
from balances.statements import HoldRow, KeyRow, Row, Transaction
from balances.units import TOKENS
from balances.usage import Estimate, Usage
from common.errors import RateLimited

MINUTE_US = 60_000_000
MILLISECOND_US = 1_000
# When one of the calls under way ends, nobody knows; to ask once a second disturbs nobody.
PARALLEL_WAIT_US = 1_000_000


class LimitReached(RateLimited):
    """The caller must wait; `wait_us` is None for a call that is larger than its limit, and never passes."""

    def __init__(self, message: str, *, type: str, wait_us: int | None, allowances: Allowances) -> None:
        super().__init__(message)
        self.type = type
        self.wait_us = wait_us
        self.allowances = allowances

    @property
    def headers(self) -> dict[str, str]:
        """How long to wait, in both units that OpenAI's clients read; or that they need not try again."""
        if self.wait_us is None:
            return {"x-should-retry": "false"}
        wait_ms = _round_up(self.wait_us, MILLISECOND_US)
        return {"retry-after": str(_round_up(wait_ms, 1000)), "retry-after-ms": str(wait_ms)}


@dataclass(slots=True)
class Bucket:
    """One limit by the minute. `level` is in parts of which a unit has 60 million: as many as `limit` of them
    drain in each microsecond."""

    limit: int
    level: int

    @classmethod
    def now(cls, limit: int, level: int, elapsed_us: int) -> "Bucket":
        """What a level has become. The limit may have been lowered, and the clock set back, in between."""
        return cls(limit, max(0, min(level, limit * MINUTE_US) - max(0, elapsed_us) * limit))

    def wait_us(self, amount: int) -> int:
        """After how many microseconds `amount` fits; 0 when it fits now."""
        return max(0, _round_up(self.level + (amount - self.limit) * MINUTE_US, self.limit))

    def take(self, amount: int) -> None:
        """Counts what has been granted, or has been used already: more than the limit is not remembered."""
        self.level = min(self.level + amount * MINUTE_US, self.limit * MINUTE_US)

    def give_back(self, amount: int, most_us: int) -> None:
        """Returns what was not used, at most what would drain in `most_us`."""
        self.level = max(0, self.level - min(amount * MINUTE_US, max(0, most_us) * self.limit))

    @property
    def empty_in_us(self) -> int:
        return _round_up(self.level, self.limit)

    @property
    def used(self) -> int:
        return _round_up(self.level, MINUTE_US)

    @property
    def allowance(self) -> Allowance:
        return Allowance(self.limit, self.limit - self.used, self.empty_in_us)


@dataclass(slots=True)
class _Owner:
    """A user or a key, with what it has asked for."""

    name: str
    requests: Bucket | None
    tokens: Bucket | None
    parallel_calls: int | None
    running: int = 0
    changed: bool = False


@dataclass(frozen=True, slots=True)
class Taken:
    """Tokens that a hold has taken, and the microsecond at which the last of them will have drained."""

    tokens: int
    until_us: int

    @property
    def columns(self) -> Row:
        """As a hold keeps it."""
        return {"tokens": self.tokens, "tokens_until": self.until_us}


class Limiter:
    """The limits of all callers in one batch. Reads and writes nothing where there are none."""

    def __init__(self) -> None:
        self._now_us = 0
        self._defaults = (
            settings.REQUESTS_PER_MINUTE,
            settings.TOKENS_PER_MINUTE,
            settings.PARALLEL_CALLS,
        )
        self._owners: dict[str, _Owner] = {}

    def read(self, transaction: Transaction, keys: Iterable[KeyRow], closed: Iterable[HoldRow]) -> None:
        """Under the lock of the accounts that the keys and the holds belong to, once holds are closed."""
        for_all = any(limit is not None for limit in self._defaults)
        callers = [key for key in keys if for_all or key.is_limited]
        returning = [hold for hold in closed if hold.tokens is not None]
        if not callers and not returning:
            return
        rows = statements.read_levels(
            transaction,
            {key.user_id for key in callers} | {hold.user_id for hold in returning},
            {key.key_id for key in callers} | {hold.key_id for hold in returning if hold.key_id is not None},
        )
        self._now_us = max(row.now_us for row in rows)
        owners = {row.owner: self._owner(row) for row in rows}
        self._owners = {name: owner for name, owner in owners.items() if owner is not None}
        self._count_running(transaction, callers)

    def _owner(self, row: statements.LevelRow) -> _Owner | None:
        """None where there is no limit."""
        limits = (row.requests_per_minute, row.tokens_per_minute, row.parallel_calls)
        is_user = row.owner.startswith(statements.USER)
        if is_user:
            limits = tuple(  # type: ignore[assignment]
                own if own is not None else default
                for own, default in zip(limits, self._defaults, strict=True)
            )
        if limits == (None, None, None):
            return None
        requests, tokens, parallel_calls = limits
        elapsed_us = self._now_us - row.at
        return _Owner(
            name="account" if is_user else "API key",
            requests=Bucket.now(requests, row.requests, elapsed_us) if requests else None,
            tokens=Bucket.now(tokens, row.tokens, elapsed_us) if tokens else None,
            parallel_calls=parallel_calls,
            # A clock that was set back: levels drain from its new time on, also where every call is refused.
            changed=elapsed_us < 0,
        )

    def _count_running(self, transaction: Transaction, callers: Collection[KeyRow]) -> None:
        bounded = {
            key.user_id
            for key in callers
            if any(owner.parallel_calls is not None for owner in self._of(key.user_id, key.key_id))
        }
        for user_id, key_id, count in statements.count_running(transaction, bounded):
            for owner in self._of(user_id, key_id):
                owner.running += count

    def _of(self, user_id: int, key_id: int | None) -> list[_Owner]:
        names = (f"{statements.KEY}{key_id}", f"{statements.USER}{user_id}")
        return [self._owners[name] for name in names if name in self._owners]

    def caller(self, key: KeyRow) -> "Caller | None":
        """Who asks; None where neither the key nor its user has a limit."""
        owners = self._of(key.user_id, key.key_id) if self._owners else []
        return Caller(owners, self._now_us) if owners else None

    def settle(self, hold: HoldRow, usage: Usage | None) -> None:
        """A hold has ended: its tokens count as they were used; all that were taken, where nobody knows."""
        if hold.tokens is None or usage is None:
            return
        unused = hold.tokens - tokens_in(usage.units)
        for owner in self._of(hold.user_id, hold.key_id):
            owner.changed = True
            if owner.tokens is not None and unused > 0:
                owner.tokens.give_back(unused, (hold.tokens_until or 0) - self._now_us)
            elif owner.tokens is not None:
                owner.tokens.take(-unused)

    def rows(self) -> list[Row]:
        """What is to be written."""
        return [
            {
                "owner": name,
                "requests": owner.requests.level if owner.requests is not None else 0,
                "tokens": owner.tokens.level if owner.tokens is not None else 0,
                "at": self._now_us,
            }
            for name, owner in self._owners.items()
            if owner.changed
        ]


class Caller:
    """A key and its user, at least one of them with limits."""

    def __init__(self, owners: list[_Owner], now_us: int) -> None:
        self._owners = owners
        self._now_us = now_us

    def bounded(self, estimate: Estimate) -> Estimate:
        """The estimate with a bound on the output that fits into a minute's tokens.

        A caller who says how much is wanted is taken at the word. Otherwise a call gets a quarter of the
        minute's tokens, but always `SMALL_RESERVATION` of them if so many are left beside its input: models
        write little of what they can, and what they can is often more than the whole limit.
        """
        limits = [owner.tokens.limit for owner in self._owners if owner.tokens is not None]
        if not limits or not estimate.is_paced or estimate.asked is not None:
            return estimate
        if estimate.output_unit not in TOKENS or estimate.ceiling == 0:
            return estimate
        limit = min(limits)
        left = min(limit - tokens_in(estimate.units), max(limit // 4, SMALL_RESERVATION))
        share = max(left // estimate.choices, estimate.least_cap)
        if estimate.ceiling is not None and estimate.ceiling <= share:
            return estimate
        return replace(estimate, ceiling=share)

    def take(self, operation: PlaceHold, output: int) -> Taken | None:
        """Counts a call with so much `output` a choice. Raises LimitReached, and counts nothing then."""
        estimate = operation.estimate
        if estimate is None and not operation.is_limited:
            return None
        tokens = _tokens_of(estimate, output) if estimate is not None and estimate.is_paced else 0
        if operation.is_limited:
            self._ask(operation.model, tokens, is_paid=estimate is not None)
        until_us = None
        for owner in self._owners:
            owner.changed = True
            owner.running += estimate is not None
            if owner.requests is not None:
                owner.requests.take(1)
            if owner.tokens is not None:
                owner.tokens.take(tokens)
                drained_us = self._now_us + owner.tokens.level // owner.tokens.limit
                until_us = min(drained_us, until_us or drained_us)
        if until_us is None or estimate is None or not estimate.is_paced:
            return None
        return Taken(tokens, until_us)

    def _ask(self, model: str, tokens: int, *, is_paid: bool) -> None:
        """Raises the refusal that lasts longest: who has waited for that one is not refused by another."""
        refusals: list[LimitReached] = []
        for owner in self._owners:
            if owner.requests is not None and (wait_us := owner.requests.wait_us(1)):
                what = f"requests per min (RPM) of your {owner.name}"
                refusals.append(self._reached(model, what, "requests", owner.requests, 1, wait_us))
            if owner.tokens is not None and tokens > owner.tokens.limit:
                raise self._too_large(model, owner.name, owner.tokens.limit, tokens)
            if owner.tokens is not None and (wait_us := owner.tokens.wait_us(tokens)) and tokens:
                what = f"tokens per min (TPM) of your {owner.name}"
                refusals.append(self._reached(model, what, "tokens", owner.tokens, tokens, wait_us))
            if is_paid and owner.parallel_calls is not None and owner.running >= owner.parallel_calls:
                refusals.append(self._too_many(model, owner))
        if refusals:
            raise max(refusals, key=lambda refusal: refusal.wait_us or 0)

    def _reached(
        self, model: str, what: str, type_: str, bucket: Bucket, amount: int, wait_us: int
    ) -> LimitReached:
        # The words are those of OpenAI's own refusals: people and programs know them.
        message = (
            f"Rate limit reached{_for(model)} on {what}: Limit {bucket.limit}, Used {bucket.used}, "
            f"Requested {amount}. Please try again in {duration(wait_us)}."
        )
        return LimitReached(message, type=type_, wait_us=wait_us, allowances=self.allowances())

    def _too_many(self, model: str, owner: _Owner) -> LimitReached:
        message = (
            f"Rate limit reached{_for(model)} on parallel calls of your {owner.name}: "
            f"Limit {owner.parallel_calls}, Used {owner.running}, Requested 1. "
            "Please try again when one of them has ended."
        )
        wait_us = PARALLEL_WAIT_US
        return LimitReached(message, type="requests", wait_us=wait_us, allowances=self.allowances())

    def _too_large(self, model: str, name: str, limit: int, tokens: int) -> LimitReached:
        message = (
            f"Request too large{_for(model)} on tokens per min (TPM) of your {name}: Limit {limit}, "
            f"Requested {tokens}. The input or output tokens must be reduced in order to run successfully."
        )
        return LimitReached(message, type="tokens", wait_us=None, allowances=self.allowances())

    def allowances(self) -> Allowances:
        """What is left."""
        return Allowances(
            _tightest(owner.requests for owner in self._owners),
            _tightest(owner.tokens for owner in self._owners),
        )


def tokens_in(units: Any) -> int:
    """Of what is counted in several classes, the tokens."""
    return sum(count for unit, count in units.items() if unit in TOKENS)


def duration(microseconds: int) -> str:
    """As OpenAI writes it: 17ms, 1s, 8.64s, 6m0s; rounded up."""
    milliseconds = _round_up(microseconds, MILLISECOND_US)
    if 0 < milliseconds < 1000:
        return f"{milliseconds}ms"
    minutes, milliseconds = divmod(milliseconds, 60_000)
    seconds = f"{milliseconds / 1000:.3f}".rstrip("0").rstrip(".")
    return f"{minutes}m{seconds}s" if minutes else f"{seconds}s"


def _tokens_of(estimate: Estimate, output: int) -> int:
    written = output * estimate.choices if estimate.output_unit in TOKENS else 0
    return tokens_in(estimate.units) + written


def _tightest(buckets: Iterable[Bucket | None]) -> Allowance | None:
    found = [bucket.allowance for bucket in buckets if bucket is not None]
    return min(found, key=lambda allowance: (allowance.remaining, allowance.limit), default=None)


def _for(model: str) -> str:
    return f" for {model}" if model else ""


def _round_up(amount: int, by: int) -> int:
    return -(-amount // by)
