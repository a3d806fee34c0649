"""/api/rates."""

from collections.abc import Callable
from typing import Any

import pytest
from django.test import Client
from rest_framework.test import APIClient

from balances.models import Rate
from balances.rates import Book
from users.models import User

RATES = "/api/rates"
RATE = {"model": "gpt-4o*", "unit": "output", "credits_per_unit": "4.5"}
Clients = Callable[..., APIClient]


def test_an_operator_prices_changes_and_removes(client_of: Clients, olga: User) -> None:
    client = client_of(olga)
    made = client.post(f"{RATES}/", RATE)
    assert made.status_code == 201
    url = f"{RATES}/{made.json()['id']}"
    assert client.get(url).json() == {"id": made.json()["id"], **RATE, "credits_per_unit": "4.500000"}
    assert Book.load().price("gpt-4o-mini", {"output": 10}) == 45
    assert client.patch(url, {"credits_per_unit": "0.000001"}).status_code == 200
    assert Book.load().price("gpt-4o-mini", {"output": 10}) == 1
    assert client.get(RATES).json()["count"] == 1
    assert client.delete(url).status_code == 204
    assert Book.load().price("gpt-4o-mini", {"output": 10}) == 10


@pytest.mark.parametrize(
    "change",
    [
        {"credits_per_unit": "-1"},
        {"credits_per_unit": "0.0000001"},
        {"credits_per_unit": "NaN"},
        {"credits_per_unit": "1e12"},
        {"credits_per_unit": None},
        {"unit": "word"},
        {"model": ""},
        {"model": "gpt*4"},
        {"model": "gpt-4**"},
        {"model": "**"},
        {"model": "x" * 201},
    ],
)
def test_an_impossible_rate_is_refused(client_of: Clients, olga: User, change: dict[str, Any]) -> None:
    answer = client_of(olga).post(RATES, {**RATE, **change})
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == next(iter(change))
    assert not Rate.objects.exists()


@pytest.mark.parametrize("model", ["*", "gpt-4o", "gpt-4o*", "ft:gpt-4o:us:x/y*"])
def test_a_rate_is_of_a_model_or_of_all_that_begin_alike(client_of: Clients, olga: User, model: str) -> None:
    assert client_of(olga).post(RATES, {**RATE, "model": model}).status_code == 201


def test_the_admin_refuses_the_patterns_that_the_api_refuses(client: Client, olga: User) -> None:
    client.force_login(olga)
    page = client.post("/admin/balances/rate/add/", {**RATE, "model": "gpt*4"})
    assert "at its end" in page.content.decode()
    assert not Rate.objects.exists()
    assert client.post("/admin/balances/rate/add/", RATE).status_code == 302
    assert Rate.objects.get().model == RATE["model"]


def test_a_unit_of_a_model_has_one_rate(client_of: Clients, olga: User) -> None:
    client = client_of(olga)
    assert client.post(RATES, RATE).status_code == 201
    assert client.post(RATES, {**RATE, "credits_per_unit": "1"}).status_code == 400
    assert client.post(RATES, {**RATE, "unit": "input"}).status_code == 201


def test_users_do_not_touch_rates(client_of: Clients, alice: User) -> None:
    rate = Rate.objects.create(**RATE)
    client = client_of(alice)
    answers = [
        client.get(RATES),
        client.post(RATES, RATE),
        client.get(f"{RATES}/{rate.pk}"),
        client.patch(f"{RATES}/{rate.pk}", {"credits_per_unit": "0"}),
        client.delete(f"{RATES}/{rate.pk}"),
    ]
    assert [answer.status_code for answer in answers] == [403] * 5
