"""What is held and charged when sound comes: for answers that nobody asked for, and for transcripts."""

import base64
from typing import Any

import pytest

from openai_app.settlement import charge
from openai_app.sockets.charge import ENDED
from openai_app.tests.harness import Caller, House
from openai_app.tests.sockets.upstream import End, SocketUpstream, begin, connected, done

CEILING = 4_096
SOUND = base64.b64encode(bytes(48_000)).decode()  # a second


# --- answers that come by themselves -----------------------------------------------------------------------


def hear(client: End, openai: End) -> None:
    client.send("input_audio_buffer.append", audio=SOUND)
    openai.event("input_audio_buffer.append")


def test_a_hold_stands_before_sound_may_lead_to_an_answer(
    caller: Caller, socket_upstream: SocketUpstream
) -> None:
    with connected(caller, socket_upstream) as (client, openai):
        assert caller.account()["held"] == 0
        hear(client, openai)
        held = caller.account()["held"]
        assert held > CEILING
        hear(client, openai)
        assert caller.account()["held"] == held
        begin(openai)
        done(openai, text=5, spoken=20)
        client.event("response.created")
        client.event("response.done")
        openai.send("rate_limits.updated")
        client.event("rate_limits.updated")
        assert caller.account()["balance"] == 100_000 - 35
        assert caller.account()["held"] > CEILING
    assert caller.settled()["available"] == 100_000 - 35


@pytest.mark.parametrize(
    "detection",
    [
        None,
        {"type": "server_vad", "create_response": False},
        {"type": "semantic_vad", "create_response": False},
    ],
)
def test_nothing_is_held_for_sound_that_is_not_answered_by_itself(
    caller: Caller, socket_upstream: SocketUpstream, detection: object
) -> None:
    with connected(caller, socket_upstream) as (client, openai):
        client.send("session.update", session={"audio": {"input": {"turn_detection": detection}}})
        openai.event()
        hear(client, openai)
        assert caller.account()["held"] == 0


def test_the_session_is_bounded_by_what_the_balance_allows_and_no_further_than_that(
    opened: House, socket_upstream: SocketUpstream
) -> None:
    caller = opened.caller(1_000)
    with connected(caller, socket_upstream) as (client, openai):
        client.send("input_audio_buffer.append", audio=SOUND)
        told = openai.event("session.update")["session"]
        assert told == {"type": "realtime", "max_output_tokens": told["max_output_tokens"]}
        assert 800 < told["max_output_tokens"] < caller.account()["held"] == 1_000
        openai.event("input_audio_buffer.append")
        client.send("session.update", session={"type": "realtime", "max_output_tokens": "inf", "tools": []})
        again = openai.event("session.update")["session"]
        assert again == {"type": "realtime", "max_output_tokens": told["max_output_tokens"], "tools": []}
        client.send("session.update", session={"type": "realtime", "max_output_tokens": 20})
        assert openai.event("session.update")["session"]["max_output_tokens"] == 20


def test_a_session_of_the_beta_is_bounded_by_its_own_field(
    opened: House, socket_upstream: SocketUpstream
) -> None:
    caller = opened.caller(1_000)
    with connected(caller, socket_upstream) as (client, openai):
        openai.send("session.created", session={"modalities": ["text"], "max_response_output_tokens": "inf"})
        client.event("session.created")
        client.send("input_audio_buffer.append", audio=SOUND)
        session = openai.event("session.update")["session"]
        assert session.keys() == {"max_response_output_tokens"}


@pytest.mark.parametrize("model", ["whisper\0", "x" * 201])
def test_a_transcription_by_what_no_model_is_called_is_refused_with_the_sound(
    caller: Caller, socket_upstream: SocketUpstream, model: str
) -> None:
    with connected(caller, socket_upstream) as (client, openai):
        client.send("session.update", session={"input_audio_transcription": {"model": model}})
        openai.event("session.update")
        client.send("input_audio_buffer.append", audio=SOUND, event_id="event_7")
        error = client.event("error")["error"]
        assert (error["type"], error["param"]) == ("invalid_request_error", "model")
        assert error["event_id"] == "event_7"
        assert caller.holds() == []


