"""What passes through a WebSocket, and how it ends on either side."""

import json
import socket
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from websockets.exceptions import ConnectionClosed

from openai_app.settlement import charge
from openai_app.tests.harness import PATIENCE_S, Caller, House, house
from openai_app.tests.sockets.upstream import (
    REALTIME,
    RESPONSES,
    End,
    SocketUpstream,
    begin,
    connected,
    dialled,
    done,
)

MEGABYTE = 1024 * 1024


@pytest.mark.parametrize(
    "frame",
    [
        '{"type":"conversation.item.create","item":{"type":"message","content":[]}}',
        '{ "type" : "input_audio_buffer.clear",\n "x":"gr\\u00fc\\u00df dich", "y": 1.50, "z":"日本" }',
        b'{"type":"conversation.item.retrieve","item_id":"item_0123456789"}',
        '{"type":"input_audio_buffer.commit"}',
    ],
)
def test_a_clients_frame_arrives_as_it_was_sent(
    caller: Caller, socket_upstream: SocketUpstream, frame: str | bytes
) -> None:
    with connected(caller, socket_upstream) as (client, openai):
        client.connection.send(frame)
        assert openai.frame() == frame


@pytest.mark.parametrize(
    "frame",
    [
        '{ "type":"session.updated", "session": {"b":1,"a":2.0}}',
        "no JSON at all",
        "",
        b"\x00\xff",
        "[1]",
        '"x"',
    ],
)
@pytest.mark.parametrize("path", [REALTIME, RESPONSES])
def test_openais_frame_arrives_as_it_was_sent(
    caller: Caller, socket_upstream: SocketUpstream, frame: str | bytes, path: str
) -> None:
    with connected(caller, socket_upstream, path) as (client, openai):
        openai.connection.send(frame)
        assert client.frame() == frame


@pytest.mark.parametrize("prefix", ["/v1", "/api/openai"])
def test_frames_keep_their_order(caller: Caller, socket_upstream: SocketUpstream, prefix: str) -> None:
    with connected(caller, socket_upstream, f"{prefix}/realtime?model=gpt-realtime") as (client, openai):
        for number in range(500):
            client.send("input_audio_buffer.append", audio="AAAA", number=number)
            openai.send("rate_limits.updated", number=number)
        assert [openai.event()["number"] for _ in range(500)] == list(range(500))
        assert [client.event()["number"] for _ in range(500)] == list(range(500))


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        ("{", "invalid_json"),
        ("[]", "invalid_json"),
        (b"\x00\x01", "invalid_json"),
        ('{"type":"response.create","a":NaN}', "invalid_json"),
        ('{"type":"response.create"}'.encode("utf-16"), "invalid_json"),
        ("{}", "unknown_event_type"),
        ('{"type":"response.unheard_of"}', "unknown_event_type"),
        ('{"type":["response.create"]}', "unknown_event_type"),
        ('{"type":"session.update","session":{"model":"gpt-realtime-2"}}', "invalid_request"),
    ],
)
def test_an_event_that_is_not_understood_is_refused_and_the_session_goes_on(
    caller: Caller, socket_upstream: SocketUpstream, frame: str | bytes, code: str
) -> None:
    with connected(caller, socket_upstream) as (client, openai):
        client.connection.send(frame)
        error = client.event("error")["error"]
        assert (error["type"], error["code"]) == ("invalid_request_error", code)
        client.send("response.create")
        assert openai.event() == {"type": "response.create"}


def test_a_large_frame_passes_both_ways(caller: Caller, socket_upstream: SocketUpstream) -> None:
    with connected(caller, socket_upstream) as (client, openai):
        frame = json.dumps({"type": "conversation.item.create", "item": {"x": "a" * 15 * MEGABYTE}})
        client.connection.send(frame)
        assert openai.frame() == frame
        openai.connection.send(frame)
        assert client.frame() == frame


def test_a_client_that_sends_too_large_a_frame_is_closed(
    caller: Caller, socket_upstream: SocketUpstream
) -> None:
    with connected(caller, socket_upstream) as (client, openai):
        client.send_in_vain("x" * (16 * MEGABYTE + 1))
        assert openai.closed()[0] == 1009


def test_openais_too_large_frame_ends_the_session(caller: Caller, socket_upstream: SocketUpstream) -> None:
    with connected(caller, socket_upstream) as (client, openai):
        openai.send_in_vain("x" * (16 * MEGABYTE + 1))
        assert client.event("error")["error"]["code"] == "upstream_error"
        assert client.closed()[0] == 1011


@pytest.mark.parametrize("path", [REALTIME, RESPONSES])
@pytest.mark.parametrize(("code", "reason"), [(1000, ""), (1001, "Bye"), (3000, "x" * 123), (4999, "Grüße")])
def test_a_close_frame_passes_both_ways(
    caller: Caller, socket_upstream: SocketUpstream, path: str, code: int, reason: str
) -> None:
    with connected(caller, socket_upstream, path) as (client, openai):
        client.connection.close(code, reason)
        assert openai.closed() == (code, reason)
    with connected(caller, socket_upstream, path) as (client, openai):
        openai.connection.close(code, reason)
        assert client.closed() == (code, reason)


