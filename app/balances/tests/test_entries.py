"""GET /api/balance/entries, /api/balance/{user_id}/entries and /api/usage."""

import base64
import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from rest_framework.test import APIClient

from balances import ledger
from balances.models import Entry, Hold
from balances.operations import Granted, PlaceHold, Post
from balances.usage import Estimate, Usage
from users.models import ApiKey, User

ENTRIES = "/api/balance/entries"
USAGE = "/api/usage"
Clients = Callable[..., APIClient]


def cursor(query: str) -> dict[str, str]:
    """A cursor as the pages have them, but with content of one's own."""
    return {"cursor": base64.b64encode(query.encode()).decode()}


def grant(user: User, *amounts: int) -> None:
    for amount in amounts:
        ledger.change(user_id=user.pk, amount=amount, by_id=None, reason=f"grant of {amount}")


def call(user: User, units: dict[str, int], model: str = "gpt-4o-mini", at: datetime | None = None) -> ApiKey:
    """A call by a fresh key of the user's that used `units`."""
    key, _ = ApiKey.issue(user=user, name="Laptop")
    hold, operation = uuid.uuid4(), "POST /v1/chat/completions"
    place = PlaceHold(
        hold.hex, key.digest, operation, model, Estimate({"input": 1}, ceiling=0), uuid.uuid4().hex
    )
    (granted,) = ledger.apply([place])
    assert isinstance(granted, Granted)
    ledger.apply(
        [Post(hold.hex, user.pk, key.pk, operation, model, Usage(units, {"reasoning": 3}), "completed")]
    )
    if at is not None:
        Entry.objects.filter(hold=hold).update(created_at=at)
    return key


def amounts_of(answer: Any) -> list[int]:
    assert answer.status_code == 200, answer.content
    return [entry["amount"] for entry in answer.json()["results"]]


def test_a_user_pages_through_their_own_history(client_of: Clients, alice: User, bob: User) -> None:
    grant(bob, 99)
    grant(alice, 1, 2, 3, 4, 5)
    client = client_of(alice, ApiKey.Kind.ISSUED)
    first = client.get(ENTRIES, {"limit": 2})
    assert amounts_of(first) == [5, 4]
    grant(alice, 6)
    second = client.get(first.json()["next"])
    assert amounts_of(second) == [3, 2]
    third = client.get(second.json()["next"])
    assert amounts_of(third) == [1]
    assert third.json()["next"] is None
    assert amounts_of(client.get(third.json()["previous"])) == [3, 2]


def test_a_charge_says_what_was_used_and_at_which_rate(client_of: Clients, alice: User) -> None:
    grant(alice, 30)
    key = call(alice, {"input": 9, "output": 10})
    (charge, _) = client_of(alice).get(f"{ENTRIES}/").json()["results"]
    assert charge.pop("created_at").endswith("Z")
    assert uuid.UUID(charge.pop("request_id")) == Hold.objects.get().id
    assert charge.pop("id") == Entry.objects.latest("id").pk
    assert charge == {
        "user": alice.pk,
        "kind": "charge",
        "amount": -19,
        "balance_after": 11,
        "reason": "completed",
        "by": None,
        "key": key.pk,
        "operation": "POST /v1/chat/completions",
        "model": "gpt-4o-mini",
        "units": {"input": 9, "output": 10},
        "details": {"reasoning": 3},
        "rate": {"input": 1_000_000, "output": 1_000_000},
    }


