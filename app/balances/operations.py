"""What can be asked of the ledger, and what it answers. `ledger.apply` decides them in batches."""

from collections.abc import Mapping
from dataclasses import dataclass

from balances.models import Entry
from balances.usage import Estimate, Usage


@dataclass(frozen=True, slots=True)
class PlaceHold:
    """Reserve credits for a call by the key with `digest`; without an estimate, only recognise the key.

    `is_limited`: the caller's limits may refuse it. Otherwise a hold, of work that has begun, is counted all
    the same; and a key is recognised without being counted, for a call that will be counted with its hold.
    """

    hold_id: str
    digest: str
    operation: str
    model: str
    estimate: Estimate | None
    worker_id: str
    is_limited: bool = True


@dataclass(frozen=True, slots=True)
class Allowance:
    """What is left of a limit; `reset_us`: after so long, without further calls, all of it."""

    limit: int
    remaining: int
    reset_us: int


@dataclass(frozen=True, slots=True)
class Allowances:
    """Of a key and its user together, the tighter ones; None: without limit."""

    requests: Allowance | None
    tokens: Allowance | None


@dataclass(frozen=True, slots=True)
class Granted:
    """The call may go on. `available` is in credits, after the hold; `output_cap` in units a choice.

    `allowances` are what is left of the caller's limits; None where there are none.
    """

    hold_id: str
    user_id: int
    key_id: int
    is_superuser: bool
    operation: str
    model: str
    amount: int
    output_cap: int | None
    available: int
    allowances: Allowances | None = None


@dataclass(frozen=True, slots=True)
class Post:
    """Charge what a call used and release its hold; `reason` says how the call ended.

    Without `usage` the whole hold is charged: the call was served, and nobody said what it used.
    """

    hold_id: str
    user_id: int
    key_id: int | None
    operation: str
    model: str
    usage: Usage | None
    reason: str


@dataclass(frozen=True, slots=True)
class Void:
    """Release a hold without a charge."""

    hold_id: str
    user_id: int
    reason: str


@dataclass(frozen=True, slots=True)
class Defer:
    """Keep a hold open beyond the process that placed it, until what it `awaits` has ended."""

    hold_id: str
    user_id: int
    awaits: str


@dataclass(frozen=True, slots=True)
class Progress:
    """Note what an open call is known to have used, for the case that its worker dies.

    `awaits` names work that goes on at OpenAI even then: the hold is kept for its end, as with Defer.
    """

    hold_id: str
    user_id: int
    units: Mapping[str, int]
    awaits: str = ""


@dataclass(frozen=True, slots=True)
class Change:
    """Grant, refund or correct by `amount` credits, signed; `by_id` is the user who does it."""

    user_id: int
    kind: Entry.Kind
    amount: int
    by_id: int | None
    reason: str


@dataclass(frozen=True, slots=True)
class SetBalance:
    """Make the balance `to_credits`, whatever it is."""

    user_id: int
    to_credits: int
    by_id: int | None
    reason: str


@dataclass(frozen=True, slots=True)
class Posted:
    """What was charged, in credits (0 for a void), and the account afterwards."""

    charged: int
    balance: int
    available: int


Operation = PlaceHold | Post | Void | Defer | Progress | Change | SetBalance
Result = Granted | Posted