def test_a_client_that_vanishes_takes_the_connection_to_openai_with_it(
    caller: Caller, socket_upstream: SocketUpstream
) -> None:
    with connected(caller, socket_upstream) as (client, openai):
        client.break_off()
        assert openai.closed()[0] == 1001


def passes(connection: socket.socket, data: bytes) -> bool:
    """Whether the other end takes it within the connection's timeout."""
    try:
        connection.sendall(data)
    except OSError:  # Or it has been cut off by then.
        return False
    return True


def dialled_by_hand(caller: Caller) -> socket.socket:
    """A client that reads nothing but what the test does."""
    address = urlsplit(caller.house.url)
    raw = socket.create_connection((address.hostname, address.port), timeout=PATIENCE_S)
    raw.sendall(
        b"GET /v1/realtime?model=gpt-realtime HTTP/1.1\r\nhost: x\r\nupgrade: websocket\r\n"
        b"connection: upgrade\r\nsec-websocket-version: 13\r\n"
        b"sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
        + f"authorization: Bearer {caller.key}\r\n\r\n".encode()
    )
    return raw


def until_it_is_cut_off(raw: socket.socket) -> None:
    """Reads what is left. Raises TimeoutError if the connection stays open."""
    with suppress(ConnectionResetError):
        while raw.recv(MEGABYTE):
            pass


def fill(openai: End) -> int:
    """Sends until nothing is taken any more, and says how many megabytes were."""
    openai.connection.socket.settimeout(1)
    frame = b"\x82\x7f" + MEGABYTE.to_bytes(8, "big") + bytes(MEGABYTE)
    sent = 0
    while sent < 100 and passes(openai.connection.socket, frame):
        sent += 1
    return sent


def test_a_client_that_reads_nothing_holds_back_openai_and_not_the_gateways_memory(
    caller: Caller, socket_upstream: SocketUpstream
) -> None:
    """What is on its way in sockets and buffers stays far below what OpenAI would send."""
    with dialled_by_hand(caller) as raw:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        openai = socket_upstream.accept()
        assert fill(openai) < 20
        openai.break_off()


def test_a_client_that_never_reads_keeps_neither_its_connection_nor_openais(
    tmp_path: Path, socket_upstream: SocketUpstream
) -> None:
    program = "import common.asgi; common.asgi.READER_WITHIN_S = 5.0"
    with house(tmp_path, workers=1, upstream=socket_upstream.base_url, program=program) as hasty:
        caller = hasty.caller()
        with dialled_by_hand(caller) as raw:
            openai = socket_upstream.accept()
            ask = b'{"type":"response.create"}'
            # A frame of text under a mask that changes nothing.
            raw.sendall(b"\x81" + bytes([0x80 | len(ask)]) + bytes(4) + ask)
            openai.event("response.create")
            begin(openai)
            fill(openai)
            with suppress(OSError):
                openai.connection.socket.settimeout(None)
            assert caller.settled()["balance"] < 100_000
            (entry,) = caller.charges()
            assert entry["reason"] == charge.LEFT
            with pytest.raises(ConnectionClosed):
                openai.frame()
            until_it_is_cut_off(raw)


# --- responses over a socket -------------------------------------------------------------------------------


def completed(text: int, **fields: object) -> dict[str, object]:
    usage = {"input_tokens": 10, "output_tokens": text, "total_tokens": 10 + text}
    return {
        "id": "resp_1",
        "object": "response",
        "status": "completed",
        "output": [],
        "usage": usage,
        **fields,
    }


def ask(**fields: object) -> dict[str, object]:
    return {"model": "gpt-4o-mini", "input": "Hello!", **fields}


def test_a_request_is_bounded_by_the_balance(opened: House, socket_upstream: SocketUpstream) -> None:
    caller = opened.caller(100)
    with connected(caller, socket_upstream, RESPONSES) as (client, openai):
        client.send("response.create", **ask(stream_id="a"))
        event = openai.event("response.create")
        assert 50 < event.pop("max_output_tokens") < 100
        assert event == {"type": "response.create", **ask(stream_id="a")}