def test_a_history_is_filtered_by_kind_and_time(client_of: Clients, alice: User) -> None:
    grant(alice, 1, 2, 3)
    ledger.set_balance(user_id=alice.pk, to_credits=10, by_id=None, reason="set")
    noon = datetime(2026, 11, 1, 12, tzinfo=UTC)
    for hours, entry in enumerate(Entry.objects.order_by("id")):
        Entry.objects.filter(pk=entry.pk).update(created_at=noon + timedelta(hours=hours))
    client = client_of(alice)
    assert amounts_of(client.get(ENTRIES, {"kind": "set"})) == [4]
    assert amounts_of(client.get(ENTRIES, {"since": "2026-11-01T13:00:00Z"})) == [4, 3, 2]
    assert amounts_of(client.get(ENTRIES, {"until": "2026-11-01T13:00:00Z"})) == [1]
    assert amounts_of(client.get(ENTRIES, {"since": "2026-11-01T14:00:00+01:00", "kind": "grant"})) == [3, 2]


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ({"kind": "gift"}, 400),
        ({"since": "yesterday"}, 400),
        ({"user": "me"}, 400),
        ({"user": "-1"}, 400),
        ({"user": "9" * 30}, 400),
        ({"cursor": "x"}, 404),
        ({"cursor": "é"}, 404),
        (cursor("p=abc"), 404),
        (cursor("p=1&r=1&o=-5"), 404),
        (cursor("p=" + "9" * 20), 404),
        (cursor("p=" + "9" * 5000), 404),
        (cursor("p=%D9%A3"), 404),
        (cursor("p="), 404),
    ],
)
def test_what_cannot_be_asked_is_refused(
    client_of: Clients, alice: User, query: dict[str, str], status: int
) -> None:
    grant(alice, 1)
    answer = client_of(alice).get(ENTRIES, query)
    assert answer.status_code == status
    assert answer.json()["error"]["type"] == "invalid_request_error"


def test_a_cursor_beyond_all_entries_is_a_page_like_any(client_of: Clients, alice: User) -> None:
    grant(alice, 1, 2)
    client = client_of(alice)
    assert amounts_of(client.get(ENTRIES, cursor("p=" + "9" * 19))) == [2, 1]
    assert amounts_of(client.get(ENTRIES, cursor("p=0"))) == []


@pytest.mark.parametrize("url", [ENTRIES, USAGE])
@pytest.mark.parametrize("name", ["since", "until"])
@pytest.mark.parametrize(
    ("time", "status"),
    [
        ("0001-01-01T00:00:00Z", 200),
        ("0001-01-02T00:00:00Z", 200),
        ("0001-01-02T00:00:00-11:59", 200),
        ("0001-01-01T00:00:00+14:00", 400),
        ("9999-12-31T23:59:59.999999Z", 200),
        ("9999-12-31T23:59:59+14:00", 200),
        ("9999-12-31T23:59:59-14:00", 400),
        ("10000-01-01T00:00:00Z", 400),
    ],
)
def test_a_period_may_begin_and_end_at_any_time_there_is(
    client_of: Clients, alice: User, url: str, name: str, time: str, status: int
) -> None:
    answer = client_of(alice).get(url, {name: time})
    assert answer.status_code == status, answer.content
    assert status == 200 or answer.json()["error"]["param"] == name


def test_a_page_has_a_largest_size(client_of: Clients, alice: User) -> None:
    grant(alice, *range(1, 56))
    client = client_of(alice)
    assert len(amounts_of(client.get(ENTRIES))) == 50
    assert len(amounts_of(client.get(ENTRIES, {"limit": 10**9}))) == 55
    assert len(amounts_of(client.get(ENTRIES, {"limit": "many"}))) == 50


def test_operators_see_anybodys_history_or_all(
    client_of: Clients, olga: User, alice: User, bob: User
) -> None:
    grant(alice, 1)
    grant(bob, 2)
    client = client_of(olga)
    assert amounts_of(client.get(ENTRIES)) == []
    assert amounts_of(client.get(ENTRIES, {"user": alice.pk})) == [1]
    assert amounts_of(client.get(ENTRIES, {"user": "all"})) == [2, 1]
    assert amounts_of(client.get(f"/api/balance/{bob.pk}/entries")) == [2]
    assert client.get("/api/balance/999999/entries").status_code == 404
    assert client.get(ENTRIES, {"user": "999999"}).status_code == 404


