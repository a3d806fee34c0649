"""Limits of users, which operators set, and of keys, which their owners set."""

from collections.abc import Callable
from typing import Any

import pytest
from django.test import Client
from rest_framework.test import APIClient

from users.limits import MOST, NAMES
from users.models import ApiKey, User

KEYS, USERS, ME = "/api/keys", "/api/users", "/api/user/me"
NONE = dict.fromkeys(NAMES)
SOME = {"requests_per_minute": 60, "tokens_per_minute": 10_000, "parallel_calls": 4}
Clients = Callable[..., APIClient]
pytestmark = pytest.mark.django_db


def limits_in(answer: Any) -> dict[str, int | None]:
    assert answer.status_code in (200, 201), answer.content
    return {name: answer.json()[name] for name in NAMES}


def test_an_operator_limits_a_user_and_takes_the_limits_away(
    client_of: Clients, alice: User, olga: User
) -> None:
    operator, url = client_of(olga), f"{USERS}/{alice.pk}"
    assert limits_in(operator.get(url)) == NONE
    assert limits_in(operator.patch(url, SOME)) == SOME
    assert limits_in(operator.patch(url, {"parallel_calls": 9})) == {**SOME, "parallel_calls": 9}
    assert limits_in(operator.patch(url, {"name": "Al"})) == {**SOME, "parallel_calls": 9}
    assert limits_in(operator.patch(url, NONE)) == NONE


def test_users_see_the_limits_in_force_and_change_none_of_them(
    client_of: Clients, alice: User, settings: Any
) -> None:
    settings.REQUESTS_PER_MINUTE, settings.PARALLEL_CALLS = 100, 8
    User.objects.filter(pk=alice.pk).update(requests_per_minute=20)
    client = client_of(alice)
    in_force = {"requests_per_minute": 20, "tokens_per_minute": None, "parallel_calls": 8}
    assert limits_in(client.get(ME)) == in_force
    assert limits_in(client.patch(ME, {"name": "Al", "requests_per_minute": 5_000})) == in_force
    assert client.patch(f"{USERS}/{alice.pk}", SOME).status_code == 403
    alice.refresh_from_db()
    assert alice.requests_per_minute == 20


def test_a_key_is_made_with_limits_and_they_are_changed_later(client_of: Clients, alice: User) -> None:
    client = client_of(alice)
    made = client.post(KEYS, {"name": "Laptop", **SOME})
    assert limits_in(made) == SOME
    url = f"{KEYS}/{made.json()['id']}"
    assert limits_in(client.get(url)) == SOME
    assert limits_in(client.patch(url, {"parallel_calls": None})) == {**SOME, "parallel_calls": None}
    assert client.get(url).json()["name"] == "Laptop"
    assert limits_in(client.post(f"{url}/rotate")) == {**SOME, "parallel_calls": None}
    assert limits_in(client.post(KEYS, {"name": "Free"})) == NONE


def test_an_issued_key_changes_no_limits_and_nobody_those_of_others(
    client_of: Clients, alice: User, bob: User, olga: User
) -> None:
    key, _ = ApiKey.issue(user=alice, name="Laptop", requests_per_minute=60)
    url = f"{KEYS}/{key.pk}"
    assert client_of(alice, ApiKey.Kind.ISSUED).patch(url, NONE).status_code == 403
    assert client_of(bob).patch(url, NONE).status_code == 404
    assert client_of(olga).patch(url, NONE).status_code == 404
    key.refresh_from_db()
    assert key.requests_per_minute == 60


@pytest.mark.parametrize("limit", [0, -1, MOST + 1, 10**30, 1.5, "60", True, [], {}])
@pytest.mark.parametrize("name", NAMES)
def test_a_limit_that_is_none_is_refused_by_name(
    client_of: Clients, alice: User, olga: User, name: str, limit: object
) -> None:
    key, _ = ApiKey.issue(user=alice, name="Laptop")
    answers = [
        client_of(olga).patch(f"{USERS}/{alice.pk}", {name: limit}),
        client_of(alice).post(KEYS, {"name": "x", name: limit}),
        client_of(alice).patch(f"{KEYS}/{key.pk}", {name: limit}),
    ]
    assert [(a.status_code, a.json()["error"]["param"]) for a in answers] == [(400, name)] * 3


def test_the_admin_sets_and_clears_limits_of_users_and_keys(client: Client, olga: User, alice: User) -> None:
    client.force_login(olga)
    key, _ = ApiKey.issue(user=alice, name="Laptop")
    pages: list[tuple[str, User | ApiKey, dict[str, object]]] = [
        (f"/admin/users/user/{alice.pk}/change/", alice, {"email": alice.email, "is_active": "on"}),
        (f"/admin/users/apikey/{key.pk}/change/", key, {"name": "Laptop"}),
    ]
    for url, limited, form in pages:
        assert "requests_per_minute" in client.get(url).content.decode()
        assert client.post(url, {**form, **SOME}).status_code == 302
        limited.refresh_from_db()
        assert {name: getattr(limited, name) for name in NAMES} == SOME
        assert client.post(url, {**form, "parallel_calls": 0}).status_code == 200
        assert client.post(url, {**form, **dict.fromkeys(NAMES, "")}).status_code == 302
        limited.refresh_from_db()
        assert {name: getattr(limited, name) for name in NAMES} == NONE
