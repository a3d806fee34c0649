"""What of a request reaches the upstream, and what of its answer reaches the caller."""

import hashlib
import json
import uuid
from typing import Any

import pytest

from openai_app.tests.attacks import record as own
from openai_app.tests.harness import HELLO, JSON, OPERATORS_KEY, Answer, Caller, House, chat_body

PREFIXES = ("/v1", "/api/openai", "/modules/openai")


def record(gateway: House, **answer: Any) -> None:
    """The next call of "Hello!" is answered so by the upstream."""
    gateway.simulator.record({"request": json.loads(chat_body()), **answer})


# --- paths ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("slash", ["", "/"])
def test_both_prefixes_serve_with_and_without_a_slash(alice: Caller, prefix: str, slash: str) -> None:
    assert alice.call("POST", f"{prefix}/chat/completions{slash}", chat_body()).status == 200
    assert alice.call("GET", f"{prefix}/models{slash}").json["object"] == "list"
    assert [call["path"] for call in alice.house.journal()] == ["/v1/chat/completions", "/v1/models"]


@pytest.mark.parametrize(
    ("asked", "model"),
    [
        ("gpt-4o-mini", "gpt-4o-mini"),
        ("gpt-4.1-2025-04-14", "gpt-4.1-2025-04-14"),
        ("gpt-4.1-2025-04-14/", "gpt-4.1-2025-04-14"),
        ("ft:gpt-4o-mini-2024-07-18:tollgate::{}", "ft:gpt-4o-mini-2024-07-18:tollgate::{}"),
        ("ft%3Agpt-4o-mini-2024-07-18%3Atollgate::{}", "ft:gpt-4o-mini-2024-07-18:tollgate::{}"),
        ("tollgate/simulator-1.0", "tollgate/simulator-1.0"),
        ("tollgate%2Fsimulator-1.0:latest", "tollgate/simulator-1.0:latest"),
    ],
)
@pytest.mark.parametrize("prefix", PREFIXES)
def test_models_whose_names_have_dots_slashes_and_colons_are_found(
    alice: Caller, prefix: str, asked: str, model: str
) -> None:
    tail = uuid.uuid4().hex
    asked, model = asked.format(tail), model.format(tail)
    if model.startswith("ft:"):
        alice.house.console.run(own, alice.id, {"model": model})
    answer = alice.call("GET", f"{prefix}/models/{asked}")
    assert (answer.status, answer.json["id"]) == (200, model)


@pytest.mark.parametrize(
    "name", ["ü", "a b", "100%", "a?b", "a#b", "%2e%2e", "日本", "a\\b", "<x>", "a+b", "a;b", '"']
)
def test_what_needs_percent_encoding_in_a_name_arrives_as_it_was_meant(alice: Caller, name: str) -> None:
    encoded = "".join(f"%{byte:02X}" for byte in name.encode())
    answer = alice.call("GET", f"/v1/models/x{encoded}x")
    assert answer.status == 404
    (call,) = alice.house.journal()
    assert call["path"] == f"/v1/models/x{name}x"


@pytest.mark.parametrize(
    "path", ["/v1/models/../models", "/v1/models/%2e%2e/x", "/v1/models/a/./b", "/v1/.."]
)
def test_a_path_that_climbs_is_refused(alice: Caller, path: str) -> None:
    answer = alice.call("GET", path)
    assert (answer.status, answer.error["code"]) == (404, "unknown_url")
    assert alice.house.journal() == []


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/organization/costs"),
        ("POST", "/v1/completely/unknown"),
        ("GET", "/v1/"),
        ("GET", "/v1"),
        ("POST", "/v1"),
        ("GET", "/api/openai"),
        ("GET", "/modules/openai"),
        ("POST", "/v1/chat/completions/x/y/z"),
        ("POST", "/v1//chat/completions"),
        ("POST", "/api/openai/v1/chat/completions"),
    ],
)
def test_what_is_not_offered_is_refused_and_never_forwarded(alice: Caller, method: str, path: str) -> None:
    answer = alice.call(method, path, b"{}" if method == "POST" else None)
    assert (answer.status, answer.error["code"]) == (404, "unknown_url")
    assert alice.house.journal() == []


@pytest.mark.parametrize(
    ("method", "path", "offered"),
    [
        ("PUT", "/v1/chat/completions", "GET, POST"),
        ("DELETE", "/v1/models", "GET"),
        ("PATCH", "/v1/models/gpt-4o-mini", "DELETE, GET"),
        ("PUT", "/v1/responses/compact", "POST"),
    ],
)
def test_a_method_that_is_not_offered_is_refused_with_those_that_are_and_never_forwarded(
    alice: Caller, method: str, path: str, offered: str
) -> None:
    answer = alice.call(method, path, b"{}")
    assert (answer.status, answer.error["code"]) == (405, "method_not_allowed")
    assert answer.headers["allow"] == offered
    assert alice.house.journal() == []


