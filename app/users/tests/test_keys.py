"""/api/keys."""

from collections.abc import Callable
from datetime import timedelta

import pytest
from django.utils import timezone
from rest_framework.test import APIClient

from conftest import PASSWORD
from users.models import ApiKey, User, digest_of

KEYS = "/api/keys"
ME = "/api/user/me"
Clients = Callable[..., APIClient]


def works(secret: str) -> bool:
    return APIClient().get(ME, headers={"authorization": f"Bearer {secret}"}).status_code == 200


def test_a_key_is_made_with_its_limits_and_its_secret_shown_once(client_of: Clients, alice: User) -> None:
    client = client_of(alice)
    expires = timezone.now() + timedelta(days=1)
    limits = {"expires_at": expires.isoformat(), "allowed_models": ["gpt-4o-mini", "gpt-4.1*"]}
    answer = client.post(KEYS, {"name": "Laptop", **limits})
    assert answer.status_code == 201
    made = answer.json()
    secret = made["secret"]
    assert works(secret)
    key = ApiKey.objects.get(pk=made["id"])
    assert (key.user, key.kind, key.name) == (alice, ApiKey.Kind.ISSUED, "Laptop")
    assert (key.expires_at, key.allowed_models) == (expires, ["gpt-4o-mini", "gpt-4.1*"])
    assert key.digest == digest_of(secret)
    assert secret.startswith(made["prefix"])
    for seen in (client.get(f"{KEYS}/{key.pk}"), client.get(KEYS)):
        assert secret not in seen.content.decode()
        assert key.digest not in seen.content.decode()
    assert {name: value for name, value in made.items() if name != "secret"} | {"last_used_at": None} == (
        client.get(f"{KEYS}/{key.pk}").json() | {"last_used_at": None}
    )


def test_a_list_shows_the_own_keys_newest_first_by_kind(client_of: Clients, alice: User, bob: User) -> None:
    client = client_of(alice)
    ApiKey.issue(user=bob, name="Bob's")
    for name in ("one", "two"):
        ApiKey.issue(user=alice, name=name)
    assert [key["name"] for key in client.get(f"{KEYS}/").json()["results"]] == ["two", "one", "Test"]
    assert [k["name"] for k in client.get(KEYS, {"kind": "login"}).json()["results"]] == ["Test"]
    assert client.get(KEYS, {"kind": "other"}).status_code == 400


def test_a_revoked_key_stops_at_once_and_stays_in_the_list(client_of: Clients, alice: User) -> None:
    client = client_of(alice)
    key, secret = ApiKey.issue(user=alice, name="Laptop")
    assert works(secret)
    assert client.delete(f"{KEYS}/{key.pk}").status_code == 204
    assert not works(secret)
    revoked_at = client.get(f"{KEYS}/{key.pk}").json()["revoked_at"]
    assert revoked_at is not None
    assert client.delete(f"{KEYS}/{key.pk}").status_code == 204
    assert client.get(f"{KEYS}/{key.pk}").json()["revoked_at"] == revoked_at


def test_revoking_the_login_key_logs_out(client_of: Clients, alice: User) -> None:
    client = client_of(alice)
    assert client.delete(f"{KEYS}/{ApiKey.objects.get().pk}").status_code == 204
    assert client.get(ME).status_code == 401


def test_a_rotated_key_keeps_its_limits_and_the_old_secret_is_dead(client_of: Clients, alice: User) -> None:
    expires = timezone.now() + timedelta(days=1)
    key, old = ApiKey.issue(user=alice, name="Laptop", expires_at=expires, allowed_models=["gpt-4o"])
    answer = client_of(alice).post(f"{KEYS}/{key.pk}/rotate")
    assert answer.status_code == 200
    new = answer.json()["secret"]
    assert works(new)
    assert not works(old)
    key.refresh_from_db()
    assert (key.name, key.expires_at, key.allowed_models) == ("Laptop", expires, ["gpt-4o"])
    assert new.startswith(key.prefix)
    assert ApiKey.objects.filter(name="Laptop").count() == 1


def test_a_revoked_key_is_not_brought_back_by_rotation(client_of: Clients, alice: User) -> None:
    key, _ = ApiKey.issue(user=alice, name="Laptop")
    key.revoke()
    answer = client_of(alice).post(f"{KEYS}/{key.pk}/rotate/")
    assert answer.status_code == 409
    assert "secret" not in answer.json()


def test_anothers_key_does_not_exist_even_for_an_operator(
    client_of: Clients, alice: User, bob: User, olga: User
) -> None:
    key, secret = ApiKey.issue(user=alice, name="Laptop")
    for other in (bob, olga):
        client = client_of(other)
        assert client.get(f"{KEYS}/{key.pk}").status_code == 404
        assert client.delete(f"{KEYS}/{key.pk}").status_code == 404
        assert client.post(f"{KEYS}/{key.pk}/rotate").status_code == 404
    assert works(secret)


