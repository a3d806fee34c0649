"""Requests that two servers might read in two ways, and paths that climb: none gets past the gateway."""

import socket
from collections.abc import Iterator

import pytest

from openai_app.catalogue import CATALOGUE
from openai_app.tests.harness import Caller, House, chat_body

CHAT = "/v1/chat/completions"
# What a second server might take the end of a body for.
SMUGGLED = b"GET /v1/organization/costs HTTP/1.1\r\nhost: x\r\n\r\n"


def exchange(caller: Caller, line: str, headers: list[bytes], body: bytes = b"") -> bytes:
    """All that is answered on a connection on which these bytes were sent, and nothing more."""
    lines = [
        f"{line} HTTP/1.1".encode(),
        b"Host: x",
        b"Authorization: Bearer " + caller.key.encode(),
        *headers,
    ]
    with caller.house.connected() as connection:
        connection.sendall(b"\r\n".join(lines) + b"\r\n\r\n" + body)
        answer = b""
        try:
            while piece := connection.recv(65_536):
                answer += piece
        except ConnectionResetError:
            pass
        return answer


def statuses(answer: bytes) -> list[bytes]:
    return [part.split(b" ", 1)[0] for part in answer.split(b"HTTP/1.1 ")[1:]]


@pytest.fixture
def untouched(alice: Caller) -> Iterator[None]:
    """Nothing reaches the upstream, and nothing is held."""
    yield
    assert alice.house.journal() == []
    assert alice.holds() == []


# --- framing --------------------------------------------------------------------------------------------

CHUNKS = b"0\r\n\r\n"
AMBIGUOUS: dict[str, list[bytes]] = {
    "two lengths": [b"Content-Length: 5", b"Content-Length: 6"],
    "one length twice": [b"Content-Length: 5", b"Content-Length: 5"],
    "a list of lengths": [b"Content-Length: 5, 5"],
    "a length and chunks": [b"Content-Length: 5", b"Transfer-Encoding: chunked"],
    "chunks and a length": [b"Transfer-Encoding: chunked", b"Content-Length: 5"],
    "a signed length": [b"Content-Length: +5"],
    "a negative length": [b"Content-Length: -5"],
    "a length in hexadecimals": [b"Content-Length: 0x5"],
    "a length with a blank in it": [b"Content-Length: 5 5"],
    "a length beyond all bounds": [b"Content-Length: 99999999999999999999999999"],
    "chunks not last": [b"Transfer-Encoding: chunked, identity"],
    "an unknown coding": [b"Transfer-Encoding: xchunked"],
    "a coding in quotes": [b'Transfer-Encoding: "chunked"'],
    "a vertical tab": [b"Transfer-Encoding: \x0bchunked"],
    "a name with a blank after it": [b"Transfer-Encoding : chunked"],
    "a name with a blank before it": [b"X: y", b" Transfer-Encoding: chunked"],
    "a folded line": [b"Transfer-Encoding:", b" chunked"],
    "a carriage return in a value": [b"X-A: a\rTransfer-Encoding: chunked"],
    "a null byte in a value": [b"X-A: a\0b"],
    "a null byte in a name": [b"X-\0A: b"],
    "a name of other letters": ["Ünlaut: b".encode()],
    "no name": [b": b"],
}


@pytest.mark.usefixtures("untouched")
@pytest.mark.parametrize("headers", AMBIGUOUS.values(), ids=list(AMBIGUOUS))
def test_a_request_whose_end_can_be_read_in_two_ways_is_refused_and_its_connection_ended(
    alice: Caller, headers: list[bytes]
) -> None:
    answer = exchange(alice, f"POST {CHAT}", headers, CHUNKS + SMUGGLED)
    assert statuses(answer) == [b"400"]


@pytest.mark.usefixtures("untouched")
@pytest.mark.parametrize(
    "chunks",
    [
        b"-1\r\n\r\n",
        b"0x5\r\nhello\r\n0\r\n\r\n",
        b"5 \r\nhello",
        b"ffffffffffffffffff\r\n",
        b"5\r\nhelloX\r\n0\r\n\r\n",
    ],
)
def test_chunks_that_are_none_are_refused(alice: Caller, chunks: bytes) -> None:
    answer = exchange(alice, f"POST {CHAT}", [b"Transfer-Encoding: chunked"], chunks + SMUGGLED)
    assert statuses(answer) == [b"400"]


def test_a_line_feed_begins_a_header_that_is_judged_like_any_other(alice: Caller) -> None:
    headers = [b"X-Client-Request-Id: a\nCookie: b\nOpenAI-Organization: org-theirs", b"Connection: close"]
    answer = exchange(alice, "GET /v1/models", headers)
    for call in alice.house.journal():
        assert not {"cookie", "openai-organization"} & call["headers"].keys()
        assert call["headers"].get("x-client-request-id") in (None, "a")
    assert len(statuses(answer)) == 1


