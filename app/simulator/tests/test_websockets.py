"""Realtime conversations by the official client, and responses over a WebSocket."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from openai import OpenAI
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect
from websockets.typing import Subprotocol

from simulator.testing import SimulatorProcess

HEADERS = {"Authorization": "Bearer sk-alice-0001"}
SOUND = base64.b64encode(b"\x01" * 48_000).decode()
SILENCE = base64.b64encode(bytes(4_800)).decode()


def until(connection: Any, type: str) -> list[Any]:
    """Events up to the first of this type."""
    events = []
    for event in connection:
        events.append(event)
        if event.type == type:
            return events
    raise AssertionError(f"no {type}")


def say(connection: Any, text: str) -> None:
    connection.conversation.item.create(
        item={"type": "message", "role": "user", "content": [{"type": "input_text", "text": text}]}
    )


def lines(simulator: SimulatorProcess, kind: str) -> list[Any]:
    return [call for call in simulator.journal() if call["kind"] == kind]


def test_a_written_conversation_is_paid_for_response_by_response(
    client: OpenAI, simulator: SimulatorProcess
) -> None:
    usages = []
    with client.realtime.connect(model="gpt-realtime") as connection:
        assert next(iter(connection)).type == "session.created"
        connection.session.update(session={"type": "realtime", "output_modalities": ["text"]})
        for _ in range(2):
            say(connection, "Hello!")
            connection.response.create()
            events = until(connection, "response.done")
            deltas = [event.delta for event in events if event.type == "response.output_text.delta"]
            usage = events[-1].response.usage
            assert usage.output_tokens == len(deltas)
            usages.append(usage)
    assert usages[1].input_tokens > usages[0].input_tokens + usages[0].output_tokens
    journalled = lines(simulator, "realtime.response")
    assert [call["usage"]["total_tokens"] for call in journalled] == [one.total_tokens for one in usages]
    assert {call["state"] for call in journalled} == {"finished"}
    [session] = lines(simulator, "call")
    assert (session["method"], session["status"], session["state"]) == ("WEBSOCKET", 101, "finished")


def test_speech_is_transcribed_and_answered_when_silence_follows(
    client: OpenAI, simulator: SimulatorProcess
) -> None:
    with client.realtime.connect(model="gpt-realtime") as connection:
        connection.session.update(
            session={"type": "realtime", "audio": {"input": {"transcription": {"model": "whisper-1"}}}}
        )
        connection.input_audio_buffer.append(audio=SOUND)
        connection.input_audio_buffer.append(audio=SILENCE)
        events = until(connection, "response.done")
    types = [event.type for event in events]
    assert "input_audio_buffer.committed" in types
    assert "response.output_audio.delta" in types
    completed = next(e for e in events if e.type.endswith("input_audio_transcription.completed"))
    assert completed.usage.to_dict() == {"type": "duration", "seconds": 2}
    usage = events[-1].response.usage
    assert usage.input_token_details.audio_tokens == 11
    assert usage.output_token_details.audio_tokens == 2 * usage.output_token_details.text_tokens
    [line] = lines(simulator, "realtime.transcription")
    assert line["usage"] == {"type": "duration", "seconds": 2}


def test_audio_waits_for_its_commit_without_turn_detection(client: OpenAI) -> None:
    with client.realtime.connect(model="gpt-realtime") as connection:
        connection.session.update(session={"type": "realtime", "audio": {"input": {"turn_detection": None}}})
        connection.input_audio_buffer.append(audio=SOUND)
        connection.input_audio_buffer.append(audio=SILENCE)
        connection.input_audio_buffer.commit()
        types = [event.type for event in until(connection, "conversation.item.done")]
        assert "response.created" not in types
        connection.input_audio_buffer.commit()
        assert until(connection, "error")[-1].error.code == "input_audio_buffer_commit_empty"


def test_functions_are_called(client: OpenAI) -> None:
    tool: Any = {"type": "function", "name": "weather", "parameters": {"type": "object", "properties": {}}}
    with client.realtime.connect(model="gpt-realtime") as connection:
        connection.session.update(session={"type": "realtime", "tools": [tool], "tool_choice": "required"})
        say(connection, "Weather?")
        connection.response.create()
        events = until(connection, "response.done")
    assert events[-1].response.output[0].name == "weather"
    assert "response.function_call_arguments.done" in [event.type for event in events]


def test_a_cancelled_response_is_paid_for_as_far_as_it_got(
    client: OpenAI, simulator: SimulatorProcess
) -> None:
    with client.realtime.connect(model="gpt-realtime") as connection:
        say(connection, "[[simulate: tokens=50 stall=600 stall_after=10]]")
        connection.response.create(response={"output_modalities": ["text"]})
        for event in connection:
            if event.type == "response.output_text.delta" and event.delta == " ten":
                connection.response.cancel()
                break
        done: Any = until(connection, "response.done")[-1]
    assert done.response.status == "cancelled"
    assert done.response.usage.output_tokens == 10
    assert [call["outcome"] for call in lines(simulator, "realtime.response")] == ["cancelled"]


@pytest.mark.parametrize("by", ["client", "simulator"])
def test_a_connection_that_ends_in_the_middle_is_in_the_journal(
    client: OpenAI, simulator: SimulatorProcess, by: str
) -> None:
    how = "stall=600 stall_after=10" if by == "client" else "close_after=10"
    with client.realtime.connect(model="gpt-realtime") as connection:
        say(connection, f"[[simulate: tokens=50 {how}]]")
        connection.response.create(response={"output_modalities": ["text"]})
        deltas = 0
        try:
            while deltas < 10 or by == "simulator":
                event = connection.recv()
                deltas += event.type == "response.output_text.delta"
        except ConnectionClosed:
            assert by == "simulator"
    [line] = lines(simulator, "realtime.response")
    assert (line["state"], line["tokens_sent"], line["usage"]["output_tokens"]) == ("cut", 10, 10)


def test_what_means_nothing_is_answered_by_an_error(client: OpenAI) -> None:
    with client.realtime.connect(model="gpt-realtime") as connection:
        for event, code in (
            ({"type": "no.such", "event_id": "e1"}, "invalid_value"),
            ({"type": "response.cancel"}, "response_cancel_not_active"),
            ({"type": "conversation.item.delete", "item_id": "x"}, "item_not_found"),
        ):
            connection.send(event)  # type: ignore[arg-type]
            assert until(connection, "error")[-1].error.code == code


def address(simulator: SimulatorProcess, path: str) -> str:
    return f"{simulator.base_url.replace('http', 'ws', 1)}/{path}"


def test_a_browser_passes_its_key_as_a_subprotocol_and_without_one_is_refused(
    simulator: SimulatorProcess,
) -> None:
    protocols = [Subprotocol("realtime"), Subprotocol("openai-insecure-api-key.sk-alice-0001")]
    with connect(address(simulator, "realtime?model=gpt-realtime"), subprotocols=protocols) as connection:
        assert connection.subprotocol == "realtime"
        assert json.loads(connection.recv())["type"] == "session.created"
    with pytest.raises(InvalidStatus) as refused:
        connect(address(simulator, "realtime?model=gpt-realtime"))
    assert refused.value.response.status_code == 401
    with pytest.raises(InvalidStatus) as refused:
        connect(address(simulator, "none"), additional_headers=HEADERS)
    assert refused.value.response.status_code == 404
    assert "alice" not in json.dumps(simulator.journal())


def test_responses_are_answered_over_one_connection(client: OpenAI, simulator: SimulatorProcess) -> None:
    def ask(connection: Any, **body: Any) -> list[Any]:
        connection.send(json.dumps({"type": "response.create", "model": "gpt-4o", **body}))
        events: list[Any] = []
        while not events or events[-1]["type"] not in ("response.completed", "error"):
            events.append(json.loads(connection.recv()))
        return events

    with connect(address(simulator, "responses"), additional_headers=HEADERS) as connection:
        first = ask(connection, input="Hello!", store=False)
        response = first[-1]["response"]
        second = ask(connection, input="And?", previous_response_id=response["id"], store=False)
        refused = ask(connection, input="And?", previous_response_id="resp_none")
    streamed = [event.type for event in client.responses.create(model="gpt-4o", input="Hello!", stream=True)]
    assert [event["type"] for event in first] == streamed
    assert second[-1]["response"]["usage"]["input_tokens"] > response["usage"]["total_tokens"]
    assert refused[-1]["error"]["code"] == "previous_response_not_found"
    journalled = lines(simulator, "response")
    assert [call["usage"] for call in journalled] == [
        response["usage"],
        second[-1]["response"]["usage"],
    ]
