"""Limits on sockets: the handshake is a request, and so is each response that is asked for on it."""

import base64

import pytest
from websockets.exceptions import InvalidStatus

from gateway.tests import console
from openai_app.tests.harness import Caller, wait_for
from openai_app.tests.sockets.upstream import (
    REALTIME,
    RESPONSES,
    SocketUpstream,
    begin,
    connected,
    dialled,
    done,
)

SOUND = base64.b64encode(b"\x01" * 48_000).decode()


def limit(caller: Caller, **limits: int) -> None:
    caller.house.console.run(console.change_user, caller.id, **limits)


def test_a_response_beyond_the_limit_gets_an_error_event_and_the_session_goes_on(
    caller: Caller, socket_upstream: SocketUpstream
) -> None:
    limit(caller, requests_per_minute=2)
    with connected(caller, socket_upstream) as (client, upstream):
        client.send("response.create")
        upstream.event("response.create")
        client.send("response.create", event_id="event_7")
        error = client.event("error")["error"]
        assert (error["type"], error["code"], error["event_id"]) == (
            "requests",
            "rate_limit_exceeded",
            "event_7",
        )
        assert "Rate limit reached for gpt-realtime on requests per min (RPM)" in error["message"]
        begin(upstream)
        done(upstream, text=5)
        client.event("response.created")
        client.event("response.done")
        caller.house.console.run(console.let_limits_pass_by, f"user:{caller.id}", 60)
        client.send("response.create")
        upstream.event("response.create")
        assert caller.account()["held"] > 0


def test_a_handshake_beyond_the_limit_is_refused_in_http(caller: Caller) -> None:
    limit(caller, requests_per_minute=1)
    assert caller.call("GET", "/v1/files").status == 200
    key = {"Authorization": f"Bearer {caller.key}"}
    with pytest.raises(InvalidStatus) as refused, dialled(caller.house, REALTIME, key):
        pass
    answer = refused.value.response
    assert answer.status_code == 429
    assert int(answer.headers["retry-after-ms"]) > 0
    assert answer.headers["x-ratelimit-remaining-requests"] == "0"


def test_a_session_at_its_limit_goes_on_and_sound_is_refused_until_it_may_be_answered(
    caller: Caller, socket_upstream: SocketUpstream
) -> None:
    limit(caller, requests_per_minute=2)
    with connected(caller, socket_upstream) as (client, upstream):
        client.send("input_audio_buffer.append", audio=SOUND)
        upstream.event("input_audio_buffer.append")
        begin(upstream)
        done(upstream, text=5)
        client.event("response.created")
        client.event("response.done")
        client.send("input_audio_buffer.append", audio=SOUND, event_id="event_9")
        assert client.event("error")["error"]["event_id"] == "event_9"
        caller.house.console.run(console.let_limits_pass_by, f"user:{caller.id}", 60)
        client.send("input_audio_buffer.append", audio=SOUND)
        upstream.event("input_audio_buffer.append")


def test_responses_over_a_socket_are_told_in_their_shape(
    caller: Caller, socket_upstream: SocketUpstream
) -> None:
    limit(caller, tokens_per_minute=100)
    with connected(caller, socket_upstream, RESPONSES) as (client, upstream):
        asked = {"model": "gpt-4o-mini", "input": "Hello!"}
        client.send("response.create", **asked, max_output_tokens=200, stream_id="one")
        error = client.event("error")
        assert (error["status"], error["stream_id"]) == (429, "one")
        assert error["error"]["type"] == "tokens"
        assert "Request too large for gpt-4o-mini" in error["error"]["message"]
        client.send("response.create", **asked)
        assert upstream.event("response.create")["max_output_tokens"] < 100


def test_only_so_many_responses_are_answered_at_the_same_time(
    caller: Caller, socket_upstream: SocketUpstream
) -> None:
    limit(caller, parallel_calls=1)
    with connected(caller, socket_upstream) as (client, upstream):
        client.send("response.create")
        upstream.event("response.create")
        client.send("response.create")
        assert "on parallel calls of your account" in client.event("error")["error"]["message"]
        begin(upstream)
        done(upstream, text=5)
        client.event("response.created")
        client.event("response.done")
        client.send("response.create")
        upstream.event("response.create")


def test_work_that_began_unasked_is_paid_for_and_counted_beyond_the_limit(
    caller: Caller, socket_upstream: SocketUpstream
) -> None:
    limit(caller, requests_per_minute=1, parallel_calls=1, tokens_per_minute=50)
    with connected(caller, socket_upstream) as (client, upstream):
        begin(upstream)
        done(upstream, text=45)
        client.event("response.created")
        client.event("response.done")
        wait_for(caller.charges)
        (hold,) = caller.holds()
        assert (hold["state"], caller.charges()[0]["amount"] < 0) == ("posted", True)
        client.send("response.create")
        assert client.event("error")["error"]["code"] == "rate_limit_exceeded"
