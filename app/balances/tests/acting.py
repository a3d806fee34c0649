"""What the tests of the ledger ask of it, in few words."""

import uuid
from typing import Any

from balances import leases, ledger
from balances.models import Account, Entry, Hold
from balances.operations import Granted, Operation, PlaceHold, Post, Posted, Result, Void
from balances.usage import Estimate, Usage
from common.errors import ApiError
from users.models import ApiKey, User

MODEL = "gpt-4o-mini"


class Person:
    """A user with a key and credits."""

    def __init__(self, name: str, credits: int, *, relaxed: bool = False) -> None:
        self.user = User(email=f"{name}@example.org")
        self.user.set_unusable_password()
        self.user.save()
        self.id = self.user.pk
        self.key, self.secret = ApiKey.issue(user=self.user, name="Test")
        Account.objects.filter(user=self.user).update(relaxed=relaxed)
        if credits:
            ledger.set_balance(user_id=self.id, to_credits=credits, by_id=None, reason="For a test")

    def account(self) -> tuple[int, int]:
        """Balance and held."""
        account = Account.objects.get(user=self.user)
        return account.balance, account.held

    def charges(self) -> list[tuple[str, int, int]]:
        """Kind, amount and balance afterwards of the entries that calls made, oldest first."""
        found = Entry.objects.filter(account_id=self.id).exclude(kind=Entry.Kind.SET).order_by("id")
        return [(entry.kind, entry.amount, entry.balance_after) for entry in found]

    def hold(self, input: int = 10, output: int = 20, *, worker_id: str = "", **others: Any) -> PlaceHold:
        """Asks to reserve `input` + `output` credits."""
        return PlaceHold(
            hold_id=uuid.uuid4().hex,
            digest=self.key.digest,
            operation="createChatCompletion",
            model=MODEL,
            estimate=Estimate({"input": input}, asked=output, ceiling=16_384, **others),
            worker_id=worker_id or living_worker(),
        )

    def post(self, hold: PlaceHold, reason: str = "Finished.", **units: int) -> Post:
        """Charges `units`, or the whole hold without any."""
        return Post(
            hold_id=hold.hold_id,
            user_id=self.id,
            key_id=self.key.pk,
            operation=hold.operation,
            model=hold.model,
            usage=Usage(units) if units else None,
            reason=reason,
        )

    def void(self, hold: PlaceHold, reason: str = "Refused.") -> Void:
        return Void(hold.hold_id, self.id, reason)


def living_worker() -> str:
    """A process whose lease runs."""
    worker_id = uuid.uuid4().hex
    leases.take(worker_id)
    return worker_id


def dead_worker() -> str:
    """A process whose lease has run out."""
    worker_id = living_worker()
    leases.release(worker_id)
    return worker_id


def done(operation: Operation) -> Result:
    """Applies one operation, which must not be refused."""
    (result,) = ledger.apply([operation])
    assert isinstance(result, Granted | Posted), result
    return result


def refused(operation: Operation) -> ApiError:
    """Applies one operation, which must be refused."""
    (result,) = ledger.apply([operation])
    assert isinstance(result, ApiError), result
    return result


def end_of(hold: PlaceHold) -> tuple[str, str]:
    """A hold's state and reason."""
    found = Hold.objects.get(id=hold.hold_id)
    return found.state, found.reason