def test_lanes_are_charged_each_by_its_own_responses(caller: Caller, socket_upstream: SocketUpstream) -> None:
    with connected(caller, socket_upstream, RESPONSES) as (client, openai):
        for lane in ("a", "b", "a"):
            client.send("response.create", **ask(stream_id=lane, max_output_tokens=100))
            openai.event()
        held = caller.account()["held"]
        openai.send("response.created", stream_id="b", response={"id": "resp_b", "object": "response"})
        openai.send("response.created", stream_id="a", response={"id": "resp_a", "object": "response"})
        openai.send("response.completed", stream_id="b", response=completed(2, id="resp_b"))
        openai.send("response.incomplete", stream_id="a", response=completed(3, id="resp_a"))
        for _ in range(4):
            client.event()
        assert [entry["amount"] for entry in caller.charges()] == [-12, -13]
        openai.send("error", stream_id="a", status=400, error={"message": "No", "code": "x"})
        client.event("error")
        account = caller.account()
        assert account["held"] == 0 < held
        assert account["balance"] == 100_000 - 25


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"background": True}, "background"),
        ({"response": {"model": "gpt-4o", "input": "Hello!"}}, "response"),
        ({"model": "x" * 201}, "model"),
        ({"model": "gpt\0"}, "model"),
    ],
)
def test_a_request_that_cannot_be_metered_is_refused(
    caller: Caller, socket_upstream: SocketUpstream, fields: dict[str, object], param: str
) -> None:
    with connected(caller, socket_upstream, RESPONSES) as (client, openai):
        client.send("response.create", **ask(stream_id="a", **fields))
        event = client.event("error")
        assert (event["status"], event["error"]["param"], event["stream_id"]) == (400, param, "a")
        client.send("response.steer", previous_response_id="resp_1", input="Faster!")
        assert client.event("error")["error"]["code"] == "unknown_event_type"
        client.send("response.create", **ask())
        assert openai.event()["input"] == "Hello!"


def test_a_response_goes_on_from_what_was_not_stored_on_the_same_socket(
    caller: Caller, socket_upstream: SocketUpstream
) -> None:
    with connected(caller, socket_upstream, RESPONSES) as (client, openai):
        client.send("response.create", **ask(store=False, generate=False))
        openai.event()
        assert caller.account()["held"] < 20
        openai.send("response.created", response={"id": "resp_warm0001", "object": "response"})
        output = [{"type": "reasoning", "id": "rs_0123456789"}]
        openai.send("response.completed", response=completed(0, id="resp_warm0001", output=output))
        client.event()
        client.event()
        again = [{"type": "item_reference", "id": "rs_0123456789"}]
        client.send(
            "response.create",
            **ask(previous_response_id="resp_warm0001", max_output_tokens=20, input=again),
        )
        openai.event()
        assert 30 <= caller.account()["held"] < 70
    with connected(caller, socket_upstream, RESPONSES) as (client, _):
        client.send("response.create", **ask(previous_response_id="resp_warm0001"))
        assert client.event("error")["error"]["code"] == "previous_response_not_found"


def test_a_stream_that_is_cut_is_charged_as_counted(caller: Caller, socket_upstream: SocketUpstream) -> None:
    with connected(caller, socket_upstream, RESPONSES) as (client, openai):
        client.send("response.create", **ask())
        openai.event()
        openai.send("response.created", response={"id": "resp_1", "object": "response"})
        for word in ("Hello", " there"):
            openai.send("response.output_text.delta", delta=word)
        for _ in range(3):
            client.event()
    caller.settled()
    (entry,) = caller.charges()
    assert entry["units"]["output"] == 2


def test_a_response_that_begins_without_a_hold_costs_what_can_be_seen_of_it_however_low_the_balance(
    opened: House, socket_upstream: SocketUpstream
) -> None:
    caller = opened.caller(0)
    begun = {"id": "resp_1", "object": "response", "model": "gpt-4o-mini", "instructions": "Be brief. " * 20}
    # The second time the balance is below zero.
    for _ in range(2):
        with connected(caller, socket_upstream, RESPONSES) as (client, openai):
            openai.send("response.created", response=begun)
            openai.send("response.output_text.delta", delta="Hello")
            for _ in range(2):
                client.event()
        caller.settled()
    for entry in caller.charges():
        assert 60 <= entry["units"]["input"] < 80
        assert entry["units"]["output"] == 1
    assert len(caller.charges()) == 2


def test_a_response_that_ends_in_an_error_is_charged_as_counted(
    caller: Caller, socket_upstream: SocketUpstream
) -> None:
    with connected(caller, socket_upstream, RESPONSES) as (client, openai):
        client.send("response.create", **ask())
        openai.event()
        openai.send("response.created", response={"id": "resp_1", "object": "response"})
        openai.send("error", error={"message": "overloaded", "code": "server_error"})
        client.event()
        client.event()
        caller.settled()
        (entry,) = caller.charges()
        assert 0 < -entry["amount"] < 20


def test_realtime_and_responses_do_not_understand_each_others_events(
    caller: Caller, socket_upstream: SocketUpstream
) -> None:
    with connected(caller, socket_upstream, RESPONSES) as (client, _):
        client.send("session.update", session={})
        assert client.event("error")["error"]["code"] == "unknown_event_type"


def test_two_sockets_of_one_user_share_the_balance(opened: House, socket_upstream: SocketUpstream) -> None:
    caller = opened.caller(300)
    with (
        connected(caller, socket_upstream) as (one, openai),
        dialled(opened, REALTIME, {"Authorization": f"Bearer {caller.key}"}) as two,
    ):
        one.send("response.create")
        openai.event()
        two.send("response.create")
        assert two.event("error")["error"]["code"] == "insufficient_quota"
        socket_upstream.accept()
        begin(openai)
        done(openai, text=4)
        one.event()
        one.event()
    assert caller.settled()["balance"] == 286
