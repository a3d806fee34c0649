"""Who may open a WebSocket, and what of its handshake reaches OpenAI."""

import http
import json
import socket
from typing import Any

import pytest
from websockets.datastructures import Headers
from websockets.exceptions import InvalidStatus
from websockets.http11 import Response

from gateway.tests import console
from openai_app.tests.harness import OPERATORS_KEY, Caller, House
from openai_app.tests.sockets.upstream import REALTIME, RESPONSES, SocketUpstream, connected, dialled


def refusal(
    house: House, path: str, headers: dict[str, str], protocols: tuple[str, ...] = ()
) -> tuple[int, dict[str, Any]]:
    """Status and error of a handshake that is refused."""
    with pytest.raises(InvalidStatus) as refused, dialled(house, path, headers, protocols):
        pass
    answer = refused.value.response
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-request-id"]
    error = json.loads(answer.body or b"")["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    return answer.status_code, error


@pytest.mark.parametrize("path", [REALTIME, RESPONSES])
@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({}, "invalid_api_key"),
        ({"Authorization": "Bearer sk-tg-nobody"}, "invalid_api_key"),
        ({"Authorization": "Basic sk-tg-nobody"}, "invalid_api_key"),
    ],
)
def test_a_stranger_is_refused_before_anything_is_opened(
    opened: House, socket_upstream: SocketUpstream, path: str, headers: dict[str, str], code: str
) -> None:
    status, error = refusal(opened, path, headers)
    assert (status, error["code"]) == (401, code)
    assert socket_upstream.is_untouched


def test_a_key_that_may_not_call_the_model_is_refused(opened: House, socket_upstream: SocketUpstream) -> None:
    caller = opened.caller(allowed_models=["gpt-4o*"])
    status, error = refusal(opened, REALTIME, {"Authorization": f"Bearer {caller.key}"})
    assert (status, error["code"]) == (403, "model_not_allowed")
    assert socket_upstream.is_untouched


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/v1/chat/completions", 404, "unknown_url"),
        ("/v1/realtime/translations?model=gpt-realtime-translate", 404, "unknown_url"),
        ("/v1/realtime", 400, "missing_required_parameter"),
        ("/v1/realtime?call_id=rtc_1", 400, "unknown_parameter"),
        ("/v1/realtime?model=gpt-realtime&call_id=rtc_1", 400, "unknown_parameter"),
        ("/v1/realtime?model=gpt-realtime&model=gpt-realtime-2", 400, "unknown_parameter"),
        ("/v1/responses?model=gpt-4o", 400, "unknown_parameter"),
        (f"/v1/realtime?model={'x' * 201}", 400, "invalid_request"),
        ("/v1/realtime?model=gpt%00realtime", 400, "invalid_request"),
    ],
)
def test_what_is_not_offered_is_refused(
    caller: Caller, socket_upstream: SocketUpstream, path: str, status: int, code: str
) -> None:
    found, error = refusal(caller.house, path, {"Authorization": f"Bearer {caller.key}"})
    assert (found, error["code"]) == (status, code)
    assert socket_upstream.is_untouched


@pytest.mark.parametrize("path", [REALTIME, RESPONSES, "/v1/realtime/?intent=transcription"])
@pytest.mark.parametrize("scheme", ["Bearer", "Token"])
def test_openai_is_shown_the_operators_key_and_not_the_callers(
    caller: Caller, socket_upstream: SocketUpstream, path: str, scheme: str
) -> None:
    headers = {"Authorization": f"{scheme} {caller.key}", "OpenAI-Beta": "realtime=v1", "Cookie": "a=b"}
    with dialled(caller.house, path, {**headers, "OpenAI-Organization": "org-theirs"}):
        request = socket_upstream.accept().connection.request
    assert request is not None
    assert request.path == path.replace("/?", "?")
    assert request.headers["authorization"] == f"Bearer {OPERATORS_KEY}"
    assert request.headers["openai-beta"] == "realtime=v1"
    assert not {"cookie", "openai-organization", "origin"} & {name.lower() for name in request.headers}


def test_a_browser_sends_its_key_as_a_sub_protocol(caller: Caller, socket_upstream: SocketUpstream) -> None:
    offered = (
        "realtime",
        f"openai-insecure-api-key.{caller.key}",
        "openai-organization.org-theirs",
        "openai-beta.realtime-v1",
    )
    with dialled(caller.house, REALTIME, {"Origin": "https://example.org"}, offered) as client:
        request = socket_upstream.accept().connection.request
        assert client.connection.subprotocol == "realtime"
    assert request is not None
    assert request.headers["sec-websocket-protocol"] == "realtime,openai-beta.realtime-v1"
    assert request.headers["authorization"] == f"Bearer {OPERATORS_KEY}"
    assert caller.key not in str(request)