def test_an_issued_key_reads_keys_and_makes_rotates_or_revokes_none(client_of: Clients, alice: User) -> None:
    client = client_of(alice, ApiKey.Kind.ISSUED)
    key, secret = ApiKey.issue(user=alice, name="Laptop")
    assert client.get(KEYS).status_code == 200
    assert client.get(f"{KEYS}/{key.pk}").status_code == 200
    refused = [
        client.post(KEYS, {"name": "Another"}),
        client.post(f"{KEYS}/{key.pk}/rotate"),
        client.delete(f"{KEYS}/{key.pk}"),
    ]
    for answer in refused:
        assert answer.status_code == 403
        assert answer.json()["error"]["code"] == "login_required"
    assert works(secret)
    assert ApiKey.objects.count() == 2


def test_a_keys_name_models_and_expiry_are_changed_one_by_one(client_of: Clients, alice: User) -> None:
    key, secret = ApiKey.issue(user=alice, name="Laptop", requests_per_minute=60)
    client, url = client_of(alice), f"{KEYS}/{key.pk}"
    expires = timezone.now() + timedelta(days=1)
    changes: list[dict[str, object]] = [
        {"name": "Desk"},
        {"allowed_models": ["gpt-4o-mini"]},
        {"expires_at": expires.isoformat().replace("+00:00", "Z")},
        {"expires_at": None},
        {"allowed_models": [], "name": "Sofa"},
        {},
    ]
    expected = client.get(url).json()
    for change in changes:
        answer = client.patch(url, {**change, "kind": "login", "user": 1, "prefix": "x", "colour": "red"})
        assert answer.status_code == 200
        expected |= change
        # Whether it works is asked below, which is a use.
        assert answer.json() | {"last_used_at": None} == expected | {"last_used_at": None}
        assert client.get(url).json() == answer.json()
        assert works(secret)
    key.refresh_from_db()
    assert (key.user, key.kind, key.requests_per_minute) == (alice, ApiKey.Kind.ISSUED, 60)


def test_a_revoked_key_stays_revoked_when_it_is_changed(client_of: Clients, alice: User) -> None:
    key, secret = ApiKey.issue(user=alice, name="Laptop")
    key.revoke()
    body = {"name": "Desk", "expires_at": None, "revoked_at": None}
    assert client_of(alice).patch(f"{KEYS}/{key.pk}", body).json()["revoked_at"] is not None
    assert not works(secret)


def test_a_login_key_is_not_made_to_last_longer(client_of: Clients, api: APIClient, alice: User) -> None:
    body = {"email": "alice@example.org", "password": PASSWORD}
    assert api.post("/api/user/auth", body).status_code == 200
    key = ApiKey.objects.get(user=alice)
    client, url = client_of(alice), f"{KEYS}/{key.pk}"
    shown = client.get(url).json()
    for expires in (None, "2999-01-01T00:00:00Z"):
        answer = client.patch(url, {"name": "Mine", "expires_at": expires})
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, "expires_at")
    # To send back what was read is to change nothing.
    changed = client.patch(url, {**shown, "name": "Mine"})
    assert (changed.status_code, changed.json()) == (200, {**shown, "name": "Mine"})


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "name"),
        ({"name": ""}, "name"),
        ({"name": "x" * 101}, "name"),
        ({"name": "x", "expires_at": "2020-01-01T00:00:00Z"}, "expires_at"),
        ({"name": "x", "expires_at": "soon"}, "expires_at"),
        ({"name": "x", "allowed_models": "gpt-4o"}, "allowed_models"),
        ({"name": "x", "allowed_models": [""]}, "allowed_models.0"),
        ({"name": "x", "allowed_models": ["gpt-4o", {"a": 1}]}, "allowed_models.1"),
        ({"name": "x", "allowed_models": ["a"] * 101}, "allowed_models"),
    ],
)
def test_what_is_wrong_with_a_new_key_is_named(
    client_of: Clients, alice: User, body: dict[str, object], param: str
) -> None:
    client = client_of(alice)
    answer = client.post(KEYS, body)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == param
    assert ApiKey.objects.count() == 1
    if body:
        key, _ = ApiKey.issue(user=alice, name="Laptop")
        changed = client.patch(f"{KEYS}/{key.pk}", body)
        assert (changed.status_code, changed.json()) == (400, answer.json())


def test_a_key_without_limits_may_call_every_model_for_ever(client_of: Clients, alice: User) -> None:
    made = client_of(alice).post(KEYS, {"name": "x", "kind": "login", "user": 1, "digest": "x"}).json()
    assert (made["kind"], made["allowed_models"], made["expires_at"]) == ("issued", [], None)