@pytest.mark.parametrize("query", ["a=1&a=2&b=", "q=%C3%BC%20x&y=a+b", "p=/../&z=%2F", "z=x%26y", "x"])
def test_a_query_arrives_as_it_was_written(alice: Caller, query: str) -> None:
    assert alice.call("GET", f"/v1/models?{query}").status == 200
    assert alice.call("POST", f"/v1/chat/completions/?{query}", chat_body()).status == 200
    assert [call["query"] for call in alice.house.journal()] == [query, query]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b'"x"',
        b"null",
        b"\xff\xfe",
        b'{"model": ""}',
        b'{"model": 4}',
        b'{"model": "gpt\\u0000"}',
    ],
)
def test_a_body_that_is_no_request_is_refused_and_never_forwarded(alice: Caller, body: bytes) -> None:
    answer = alice.call("POST", "/v1/chat/completions", body)
    assert answer.status == 400
    assert answer.error["type"] == "invalid_request_error"
    assert alice.house.journal() == []
    assert alice.holds() == []


# --- headers to the upstream ----------------------------------------------------------------------------


def test_the_upstream_sees_the_operators_key_and_of_the_callers_headers_only_the_harmless(
    alice: Caller,
) -> None:
    harmless = {
        "Content-Type": "application/json",
        "Accept": "application/json",
        "User-Agent": "OpenAI/Python 3.52.0",
        "OpenAI-Beta": "assistants=v2",
        "X-Client-Request-Id": "mine-1",
        "X-Stainless-Lang": "python",
    }
    withheld = {
        "OpenAI-Organization": "org-of-the-caller",
        "OpenAI-Project": "proj_of_the_caller",
        "Cookie": "a=b",
        "X-Forwarded-For": "10.0.0.1",
        "Forwarded": "for=10.0.0.1",
        "X-Real-IP": "10.0.0.1",
        "Api-Key": "x",
        "Proxy-Authorization": "Basic eA==",
        "Accept-Encoding": "gzip, br",
        "Referer": "https://example.org/secret",
        "Origin": "https://example.org",
        "X-Anything": "else",
    }
    alice.call("POST", "/v1/chat/completions", chat_body(), {**harmless, **withheld})
    (call,) = alice.house.journal()
    assert call["authorization"] == f"…{OPERATORS_KEY[-4:]}"
    sent = call["headers"]
    own = {"host", "content-length", "accept-encoding"}
    assert sent.keys() - own == {name.lower() for name in harmless}
    assert all(sent[name.lower()] == value for name, value in harmless.items())
    assert sent["accept-encoding"] == "identity"
    assert sent["host"] == alice.house.simulator.root.removeprefix("http://")
    assert alice.key not in json.dumps(call)


def test_a_caller_who_sends_no_such_headers_has_none_made_up(alice: Caller) -> None:
    alice.call("POST", "/v1/chat/completions", chat_body(), {})
    (call,) = alice.house.journal()
    assert call["headers"].keys() <= {"host", "content-length", "accept-encoding", "content-type", "accept"}


# --- headers to the caller ------------------------------------------------------------------------------


def test_the_callers_answer_has_nothing_of_the_operators_account(alice: Caller) -> None:
    for answer in (alice.chat(), alice.chat(stream=True), alice.call("GET", "/v1/models")):
        assert answer.status == 200
        shown = answer.headers.keys()
        assert (
            not {"openai-organization", "openai-project", "set-cookie", "server", "cf-cache-status"} & shown
        )
        assert not [name for name in shown if name.startswith("x-ratelimit-")]
        assert {"openai-version", "openai-processing-ms", "content-type"} <= shown
        assert "org-simulator" not in str(answer.headers)


def test_each_answer_has_a_request_id_of_the_gateways_own(alice: Caller) -> None:
    answers = [alice.chat(), alice.chat("status=400"), alice.call("GET", "/v1/unknown"), alice.chat(model="")]
    upstream = {call["request_id"] for call in alice.house.journal()}
    given = {answer.request_id for answer in answers}
    assert len(given) == len(answers)
    assert not given & upstream
    assert all(len(each) == 32 for each in given)


def test_the_upstreams_own_headers_pass_as_they_are(gateway: House, alice: Caller) -> None:
    passed = {
        "content-type": "application/json; charset=utf-8",
        "openai-model": "gpt-4o-mini-2024-07-18",
        "openai-processing-ms": "317",
        "openai-version": "2020-10-01",
        "x-should-retry": "false",
    }
    record(gateway, body='{"id": "x"}', headers={**passed, "x-request-id": "req_upstream", "via": "1.1 x"})
    answer = alice.chat()
    assert {name: answer.headers.get(name) for name in passed} == passed
    assert answer.request_id != "req_upstream"
    assert "via" not in answer.headers


# --- bodies ---------------------------------------------------------------------------------------------


def assert_same(answer: Answer, body: bytes) -> None:
    assert answer.status == 200
    assert answer.body == body
    assert answer.headers["content-length"] == str(len(body))


