"""The rules by which balances change. `apply` is the only place that changes one.

    PlaceHold ──► open ──► posted   with what was used, as an entry
                       └─► voided   without one

A batch is one transaction: the accounts that its operations name are locked in id order, each operation is
decided in memory in the order of arrival, and everything is written with multi-row statements. A refused
operation changes nothing and leaves the others of its batch as they are. Posting is safe to repeat: a hold
ends once, and a post that comes after its end writes only the difference, as a correction.
"""

import logging
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from fnmatch import fnmatchcase

from balances import statements
from balances.limits import Caller, Limiter, Taken
from balances.models import MAX_BALANCE_CREDITS, Entry, Hold
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
from balances.sizing import Size, size_hold
from balances.statements import HoldRow, KeyRow, Row, SweptRow, Transaction
from balances.usage import Estimate, Usage
from common.errors import ApiError, BadRequest, KeyRejected, NotFound, PermissionDenied

log = logging.getLogger(__name__)

# "Last used" is for people: writing it once a minute spares an update a call.
LAST_USED_GRAIN = timedelta(minutes=1)
MAX_REASON = 300
# Why a sweep posts. It knows only what had been counted: whatever the process says later is truer.
DIED = "The process that served this call ended without a word; charged what had been counted."
DIED_UNCOUNTED = "The process that served this call ended before anything was counted."
GOES_ON = "The work goes on after its call; charged at its end."


def apply(operations: Sequence[Operation], book: Book | None = None) -> list[Result | ApiError]:
    """Decides the operations in one transaction and answers each, in their order.

    Raises django.db.Error when the database refuses the whole; then nothing has changed.
    """
    batch = _Batch(book or Book.load(), datetime.now(UTC))
    with statements.transaction() as transaction:
        batch.read(transaction, operations)
        results = [batch.decide(operation) for operation in operations]
        batch.write(transaction)
    return results


def apply_one(operation: Operation) -> Posted:
    """Applies a single change outside the data plane. Raises the ApiError it is refused with."""
    (result,) = apply([operation])
    if isinstance(result, ApiError):
        raise result
    assert isinstance(result, Posted)
    return result


def set_balance(*, user_id: int, to_credits: int, by_id: int | None, reason: str) -> Posted:
    """Makes a balance `to_credits`, as an entry. Raises NotFound, or BadRequest for an impossible amount."""
    return apply_one(SetBalance(user_id, to_credits, by_id, reason))


def change(
    *, user_id: int, amount: int, kind: Entry.Kind = Entry.Kind.GRANT, by_id: int | None, reason: str
) -> Posted:
    """Adds `amount` credits, signed, to a balance, as an entry."""
    return apply_one(Change(user_id, kind, amount, by_id, reason))


@dataclass(slots=True)
class _Account:
    user_id: int
    balance: int
    held: int
    relaxed: bool
    changed: bool = False

    @property
    def available(self) -> int:
        return self.balance - self.held

    def enter(self, amount: int) -> None:
        self.balance += amount
        self.changed = True


