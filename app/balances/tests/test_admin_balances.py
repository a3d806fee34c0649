"""Accounts, entries, holds, rates and workers in the admin."""

import uuid
from datetime import timedelta
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone

from balances import ledger
from balances.models import Account, Entry, Hold, Rate, Worker
from users.models import User

ADMIN = "/admin/balances/"


@pytest.fixture
def admin(olga: User) -> Client:
    client = Client()
    client.force_login(olga)
    return client


def test_a_balance_is_set_with_a_reason_as_an_entry(admin: Client, olga: User, alice: User) -> None:
    url = f"{ADMIN}account/{alice.pk}/change/"
    assert admin.get(url).status_code == 200
    assert admin.post(url, {"set_balance_to": "30", "reason": "A trial"}).status_code == 302
    entry = Entry.objects.get()
    assert (entry.kind, entry.amount, entry.by, entry.reason) == ("set", 30, olga, "A trial")
    assert Account.objects.get(pk=alice.pk).balance == 30


@pytest.mark.parametrize(
    "form",
    [
        {"set_balance_to": "30"},
        {"set_balance_to": "30", "reason": "  "},
        {"set_balance_to": "-1", "reason": "x"},
        {"set_balance_to": "1.5", "reason": "x"},
        {"set_balance_to": str(2**53), "reason": "x"},
    ],
)
def test_a_balance_is_not_set_without_a_reason_or_out_of_bounds(
    admin: Client, alice: User, form: dict[str, str]
) -> None:
    assert admin.post(f"{ADMIN}account/{alice.pk}/change/", form).status_code == 200
    assert not Entry.objects.exists()


def test_an_account_is_relaxed_without_touching_its_balance(admin: Client, alice: User) -> None:
    ledger.set_balance(user_id=alice.pk, to_credits=30, by_id=None, reason="x")
    form = {"relaxed": "on", "balance": "999", "held": "9"}
    assert admin.post(f"{ADMIN}account/{alice.pk}/change/", form).status_code == 302
    account = Account.objects.get(pk=alice.pk)
    assert (account.relaxed, account.balance, account.held) == (True, 30, 0)
    assert Entry.objects.count() == 1


def test_entries_and_holds_are_found_by_user_and_request(admin: Client, alice: User, bob: User) -> None:
    hold = Hold.objects.create(account=alice.account, amount=5, operation="chat", model="gpt-4o")
    Entry.objects.create(
        account=alice.account, kind="charge", amount=-5, balance_after=-5, hold=hold, reason="r"
    )
    for table, found in (("entry", "-5"), ("hold", "gpt-4o")):
        for query in ("", f"?q={alice.email}", f"?q={hold.id}", f"?q={hold.id.hex}"):
            page = admin.get(f"{ADMIN}{table}/{query}")
            assert page.status_code == 200
            assert page.context["cl"].result_list.count() == 1, query
            assert found in page.content.decode()
        for query in (f"?q={bob.email}", "?q=x"):
            page = admin.get(f"{ADMIN}{table}/{query}")
            assert page.context["cl"].result_list.count() == 0
        assert admin.get(f"{ADMIN}{table}/?q=%00").status_code == 200


def test_holds_are_the_open_ones_unless_others_are_asked_for(admin: Client, alice: User) -> None:
    now = timezone.now()
    for state in Hold.State:
        ended = None if state == Hold.State.OPEN else now
        Hold.objects.create(account=alice.account, state=state, amount=5, operation="chat", ended_at=ended)
    shown = {
        query: {hold.state for hold in admin.get(f"{ADMIN}hold/{query}").context["cl"].result_list}
        for query in ("", "?state=posted", "?state=voided", "?state=all")
    }
    assert shown == {
        "": {"open"},
        "?state=posted": {"posted"},
        "?state=voided": {"voided"},
        "?state=all": {"open", "posted", "voided"},
    }


@pytest.mark.parametrize("table", ["entry", "hold", "worker"])
def test_what_the_ledger_writes_is_only_read(admin: Client, alice: User, table: str) -> None:
    row: Any
    if table == "entry":
        row = Entry.objects.create(account=alice.account, kind="set", amount=5, balance_after=5, reason="r")
    elif table == "hold":
        row = Hold.objects.create(account=alice.account, amount=5, operation="chat")
    else:
        row = Worker.objects.create(id=uuid.uuid4(), lease_until=timezone.now() + timedelta(minutes=1))
    url = f"{ADMIN}{table}/"
    assert admin.get(url).status_code == 200
    assert admin.get(f"{url}{row.pk}/change/").status_code == 200
    assert admin.post(f"{url}{row.pk}/change/", {"amount": "9"}).status_code == 403
    assert admin.post(f"{url}{row.pk}/delete/", {"post": "yes"}).status_code == 403
    assert admin.get(f"{url}add/").status_code == 403


def test_a_long_history_is_not_counted(admin: Client, alice: User, django_assert_num_queries: Any) -> None:
    for amount in range(1, 121):
        ledger.change(user_id=alice.pk, amount=amount, by_id=None, reason="x")
    with django_assert_num_queries(3) as seen:
        page = admin.get(f"{ADMIN}entry/?p=2")
    assert page.context["cl"].result_list[0].amount == 20
    assert not [query for query in seen.captured_queries if "COUNT(" in query["sql"].upper()]


def test_accounts_are_neither_made_nor_deleted(admin: Client, alice: User) -> None:
    assert admin.get(f"{ADMIN}account/").status_code == 200
    assert admin.get(f"{ADMIN}account/add/").status_code == 403
    assert admin.post(f"{ADMIN}account/{alice.pk}/delete/", {"post": "yes"}).status_code == 403


def test_a_rate_is_made_and_a_negative_one_refused(admin: Client) -> None:
    form = {"model": "gpt-4o*", "unit": "output"}
    assert admin.post(f"{ADMIN}rate/add/", {**form, "credits_per_unit": "-1"}).status_code == 200
    assert admin.post(f"{ADMIN}rate/add/", {**form, "credits_per_unit": "4"}).status_code == 302
    assert Rate.objects.get().micro_credits == 4_000_000
