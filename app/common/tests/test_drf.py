"""Every error of the control plane has OpenAI's shape."""

from collections.abc import Callable
from typing import Any

import pytest
from django.core.exceptions import PermissionDenied, SuspiciousOperation
from django.db import InterfaceError, OperationalError
from django.http import Http404
from django.test import RequestFactory
from rest_framework import exceptions
from rest_framework.test import APIClient

from balances.models import Account
from common import drf
from common.errors import InsufficientBalance, RateLimited
from users.models import User


def answer(exc: Exception) -> tuple[int, dict[str, Any], dict[str, str]]:
    response = drf.exception_handler(exc, {})
    assert response is not None
    assert response.data is not None
    assert set(response.data) == {"error"}
    assert set(response.data["error"]) - {"fields"} == {"message", "type", "param", "code"}
    return response.status_code, response.data["error"], dict(response.items())


@pytest.mark.parametrize(
    ("exc", "status", "code"),
    [
        (Http404("secret"), 404, "not_found"),
        (PermissionDenied("secret"), 403, "permission_denied"),
        (SuspiciousOperation("secret"), 400, "invalid_request"),
        (RecursionError("secret"), 400, "invalid_request"),
        (OperationalError("password of the database"), 503, "service_unavailable"),
        (InterfaceError("connection already closed"), 503, "service_unavailable"),
        (exceptions.ParseError(), 400, "invalid_request"),
        (exceptions.NotAuthenticated(), 401, "invalid_api_key"),
        (exceptions.AuthenticationFailed("no", "account_deactivated"), 401, "account_deactivated"),
        (exceptions.MethodNotAllowed("PUT"), 405, "method_not_allowed"),
        (exceptions.NotAcceptable(), 406, "invalid_request"),
        (exceptions.UnsupportedMediaType("text/x"), 415, "invalid_request"),
        (InsufficientBalance("too little", available=3), 402, "insufficient_quota"),
    ],
)
def test_an_error_is_told_with_status_and_code(exc: Exception, status: int, code: str) -> None:
    found, error, _ = answer(exc)
    assert (found, error["code"]) == (status, code)
    assert error["message"]
    assert "secret" not in error["message"]
    assert "password" not in error["message"]


def test_errors_that_pass_say_when_to_try_again() -> None:
    assert answer(exceptions.Throttled(wait=12.3))[2]["Retry-After"] == "13"
    assert answer(OperationalError())[2]["retry-after"] == "1"
    assert answer(RateLimited("slower", retry_after_s=7))[2]["retry-after"] == "7"


def test_an_unforeseen_error_is_left_to_the_log() -> None:
    assert drf.exception_handler(KeyError("x"), {}) is None


@pytest.mark.parametrize(
    ("detail", "param", "message"),
    [
        ({"email": ["Bad."], "name": ["Long."]}, "email", "Bad."),
        ({"models": {1: ["Bad."]}}, "models.1", "Bad."),
        ({"models": [{}, {"name": ["Bad."]}]}, "models.name", "Bad."),
        ({"non_field_errors": ["Bad."]}, None, "Bad."),
        (["Bad."], None, "Bad."),
    ],
)
def test_the_field_that_is_wrong_is_named(detail: Any, param: str | None, message: str) -> None:
    _, error, _ = answer(exceptions.ValidationError(detail))
    assert (error["param"], error["message"]) == (param, message)


def test_a_database_that_is_away_is_a_503(
    client_of: Callable[..., APIClient], alice: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = client_of(alice)

    def refuse(*args: object, **kwargs: object) -> None:
        raise OperationalError("could not connect to server at 10.1.2.3")

    monkeypatch.setattr(Account.objects, "get_queryset", refuse)
    response = client.get("/api/balance")
    assert response.status_code == 503
    assert response["Retry-After"] == "1"
    assert "10.1.2.3" not in response.content.decode()


def test_an_address_under_api_that_does_not_exist_and_a_defect_are_told_in_the_same_shape() -> None:
    for path, kind in (("/api/nothing", "application/json"), ("/nothing", "text/html; charset=utf-8")):
        request = RequestFactory().get(path)
        missing, failed = drf.page_not_found(request, Http404()), drf.server_error(request)
        assert (missing.status_code, failed.status_code) == (404, 500)
        assert (missing["Content-Type"], failed["Content-Type"]) == (kind, kind)
