"""Requests that are too deep, have too many parts, or never end: refused, and nothing is held."""

import json
import socket
import time
from collections.abc import Iterator
from typing import Any

import pytest

from openai_app.catalogue import CATALOGUE
from openai_app.catalogue.operation import JSON as JSON_TYPE
from openai_app.request import forms
from openai_app.request.request_body import MAX_DEPTH
from openai_app.tests.deferred_work import form
from openai_app.tests.harness import PATIENCE_S, Answer, Caller, House, chat_body, house, wait_for

IMPATIENT = """
import common.asgi, gateway.worker
common.asgi.BODY_PAUSE_S = 1.0
gateway.worker.HEAD_WITHIN_S = 1.0
"""


@pytest.fixture(scope="module")
def impatient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """A gateway that waits a second for a head, and for a body."""
    with house(tmp_path_factory.mktemp("impatient"), workers=1, program=IMPATIENT) as opened:
        yield opened


# --- depth and number -----------------------------------------------------------------------------------


def nested(depth: int) -> str:
    """JSON of so many levels, objects and lists in turn."""
    inner = "1"
    for level in range(depth):
        inner = f"[{inner}]" if level % 2 else f'{{"x": {inner}}}'
    return inner


def deep_body(depth: int) -> bytes:
    """An object of so many levels, in every field that is looked into."""
    inner = nested(depth - 1)
    names = ("messages", "input", "tools", "metadata", "prompt", "response_format", "thread", "data", "items")
    fields = ", ".join(f'"{name}": {inner}' for name in names)
    return f'{{"model": "gpt-4o-mini", {fields}}}'.encode()


def operations() -> list[tuple[str, str]]:
    """Method and path of every operation that takes JSON, unless its path names objects."""
    found = [
        (operation.method, f"/v1{operation.path}")
        for operation in CATALOGUE
        if JSON_TYPE in operation.accepts and not operation.slots and not operation.refused
    ]
    assert len(found) > 20
    return found


@pytest.mark.parametrize("depth", [MAX_DEPTH + 1, 500, 100_000])
def test_json_that_is_nested_too_deeply_is_refused_by_every_operation(
    alice: Caller, gateway: House, depth: int
) -> None:
    # The deepest takes its time to be made and sent: the way that it goes is the same for all.
    for method, path in operations()[: 5 if depth == 100_000 else None]:
        answer = alice.call(method, path, deep_body(depth))
        assert (answer.status, answer.error["type"]) == (400, "invalid_request_error"), path
    assert gateway.journal() == []
    assert alice.account()["held"] == 0


def test_json_that_is_just_deep_enough_is_served_or_refused_by_every_operation(alice: Caller) -> None:
    for method, path in operations():
        answer = alice.call(method, path, deep_body(MAX_DEPTH))
        assert answer.status < 500, (path, answer.body)
    alice.house.audit()


@pytest.mark.parametrize("depth", [300, 1_000])
def test_a_deep_answer_passes_or_is_told_to_be_none(alice: Caller, gateway: House, depth: int) -> None:
    body = f'{{"id": "asst_deep{depth}", "object": "assistant", "metadata": {nested(depth)}}}'
    request = json.dumps({"model": "gpt-4o-mini"}).encode()
    gateway.simulator.record(
        {
            "method": "POST",
            "path": "/v1/assistants",
            "request": json.loads(request),
            "headers": {"content-type": "application/json"},
            "body": body,
        }
    )
    answer = alice.call("POST", "/v1/assistants", request)
    assert answer.status in (200, 502), answer.body


def test_a_query_of_too_many_parameters_is_refused(alice: Caller) -> None:
    answer = alice.call("GET", "/v1/files?" + "&".join(f"a{index}=1" for index in range(1_001)))
    assert (answer.status, answer.error["code"]) == (400, "invalid_request")