def test_the_next_request_on_a_connection_needs_a_key_of_its_own(alice: Caller) -> None:
    connection = alice.house.connect()
    try:
        connection.request("POST", CHAT, chat_body(), {"Authorization": f"Bearer {alice.key}"})
        first = connection.getresponse()
        assert (first.status, first.read(1)) == (200, b"{")
        first.read()
        connection.request("GET", "/v1/models")
        assert connection.getresponse().status == 401
    finally:
        connection.close()
    assert [call["path"] for call in alice.house.journal()] == [CHAT]


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/metrics", "/v1/models", "/v1/nothing", CHAT])
def test_no_browser_guesses_what_an_answer_is(alice: Caller, path: str) -> None:
    for fields in ({}, {"stream": True}) if path == CHAT else ({},):
        body = chat_body(**fields) if path == CHAT else None
        answer = alice.call("POST" if body else "GET", path, body)
        assert answer.headers["x-content-type-options"] == "nosniff"


# --- targets --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "target",
    [
        "http://evil.example/v1/models",
        "http://evil.example:80/v1/models?base_url=http://evil.example",
        "https://user:password@evil.example/v1/models",
    ],
)
def test_a_target_with_a_host_of_its_own_goes_where_all_go(alice: Caller, target: str) -> None:
    answer = exchange(alice, f"GET {target}", [b"Connection: close"])
    assert statuses(answer) in ([b"200"], [b"400"], [b"404"])
    for call in alice.house.journal():
        assert call["path"] == "/v1/models"
        assert call["headers"]["host"] == alice.house.simulator.root.removeprefix("http://")


@pytest.mark.usefixtures("untouched")
@pytest.mark.parametrize(
    "line",
    [
        "CONNECT evil.example:443",
        "GET evil.example:443",
        "OPTIONS *",
        "GET //evil.example/v1/models",
        "GET /\\evil.example/v1/models",
        "GET v1/models",
        "TRACE /v1/models",
        "GET /v1/models\x00",
        "GET /v1/models\tx",
        "GET /v1/models x",
    ],
)
def test_a_target_that_is_no_path_of_the_api_is_not_forwarded(alice: Caller, line: str) -> None:
    answer = exchange(alice, line, [b"Connection: close"])
    assert statuses(answer) in ([b"400"], [b"404"], [b"405"])


CLIMBING = [
    "/v1/%2e%2e/organization/costs",
    "/v1/%2E%2E/v1/organization/costs",
    "/v1/models/%2e%2e/files",
    "/v1/models/..%2ffiles",
    "/v1/models/..%2Ffiles/",
    "/v1/models/a/%2e%2e/%2e%2e/files",
    "/v1/models/.%2e/files",
    "/v1/models/%2e/gpt-4o",
    "/v1/files/..%2f..",
    "/v1/files/..%2fmodels",
    "/v1/files/%2e%2e%2fmodels",
    "/v1/models/..;/files",
    "/v1/models/..;a=b/files",
    "/v1/models/%2e%2e%3b/files",
    "/v1/models/..\\files",
    "/v1/models/..%5cfiles",
    "/v1/models/%252e%252e/files",
    "/v1/models/%252e%252e%252ffiles",
    "/v1/models/%25252e%25252e/files",
    "/v1/models/..%00/files",
    "/v1/models/..%20/files",
    "/v1/models/..%09/files",
    "/v1/models//files",
    "/v1/models/a//b",
    "/v1/models/a%2f%2fb",
    "/v1/models/a%00b",
    "/v1/models/a%0d%0ahost:%20evil.example",
    "/v1/models/a%0ab",
    "/v1//models",
    "/v1///models",
    "/v1/./models",
    "/v1/models/%2f",
    "/v1/models/%" + "25" * 30 + "2e",
    "/v1/models/a;/../files",
]


@pytest.mark.usefixtures("untouched")
@pytest.mark.parametrize("path", CLIMBING)
def test_a_path_that_a_server_behind_might_climb_by_is_refused(alice: Caller, path: str) -> None:
    answer = exchange(alice, f"GET {path}", [b"Connection: close"])
    assert statuses(answer) == [b"404"]


@pytest.mark.parametrize(
    "path", ["/v1/files%2fsecret", "/v1/models%2fgpt-4o", "/v1%2fmodels%2fgpt-4o", "/v1/files/a%2fcontent"]
)
def test_an_encoded_slash_is_a_slash_to_both_sides(alice: Caller, path: str) -> None:
    exchange(alice, f"GET {path}", [b"Connection: close"])
    assert [call["path"] for call in alice.house.journal()] in ([], ["/v1/models/gpt-4o"])


# --- headers --------------------------------------------------------------------------------------------