def test_users_see_nobody_elses_history_or_usage(client_of: Clients, alice: User, bob: User) -> None:
    client = client_of(alice)
    assert client.get(f"/api/balance/{alice.pk}/entries").status_code == 403
    for url in (ENTRIES, USAGE):
        assert client.get(url, {"user": str(alice.pk)}).status_code == 200
        for other in (str(bob.pk), "all", "999999"):
            assert client.get(url, {"user": other}).status_code == 403


def test_a_history_takes_the_same_few_queries_however_long(
    client_of: Clients, alice: User, django_assert_max_num_queries: Any
) -> None:
    grant(alice, *range(1, 40))
    client = client_of(alice)
    client.get(ENTRIES)
    with django_assert_max_num_queries(3):
        assert len(amounts_of(client.get(ENTRIES))) == 39


def test_usage_adds_up_calls_credits_and_tokens_by_day_and_model(
    client_of: Clients, alice: User, bob: User
) -> None:
    grant(alice, 1000)
    grant(bob, 1000)
    today = datetime.now(UTC).replace(hour=12)
    yesterday = today - timedelta(days=1)
    call(alice, {"input": 9, "output": 10}, at=today)
    call(alice, {"input": 1, "cached_input": 4, "audio_output": 2, "reasoning": 6}, at=today)
    call(alice, {"input": 5}, model="gpt-4.1", at=yesterday)
    call(alice, {"input": 5}, at=today - timedelta(days=40))
    call(bob, {"input": 500}, at=today)
    answer = client_of(alice).get(USAGE)
    assert answer.status_code == 200
    assert answer.json()["results"] == [
        {
            "day": today.date().isoformat(),
            "model": "gpt-4o-mini",
            "calls": 2,
            "credits": 32,
            "input_tokens": 14,
            "output_tokens": 18,
        },
        {
            "day": yesterday.date().isoformat(),
            "model": "gpt-4.1",
            "calls": 1,
            "credits": 5,
            "input_tokens": 5,
            "output_tokens": 0,
        },
    ]


def test_operators_add_up_everybodys_usage_in_pages(
    client_of: Clients, olga: User, alice: User, bob: User
) -> None:
    for user, tokens in ((alice, 5), (bob, 7)):
        grant(user, 100)
        call(user, {"input": tokens})
        call(user, {"input": tokens})
    client = client_of(olga)
    assert client.get(USAGE).json()["results"] == []
    by_user = client.get(USAGE, {"user": "all", "by": "user", "limit": "1"}).json()
    assert by_user["count"] == 2
    assert [(row["user"], row["calls"], row["credits"]) for row in by_user["results"]] == [(alice.pk, 2, 10)]
    of_bob = client.get(USAGE, {"user": str(bob.pk), "by": "operation, key"}).json()["results"]
    assert [(row["operation"], row["credits"]) for row in of_bob] == [("POST /v1/chat/completions", 7)] * 2
    assert {row["key"] for row in of_bob} == set(ApiKey.objects.filter(user=bob).values_list("id", flat=True))


def test_a_correction_changes_the_credits_but_is_no_call(client_of: Clients, alice: User) -> None:
    grant(alice, 100)
    key = call(alice, {"input": 5})
    hold = Hold.objects.get()
    late = Post(hold.id.hex, alice.pk, key.pk, hold.operation, hold.model, Usage({"input": 8}), "late")
    ledger.apply([late])
    (row,) = client_of(alice).get(USAGE).json()["results"]
    assert (row["calls"], row["credits"], row["input_tokens"]) == (1, 8, 5)


@pytest.mark.parametrize("by", ["colour", "day,", "day;model", "account__user__password"])
def test_usage_is_added_up_by_nothing_else(client_of: Clients, alice: User, by: str) -> None:
    answer = client_of(alice).get(USAGE, {"by": by})
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "by"
