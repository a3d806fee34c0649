"""Keys in `Authorization`, and sessions."""

from collections.abc import Callable
from datetime import timedelta

import pytest
from django.utils import timezone
from rest_framework.test import APIClient

from conftest import PASSWORD
from users.models import ApiKey, User

ME = "/api/user/me"


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "Token", "TOKEN", "Bearer  "])
def test_a_key_is_known_under_both_schemes_in_any_case(api: APIClient, alice: User, scheme: str) -> None:
    _, secret = ApiKey.issue(user=alice, name="Laptop")
    answer = api.get(ME, headers={"authorization": f"{scheme} {secret}"})
    assert answer.status_code == 200
    assert answer.json()["id"] == alice.pk


@pytest.mark.django_db
@pytest.mark.parametrize(
    "header",
    ["", "Bearer", "Bearer ", "Token x", "Basic YWxpY2U6eA==", "Bearer a b", "Bearer \xe9", "x" * 9000],
)
def test_what_is_no_key_is_refused_with_a_challenge(api: APIClient, header: str) -> None:
    answer = api.get(ME, headers={"authorization": header})
    assert answer.status_code == 401
    assert answer["WWW-Authenticate"] == "Bearer"
    assert answer.json()["error"]["code"] == "invalid_api_key"
    assert answer.json()["error"]["type"] == "authentication_error"


def test_a_digest_is_no_key(api: APIClient, alice: User) -> None:
    key, _ = ApiKey.issue(user=alice, name="Laptop")
    assert api.get(ME, headers={"authorization": f"Bearer {key.digest}"}).status_code == 401


def test_a_revoked_an_expired_and_a_disabled_users_key_are_refused(api: APIClient, alice: User) -> None:
    key, secret = ApiKey.issue(user=alice, name="Laptop")
    api.credentials(HTTP_AUTHORIZATION=f"Bearer {secret}")
    assert api.get(ME).status_code == 200
    ApiKey.objects.update(expires_at=timezone.now())
    assert api.get(ME).status_code == 401
    ApiKey.objects.update(expires_at=timezone.now() + timedelta(hours=1))
    assert api.get(ME).status_code == 200
    User.objects.update(is_active=False)
    disabled = api.get(ME)
    assert (disabled.status_code, disabled.json()["error"]["code"]) == (401, "invalid_api_key")
    User.objects.update(is_active=True)
    key.revoke()
    assert api.get(ME).status_code == 401


def test_last_used_is_written_once_a_minute(client_of: Callable[..., APIClient], alice: User) -> None:
    client = client_of(alice)
    client.get(ME)
    first = ApiKey.objects.get().last_used_at
    assert first is not None
    client.get(ME)
    assert ApiKey.objects.get().last_used_at == first
    ApiKey.objects.update(last_used_at=first - timedelta(minutes=2))
    client.get(ME)
    later = ApiKey.objects.get().last_used_at
    assert later is not None
    assert later >= first


def test_a_browsers_session_is_known_and_protected_against_forgery(alice: User) -> None:
    browser = APIClient(enforce_csrf_checks=True)
    assert browser.login(username="alice@example.org", password=PASSWORD)
    assert browser.get(ME).status_code == 200
    forged = browser.patch(ME, {"name": "Mallory"})
    assert forged.status_code == 403
    alice.refresh_from_db()
    assert alice.name == "Alice"
