"""Users and keys in the admin."""

import re

import pytest
from django.test import Client

from conftest import PASSWORD
from users.models import ApiKey, User, digest_of

USERS = "/admin/users/user/"
KEYS = "/admin/users/apikey/"


@pytest.fixture
def admin(olga: User) -> Client:
    client = Client()
    client.force_login(olga)
    return client


def test_only_operators_come_in(client: Client, alice: User) -> None:
    client.force_login(alice)
    for url in ("/admin/", USERS, KEYS):
        assert client.get(url).status_code == 302


def test_an_operator_logs_in_with_address_and_password(client: Client, olga: User) -> None:
    form = {"username": "olga@example.org", "password": PASSWORD, "next": "/admin/"}
    assert client.post("/admin/login/", form).status_code == 302
    assert client.get("/admin/").status_code == 200


def test_a_user_is_made_with_address_and_password(admin: Client) -> None:
    assert admin.get(f"{USERS}add/").status_code == 200
    form = {"email": "Alice@Example.org", "name": "Alice", "usable_password": "true"}
    answer = admin.post(f"{USERS}add/", {**form, "password1": PASSWORD, "password2": PASSWORD})
    assert answer.status_code == 302
    alice = User.objects.get(email="alice@example.org")
    assert alice.check_password(PASSWORD)
    assert alice.account.balance == 0
    again = admin.post(f"{USERS}add/", {**form, "password1": PASSWORD, "password2": PASSWORD})
    assert again.status_code == 200
    assert User.objects.count() == 2


def test_a_user_is_disabled_and_never_deleted(admin: Client, alice: User) -> None:
    assert admin.get(f"{USERS}{alice.pk}/change/").status_code == 200
    form = {"email": alice.email, "name": "Al"}
    assert admin.post(f"{USERS}{alice.pk}/change/", form).status_code == 302
    alice.refresh_from_db()
    assert (alice.name, alice.is_active) == ("Al", False)
    assert alice.check_password(PASSWORD)
    assert admin.post(f"{USERS}{alice.pk}/delete/", {"post": "yes"}).status_code == 403
    assert User.objects.filter(pk=alice.pk).exists()


def test_an_operator_keeps_their_own_rights(admin: Client, olga: User) -> None:
    admin.post(f"{USERS}{olga.pk}/change/", {"email": olga.email, "name": "Olga"})
    olga.refresh_from_db()
    assert olga.is_active
    assert olga.is_superuser


def test_a_new_password_ends_the_users_log_ins(admin: Client, alice: User) -> None:
    log_in, _ = ApiKey.issue(user=alice, name="Log-in", kind=ApiKey.Kind.LOGIN)
    issued, _ = ApiKey.issue(user=alice, name="Laptop")
    form = {
        "usable_password": "true",
        "password1": "another horse staple",
        "password2": "another horse staple",
    }
    assert admin.post(f"{USERS}{alice.pk}/password/", form).status_code == 302
    alice.refresh_from_db()
    log_in.refresh_from_db()
    issued.refresh_from_db()
    assert alice.check_password("another horse staple")
    assert log_in.revoked_at is not None
    assert issued.revoked_at is None


def test_an_issued_keys_secret_is_shown_once(admin: Client, alice: User) -> None:
    assert admin.get(f"{KEYS}add/").status_code == 200
    form = {"user": alice.pk, "name": "Laptop", "allowed_models": " gpt-4o \r\n\r\ngpt-4.1*"}
    answer = admin.post(f"{KEYS}add/", form)
    page = answer.content.decode()
    found = re.search(r"sk-tg-[\w-]{40,}", page)
    assert found is not None
    assert found[0] not in str(answer.cookies)
    key = ApiKey.objects.get()
    assert key.digest == digest_of(found[0])
    assert (key.user, key.kind, key.allowed_models) == (alice, ApiKey.Kind.ISSUED, ["gpt-4o", "gpt-4.1*"])
    for url in (KEYS, f"{KEYS}{key.pk}/change/"):
        seen = admin.get(url).content.decode()
        assert key.prefix in seen
        assert found[0] not in seen
        assert key.digest not in seen


@pytest.mark.parametrize("is_operator", [True, False])
def test_operators_and_nobody_else_use_the_admin(admin: Client, alice: User, is_operator: bool) -> None:
    form = {"email": alice.email, "is_active": "on", **({"is_superuser": "on"} if is_operator else {})}
    assert admin.post(f"{USERS}{alice.pk}/change/", form).status_code == 302
    alice.refresh_from_db()
    assert alice.is_staff is alice.is_superuser is is_operator


def test_a_key_is_changed_and_revoked_but_not_given_away(admin: Client, alice: User, bob: User) -> None:
    key, _ = ApiKey.issue(user=alice, name="Laptop", allowed_models=["gpt-4o"])
    form = {"user": bob.pk, "name": "Old laptop", "allowed_models": ""}
    assert admin.post(f"{KEYS}{key.pk}/change/", form).status_code == 302
    digest = key.digest
    key.refresh_from_db()
    assert (key.name, key.allowed_models, key.user, key.digest) == ("Old laptop", [], alice, digest)
    admin.post(KEYS, {"action": "revoke", "_selected_action": [key.pk]})
    key.refresh_from_db()
    assert key.revoked_at is not None
    assert admin.post(f"{KEYS}{key.pk}/delete/", {"post": "yes"}).status_code == 403


@pytest.mark.parametrize("query", ["", "?q=alice", "?is_active__exact=1"])
def test_users_are_listed_and_searched(admin: Client, alice: User, query: str) -> None:
    assert alice.email in admin.get(f"{USERS}{query}").content.decode()
