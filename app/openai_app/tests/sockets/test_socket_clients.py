"""Realtime sessions and responses over WebSockets, by OpenAI's own client, with the simulator as upstream."""

import base64
from collections.abc import Iterator
from typing import Any

import pytest
from openai.resources.realtime.realtime import RealtimeConnection

from openai_app.tests.harness import Caller, House

SOUND = base64.b64encode(b"\x01" * 48_000).decode()
SILENCE = base64.b64encode(bytes(4_800)).decode()


def until(connection: Any, kind: str) -> list[Any]:
    """The events up to the first of a kind."""
    events = []
    for event in connection:
        events.append(event)
        if event.type == kind:
            return events
    raise AssertionError(f"no {kind} among {[event.type for event in events]}")


def say(connection: RealtimeConnection, text: str) -> None:
    connection.conversation.item.create(
        item={"type": "message", "role": "user", "content": [{"type": "input_text", "text": text}]}
    )


@pytest.fixture
def realtime(alice: Caller) -> Iterator[RealtimeConnection]:
    with alice.client() as client, client.realtime.connect(model="gpt-realtime") as connection:
        until(connection, "session.created")
        yield connection


def served(house: House, kind: str) -> list[int]:
    """The tokens of what the simulator served."""
    return [call["usage"]["total_tokens"] for call in house.journal() if call["kind"] == kind]


def test_each_response_of_a_written_conversation_is_paid_for_when_it_is_done(
    alice: Caller, realtime: RealtimeConnection
) -> None:
    spent = 0
    for _ in range(3):
        say(realtime, "Hello!")
        realtime.response.create(response={"output_modalities": ["text"]})
        spent += until(realtime, "response.done")[-1].response.usage.total_tokens
        assert alice.account() == {
            "user": alice.id,
            "balance": 100_000 - spent,
            "held": 0,
            "available": 100_000 - spent,
        }
    assert len(alice.charges()) == 3
    realtime.close()
    assert sum(served(alice.house, "realtime.response")) == spent


def test_speech_is_paid_for_by_class(alice: Caller, realtime: RealtimeConnection) -> None:
    realtime.input_audio_buffer.append(audio=SOUND)
    realtime.input_audio_buffer.append(audio=SILENCE)
    usage = until(realtime, "response.done")[-1].response.usage
    (entry,) = alice.charges()
    assert entry["units"] == {
        "input": usage.input_token_details.text_tokens,
        "audio_input": usage.input_token_details.audio_tokens,
        "output": usage.output_token_details.text_tokens,
        "audio_output": usage.output_token_details.audio_tokens,
    }
    assert entry["model"] == "gpt-realtime"


@pytest.mark.parametrize("model", ["whisper-1", "gpt-4o-transcribe"])
def test_a_transcription_is_paid_for_at_its_own_rate(
    alice: Caller, realtime: RealtimeConnection, model: str
) -> None:
    realtime.session.update(
        session={"type": "realtime", "audio": {"input": {"transcription": {"model": model}}}}
    )
    until(realtime, "session.updated")
    realtime.input_audio_buffer.append(audio=SOUND)
    realtime.input_audio_buffer.append(audio=SILENCE)
    events = until(realtime, "response.done")
    usage = next(e for e in events if e.type.endswith("transcription.completed")).usage
    entry, _ = alice.charges()
    assert entry["model"] == model
    if model == "whisper-1":
        assert entry["units"] == {"second": usage.seconds}
    else:
        assert entry["units"] == {"audio_input": usage.input_tokens, "output": usage.output_tokens}
    realtime.close()
    assert alice.settled()["held"] == 0
    alice.house.audit()


def test_responses_over_a_socket_are_paid_for_as_over_http(alice: Caller) -> None:
    spent = 0
    previous: dict[str, Any] = {}
    with alice.client() as client, client.responses.connect() as connection:
        for _ in range(2):
            connection.response.create(model="gpt-4o-mini", input="Hello!", **previous)
            response = until(connection, "response.completed")[-1].response
            spent += response.usage.total_tokens
            assert alice.account()["held"] == 0
            assert alice.balance() == 100_000 - spent
            previous = {"previous_response_id": response.id}
        again = client.responses.retrieve(previous["previous_response_id"])
        assert again.output_text == response.output_text
    assert sum(served(alice.house, "response")) == spent


def test_another_users_response_cannot_be_gone_on_from(alice: Caller, bob: Caller) -> None:
    with alice.client() as client:
        theirs = client.responses.create(model="gpt-4o-mini", input="A secret")
    with bob.client() as client, client.responses.connect() as connection:
        connection.response.create(model="gpt-4o-mini", input="Repeat it", previous_response_id=theirs.id)
        error = until(connection, "error")[-1]
        assert error.error.code == "previous_response_not_found"
        connection.response.create(model="gpt-4o-mini", input="Hello!")
        until(connection, "response.completed")
    assert len(bob.charges()) == 1
