"""GET /api/balance, and /api/balance/{user_id} for operators."""

from collections.abc import Callable
from typing import Any
from urllib.parse import urlencode

import pytest
from rest_framework.test import APIClient

from balances import ledger
from balances.models import MAX_BALANCE_CREDITS, Account, Entry
from users.models import ApiKey, User

BALANCE = "/api/balance"
FORM = "application/x-www-form-urlencoded"
# What JSON can say and a balance cannot be.
IMPOSSIBLE: list[Any] = [
    *(None, True, False, "30", "", "x", [], {}, [30]),
    *(-1, 30.0, 30.5, 1e3, MAX_BALANCE_CREDITS + 1, 10**4000),
]
Clients = Callable[..., APIClient]


def test_a_new_user_has_nothing(client_of: Clients, alice: User) -> None:
    answer = client_of(alice).get(BALANCE)
    assert answer.status_code == 200
    assert answer.json() == {"user": alice.pk, "balance": 0, "held": 0, "available": 0}


def test_what_is_held_is_not_available(client_of: Clients, alice: User) -> None:
    Account.objects.update(balance=30, held=10)
    answer = client_of(alice, ApiKey.Kind.ISSUED).get(f"{BALANCE}/")
    assert answer.json() == {"user": alice.pk, "balance": 30, "held": 10, "available": 20}


@pytest.mark.parametrize("method", ["put", "patch"])
def test_an_operator_sets_a_balance_as_an_entry(
    client_of: Clients, olga: User, alice: User, bob: User, method: str
) -> None:
    ledger.change(user_id=alice.pk, amount=7, by_id=None, reason="before")
    client = client_of(olga, ApiKey.Kind.ISSUED)
    answer = getattr(client, method)(f"{BALANCE}/{alice.pk}", {"balance": 30, "reason": "A trial"})
    assert answer.status_code == 200
    assert answer.json() == {"user": alice.pk, "balance": 30, "held": 0, "available": 30}
    assert client.get(f"{BALANCE}/{alice.pk}/").json() == answer.json()
    entry = Entry.objects.latest("id")
    assert (entry.kind, entry.amount, entry.balance_after) == ("set", 23, 30)
    assert (entry.by, entry.reason, entry.account_id) == (olga, "A trial", alice.pk)
    assert client_of(bob).get(BALANCE).json()["balance"] == 0


def test_a_balance_set_without_a_reason_still_says_who(client_of: Clients, olga: User, alice: User) -> None:
    assert client_of(olga).put(f"{BALANCE}/{alice.pk}/", {"balance": 30}).json()["balance"] == 30
    entry = Entry.objects.get()
    assert entry.by == olga
    assert entry.reason


def test_a_multipart_form_does_as_well(client_of: Clients, olga: User, alice: User) -> None:
    answer = client_of(olga).put(f"{BALANCE}/{alice.pk}", {"balance": "30"}, format="multipart")
    assert (answer.status_code, answer.json()["balance"]) == (200, 30)


def test_a_form_may_send_digits(client_of: Clients, olga: User, alice: User) -> None:
    answer = client_of(olga).generic("PUT", f"{BALANCE}/{alice.pk}", "balance=30", content_type=FORM)
    assert (answer.status_code, answer.json()["balance"]) == (200, 30)


@pytest.mark.parametrize("balance", [0, MAX_BALANCE_CREDITS])
def test_the_bounds_are_possible(client_of: Clients, olga: User, alice: User, balance: int) -> None:
    answer = client_of(olga).put(f"{BALANCE}/{alice.pk}", {"balance": balance})
    assert (answer.status_code, answer.json()["balance"]) == (200, balance)


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"reason": "only"},
        *({"balance": wrong} for wrong in IMPOSSIBLE),
    ],
)
def test_an_impossible_balance_is_refused(
    client_of: Clients, olga: User, alice: User, body: dict[str, Any]
) -> None:
    for method in ("put", "patch"):
        answer = getattr(client_of(olga), method)(f"{BALANCE}/{alice.pk}", body)
        assert answer.status_code == 400
        assert answer.json()["error"]["param"] == "balance"
    assert not Entry.objects.exists()


