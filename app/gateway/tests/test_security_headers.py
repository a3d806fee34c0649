"""What pages tell browsers, so that nothing that callers write can run in an operator's session."""

import pytest
from django.test import Client
from pytest_django import Settings

from conftest import PASSWORD
from users.models import User

pytestmark = pytest.mark.django_db


def policy(client: Client, path: str) -> dict[str, list[str]]:
    """The directives of a page's Content-Security-Policy."""
    header = client.get(path).headers["Content-Security-Policy"]
    return {name: values for name, *values in (part.split() for part in header.split(";"))}


@pytest.mark.parametrize("path", ["/api/docs", "/api/schema", "/api/balance", "/nothing"])
def test_scripts_come_from_this_site_only(client: Client, path: str) -> None:
    found = policy(client, path)
    assert found["script-src"] == ["'self'"]
    assert found["default-src"] == found["frame-ancestors"] == found["base-uri"] == ["'none'"]


def test_the_admin_may_evaluate_its_templates_and_no_more(client: Client) -> None:
    assert policy(client, "/admin/login/")["script-src"] == ["'self'", "'unsafe-eval'"]


@pytest.mark.parametrize("path", ["/api/docs", "/admin/login/"])
def test_no_page_needs_a_script_of_its_own(client: Client, path: str) -> None:
    page = client.get(path).content.decode()
    assert "<script>" not in page
    assert "onclick=" not in page


def test_pages_are_not_framed_sniffed_or_told_of_elsewhere(client: Client) -> None:
    headers = client.get("/admin/login/").headers
    assert headers["X-Frame-Options"] == "DENY"
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "same-origin"
    assert headers["Cross-Origin-Opener-Policy"] == "same-origin"


def test_behind_tls_cookies_are_for_it_alone_and_no_script_reads_them(
    client: Client, olga: User, settings: Settings
) -> None:
    settings.SESSION_COOKIE_SECURE = settings.CSRF_COOKIE_SECURE = True
    client.get("/admin/login/")
    client.post("/admin/login/", {"username": olga.email, "password": PASSWORD})
    assert set(client.cookies) == {"sessionid", "csrftoken"}
    for cookie in client.cookies.values():
        assert cookie["httponly"]
        assert cookie["secure"]
        assert cookie["samesite"] == "Lax"
