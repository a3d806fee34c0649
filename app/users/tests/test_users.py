"""GET /api/users, GET and PATCH /api/users/{id}."""

from collections.abc import Callable

import pytest
from rest_framework.test import APIClient

from users.models import ApiKey, User

Clients = Callable[..., APIClient]


def test_an_operator_lists_users_in_pages(client_of: Clients, olga: User, alice: User, bob: User) -> None:
    client = client_of(olga, ApiKey.Kind.ISSUED)
    first = client.get("/api/users", {"limit": 2}).json()
    assert first["count"] == 3
    assert [user["email"] for user in first["results"]] == ["olga@example.org", "alice@example.org"]
    second = client.get(first["next"]).json()
    assert [user["email"] for user in second["results"]] == ["bob@example.org"]
    assert "password" not in second["results"][0]


@pytest.mark.parametrize("search", ["alice", "ALICE@", "lice@example"])
def test_an_operator_searches_by_address(
    client_of: Clients, olga: User, alice: User, bob: User, search: str
) -> None:
    found = client_of(olga).get("/api/users", {"search": search}).json()
    assert [user["id"] for user in found["results"]] == [alice.pk]


def test_an_empty_search_finds_all_and_an_impossible_one_is_refused(client_of: Clients, olga: User) -> None:
    client = client_of(olga)
    assert client.get("/api/users", {"search": ""}).json()["count"] == 1
    assert client.get("/api/users", {"search": "nul\0"}).status_code == 400


def test_a_user_sees_no_list_and_no_other_user(client_of: Clients, alice: User, bob: User) -> None:
    client = client_of(alice)
    assert client.get("/api/users").status_code == 403
    assert client.get(f"/api/users/{bob.pk}").status_code == 403
    assert client.patch(f"/api/users/{bob.pk}", {"is_active": False}).status_code == 403
    assert client.get("/api/users/999999").status_code == 403


@pytest.mark.parametrize("user_id", ["999999", "0", "9" * 40])
def test_an_unknown_user_is_not_found(client_of: Clients, olga: User, user_id: str) -> None:
    answer = client_of(olga).get(f"/api/users/{user_id}")
    assert answer.status_code == 404
    assert answer.json()["error"]["code"] == "not_found"


def test_a_disabled_user_is_out_at_once_and_back_when_enabled(
    client_of: Clients, olga: User, alice: User
) -> None:
    operator, user = client_of(olga), client_of(alice)
    disabled = operator.patch(f"/api/users/{alice.pk}", {"is_active": False})
    assert disabled.status_code == 200
    assert disabled.json()["is_active"] is False
    assert user.get("/api/user/me").status_code == 401
    operator.patch(f"/api/users/{alice.pk}/", {"is_active": True})
    assert user.get("/api/user/me").status_code == 200


def test_an_operator_cannot_disable_themselves(client_of: Clients, olga: User) -> None:
    answer = client_of(olga).patch(f"/api/users/{olga.pk}", {"is_active": False})
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "is_active"
    olga.refresh_from_db()
    assert olga.is_active


def test_operators_are_not_made_here(client_of: Clients, olga: User, alice: User) -> None:
    client_of(olga).patch(f"/api/users/{alice.pk}", {"is_superuser": True, "is_staff": True})
    alice.refresh_from_db()
    assert not alice.is_superuser
    assert not alice.is_staff


def test_a_new_password_from_an_operator_ends_the_users_log_ins(
    client_of: Clients, olga: User, alice: User
) -> None:
    operator, log_in, issued = client_of(olga), client_of(alice), client_of(alice, ApiKey.Kind.ISSUED)
    answer = operator.patch(f"/api/users/{alice.pk}", {"password": "another horse staple"})
    assert answer.status_code == 200
    alice.refresh_from_db()
    assert alice.check_password("another horse staple")
    assert [c.get("/api/user/me").status_code for c in (operator, log_in, issued)] == [200, 401, 200]


def test_an_operators_issued_key_disables_but_sets_no_password(
    client_of: Clients, olga: User, alice: User
) -> None:
    client = client_of(olga, ApiKey.Kind.ISSUED)
    refused = client.patch(f"/api/users/{alice.pk}", {"password": "another horse staple"})
    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "login_required")
    assert client.patch(f"/api/users/{alice.pk}", {"is_active": False}).status_code == 200