@pytest.mark.parametrize(
    "body",
    [
        b'{\n  "id": "x",\n  "usage": {"prompt_tokens": 9, "completion_tokens": 1.0}\n}\n',
        b' {"usage":{"prompt_tokens":9,"completion_tokens":1},"deep":' + b"[" * 50 + b"]" * 50 + b"}",
        '{"usage":{"prompt_tokens":9,"completion_tokens":1},"text":"ü ✓ \\u0000 \\ud83d\\ude00"}'.encode(),
        b'{"usage":{"prompt_tokens":9,"completion_tokens":1},"a":1,"a":2,"big":123456789012345678901234567890}',
    ],
)
def test_an_answer_arrives_byte_for_byte(gateway: House, alice: Caller, body: bytes) -> None:
    record(gateway, body=body.decode(), headers={"content-type": "application/json"})
    assert_same(alice.chat(), body)
    assert alice.balance() == 100_000 - 10


def test_an_answer_that_comes_in_pieces_arrives_whole(gateway: House, alice: Caller) -> None:
    body = json.dumps({"id": "x", "text": "ü" * 500, "usage": {"prompt_tokens": 9, "completion_tokens": 1}})
    record(gateway, body=body, headers={"content-type": "application/json"}, split=7)
    assert_same(alice.chat(), body.encode())


def test_a_big_answer_arrives_whole(gateway: House) -> None:
    alice = gateway.caller(50_000_000)
    gateway.simulator.fault("big=20")
    # A model of unknown make: nobody knows what it can write at most.
    model = f"ft:of-unknown-make:x::{uuid.uuid4().hex}"
    gateway.console.run(own, alice.id, {"model": model})
    answer = alice.chat(model=model, max_completion_tokens=10_000_000)
    assert len(answer.body) > 15_000_000
    assert alice.balance() == 50_000_000 - answer.json["usage"]["total_tokens"]


def test_no_compression_is_put_on_or_taken_off(alice: Caller) -> None:
    answer = alice.call("POST", "/v1/chat/completions", chat_body(), {**JSON, "Accept-Encoding": "gzip"})
    assert "content-encoding" not in answer.headers
    assert answer.json["object"] == "chat.completion"


def test_an_answer_to_a_head_that_waits_for_100_continue_is_given(alice: Caller) -> None:
    body = chat_body()
    with alice.house.connected() as connection:
        head = (
            f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {alice.key}\r\n"
            f"content-type: application/json\r\nexpect: 100-continue\r\ncontent-length: {len(body)}\r\n\r\n"
        )
        connection.sendall(head.encode())
        assert connection.recv(100).startswith(b"HTTP/1.1 100 ")
        connection.sendall(body)
        assert connection.recv(100).startswith(b"HTTP/1.1 200 ")


def test_a_body_in_chunks_arrives_whole(alice: Caller) -> None:
    body = chat_body()
    with alice.house.connected() as connection:
        head = (
            f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {alice.key}\r\n"
            "content-type: application/json\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n"
        )
        connection.sendall(head.encode())
        for start in range(0, len(body), 5):
            piece = body[start : start + 5]
            connection.sendall(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
        connection.sendall(b"0\r\n\r\n")
        answer = b"".join(iter(lambda: connection.recv(65_536), b""))
    assert answer.startswith(b"HTTP/1.1 200 ")
    (call,) = alice.house.journal()
    assert call["body_sha256"] == hashlib.sha256(body).hexdigest()
    assert call["headers"]["content-length"] == str(len(body))


def test_a_request_larger_than_allowed_is_refused(alice: Caller) -> None:
    with alice.house.connected() as connection:
        head = (
            f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {alice.key}\r\n"
            f"content-type: application/json\r\ncontent-length: {65 * 1024 * 1024}\r\n\r\n"
        )
        connection.sendall(head.encode())
        piece = b" " * 1024 * 1024
        answer = b""
        try:
            for _ in range(65):
                connection.sendall(piece)
        except OSError:
            pass
        answer = connection.recv(65_536)
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert alice.house.journal() == []


def test_a_stranger_is_refused_before_a_large_body_is_read(gateway: House) -> None:
    with gateway.connected() as connection:
        head = (
            "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer sk-tg-nobody\r\n"
            f"content-type: application/json\r\ncontent-length: {32 * 1024 * 1024}\r\n\r\n"
        )
        connection.sendall(head.encode())
        assert connection.recv(100).startswith(b"HTTP/1.1 401 ")


def test_a_completion_forwarded_is_the_one_that_was_sent(alice: Caller) -> None:
    alice.chat(seed=1)
    assert alice.house.journal()[0]["body"] == {"model": "gpt-4o-mini", "messages": HELLO, "seed": 1}


def test_an_idempotency_key_reaches_the_upstream_as_its_callers_own(alice: Caller, bob: Caller) -> None:
    sent = []
    for caller in (alice, alice, bob):
        caller.call("GET", "/v1/models", headers={"Idempotency-Key": "the-same-key"})
        sent.append(caller.house.journal()[-1]["headers"]["idempotency-key"])
    assert sent[0] == sent[1] != sent[2]
    assert "the-same-key" not in sent