class _Batch:
    """The rows of one transaction: read and locked, decided upon, then written."""

    def __init__(self, book: Book, now: datetime) -> None:
        self.book = book
        self.now = now
        self.written_now = statements.adapt_time(now)
        self.accounts: dict[int, _Account] = {}
        self.keys: dict[str, KeyRow] = {}
        self.closed: dict[str, HoldRow] = {}
        self.charged_before: dict[str, int] = {}
        self.swept: dict[str, SweptRow] = {}
        self.truths: dict[str, str] = {}
        self.new_holds: list[Row] = []
        self.new_entries: list[Row] = []
        self.deferred: dict[str, str] = {}
        self.progress: dict[str, dict[str, int]] = {}
        self.used_keys: set[int] = set()
        self.limiter = Limiter()

    def read(self, transaction: Transaction, operations: Sequence[Operation]) -> None:
        digests = {o.digest for o in operations if isinstance(o, PlaceHold)}
        found = statements.find_keys(
            transaction, digests, now=self.now, used_before=self.now - LAST_USED_GRAIN
        )
        self.keys = {key.digest: key for key in found}
        user_ids = {key.user_id for key in self.keys.values()}
        user_ids.update(o.user_id for o in operations if not isinstance(o, PlaceHold))
        for user_id, balance, held, relaxed in statements.lock_accounts(transaction, user_ids):
            self.accounts[user_id] = _Account(user_id, balance, held, relaxed)
        self._close(transaction, operations)
        self.limiter.read(transaction, found, self.closed.values())

    def _close(self, transaction: Transaction, operations: Sequence[Operation]) -> None:
        """Ends the holds of the batch's posts and voids, a statement for each way of ending.

        Of several that end the same hold, the first one does: the others find it ended, as in a later batch.
        """
        endings: dict[tuple[Hold.State, str], list[str]] = {}
        ending: set[str] = set()
        for operation in operations:
            if not isinstance(operation, Post | Void) or operation.hold_id in ending:
                continue
            ending.add(operation.hold_id)
            state = Hold.State.POSTED if isinstance(operation, Post) else Hold.State.VOIDED
            endings.setdefault((state, operation.reason), []).append(operation.hold_id)
        for (state, reason), hold_ids in endings.items():
            for row in statements.close_holds(transaction, hold_ids, state, reason, self.now):
                self.closed[row.hold_id] = row
        late = {o.hold_id for o in operations if isinstance(o, Post)} - self.closed.keys()
        # A sweep's charge is the input as counted. That of a post with usage is known without the hold.
        needed = {o.hold_id for o in operations if isinstance(o, Void | Defer)}
        needed |= {o.hold_id for o in operations if isinstance(o, Post) and o.usage is None}
        self.swept = statements.ended_for(transaction, needed - self.closed.keys(), (DIED, DIED_UNCOUNTED))
        self.charged_before = statements.charged_so_far(transaction, late | self.swept.keys())

    def decide(self, operation: Operation) -> Result | ApiError:
        try:
            match operation:
                case PlaceHold():
                    return self._place_hold(operation)
                case Post():
                    return self._post(operation)
                case Void():
                    return self._void(operation)
                case Defer():
                    return self._defer(operation)
                case Progress():
                    self.progress[operation.hold_id] = dict(operation.units)
                    if operation.awaits:
                        self.deferred[operation.hold_id] = operation.awaits
                    return self._posted(0, self._account(operation.user_id))
                case Change():
                    return self._change(operation)
                case SetBalance():
                    return self._set_balance(operation)
        except ApiError as refusal:
            return refusal

    def _place_hold(self, operation: PlaceHold) -> Granted:
        key = self._key(operation)
        account = self._account(key.user_id)
        caller = self.limiter.caller(key)
        estimate = operation.estimate
        size = Size(0, None, 0) if estimate is None else self._size(operation, estimate, account, caller)
        taken = caller.take(operation, size.output) if caller is not None else None
        if estimate is not None:
            account.held += size.amount
            account.changed = True
            self.new_holds.append(self._hold_row(operation, key, size.amount, taken))
        if key.use_is_old:
            self.used_keys.add(key.key_id)
        return Granted(
            hold_id=operation.hold_id,
            user_id=key.user_id,
            key_id=key.key_id,
            is_superuser=key.is_superuser,
            operation=operation.operation,
            model=operation.model,
            amount=size.amount,
            output_cap=size.output_cap,
            available=account.available,
            allowances=caller.allowances() if caller is not None else None,
        )

    def _size(
        self, operation: PlaceHold, estimate: Estimate, account: _Account, caller: Caller | None
    ) -> Size:
        bounded = caller.bounded(estimate) if caller is not None and operation.is_limited else estimate
        prices = self.book.of(operation.model)
        size = size_hold(bounded, prices, account.available, relaxed=account.relaxed)
        if bounded is not estimate and size.output_cap is None and not account.relaxed:
            # The model may write more than fits into the caller's minute.
            return Size(size.amount, bounded.ceiling, size.output)
        return size

    def _key(self, operation: PlaceHold) -> KeyRow:
        key = self.keys.get(operation.digest)
        if key is None:
            raise KeyRejected("Incorrect API key provided. Make one on your keys page or at /api/keys.")
        if key.is_revoked:
            raise KeyRejected("This API key has been revoked.")
        if key.has_expired:
            raise KeyRejected("This API key has expired.")
        if not key.is_active:
            raise KeyRejected("This user has been disabled.")
        if not _may_call(key, operation):
            raise PermissionDenied(
                f"This API key may not call the model {operation.model!r}."
                if operation.model
                else "This API key may call some models only, and this call names none.",
                param="model",
                code="model_not_allowed",
            )
        return key

    def _post(self, operation: Post) -> Posted:
        account = self._account(operation.user_id)
        hold = self.closed.pop(operation.hold_id, None)
        if hold is None:
            return self._post_late(operation, account)
        account.held -= hold.amount
        self.limiter.settle(hold, operation.usage)
        if operation.usage is None:
            charge = hold.amount
        else:
            charge = self.book.price(operation.model, operation.usage.units)
        self._enter_charge(operation, account, Entry.Kind.CHARGE, -charge, operation.reason)
        # For the same post again, later in this batch.
        self.charged_before[operation.hold_id] = charge
        return self._posted(charge, account)

    def _post_late(self, operation: Post, account: _Account) -> Posted:
        """The hold had ended: a repeated post, or a sweeper took its worker for dead. The truth stands."""
        charged = self.charged_before.get(operation.hold_id)
        if charged is None:
            log.error("post of an unknown hold hold=%s user=%s", operation.hold_id, operation.user_id)
            raise NotFound(f"There is no hold {operation.hold_id}.")
        if operation.usage is not None:
            charge = self.book.price(operation.model, operation.usage.units)
        elif (swept := self.swept.get(operation.hold_id)) is not None:
            charge = swept.amount
        else:
            return self._posted(charged, account)
        if charge != charged:
            reason = f"{operation.reason}; {charged} had been charged before this was known"
            self._enter_charge(operation, account, Entry.Kind.CORRECTION, charged - charge, reason)
            self.charged_before[operation.hold_id] = charge
        return self._posted(charge, account)

    def _void(self, operation: Void) -> Posted:
        account = self._account(operation.user_id)
        hold = self.closed.pop(operation.hold_id, None)
        if hold is not None:
            account.held -= hold.amount
            account.changed = True
            self.limiter.settle(hold, Usage({}))
            self.charged_before[operation.hold_id] = 0
        elif (swept := self.swept.pop(operation.hold_id, None)) is not None:
            self._give_back(swept, account, operation.reason)
        return self._posted(0, account)

    def _defer(self, operation: Defer) -> Posted:
        account = self._account(operation.user_id)
        swept = self.swept.pop(operation.hold_id, None)
        if swept is None:
            self.deferred[operation.hold_id] = operation.awaits
            return self._posted(0, account)
        # A hold that has ended stays so. Another one waits for the end of the work.
        self._give_back(swept, account, GOES_ON)
        account.held += swept.amount
        account.changed = True
        self.new_holds.append(
            {
                **swept._asdict(),
                "id": uuid.uuid4().hex,
                "account_id": account.user_id,
                "state": Hold.State.OPEN.value,
                "awaits": operation.awaits,
                "reason": "",
                "created_at": self.written_now,
            }
        )
        return self._posted(0, account)

    def _give_back(self, swept: SweptRow, account: _Account, why: str) -> None:
        """A sweep took a call's process for dead, which lives and says what became of the call."""
        charged = self.charged_before[swept.id]
        self.truths[swept.id], self.charged_before[swept.id] = why, 0
        if charged:
            reason = f"{why}; {charged} had been charged before this was known"
            call = (swept.id, account.user_id, swept.key_id, swept.operation, swept.model)
            self._enter_charge(
                Post(*call, Usage({}), reason), account, Entry.Kind.CORRECTION, charged, reason
            )

    def _change(self, operation: Change) -> Posted:
        account = self._account(operation.user_id)
        if abs(account.balance + operation.amount) > MAX_BALANCE_CREDITS:
            raise BadRequest(f"A balance is at most {MAX_BALANCE_CREDITS} credits.", param="amount")
        self._enter_change(operation, account, operation.kind, operation.amount)
        return self._posted(0, account)

    def _set_balance(self, operation: SetBalance) -> Posted:
        account = self._account(operation.user_id)
        if not 0 <= operation.to_credits <= MAX_BALANCE_CREDITS:
            raise BadRequest(f"A balance is between 0 and {MAX_BALANCE_CREDITS} credits.", param="balance")
        amount = operation.to_credits - account.balance
        self._enter_change(operation, account, Entry.Kind.SET, amount)
        return self._posted(0, account)

    def _account(self, user_id: int) -> _Account:
        try:
            return self.accounts[user_id]
        except KeyError:
            raise NotFound(f"User {user_id} does not exist.") from None

    def _posted(self, charged: int, account: _Account) -> Posted:
        return Posted(charged, account.balance, account.available)

    def _hold_row(self, operation: PlaceHold, key: KeyRow, amount: int, taken: Taken | None) -> Row:
        assert operation.estimate is not None
        return {
            "id": operation.hold_id,
            "account_id": key.user_id,
            "key_id": key.key_id,
            "worker_id": operation.worker_id,
            "state": Hold.State.OPEN.value,
            "operation": operation.operation,
            "model": operation.model,
            "amount": amount,
            "counted": operation.estimate.units,
            "awaits": "",
            "reason": "",
            "created_at": self.written_now,
            **(taken.columns if taken is not None else {}),
        }

    def _enter_charge(
        self, operation: Post, account: _Account, kind: Entry.Kind, amount: int, why: str
    ) -> None:
        units = operation.usage.units if operation.usage else {}
        prices = self.book.of(operation.model)
        account.enter(amount)
        self.new_entries.append(
            {
                "account_id": account.user_id,
                "kind": kind.value,
                "amount": amount,
                "balance_after": account.balance,
                "hold_id": operation.hold_id,
                "key_id": operation.key_id,
                "by_id": None,
                "operation": operation.operation,
                "model": operation.model,
                "units": units,
                "details": operation.usage.details if operation.usage else {},
                "rate": {unit: prices[unit] for unit in units},
                "reason": why[:MAX_REASON],
                "created_at": self.written_now,
            }
        )

    def _enter_change(
        self, operation: Change | SetBalance, account: _Account, kind: Entry.Kind, amount: int
    ) -> None:
        account.enter(amount)
        self.new_entries.append(
            {
                "account_id": account.user_id,
                "kind": kind.value,
                "amount": amount,
                "balance_after": account.balance,
                "hold_id": None,
                "key_id": None,
                "by_id": operation.by_id,
                "operation": "",
                "model": "",
                "units": {},
                "details": {},
                "rate": {},
                "reason": operation.reason[:MAX_REASON],
                "created_at": self.written_now,
            }
        )

    def write(self, transaction: Transaction) -> None:
        statements.insert(transaction, "balances_hold", statements.HOLD_COLUMNS, self.new_holds)
        statements.save_levels(transaction, self.limiter.rows())
        statements.insert(transaction, "balances_entry", statements.ENTRY_COLUMNS, self.new_entries)
        statements.say_why(transaction, self.truths)
        changed = [
            {"user_id": a.user_id, "balance": a.balance, "held": a.held}
            for a in self.accounts.values()
            if a.changed
        ]
        statements.save_accounts(transaction, changed)
        statements.defer_holds(transaction, self.deferred)
        statements.save_progress(transaction, self.progress)
        statements.touch_keys(transaction, self.used_keys, self.now)


def _may_call(key: KeyRow, operation: PlaceHold) -> bool:
    """A paid call that names no model may run any, such as that of an assistant or of a batch's lines."""
    if not key.allowed_models or (not operation.model and operation.estimate is None):
        return True
    return any(fnmatchcase(operation.model, pattern) for pattern in key.allowed_models)
