"""A realtime session is held for and charged response by response, asked for or not."""

import base64

import pytest

from gateway.tests import console
from openai_app.settlement import charge
from openai_app.tests.harness import Caller, House, house, wait_for
from openai_app.tests.sockets.upstream import End, SocketUpstream, begin, connected, done

CEILING = 4_096
HELLO = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Hello!"}]}


# --- responses that are asked for --------------------------------------------------------------------------


def test_a_hold_stands_before_openai_hears_of_a_response(
    caller: Caller, socket_upstream: SocketUpstream
) -> None:
    with connected(caller, socket_upstream) as (client, openai):
        client.send("conversation.item.create", item=HELLO)
        openai.event("conversation.item.create")
        assert caller.account()["held"] == 0
        client.send("response.create")
        openai.event("response.create")
        assert CEILING < caller.account()["held"] < CEILING + 30
        begin(openai)
        done(openai, text=5)
        client.event("response.created")
        client.event("response.done")
        assert caller.account() == {"user": caller.id, "balance": 99_985, "held": 0, "available": 99_985}


def test_what_is_cached_heard_seen_and_spoken_is_charged_by_class(
    caller: Caller, socket_upstream: SocketUpstream
) -> None:
    usage = {
        "total_tokens": 900,
        "input_tokens": 789,
        "output_tokens": 111,
        "input_token_details": {
            "text_tokens": 300,
            "audio_tokens": 476,
            "image_tokens": 13,
            "cached_tokens": 641,
            "cached_tokens_details": {"text_tokens": 256, "audio_tokens": 384, "image_tokens": 1},
        },
        "output_token_details": {"text_tokens": 31, "audio_tokens": 80, "reasoning_tokens": 7},
    }
    with connected(caller, socket_upstream) as (client, openai):
        client.send("response.create")
        openai.event()
        begin(openai)
        done(openai, usage=usage)
        client.event("response.created")
        client.event("response.done")
        (entry,) = caller.charges()
    assert entry["units"] == {
        "input": 44,
        "audio_input": 92,
        "image_input": 12,
        "cached_input": 641,
        "output": 24,
        "reasoning": 7,
        "audio_output": 80,
    }
    assert entry["details"] == {"cached_audio": 384}
    assert (entry["model"], entry["operation"], entry["amount"]) == ("gpt-realtime", "connectRealtime", -900)


def test_the_conversation_so_far_is_part_of_the_next_hold(
    caller: Caller, socket_upstream: SocketUpstream
) -> None:
    with connected(caller, socket_upstream) as (client, openai):
        client.send("response.create")
        openai.event()
        begin(openai)
        done(openai, text=500, spoken=1000)
        client.event()
        client.event()
        client.send("response.create")
        openai.event()
        assert caller.account()["held"] == CEILING + 10 + 500 + 1000


def test_a_response_is_bounded_by_what_the_balance_allows(
    opened: House, socket_upstream: SocketUpstream
) -> None:
    caller = opened.caller(1_000)
    with connected(caller, socket_upstream) as (client, openai):
        client.send("response.create", event_id="mine", response={"instructions": "Be brief.", "tools": []})
        event = openai.event("response.create")
        cap = event["response"].pop("max_output_tokens")
        assert event == {
            "type": "response.create",
            "event_id": "mine",
            "response": {"instructions": "Be brief.", "tools": []},
        }
        account = caller.account()
        assert 950 < cap < account["held"] == 1_000


def test_a_smaller_bound_of_the_callers_own_stays_as_it_is(
    caller: Caller, socket_upstream: SocketUpstream
) -> None:
    with connected(caller, socket_upstream) as (client, openai):
        for frame in (
            '{"type":"response.create", "response": {"max_output_tokens": 50}}',
            '{ "response":{"max_output_tokens":"inf"},"type" :"response.create"}',
        ):
            client.connection.send(frame)
            assert openai.frame() == frame
        assert CEILING + 50 < caller.account()["held"] < CEILING + 90


def test_with_nothing_left_the_session_is_told_and_closed(
    opened: House, socket_upstream: SocketUpstream
) -> None:
    caller = opened.caller(0)
    with connected(caller, socket_upstream) as (client, openai):
        client.send("response.create", event_id="mine")
        event = client.event("error")
        assert event["event_id"]
        assert event["error"]["type"] == event["error"]["code"] == "insufficient_quota"
        assert event["error"]["event_id"] == "mine"
        assert client.closed()[0] == 1008
        assert openai.closed()[0] == 1008


def test_what_is_being_answered_is_finished_before_the_session_is_closed(
    opened: House, socket_upstream: SocketUpstream
) -> None:
    caller = opened.caller(500)
    with connected(caller, socket_upstream) as (client, openai):
        client.send("response.create")
        openai.event()
        begin(openai)
        client.event("response.created")
        client.send("response.create", response={"conversation": "none"})
        assert client.event("error")["error"]["code"] == "insufficient_quota"
        done(openai, text=40)
        client.event("response.done")
        assert client.closed()[0] == 1008
    assert caller.settled()["balance"] == 450


def test_responses_at_the_same_time_are_each_charged(caller: Caller, socket_upstream: SocketUpstream) -> None:
    with connected(caller, socket_upstream) as (client, openai):
        for _ in range(3):
            client.send("response.create", response={"conversation": "none"})
            openai.event()
        for name in ("a", "b", "c"):
            begin(openai, name, conversation_id=None)
        for name, text in (("c", 3), ("a", 1), ("b", 2)):
            done(openai, name, text=text, conversation_id=None)
        for _ in range(6):
            client.event()
        assert [entry["units"]["output"] for entry in caller.charges()] == [3, 1, 2]
        assert caller.account()["held"] == 0