def test_sound_ends_the_session_when_nothing_is_left(opened: House, socket_upstream: SocketUpstream) -> None:
    caller = opened.caller(50)
    with connected(caller, socket_upstream) as (client, openai):
        client.send("input_audio_buffer.append", audio=SOUND)
        assert client.event("error")["error"]["code"] == "insufficient_quota"
        assert client.closed()[0] == 1008
        assert openai.closed()[0] == 1008
    assert caller.account()["balance"] == 50


def test_the_session_ends_after_the_answer_that_used_up_the_balance(
    opened: House, socket_upstream: SocketUpstream
) -> None:
    caller = opened.caller(400)
    with connected(caller, socket_upstream) as (client, openai):
        client.send("input_audio_buffer.append", audio=SOUND)
        openai.event("session.update")
        openai.event("input_audio_buffer.append")
        begin(openai)
        done(openai, spoken=380)
        client.event("response.created")
        client.event("response.done")
        assert client.event("error")["error"]["code"] == "insufficient_quota"
        assert client.closed()[0] == 1008
    assert caller.settled()["balance"] == 10


def test_a_response_asked_for_takes_the_place_of_the_answer_that_was_waited_for(
    opened: House, socket_upstream: SocketUpstream
) -> None:
    caller = opened.caller(1_000)
    with connected(caller, socket_upstream) as (client, openai):
        client.send("input_audio_buffer.append", audio=SOUND)
        openai.event("session.update")
        openai.event("input_audio_buffer.append")
        client.send("response.create")
        openai.event("response.create")
        assert caller.account()["available"] == 0
        hear(client, openai)
        begin(openai)
        done(openai, text=5)
        client.event("response.created")
        client.event("response.done")
        assert caller.account()["balance"] == 985


def test_an_answer_that_begins_without_a_hold_gets_one_at_once(
    caller: Caller, socket_upstream: SocketUpstream
) -> None:
    with connected(caller, socket_upstream) as (client, openai):
        begin(openai)
        client.event("response.created")
        assert caller.account()["held"] > CEILING - 1
        done(openai, text=7)
        client.event("response.done")
        assert caller.account() == {"user": caller.id, "balance": 99_983, "held": 0, "available": 99_983}


def test_an_answer_that_begins_without_a_hold_or_a_balance_ends_the_session(
    opened: House, socket_upstream: SocketUpstream
) -> None:
    caller = opened.caller(0)
    with connected(caller, socket_upstream) as (client, openai):
        begin(openai)
        assert client.event("error")["error"]["code"] == "insufficient_quota"
        assert client.closed()[0] == 1008
        assert openai.closed()[0] == 1008
    opened.wait_until_settled()
    (hold,) = caller.holds()
    assert (hold["state"], hold["reason"]) == ("posted", ENDED)


def test_an_answer_that_begins_without_a_hold_costs_what_openai_has_read_however_low_the_balance(
    opened: House, socket_upstream: SocketUpstream
) -> None:
    caller = opened.caller(0)
    item = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Hello!"}]}
    # The second time the balance is below zero.
    for _ in range(2):
        with connected(caller, socket_upstream) as (client, openai):
            client.send("conversation.item.create", item=item)
            openai.event("conversation.item.create")
            begin(openai)
            assert client.event("error")["error"]["code"] == "insufficient_quota"
            assert client.closed()[0] == 1008
        caller.settled()
    first, second = caller.charges()
    assert 0 < first["units"]["input"] < 20
    assert first["reason"] == second["reason"] == ENDED
    assert caller.balance() == 2 * first["amount"] == 2 * second["amount"]
    assert "wrong" not in opened.audit()


def test_a_long_speech_is_held_for_as_it_goes_on(caller: Caller, socket_upstream: SocketUpstream) -> None:
    with connected(caller, socket_upstream) as (client, openai):
        hear(client, openai)
        first = caller.account()["held"]
        openai.send("input_audio_buffer.speech_started", audio_start_ms=0, item_id="item_1")
        client.event()
        for _ in range(12):
            hear(client, openai)
        assert caller.account()["held"] >= first + 100


# --- transcription -----------------------------------------------------------------------------------------


