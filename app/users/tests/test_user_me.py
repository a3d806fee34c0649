"""GET, PUT and PATCH /api/user/me."""

from collections.abc import Callable

import pytest
from rest_framework.test import APIClient

from conftest import PASSWORD
from users.models import ApiKey, User

ME = "/api/user/me"
NEW_PASSWORD = "another horse staple"
UNLIMITED = {"requests_per_minute": None, "tokens_per_minute": None, "parallel_calls": None}
Clients = Callable[..., APIClient]


def test_a_user_sees_themselves_without_the_password(client_of: Clients, alice: User, bob: User) -> None:
    for kind in ApiKey.Kind:
        answer = client_of(alice, kind).get(ME)
        assert answer.status_code == 200
        shown = {"id": alice.pk, "email": "alice@example.org", "name": "Alice"}
        assert answer.json() == {**shown, **UNLIMITED}


@pytest.mark.parametrize("method", ["put", "patch"])
def test_a_user_changes_address_name_and_password(client_of: Clients, alice: User, method: str) -> None:
    body = {"email": "Alice.L@example.org", "name": "Alice L.", "password": NEW_PASSWORD}
    answer = getattr(client_of(alice), method)(f"{ME}/", body)
    assert answer.status_code == 200
    shown = {"id": alice.pk, "email": "alice.l@example.org", "name": "Alice L."}
    assert answer.json() == {**shown, **UNLIMITED}
    alice.refresh_from_db()
    assert alice.email == "alice.l@example.org"
    assert alice.check_password(NEW_PASSWORD)


def test_a_new_password_ends_the_other_log_ins_and_no_issued_key(client_of: Clients, alice: User) -> None:
    mine, other, issued = client_of(alice), client_of(alice), client_of(alice, ApiKey.Kind.ISSUED)
    assert mine.patch(ME, {"password": NEW_PASSWORD}).status_code == 200
    assert [c.get(ME).status_code for c in (mine, other, issued)] == [200, 401, 200]


def test_a_new_name_ends_no_log_in(client_of: Clients, alice: User) -> None:
    mine, other = client_of(alice), client_of(alice)
    assert mine.patch(ME, {"name": "Al"}).status_code == 200
    assert other.get(ME).status_code == 200


@pytest.mark.parametrize("change", [{"password": NEW_PASSWORD}, {"email": "mallory@example.org"}])
def test_an_issued_key_changes_nothing_that_one_logs_in_with(
    client_of: Clients, alice: User, change: dict[str, str]
) -> None:
    answer = client_of(alice, ApiKey.Kind.ISSUED).patch(ME, change)
    assert answer.status_code == 403
    assert answer.json()["error"]["code"] == "login_required"
    assert "/api/user/auth" in answer.json()["error"]["message"]
    alice.refresh_from_db()
    assert alice.email == "alice@example.org"
    assert alice.check_password(PASSWORD)


def test_an_issued_key_may_change_the_name(client_of: Clients, alice: User) -> None:
    body = {"email": "alice@example.org", "name": "Al"}
    assert client_of(alice, ApiKey.Kind.ISSUED).put(ME, body).status_code == 200


def test_the_browsers_session_outlives_its_own_change_of_password(alice: User) -> None:
    browser, elsewhere = APIClient(), APIClient()
    for client in (browser, elsewhere):
        client.login(username="alice@example.org", password=PASSWORD)
    assert browser.patch(ME, {"password": NEW_PASSWORD}).status_code == 200
    assert browser.get(ME).status_code == 200
    assert elsewhere.get(ME).status_code == 401


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"email": "bob@example.org"}, "email"),
        ({"email": "BOB@EXAMPLE.ORG"}, "email"),
        ({"email": ""}, "email"),
        ({"password": "12345678"}, "password"),
        ({"password": "alice@example"}, "password"),
    ],
)
def test_what_cannot_be_is_refused(
    client_of: Clients, alice: User, bob: User, change: dict[str, str], param: str
) -> None:
    answer = client_of(alice).patch(ME, change)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == param
    alice.refresh_from_db()
    assert alice.email == "alice@example.org"
    assert alice.check_password(PASSWORD)


def test_nobody_makes_themselves_an_operator(client_of: Clients, alice: User) -> None:
    client_of(alice).patch(ME, {"is_superuser": True, "is_staff": True, "id": 1})
    alice.refresh_from_db()
    assert not alice.is_superuser
    assert not alice.is_staff


def test_a_method_that_does_not_exist_is_told(client_of: Clients, alice: User) -> None:
    answer = client_of(alice).delete(ME)
    assert answer.status_code == 405
    assert answer.json()["error"]["code"] == "method_not_allowed"
