"""Addresses: with and without the trailing slash, and the ones that are printed."""

from http import HTTPStatus

import pytest
from django.test import Client
from pytest_django import Settings

from gateway.welcome import Address, public_url


@pytest.mark.django_db
@pytest.mark.parametrize("path", ["/api/user/auth", "/api/user/auth/"])
def test_a_post_reaches_its_view_with_and_without_the_slash(client: Client, path: str) -> None:
    answer = client.post(path, {"email": "bob@example.com", "password": "wrong"}, "application/json")
    assert answer.status_code == HTTPStatus.BAD_REQUEST
    assert answer.json()["error"]["code"] == "invalid_credentials"


@pytest.mark.parametrize("path", ["/api", "/api/", "/api/nothing", "/api/nothing/"])
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
def test_an_address_under_api_that_does_not_exist_is_an_error_in_json(
    client: Client, method: str, path: str
) -> None:
    answer = client.generic(method, path)
    assert answer.status_code == HTTPStatus.NOT_FOUND
    assert answer.json()["error"]["code"] == "not_found"


@pytest.mark.parametrize("path", ["/api", "/api/", "/api/user/me", "/api/nothing", "/api/docs"])
def test_another_host_name_under_api_is_an_error_in_json(client: Client, path: str) -> None:
    answer = client.get(path, headers={"host": "evil.example"})
    assert answer.status_code == HTTPStatus.BAD_REQUEST
    assert answer.json()["error"]["code"] == "invalid_request"
    assert "evil" not in answer.content.decode()


def test_another_host_name_elsewhere_is_a_page(client: Client) -> None:
    answer = client.get("/admin/login/", headers={"host": "evil.example"})
    assert answer.status_code == HTTPStatus.BAD_REQUEST
    assert answer["Content-Type"].startswith("text/html")


def test_the_root_leads_to_the_description(client: Client) -> None:
    assert client.get("/").headers["location"] == "/api/docs"


@pytest.mark.parametrize(
    ("name", "url"),
    [
        (("127.0.0.1", 8000), "http://127.0.0.1:8000"),
        (("0.0.0.0", 8000), "http://127.0.0.1:8000"),
        (("::", 8000, 0, 0), "http://[::1]:8000"),
        (("192.0.2.7", 80), "http://192.0.2.7:80"),
    ],
)
def test_a_listener_on_all_interfaces_is_reached_on_this_machine(name: tuple[str, int], url: str) -> None:
    assert Address.of_listener(name).url == url


def test_the_printed_address_is_one_that_is_allowed(settings: Settings) -> None:
    address = Address("127.0.0.1", 8000)
    settings.ALLOWED_HOSTS = [".example.org", "gateway.example.org"]
    assert public_url(address) == "http://gateway.example.org:8000"
    settings.ALLOWED_HOSTS = ["*"]
    assert public_url(address) == "http://127.0.0.1:8000"


def test_behind_a_proxy_the_printed_address_is_the_proxys(settings: Settings) -> None:
    settings.BEHIND_TLS_PROXY = True
    settings.ALLOWED_HOSTS = ["gateway.example.org"]
    assert public_url(Address("127.0.0.1", 8000)) == "https://gateway.example.org"