def transcribing(client: End, openai: End, model: str = "gpt-4o-transcribe", **session: Any) -> None:
    heard = {"transcription": {"model": model}, "turn_detection": None}
    client.send("session.update", session={**session, "audio": {"input": heard}})
    openai.event("session.update")


def transcript(openai: End, kind: str, **fields: Any) -> None:
    openai.send(f"conversation.item.input_audio_transcription.{kind}", item_id="item_1", **fields)


def test_a_transcript_is_held_for_before_it_is_heard_and_charged_when_it_is_there(
    caller: Caller, socket_upstream: SocketUpstream
) -> None:
    usage = {
        "type": "tokens",
        "input_tokens": 26,
        "output_tokens": 9,
        "input_token_details": {"text_tokens": 6, "audio_tokens": 20},
    }
    with connected(caller, socket_upstream, "/v1/realtime?intent=transcription") as (client, openai):
        transcribing(client, openai, type="transcription")
        hear(client, openai)
        assert caller.account()["held"] > 200
        client.send("input_audio_buffer.commit")
        openai.event()
        openai.send("input_audio_buffer.committed", item_id="item_1")
        transcript(openai, "delta", delta="Hello")
        transcript(openai, "completed", transcript="Hello", usage=usage)
        for _ in range(3):
            client.event()
        (entry,) = caller.charges()
        assert caller.account()["held"] == 0
    assert entry["units"] == {"input": 6, "audio_input": 20, "output": 9}
    assert entry["model"] == "gpt-4o-transcribe"


def test_a_transcript_without_a_hold_is_charged_whole_however_low_the_balance(
    opened: House, socket_upstream: SocketUpstream
) -> None:
    caller = opened.caller(0)
    usage = {"type": "tokens", "input_tokens": 20, "output_tokens": 9}
    with connected(caller, socket_upstream, "/v1/realtime?intent=transcription") as (client, openai):
        transcribing(client, openai, type="transcription")
        # The second time the balance is below zero.
        for _ in range(2):
            openai.send("input_audio_buffer.committed", item_id="item_1")
            transcript(openai, "completed", transcript="Hello", usage=usage)
            client.event("input_audio_buffer.committed")
            client.event("conversation.item.input_audio_transcription.completed")
        assert [entry["amount"] for entry in caller.charges()] == [-29, -29]
    caller.settled()


def test_a_transcript_that_fails_costs_nothing(caller: Caller, socket_upstream: SocketUpstream) -> None:
    with connected(caller, socket_upstream) as (client, openai):
        transcribing(client, openai)
        hear(client, openai)
        openai.send("input_audio_buffer.committed", item_id="item_1")
        transcript(openai, "failed", error={"message": "inaudible"})
        client.event()
        client.event()
        assert caller.account() == {"user": caller.id, "balance": 100_000, "held": 0, "available": 100_000}


def test_a_transcript_that_is_cut_is_charged_by_the_seconds_that_were_heard(
    caller: Caller, socket_upstream: SocketUpstream
) -> None:
    with connected(caller, socket_upstream) as (client, openai):
        transcribing(client, openai, "whisper-1")
        for _ in range(3):
            hear(client, openai)
        openai.send("input_audio_buffer.committed", item_id="item_1")
        client.event()
    caller.settled()
    (entry,) = caller.charges()
    assert (entry["units"], entry["reason"]) == ({"second": 3}, charge.LEFT)


def test_a_transcription_session_ends_when_nothing_is_left(
    opened: House, socket_upstream: SocketUpstream
) -> None:
    caller = opened.caller(20)
    with connected(caller, socket_upstream, "/v1/realtime?intent=transcription") as (client, openai):
        transcribing(client, openai, type="transcription")
        client.send("input_audio_buffer.append", audio=SOUND)
        assert client.event("error")["error"]["code"] == "insufficient_quota"
        assert client.closed()[0] == 1008
        assert openai.closed()[0] == 1008


def test_a_session_of_a_kind_that_reports_no_usage_is_ended(
    caller: Caller, socket_upstream: SocketUpstream
) -> None:
    with connected(caller, socket_upstream) as (client, openai):
        openai.send("session.created", session={"type": "translation"})
        assert client.event("error")["error"]["code"] == "operation_not_offered"
        assert client.closed()[0] == 1008
        assert openai.closed()[0] == 1008
