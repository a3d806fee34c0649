"""What the ledger should hold, decided by one operation after the other: see `test_fuzz_ledger`."""

from dataclasses import dataclass, field, replace

from balances.models import MAX_BALANCE_CREDITS
from balances.operations import (
    Change,
    Defer,
    Granted,
    Operation,
    PlaceHold,
    Post,
    Posted,
    Progress,
    Result,
    SetBalance,
    Void,
)
from balances.rates import Book
from balances.sizing import size_hold
from common.errors import ApiError, BadRequest, InsufficientBalance, KeyRejected, NotFound

# The third account is relaxed, the fourth has limits: what they refuse hangs on the time, which has no model.
RELAXED, LIMITED = 2, 3
EACH = range(4)
LIMITS = {"requests_per_minute": 20, "tokens_per_minute": 6_000, "parallel_calls": 3}


@dataclass
class Held:
    """A hold as the model knows it; `charged` is None while it is open."""

    id: str
    person: int
    model: str
    amount: int
    worker: int
    counted: dict[str, int]
    charged: int | None = None
    is_posted: bool = False
    #: A sweep has ended it, and nothing that its process said since has taken that back.
    was_swept: bool = False
    awaits: str = ""


@dataclass
class Model:
    """What the ledger should hold: decided one operation after the other."""

    people: list[int]
    book: Book
    balance: list[int] = field(default_factory=lambda: [0] * len(EACH))
    held: list[int] = field(default_factory=lambda: [0] * len(EACH))
    #: By how much usage went beyond holds, and the operator took away: so low may what is available be.
    excess: list[int] = field(default_factory=lambda: [0] * len(EACH))
    holds: dict[str, Held] = field(default_factory=dict)
    #: Holds that the ledger opens by itself, whose ids are not known yet.
    unnamed: list[Held] = field(default_factory=list)

    def decide(self, operation: Operation, who: int, worker: int) -> Result | type[ApiError]:
        match operation:
            case PlaceHold():
                return self._place(operation, who, worker)
            case Post():
                return self._post(operation)
            case Void():
                return self._void(operation)
            case Defer() | Progress():
                self._note(operation)
                return self._posted(0, self.people.index(operation.user_id))
            case Change():
                return self._change(self.people.index(operation.user_id), operation.amount)
            case SetBalance():
                return self._set(self.people.index(operation.user_id), operation.to_credits)

    def granted(self, operation: PlaceHold, amount: int, worker: int) -> None:
        """The limited account was granted so much."""
        assert operation.estimate is not None
        running = [
            h for h in self.holds.values() if h.person == LIMITED and h.charged is None and not h.awaits
        ]
        assert len(running) < LIMITS["parallel_calls"]
        assert amount <= self.balance[LIMITED] - self.held[LIMITED]
        counted = dict(operation.estimate.units)
        self.holds[operation.hold_id] = Held(
            operation.hold_id, LIMITED, operation.model, amount, worker, counted
        )
        self.held[LIMITED] += amount

    def _posted(self, charged: int, who: int) -> Posted:
        return Posted(charged, self.balance[who], self.balance[who] - self.held[who])

    def _place(self, operation: PlaceHold, who: int, worker: int) -> Result | type[ApiError]:
        if who < 0:
            return KeyRejected
        amount, cap, available = 0, None, self.balance[who] - self.held[who]
        if operation.estimate is not None:
            prices = self.book.of(operation.model)
            try:
                size = size_hold(operation.estimate, prices, available, relaxed=who == RELAXED)
            except InsufficientBalance:
                return InsufficientBalance
            amount, cap = size.amount, size.output_cap
            self.held[who] += amount
            counted = dict(operation.estimate.units)
            self.holds[operation.hold_id] = Held(
                operation.hold_id, who, operation.model, amount, worker, counted
            )
        person = self.people[who]
        return Granted(
            *(operation.hold_id, person, 0, False, operation.operation, operation.model, amount, cap),
            available=available - amount,
        )

    def _post(self, operation: Post) -> Result | type[ApiError]:
        held = self.holds.get(operation.hold_id)
        if held is None:
            return NotFound
        who = held.person
        if operation.usage is None:
            charge = held.charged if held.charged is not None and not held.was_swept else held.amount
        else:
            charge = self.book.price(operation.model, operation.usage.units)
        if held.charged is None:
            held.is_posted = True
            self.held[who] -= held.amount
            self.balance[who] -= charge
            self.excess[who] += max(0, charge - held.amount)
        else:
            self.balance[who] -= charge - held.charged
            self.excess[who] += max(0, charge - held.charged)
        held.charged = charge
        return self._posted(charge, who)

    def _void(self, operation: Void) -> Result:
        held = self.holds.get(operation.hold_id)
        if held is not None and held.charged is None:
            self.held[held.person] -= held.amount
            held.charged = 0
        elif held is not None and held.was_swept:
            self._give_back(held)
        return self._posted(0, self.people.index(operation.user_id))

    def _give_back(self, held: Held) -> None:
        self.balance[held.person] += held.charged or 0
        held.charged, held.was_swept = 0, False

    def sweep(self, held: Held) -> None:
        """Its process is taken for dead: what had been counted is charged."""
        charge = self.book.price(held.model, held.counted)
        self.held[held.person] -= held.amount
        self.balance[held.person] -= charge
        self.excess[held.person] += max(0, charge - held.amount)
        held.charged, held.is_posted, held.was_swept = charge, bool(held.counted), True

    def _note(self, operation: Defer | Progress) -> None:
        held = self.holds.get(operation.hold_id)
        if held is None:
            return
        if held.charged is not None:
            if isinstance(operation, Defer) and held.was_swept:
                self._give_back(held)
                self.held[held.person] += held.amount
                again = replace(held, id="", charged=None, is_posted=False, awaits=operation.awaits)
                self.unnamed.append(again)
            return
        if isinstance(operation, Defer):
            held.awaits = operation.awaits
        else:
            held.counted = dict(operation.units)
            held.awaits = operation.awaits or held.awaits

    def _change(self, who: int, amount: int) -> Result | type[ApiError]:
        if abs(self.balance[who] + amount) > MAX_BALANCE_CREDITS:
            return BadRequest
        self.balance[who] += amount
        self.excess[who] += max(0, -amount)
        return self._posted(0, who)

    def _set(self, who: int, to_credits: int) -> Result | type[ApiError]:
        if not 0 <= to_credits <= MAX_BALANCE_CREDITS:
            return BadRequest
        return self._change(who, to_credits - self.balance[who])
