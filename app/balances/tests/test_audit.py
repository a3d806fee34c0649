"""`manage.py audit`: clean on a ledger that adds up, and each way of not adding up is found."""

import io
import threading
import uuid
from collections.abc import Callable
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import connection

from balances import audit, ledger
from balances.models import Account, Entry, Hold
from balances.operations import Granted, PlaceHold, Post, Void
from balances.usage import Estimate, Usage
from users.models import ApiKey, User


def run() -> str:
    """The command's output. Raises CommandError when it would exit with 1."""
    out = io.StringIO()
    call_command("audit", stdout=out)
    return out.getvalue()


def run_wrong() -> list[str]:
    """The rows that the command complains of."""
    out = io.StringIO()
    with pytest.raises(CommandError) as failure:
        call_command("audit", stdout=out)
    assert failure.value.returncode == 1
    return [line for line in out.getvalue().splitlines() if line.startswith("wrong: ")]


@pytest.fixture
def history(alice: User, bob: User, olga: User) -> None:
    """Alice has a set balance, a charged call, a voided one and an open one; Bob has a grant."""
    ledger.set_balance(user_id=alice.pk, to_credits=100, by_id=olga.pk, reason="a trial")
    ledger.change(user_id=bob.pk, amount=10, by_id=olga.pk, reason="a gift")
    key, _ = ApiKey.issue(user=alice, name="Laptop")
    ids = [uuid.uuid4().hex for _ in range(3)]
    worker = uuid.uuid4().hex
    estimate = Estimate({"input": 7}, ceiling=0)
    for result in ledger.apply([PlaceHold(i, key.digest, "chat", "gpt-4o", estimate, worker) for i in ids]):
        assert isinstance(result, Granted)
    ledger.apply(
        [
            Post(ids[0], alice.pk, key.pk, "chat", "gpt-4o", Usage({"input": 7, "output": 5}), "completed"),
            Void(ids[1], alice.pk, "refused"),
        ]
    )


@pytest.mark.django_db
def test_an_empty_ledger_adds_up() -> None:
    assert "wrong" not in run()


@pytest.mark.usefixtures("history")
def test_a_ledger_that_adds_up_is_counted() -> None:
    lines = [line.split(maxsplit=1) for line in run().splitlines()[: len(audit.TOTALS)]]
    assert {name: int(count) for count, name in lines} == {
        "users": 3,
        "accounts": 3,
        "entries": 3,
        "holds": 3,
        "open holds": 1,
        "credits in balances": 98,
        "credits held": 7,
    }


def _insert_charge_of_open_hold(alice: User) -> None:
    Account.objects.filter(pk=alice.pk).update(balance=87)
    hold = Hold.objects.get(state="open")
    Entry.objects.create(
        account=alice.account, kind="charge", amount=-1, balance_after=87, hold=hold, reason="x"
    )


def _insert_charge_without_hold(alice: User) -> None:
    Account.objects.filter(pk=alice.pk).update(balance=87)
    Entry.objects.create(account=alice.account, kind="charge", amount=-1, balance_after=87, reason="x")


BREAKAGES: dict[str, tuple[Callable[[User], Any], str]] = {
    "balance": (
        lambda alice: Account.objects.filter(pk=alice.pk).update(balance=89),
        "a balance is the sum of its entries: user={alice} balance=89 sum_of_entries=88",
    ),
    "held": (
        lambda alice: Account.objects.filter(pk=alice.pk).update(held=8),
        "what is held is the sum of the open holds: user={alice} held=8 sum_of_open_holds=7",
    ),
    "chain": (
        lambda alice: Entry.objects.filter(kind="charge").update(balance_after=90),
        "the balance after an entry is the one before it and its amount:"
        " entry={charge} user={alice} balance_before=100 amount=-12 balance_after=90",
    ),
    "posted without a charge": (
        lambda alice: Hold.objects.filter(state="voided").update(state="posted"),
        "a posted hold has one charge: hold={voided} user={alice} charges=0",
    ),
    "charge of an open hold": (
        _insert_charge_of_open_hold,
        "a charge is of a posted hold of its own account:"
        " entry={last} user={alice} hold={open} state=open user_of_hold={alice}",
    ),
    "charge without a hold": (
        _insert_charge_without_hold,
        "a charge is of a posted hold of its own account:"
        " entry={last} user={alice} hold=None state=None user_of_hold=None",
    ),
    "open with an end": (
        lambda alice: Hold.objects.filter(state="voided").update(ended_at=None),
        "a hold has an end when it is not open: hold={voided} user={alice} state=voided ended_at=None",
    ),
    "no account": (
        lambda alice: User.objects.bulk_create([User(email="dora@example.org")]),
        "every user has an account: user={dora}",
    ),
}


@pytest.mark.usefixtures("history")
@pytest.mark.parametrize("breakage", BREAKAGES)
def test_each_way_of_not_adding_up_is_found(alice: User, breakage: str) -> None:
    break_it, expected = BREAKAGES[breakage]
    holds = {hold.state: _as_stored(hold.id) for hold in Hold.objects.all()}
    break_it(alice)
    dora = User.objects.filter(email="dora@example.org").first()
    assert run_wrong() == [
        "wrong: "
        + expected.format(
            **holds,
            alice=alice.pk,
            charge=Entry.objects.filter(kind="charge").earliest("id").pk,
            last=Entry.objects.latest("id").pk,
            dora=dora and dora.pk,
        )
    ]


@pytest.mark.usefixtures("history")
def test_all_rows_that_are_wrong_are_told() -> None:
    Account.objects.update(balance=5)
    assert len(run_wrong()) == 3


@pytest.mark.django_db(transaction=True)
def test_the_audit_sees_one_moment_and_keeps_nobody_waiting(history: None, alice: User) -> None:
    def pay() -> None:
        try:
            ledger.change(user_id=alice.pk, amount=5, by_id=None, reason="meanwhile")
        finally:
            connection.close()

    with audit.snapshot():
        before = dict(audit.totals())
        thread = threading.Thread(target=pay)
        thread.start()
        thread.join(10)
        assert not thread.is_alive()
        assert dict(audit.totals()) == before
        assert [list(audit.offences(check)) for check in audit.CHECKS] == [[]] * len(audit.CHECKS)
    assert dict(audit.totals())["credits in balances"] == before["credits in balances"] + 5
    assert "wrong" not in run()


def _as_stored(hold_id: uuid.UUID) -> str:
    """SQLite keeps a UUID as 32 hex digits."""
    return hold_id.hex if connection.vendor == "sqlite" else str(hold_id)