def test_a_form_whose_fields_are_too_large_together_is_refused(alice: Caller) -> None:
    each = "x" * (forms.MAX_FIELD_BYTES - 100)
    fields = {f"field{index}": each for index in range(9)}
    body, header = form(fields, {"file": ("a.wav", "audio/wav", b"RIFF")})
    answer = alice.call("POST", "/v1/audio/transcriptions", body, header)
    assert answer.status == 400
    assert "fields of the form" in answer.error["message"]


# --- time -----------------------------------------------------------------------------------------------


def seconds_until_closed(connection: socket.socket, now_and_then: bytes) -> float:
    """Sends something again and again until the gateway closes the connection."""
    began = time.monotonic()
    connection.settimeout(0.1)
    while time.monotonic() - began < PATIENCE_S:
        try:
            connection.sendall(now_and_then)
            if not connection.recv(65_536):
                break
        except TimeoutError:
            continue
        except OSError:
            break
    else:
        pytest.fail("The connection stays open.")
    return time.monotonic() - began


@pytest.mark.parametrize(
    ("first", "now_and_then"),
    [
        (b"", b""),
        (b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\n", b"x-a: b\r\n"),
        (b"", b"\r\n"),
        (b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n", b"\r\n"),
        (b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\nGET", b"T"),
    ],
    ids=["nothing", "headers", "empty lines", "empty lines after a request", "a second request"],
)
def test_a_connection_that_never_completes_a_head_is_closed(
    impatient: House, first: bytes, now_and_then: bytes
) -> None:
    with impatient.connected() as connection:
        connection.sendall(first)
        seconds_until_closed(connection, now_and_then)
    assert impatient.caller().chat().status == 200


def test_what_comes_behind_a_call_does_not_cut_its_answer_off(impatient: House) -> None:
    alice = impatient.caller()
    body = chat_body("tokens=20 chunk_delay=0.2", stream=True)
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {alice.key}\r\n"
        f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    with impatient.connected() as connection:
        connection.sendall(head.encode() + body + b"GET /hea")
        came = b""
        while b"0\r\n\r\n" not in came:
            piece = connection.recv(65_536)
            assert piece, came
            came += piece
    assert b"data: [DONE]" in came


@pytest.mark.parametrize(
    ("path", "content_type"),
    [
        ("/v1/chat/completions", "application/json"),
        ("/v1/images/edits", "multipart/form-data; boundary=x"),
        ("/v1/files", "multipart/form-data; boundary=x"),
        ("/api/user/auth", "application/json"),
    ],
)
@pytest.mark.parametrize("is_trickling", [False, True], ids=["stops", "trickles"])
def test_a_body_that_never_comes_to_its_end_is_answered_with_a_408_and_costs_nothing(
    impatient: House, path: str, content_type: str, is_trickling: bool
) -> None:
    alice = impatient.caller()
    head = (
        f"POST {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {alice.key}\r\n"
        f"content-type: {content_type}\r\ncontent-length: 100000\r\n\r\n"
    )
    beginning = b"--x\r\n" if "multipart" in content_type else b'{"model": "gpt'
    with impatient.connected() as connection:
        connection.sendall(head.encode() + beginning)
        answer = read_answer(connection, b"-" if is_trickling else b"")
    assert answer.status == 408
    assert answer.error["code"] == "request_timeout"
    assert alice.holds() == []
    wait_for(lambda: impatient.simulator.control("GET", "journal")["open"] == 0)
    assert alice.chat().status == 200


def read_answer(connection: socket.socket, now_and_then: bytes) -> Answer:
    """What is answered before the connection is closed, while something is sent again and again."""
    connection.settimeout(0.1)
    came = b""
    began = time.monotonic()
    while time.monotonic() - began < PATIENCE_S:
        try:
            if not came:
                connection.sendall(now_and_then)
            piece = connection.recv(65_536)
        except TimeoutError:
            continue
        except ConnectionResetError:
            # What was sent met a connection that was closed by then.
            break
        if not piece:
            break
        came += piece
    head, _, body = came.partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    headers: dict[str, Any] = dict(line.split(": ", 1) for line in lines[1:])
    return Answer(int(lines[0].split()[1]), headers, body)