def test_headers_that_speak_of_the_connection_end_here(alice: Caller) -> None:
    headers = [
        b"Connection: close, x-client-request-id, authorization",
        b"Keep-Alive: timeout=600",
        b"Proxy-Connection: keep-alive",
        b"Proxy-Authorization: Basic eA==",
        b"TE: trailers",
        b"Trailer: X-Late",
        b"Upgrade: h2c",
        b"HTTP2-Settings: AAMAAABkAAQAAP__",
        b"Via: 1.1 x",
        b"Max-Forwards: 0",
        b"Expect: nothing",
        b"X-Client-Request-Id: mine",
    ]
    answer = exchange(alice, "GET /v1/models", headers)
    assert statuses(answer) == [b"200"]
    (call,) = alice.house.journal()
    own = {"host", "accept-encoding"}
    assert call["headers"].keys() - own == {"x-client-request-id"}


@pytest.mark.parametrize(
    "extra",
    [
        [b"X-Original-URL: /v1/files", b"X-Rewrite-URL: /v1/files"],
        [b"X-HTTP-Method-Override: DELETE", b"X-Method-Override: DELETE"],
        [b"X-Forwarded-Host: evil.example", b"X-Forwarded-Proto: https", b"Forwarded: host=evil.example"],
        [b"OpenAI-Base-Url: http://evil.example", b"X-Portkey-Custom-Host: http://evil.example"],
        [
            b"X-Upstream: http://evil.example",
            b"Location: http://evil.example",
            b"Destination: http://evil.example",
        ],
        [b"Host: evil.example"],
    ],
)
def test_no_header_changes_where_a_call_goes_or_what_it_does(alice: Caller, extra: list[bytes]) -> None:
    exchange(alice, "GET /v1/models", [*extra, b"Connection: close"])
    for call in alice.house.journal():
        assert (call["method"], call["path"]) == ("GET", "/v1/models")
        assert call["headers"]["host"] == alice.house.simulator.root.removeprefix("http://")
        assert "evil.example" not in str(call)


def test_no_field_or_query_changes_where_a_call_goes(alice: Caller) -> None:
    places = dict.fromkeys(
        ("base_url", "api_base", "endpoint", "upstream", "proxy"), "http://evil.example/v1"
    )
    query = "&".join(f"{name}={value}" for name, value in places.items())
    assert alice.call("POST", f"{CHAT}?{query}", chat_body(**places)).status == 200
    (call,) = alice.house.journal()
    assert call["path"] == CHAT
    assert call["headers"]["host"] == alice.house.simulator.root.removeprefix("http://")


def test_a_content_type_that_stands_twice_is_forwarded_as_it_was_read(alice: Caller) -> None:
    body = chat_body()
    headers = [
        b"Content-Type: application/json",
        b"Content-Type: text/plain",
        b"Content-Length: %d" % len(body),
    ]
    assert statuses(exchange(alice, f"POST {CHAT}", [*headers, b"Connection: close"], body)) == [b"200"]
    (call,) = alice.house.journal()
    assert call["headers"]["content-type"] == "application/json"
    assert call["body"]["model"] == "gpt-4o-mini"


# --- strangers ------------------------------------------------------------------------------------------


def test_no_operation_answers_a_stranger(gateway: House) -> None:
    stranger = Caller(gateway, 0, "sk-tg-nobody", 0)
    for operation in CATALOGUE:
        path = "/v1" + operation.path.replace("{", "").replace("}", "")
        answer = stranger.call(operation.method, path, b"{}" if operation.accepts else None)
        # A form or a body that makes no sense may be told of first; nobody learns from that.
        assert answer.status in (400, 401), f"{operation.method} {path}: {answer.status}"
        if operation.slots or not operation.accepts:
            assert answer.status == 401, f"{operation.method} {path}"
    assert gateway.journal() == []


# --- what browsers and addresses in requests might make it do -------------------------------------------


def test_no_other_site_is_let_in_by_a_browser(gateway: House, alice: Caller) -> None:
    ask = {"Origin": "https://evil.example", "Access-Control-Request-Method": "POST"}
    for path in (CHAT, "/v1/models", "/api/balance", "/api/user/auth", "/healthz", "/metrics"):
        for method in ("OPTIONS", "GET"):
            answer = alice.call(method, path, None, ask)
            assert not [name for name in answer.headers if name.startswith("access-control-")]


def test_addresses_in_a_request_are_not_fetched(alice: Caller) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/secret"
        parts = [
            {"type": "image_url", "image_url": {"url": f"{url}.png"}},
            {"type": "input_audio", "input_audio": {"data": url, "format": "wav"}},
            {"type": "file", "file": {"file_data": url, "filename": "x.pdf"}},
            {"type": "text", "text": f"Fetch {url}"},
        ]
        for part in parts:
            alice.chat(messages=[{"role": "user", "content": [part]}], webhook_url=url, callback=url)
        for content in (
            {"type": "input_image", "image_url": url},
            {"type": "input_file", "file_url": url},
        ):
            body = chat_body(input=[{"role": "user", "content": [content]}], messages=[])
            alice.call("POST", "/v1/responses", body)
        listener.settimeout(0)
        with pytest.raises(BlockingIOError):
            listener.accept()