@pytest.mark.parametrize("digits", ["-1", "30.0", " 30 ", "+30", "3_0", "٣٠", "", "9" * 5000])
def test_a_form_may_send_nothing_but_digits(client_of: Clients, olga: User, alice: User, digits: str) -> None:
    body = urlencode({"balance": digits})
    answer = client_of(olga).generic("PUT", f"{BALANCE}/{alice.pk}", body, content_type=FORM)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "balance"
    assert not Entry.objects.exists()


@pytest.mark.parametrize(
    "body", ["30", "[30]", "null", "{", '{"balance": NaN}', "[" * 100_000, "9" * 9999, "\xff"]
)
def test_a_body_that_is_no_object_is_refused(client_of: Clients, olga: User, alice: User, body: str) -> None:
    answer = client_of(olga).generic("PUT", f"{BALANCE}/{alice.pk}", body, content_type="application/json")
    assert answer.status_code == 400
    assert answer.json()["error"]["type"] == "invalid_request_error"


def test_users_neither_see_nor_set_balances_by_id(client_of: Clients, alice: User, bob: User) -> None:
    client = client_of(alice)
    for user_id in (alice.pk, bob.pk, 999999):
        url = f"{BALANCE}/{user_id}"
        answers = [client.get(url), client.put(url, {"balance": 9}), client.patch(url, {"balance": 9})]
        answers.append(client.post(f"{url}/grant", {"amount": 9, "reason": "x"}))
        assert [answer.status_code for answer in answers] == [403] * 4
    assert not Entry.objects.exists()


@pytest.mark.django_db
def test_strangers_are_asked_for_a_key(api: APIClient) -> None:
    assert api.get(BALANCE).status_code == 401
    assert api.put(f"{BALANCE}/1", {"balance": 9}).status_code == 401


@pytest.mark.parametrize("user_id", [999999, 0, 10**40])
def test_an_unknown_user_is_not_found(client_of: Clients, olga: User, user_id: int) -> None:
    client, url = client_of(olga), f"{BALANCE}/{user_id}"
    answers = [client.get(url), client.put(url, {"balance": 9}), client.patch(url, {"balance": 9})]
    answers.append(client.post(f"{url}/grant", {"amount": 9, "reason": "x"}))
    assert [answer.status_code for answer in answers] == [404] * 4


@pytest.mark.parametrize(("amount", "kind"), [(20, "grant"), (-20, "correction")])
def test_a_grant_adds_to_what_there_is(
    client_of: Clients, olga: User, alice: User, amount: int, kind: str
) -> None:
    ledger.set_balance(user_id=alice.pk, to_credits=10, by_id=None, reason="before")
    answer = client_of(olga).post(f"{BALANCE}/{alice.pk}/grant", {"amount": amount, "reason": "November"})
    assert (answer.status_code, answer.json()["balance"]) == (200, 10 + amount)
    entry = Entry.objects.latest("id")
    assert (entry.kind, entry.amount, entry.by, entry.reason) == (kind, amount, olga, "November")


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"reason": "x"}, "amount"),
        ({"amount": 0, "reason": "x"}, "amount"),
        ({"amount": 1.0, "reason": "x"}, "amount"),
        ({"amount": True, "reason": "x"}, "amount"),
        ({"amount": MAX_BALANCE_CREDITS + 1, "reason": "x"}, "amount"),
        ({"amount": -(10**30), "reason": "x"}, "amount"),
        ({"amount": 5}, "reason"),
        ({"amount": 5, "reason": " "}, "reason"),
        ({"amount": 5, "reason": "x" * 301}, "reason"),
    ],
)
def test_an_impossible_grant_is_refused(
    client_of: Clients, olga: User, alice: User, body: dict[str, Any], param: str
) -> None:
    answer = client_of(olga).post(f"{BALANCE}/{alice.pk}/grant", body)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == param
    assert not Entry.objects.exists()
