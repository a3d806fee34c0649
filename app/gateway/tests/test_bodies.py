"""What nobody would send to the control plane is refused in OpenAI's shape, never with a 500."""

import itertools
import json
from collections.abc import Callable
from typing import Any

import pytest
from django.test import Client
from rest_framework.test import APIClient

from users.models import ApiKey, User

DEEP = 100_000
# Every address that takes a body, with its fields.
TAKERS = {
    "POST /api/user/auth": ("email", "password"),
    "POST /api/user/create": ("email", "password", "name"),
    "PATCH /api/user/me": ("email", "password", "name"),
    "PATCH /api/users/{user}": ("email", "password", "name", "is_active", "parallel_calls"),
    "POST /api/keys": ("name", "allowed_models", "expires_at", "requests_per_minute"),
    "PATCH /api/keys/{key}": ("name", "allowed_models", "expires_at", "requests_per_minute"),
    "PATCH /api/balance/{user}": ("balance", "reason"),
    "POST /api/balance/{user}/grant": ("amount", "reason"),
    "POST /api/rates": ("model", "unit", "credits_per_unit"),
}
# For the fields that are left alone while another is tried.
GOOD = {
    "email": "charlie@example.org",
    "password": "correct horse battery",
    "name": "Charlie",
    "balance": 30,
    "amount": 30,
    "reason": "A trial",
    "model": "gpt-4o*",
    "unit": "output",
    "credits_per_unit": "4",
}
NO_OBJECTS = {
    "a list": b"[]",
    "a list of objects": b'[{"balance": 30}]',
    "a string": b'"text"',
    "a number": b"30",
    "true": b"true",
    "null": b"null",
    "NaN": b'{"balance": NaN}',
    "infinity": b'{"balance": -Infinity}',
    "too many digits": b'{"balance": ' + b"9" * 5000 + b"}",
    "cut off": b'{"balance": 30',
    "two documents": b"{}{}",
    "deep lists": b"[" * DEEP,
    "deep objects": b'{"balance":' * DEEP,
    "no UTF-8": b'{"name": "\xff\xfe"}',
    "UTF-16": '{"balance": 30}'.encode("utf-16"),
    "a zero byte": b'{"name": "a\0b"}',
    "zero bytes": b"\0" * 100,
}
NO_VALUES = {
    "null": "null",
    "true": "true",
    "a fraction": "30.0",
    "an exponent": "3e1",
    "digits in a string": '"30"',
    "more than a float": "1e400",
    "more than a database holds": "9" * 40,
    "less than nothing": "-1",
    "a list": "[]",
    "a deep list": "[" * 500 + "]" * 500,
    "an object": "{}",
    "an escaped zero": '"a\\u0000b"',
    "half of a pair": '"\\ud800"',
    "a long string": f'"{"x" * 100_000}"',
    "a time that nobody sees": '"9999-12-31T23:59:59-14:00"',
}

# Content types, and bodies that go with them badly or not at all.
STRANGE_FORMS = [
    ("application/json; charset=utf-16", b"\xff\xfe{\0}\0"),
    ("application/x-www-form-urlencoded; charset=utf-16", b"name=x"),
    ("application/x-www-form-urlencoded; charset=nonsense", b"name=\xff"),
    ("application/x-www-form-urlencoded", b"name=" + b"%00" * 10),
    ("application/x-www-form-urlencoded", b"&".join(b"name=x" for _ in range(2000))),
    ("multipart/form-data", b"name=x"),
    ("multipart/form-data; boundary=", b"name=x"),
    ("multipart/form-data; boundary=\xe9", b"name=x"),
]

Send = Callable[..., Any]


@pytest.fixture
def send(client_of: Callable[..., APIClient], olga: User, alice: User) -> Send:
    """Sends a body to one of the takers, as an operator, and looks at what it is answered."""
    key, _ = ApiKey.issue(user=olga, name="Laptop")
    numbers = itertools.count()

    def request(taker: str, body: bytes, content_type: str = "application/json") -> int:
        method, path = taker.format(user=alice.pk, key=key.pk).split()
        # From an address of its own: tries to log in are counted.
        address = f"10.0.0.{next(numbers)}"
        client: Client = client_of(olga)
        answer = client.generic(method, path, body, content_type, REMOTE_ADDR=address)
        assert answer.status_code < 500
        if answer.status_code >= 400:
            error = answer.json()["error"]
            assert error.keys() >= {"message", "type", "param", "code"}
            assert error["type"] == "invalid_request_error"
        return int(answer.status_code)

    return request


@pytest.mark.parametrize("taker", TAKERS)
def test_what_is_no_object_is_refused(send: Send, taker: str) -> None:
    assert {name: send(taker, body) for name, body in NO_OBJECTS.items()} == dict.fromkeys(NO_OBJECTS, 400)


@pytest.mark.parametrize("taker", TAKERS)
def test_a_value_that_makes_no_sense_is_refused_or_taken_as_text(send: Send, taker: str) -> None:
    for field in TAKERS[taker]:
        rest = {name: good for name, good in GOOD.items() if name in TAKERS[taker] and name != field}
        for value in NO_VALUES.values():
            body = json.dumps(rest).removesuffix("}") + (", " if rest else "") + f'"{field}": {value}}}'
            send(taker, body.encode())


@pytest.mark.parametrize("value", ["30.0", "3e1", '"30"', "true", "null", "[30]"])
@pytest.mark.parametrize(
    ("taker", "field"),
    [("PATCH /api/balance/{user}", "balance"), ("POST /api/balance/{user}/grant", "amount")],
)
def test_credits_are_whole_numbers(send: Send, taker: str, field: str, value: str) -> None:
    assert send(taker, f'{{"{field}": {value}, "reason": "A trial"}}'.encode()) == 400


@pytest.mark.parametrize("taker", TAKERS)
def test_a_strange_form_is_refused_or_read_as_far_as_it_can_be(send: Send, taker: str) -> None:
    for content_type, body in STRANGE_FORMS:
        send(taker, body, content_type)
    assert send(taker, b'{"name": "x"}', "text/plain") == 415
