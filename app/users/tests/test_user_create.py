"""POST /api/user/create."""

from collections.abc import Callable

import pytest
from pytest_django import Settings
from rest_framework.test import APIClient

from users.models import User

CHARLIE = {"email": "charlie@example.org", "password": "correct horse battery", "name": "Charlie"}
Clients = Callable[..., APIClient]


@pytest.fixture
def open_registration(settings: Settings, db: None) -> None:
    settings.OPEN_REGISTRATION = True


def test_an_operator_creates_a_user_who_has_an_account(client_of: Clients, olga: User) -> None:
    answer = client_of(olga).post("/api/user/create", CHARLIE)
    assert answer.status_code == 201
    charlie = User.objects.get(email="charlie@example.org")
    assert answer.json() == {"id": charlie.pk, "email": "charlie@example.org", "name": "Charlie"}
    assert charlie.check_password(CHARLIE["password"])
    assert charlie.account.balance == 0
    assert not charlie.is_superuser


def test_a_user_may_not_create_another(client_of: Clients, alice: User) -> None:
    answer = client_of(alice).post("/api/user/create", CHARLIE)
    assert answer.status_code == 403
    assert answer.json()["error"]["code"] == "permission_denied"


@pytest.mark.django_db
def test_a_stranger_may_not_register_while_registration_is_closed(api: APIClient) -> None:
    answer = api.post("/api/user/create", CHARLIE)
    assert answer.status_code == 401
    assert answer["WWW-Authenticate"] == "Bearer"


@pytest.mark.usefixtures("open_registration")
def test_a_stranger_registers_where_registration_is_open(api: APIClient) -> None:
    assert api.post("/api/user/create/", CHARLIE).status_code == 201


@pytest.mark.usefixtures("open_registration")
def test_nobody_registers_as_an_operator(api: APIClient) -> None:
    api.post("/api/user/create", {**CHARLIE, "is_superuser": True, "is_staff": True})
    charlie = User.objects.get(email="charlie@example.org")
    assert not charlie.is_superuser
    assert not charlie.is_staff


@pytest.mark.usefixtures("open_registration", "alice")
@pytest.mark.parametrize("email", ["alice@example.org", "ALICE@Example.ORG", " alice@example.org "])
def test_an_address_is_taken_once_whatever_its_case(api: APIClient, email: str) -> None:
    answer = api.post("/api/user/create", {**CHARLIE, "email": email})
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "email"
    assert User.objects.count() == 1


@pytest.mark.usefixtures("open_registration")
@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"email": "charlie"}, "email"),
        ({"email": None}, "email"),
        ({"email": f"{'c' * 260}@example.org"}, "email"),
        ({"password": "12345678"}, "password"),
        ({"password": "short"}, "password"),
        ({"password": "password1"}, "password"),
        ({"password": "charlie@example"}, "password"),
        ({"password": "correct horse " * 300}, "password"),
        ({"password": ""}, "password"),
        ({"name": "C" * 151}, "name"),
        ({"name": "nul\0"}, "name"),
    ],
)
def test_what_is_wrong_with_a_registration_is_named(
    api: APIClient, change: dict[str, object], param: str
) -> None:
    answer = api.post("/api/user/create", {**CHARLIE, **change})
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert (error["type"], error["param"]) == ("invalid_request_error", param)
    assert list(error["fields"]) == [param]
    assert not User.objects.exists()


@pytest.mark.usefixtures("open_registration")
def test_strangers_of_one_address_register_sixty_times_a_minute(api: APIClient) -> None:
    for number in range(60):
        assert api.post("/api/user/create", {**CHARLIE, "email": f"{number}@example.org"}).status_code == 201
    answer = api.post("/api/user/create", CHARLIE)
    assert answer.status_code == 429
    assert answer.json()["error"]["code"] == "rate_limit_exceeded"
    assert 0 < int(answer["Retry-After"]) <= 60


def test_an_operator_is_not_throttled(client_of: Clients, olga: User) -> None:
    client = client_of(olga)
    codes = {
        client.post("/api/user/create", {**CHARLIE, "email": f"{number}@example.org"}).status_code
        for number in range(61)
    }
    assert codes == {201}


@pytest.mark.usefixtures("open_registration")
def test_whoever_has_a_key_registers_others_no_faster(client_of: Clients, alice: User) -> None:
    client = client_of(alice)
    codes = [client.post("/api/user/create", {"email": "x"}).status_code for _ in range(61)]
    assert codes == [400] * 60 + [429]