@pytest.mark.parametrize("event_id", [None, "mine"])
def test_a_response_that_openai_refuses_costs_nothing(
    caller: Caller, socket_upstream: SocketUpstream, event_id: str | None
) -> None:
    with connected(caller, socket_upstream) as (client, openai):
        client.send("response.create", **({"event_id": event_id} if event_id else {}))
        openai.event()
        openai.send("error", error={"type": "invalid_request_error", "message": "No", "event_id": event_id})
        client.event("error")
        assert caller.account()["available"] == 100_000


def test_a_failed_response_costs_nothing(caller: Caller, socket_upstream: SocketUpstream) -> None:
    with connected(caller, socket_upstream) as (client, openai):
        client.send("response.create")
        openai.event()
        begin(openai)
        done(openai, status="failed")
        client.event()
        client.event()
        assert caller.account()["available"] == 100_000


def test_without_any_usage_the_whole_hold_is_charged(caller: Caller, socket_upstream: SocketUpstream) -> None:
    with connected(caller, socket_upstream) as (client, openai):
        client.send("response.create", response={"max_output_tokens": 100})
        openai.event()
        held = caller.account()["held"]
        begin(openai)
        done(openai)
        client.event()
        client.event()
        (entry,) = caller.charges()
    assert (entry["amount"], entry["reason"]) == (-held, charge.NO_USAGE)


def test_items_of_the_session_can_be_referred_to_and_no_others(
    caller: Caller, socket_upstream: SocketUpstream
) -> None:
    with connected(caller, socket_upstream) as (client, openai):
        openai.send("conversation.item.added", item={"id": "item_0123456789"})
        client.event()
        for item_id in ("item_0123456789", "item_9876543210"):
            reference = {"type": "item_reference", "id": item_id}
            client.send("response.create", response={"conversation": "none", "input": [reference]})
        assert openai.event()["response"]["input"] == [{"type": "item_reference", "id": "item_0123456789"}]
        error = client.event("error")["error"]
        assert error["message"] == "Item with id 'item_9876543210' not found."


# --- sockets that are cut ----------------------------------------------------------------------------------


def speak(client: End, openai: End) -> None:
    """A response on its way: the words "Hello there" and half a second of sound."""
    client.send("response.create")
    openai.event()
    begin(openai)
    openai.send("response.output_audio_transcript.delta", response_id="resp_1", delta="Hello")
    openai.send("response.output_audio_transcript.delta", response_id="resp_1", delta=" there")
    half = base64.b64encode(bytes(24_000)).decode()
    openai.send("response.output_audio.delta", response_id="resp_1", delta=half)
    for _ in range(4):
        client.event()


def test_what_a_client_left_is_charged_as_counted(caller: Caller, socket_upstream: SocketUpstream) -> None:
    with connected(caller, socket_upstream) as (client, openai):
        speak(client, openai)
        client.connection.close(4321, "Bye")
        assert openai.closed() == (4321, "Bye")
    caller.settled()
    (entry,) = caller.charges()
    assert entry["units"]["output"] == 2
    assert entry["units"]["audio_output"] == 10
    assert entry["reason"] == charge.LEFT


def test_what_openai_broke_off_is_charged_as_counted_and_the_client_is_told(
    caller: Caller, socket_upstream: SocketUpstream
) -> None:
    with connected(caller, socket_upstream) as (client, openai):
        speak(client, openai)
        openai.break_off()
        assert client.event("error")["error"]["code"] == "upstream_error"
        assert client.closed()[0] == 1011
    caller.settled()
    (entry,) = caller.charges()
    assert entry["units"]["audio_output"] == 10
    assert entry["reason"] == charge.BROKEN


def test_what_openai_closed_before_it_began_costs_nothing(
    caller: Caller, socket_upstream: SocketUpstream
) -> None:
    with connected(caller, socket_upstream) as (client, openai):
        client.send("response.create")
        openai.event()
        openai.connection.close(4000, "Session expired")
        assert client.closed() == (4000, "Session expired")
    assert caller.settled()["balance"] == 100_000


def test_a_gateway_that_stops_charges_what_was_counted(
    tmp_path_factory: pytest.TempPathFactory, socket_upstream: SocketUpstream
) -> None:
    folder = tmp_path_factory.mktemp("stopped")
    with house(folder, workers=1, upstream=socket_upstream.base_url) as stopping:
        caller = stopping.caller()
        with connected(caller, socket_upstream) as (client, openai):
            speak(client, openai)
            assert stopping.gateway.stop() == 0
            assert client.closed()[0] == 1012
            assert openai.closed()[0] == 1012
        (hold,) = stopping.console.run(console.holds)
        assert (hold["state"], hold["reason"]) == ("posted", charge.STOPPED)
        stopping.audit()


def test_clients_that_vanish_as_they_ask_leave_no_hold_behind(
    caller: Caller, socket_upstream: SocketUpstream
) -> None:
    for _ in range(40):
        with connected(caller, socket_upstream) as (client, openai):
            client.send("input_audio_buffer.append", audio="AAAA")
            client.send("response.create", response={"max_output_tokens": 10})
            client.break_off()
            openai.break_off()
    # What a client asked for last may still be on its way in.
    wait_for(lambda: {hold["state"] for hold in caller.holds()} <= {"posted", "voided"})
    assert all(entry["units"].get("audio_output", 0) == 0 for entry in caller.charges())