def test_a_strangers_sub_protocol_is_refused(opened: House, socket_upstream: SocketUpstream) -> None:
    offered = ("realtime", "openai-insecure-api-key.sk-tg-nobody")
    assert refusal(opened, REALTIME, {}, offered)[0] == 401
    assert socket_upstream.is_untouched


def test_openais_refusal_is_told_with_its_status_unless_it_speaks_of_the_operators_key(
    caller: Caller, socket_upstream: SocketUpstream
) -> None:
    for given, told in ((404, 404), (429, 429), (500, 500), (401, 502), (302, 502)):
        reason = http.HTTPStatus(given).phrase
        socket_upstream.refuse_with = Response(given, reason, Headers({"location": "/v1/other"}), b"{}")
        assert refusal(caller.house, REALTIME, {"Authorization": f"Bearer {caller.key}"})[0] == told
    socket_upstream.refuse_with = None


@pytest.mark.parametrize(
    ("given", "headers", "told"),
    [
        (429, {"retry-after": "7"}, "7"),
        (503, {"retry-after": "20"}, "20"),
        (503, {}, "1"),
        (504, {}, "1"),
        (401, {}, "1"),
        (302, {"location": "/v1/other"}, "1"),
        (404, {}, None),
        (429, {}, None),
    ],
)
def test_a_refused_handshake_says_when_to_try_again(
    caller: Caller, socket_upstream: SocketUpstream, given: int, headers: dict[str, str], told: str | None
) -> None:
    reason = http.HTTPStatus(given).phrase
    socket_upstream.refuse_with = Response(given, reason, Headers(headers), b"{}")
    key = {"Authorization": f"Bearer {caller.key}"}
    try:
        with pytest.raises(InvalidStatus) as refused, dialled(caller.house, REALTIME, key):
            pass
    finally:
        socket_upstream.refuse_with = None
    assert refused.value.response.headers.get("retry-after") == told


def test_a_key_that_is_revoked_ends_the_session_at_its_next_response(
    caller: Caller, socket_upstream: SocketUpstream
) -> None:
    with connected(caller, socket_upstream) as (client, openai):
        caller.house.console.run(console.change_key, caller.key_id, expires_at="2020-01-01T00:00:00Z")
        client.send("response.create", event_id="event_mine")
        error = client.event("error")["error"]
        assert (error["code"], error["event_id"]) == ("invalid_api_key", "event_mine")
        assert client.closed()[0] == 1008
        assert openai.closed()[0] == 1008


def test_a_redirection_is_not_followed_anywhere(caller: Caller, socket_upstream: SocketUpstream) -> None:
    with socket.create_server(("127.0.0.1", 0)) as elsewhere:
        place = f"http://127.0.0.1:{elsewhere.getsockname()[1]}/v1/realtime"
        for location in (place, "/v1/files"):
            for status in (301, 302, 303, 307, 308):
                head = Headers({"location": location})
                socket_upstream.refuse_with = Response(status, "Elsewhere", head, b"")
                try:
                    found, error = refusal(caller.house, REALTIME, {"Authorization": f"Bearer {caller.key}"})
                finally:
                    socket_upstream.refuse_with = None
                assert (found, "redirection" in error["message"]) == (502, True)
        elsewhere.settimeout(0)
        with pytest.raises(BlockingIOError):
            elsewhere.accept()


def test_of_a_handshakes_headers_only_the_listed_reach_openai(
    caller: Caller, socket_upstream: SocketUpstream
) -> None:
    withheld = {
        "OpenAI-Project": "proj_theirs",
        "X-Forwarded-For": "10.0.0.1",
        "X-Forwarded-Host": "evil.example",
        "Proxy-Authorization": "Basic eA==",
        "Referer": "https://evil.example/",
        "Accept-Language": "en",
        "X-Anything": "else",
        "Idempotency-Key": "mine",
    }
    passed = {"OpenAI-Beta": "realtime=v1", "X-Client-Request-Id": "mine", "X-Stainless-Lang": "python"}
    headers = {"Authorization": f"Bearer {caller.key}", **withheld, **passed}
    with dialled(caller.house, REALTIME, headers):
        request = socket_upstream.accept().connection.request
    assert request is not None
    own = {"host", "accept-encoding", "authorization", "connection", "upgrade"}
    own |= {f"sec-websocket-{name}" for name in ("key", "version")}
    names = {name.lower() for name, _ in request.headers.raw_items()}
    assert names - own - {"user-agent"} == {name.lower() for name in passed}
    assert request.headers["host"] == socket_upstream.base_url.split("/")[2]
    assert caller.key not in str(request)


def test_an_error_on_a_socket_is_told_without_the_names_of_the_operators_account(
    caller: Caller, socket_upstream: SocketUpstream
) -> None:
    with connected(caller, socket_upstream) as (client, openai):
        openai.send("error", error={"message": f"Limit of org-{'x' * 24} with {OPERATORS_KEY}", "type": "x"})
        assert client.event("error")["error"]["message"] == "Limit of [hidden] with [hidden]"
