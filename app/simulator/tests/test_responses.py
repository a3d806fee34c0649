"""Responses and conversations, asked for by the official client."""

from __future__ import annotations

import json
from typing import Any

import httpx2
import openai
import pytest
from openai import OpenAI

from simulator.testing import SimulatorProcess

HEADERS = {"Authorization": "Bearer sk-alice-0001"}
WEATHER: Any = {
    "type": "function",
    "name": "get_weather",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    "strict": True,
}


def respond(client: OpenAI, text: str, **more: Any) -> Any:
    return client.responses.create(model="gpt-4o", input=text, **more)


def test_a_response_is_an_answer_with_usage_that_the_journal_knows(
    client: OpenAI, simulator: SimulatorProcess
) -> None:
    answer = respond(client, "Hello!")
    assert "simulator" in answer.output_text
    assert answer.status == "completed"
    assert answer.id.startswith("resp_")
    [call] = simulator.journal()
    assert call["usage"] == answer.usage.to_dict()
    assert (call["object_id"], call["usage_reported"]) == (answer.id, True)
    assert call["tokens_sent"] == answer.usage.output_tokens


def test_input_is_counted_as_the_same_chat_would_be(client: OpenAI) -> None:
    answer = client.responses.create(
        model="gpt-4o", instructions="Be brief.", input=[{"role": "user", "content": "Wie geht es Dir?"}]
    )
    chat = client.chat.completions.create(
        model="gpt-4o",
        messages=[
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Wie geht es Dir?"},
        ],
    )
    assert answer.usage
    assert chat.usage
    assert answer.usage.input_tokens == chat.usage.prompt_tokens


def test_a_stream_brings_every_event_of_a_text_answer(client: OpenAI) -> None:
    with client.responses.stream(model="gpt-4o", input="Hello!") as stream:
        events = list(stream)
        final = stream.get_final_response()
    types = [event.type for event in events]
    assert types[:4] == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
    ]
    assert types[-4:] == [
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.completed",
    ]
    assert [event.sequence_number for event in events] == list(range(len(events)))
    deltas = [event.delta for event in events if event.type == "response.output_text.delta"]
    assert "".join(deltas) == final.output_text
    assert final.usage is not None
    assert len(deltas) == final.usage.output_tokens
    assert client.responses.retrieve(final.id).output_text == final.output_text


def test_the_output_limit_makes_a_response_incomplete(client: OpenAI) -> None:
    answer = respond(client, "[[simulate: tokens=90]]", max_output_tokens=20)
    assert answer.status == "incomplete"
    assert answer.incomplete_details.reason == "max_output_tokens"
    assert answer.usage.output_tokens == 20
    with pytest.raises(openai.BadRequestError, match=">= 16, but got 5"):
        respond(client, "Hello!", max_output_tokens=5)


def test_functions_are_called_and_their_results_read(client: OpenAI) -> None:
    first = respond(client, "Weather?", tools=[WEATHER], tool_choice="required")
    [called] = first.output
    assert (called.type, json.loads(called.arguments)) == ("function_call", {"city": "example"})
    result: Any = {"type": "function_call_output", "call_id": called.call_id, "output": "rain"}
    second = client.responses.create(model="gpt-4o", previous_response_id=first.id, input=[result])
    assert second.output_text == "The tool answered: rain"
    assert second.usage is not None
    assert second.usage.input_tokens > first.usage.input_tokens - 50


def test_called_functions_are_streamed(client: OpenAI) -> None:
    stream = respond(client, "Weather?", tools=[WEATHER], tool_choice="required", stream=True)
    events = list(stream)
    parts = [event.delta for event in events if event.type == "response.function_call_arguments.delta"]
    [done] = [event for event in events if event.type == "response.function_call_arguments.done"]
    assert "".join(parts) == done.arguments == '{"city":"example"}'


def test_an_earlier_response_is_read_again_and_paid_for_again(client: OpenAI) -> None:
    first = respond(client, "A rather long first question. " * 20)
    second = respond(client, "And?", previous_response_id=first.id)
    alone = respond(client, "And?")
    grown = second.usage.input_tokens - alone.usage.input_tokens
    assert grown >= first.usage.input_tokens + first.usage.output_tokens - 3
    client.responses.delete(first.id)
    with pytest.raises(openai.BadRequestError) as refused:
        respond(client, "And?", previous_response_id=first.id)
    assert refused.value.code == "previous_response_not_found"
    third = respond(client, "And?", previous_response_id=second.id)
    assert third.usage.input_tokens > second.usage.input_tokens


def test_a_conversation_grows_with_its_responses(client: OpenAI) -> None:
    conversation = client.conversations.create(
        items=[{"type": "message", "role": "user", "content": "My name is Alice."}], metadata={"a": "b"}
    )
    first = respond(client, "Hello!", conversation=conversation.id)
    second = respond(client, "Hello!", conversation=conversation.id)
    assert second.usage.input_tokens > first.usage.input_tokens
    items = list(client.conversations.items.list(conversation.id, order="asc"))
    assert [item.role for item in items if item.type == "message"] == [
        "user",
        "user",
        "assistant",
        "user",
        "assistant",
    ]
    client.conversations.items.delete(items[0].id or "", conversation_id=conversation.id)
    with pytest.raises(openai.NotFoundError):
        client.conversations.items.retrieve(items[0].id or "", conversation_id=conversation.id)
    assert client.conversations.delete(conversation.id).deleted
    with pytest.raises(openai.NotFoundError, match="Conversation with id"):
        respond(client, "Hello!", conversation=conversation.id)


def test_what_is_not_stored_cannot_be_found(client: OpenAI) -> None:
    answer = respond(client, "Hello!", store=False)
    with pytest.raises(openai.NotFoundError, match=f"Response with id '{answer.id}' not found."):
        client.responses.retrieve(answer.id)


def test_input_items_are_listed_page_by_page(client: OpenAI) -> None:
    texts = ["one", "two", "three"]
    answer = client.responses.create(
        model="gpt-4o", input=[{"role": "user", "content": text} for text in texts]
    )
    items: list[Any] = list(client.responses.input_items.list(answer.id, limit=2, order="asc"))
    assert [item.content[0].text for item in items] == texts


def test_a_background_response_ends_when_it_is_told_to(client: OpenAI, simulator: SimulatorProcess) -> None:
    queued = respond(client, "Hello!", background=True)
    assert (queued.status, queued.usage) == ("queued", None)
    assert client.responses.retrieve(queued.id).status == "in_progress"
    assert simulator.finish(queued.id) == [queued.id]
    assert simulator.finish(queued.id) == []
    ended = client.responses.retrieve(queued.id)
    assert ended.status == "completed"
    assert ended.usage is not None
    created, _, work, _ = simulator.journal()
    assert created["usage"] is None
    assert (work["kind"], work["object_id"], work["outcome"]) == ("response", queued.id, "completed")
    assert work["usage"] == ended.usage.to_dict()
    replayed = list(client.responses.retrieve(queued.id, stream=True, starting_after=2))
    assert [event.sequence_number for event in replayed][:2] == [3, 4]


def test_a_background_response_ends_after_its_time(client: OpenAI) -> None:
    queued = respond(client, "Hello! [[simulate: finish_after=0]]", background=True)
    while client.responses.retrieve(queued.id).status != "completed":
        pass


@pytest.mark.parametrize(("share", "output_tokens"), [(None, 0), (0.5, 20)])
def test_a_failed_background_response_is_paid_for_as_far_as_it_got(
    client: OpenAI, simulator: SimulatorProcess, share: float | None, output_tokens: int
) -> None:
    queued = respond(client, "[[simulate: tokens=40]]", background=True)
    simulator.finish(queued.id, status="failed", share=share)
    ended = client.responses.retrieve(queued.id)
    assert ended.status == "failed"
    assert (ended.usage.output_tokens if ended.usage else 0) == output_tokens


def test_a_background_response_is_cancelled_and_only_such_a_one(client: OpenAI) -> None:
    queued = respond(client, "Hello!", background=True)
    assert client.responses.cancel(queued.id).status == "cancelled"
    with pytest.raises(openai.BadRequestError, match="Cannot cancel a synchronous response"):
        client.responses.cancel(respond(client, "Hello!").id)


def test_a_background_stream_goes_on_without_its_reader(client: OpenAI, simulator: SimulatorProcess) -> None:
    stream = respond(client, "[[simulate: tokens=9 stall=600]]", background=True, stream=True)
    first = next(iter(stream))
    stream.close()
    id = first.response.id
    assert client.responses.retrieve(id).status == "in_progress"
    simulator.finish(id)
    assert client.responses.retrieve(id).status == "completed"


def test_input_tokens_and_compaction(client: OpenAI, simulator: SimulatorProcess) -> None:
    answer = respond(client, "Hello!")
    counted = client.responses.input_tokens.count(model="gpt-4o", input="Hello!")
    assert counted.input_tokens == answer.usage.input_tokens
    body = {"model": "gpt-4o", "previous_response_id": answer.id}
    address = f"{simulator.base_url}/responses/compact"
    compacted = httpx2.post(address, headers=HEADERS, json=body, timeout=60).json()
    assert [item["type"] for item in compacted["output"]] == ["message", "compaction"]
    assert simulator.journal()[-1]["usage"] == compacted["usage"]
    assert simulator.journal()[-2]["usage"] is None


def test_a_broken_stream_says_so_in_an_event_of_its_own(simulator: SimulatorProcess) -> None:
    body = {"model": "gpt-4o", "input": "[[simulate: tokens=9 error_after=4]]", "stream": True}
    answer = httpx2.post(f"{simulator.base_url}/responses", headers=HEADERS, json=body, timeout=60)
    assert "event: error\n" in answer.text
    assert "response.completed" not in answer.text
    [call] = simulator.journal()
    assert (call["state"], call["tokens_sent"], call["usage_reported"]) == ("broken", 4, False)


def test_web_searches_are_items_of_the_output(client: OpenAI) -> None:
    answer = respond(client, "News? [[simulate: searches=2]]", tools=[{"type": "web_search"}])
    assert [item.type for item in answer.output] == ["web_search_call", "web_search_call", "message"]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"input": "x"}, "Missing required parameter: 'model'."),
        ({"model": "gpt-4o"}, "Missing required parameter: 'input'."),
        ({"model": "none", "input": "x"}, "The requested model 'none' does not exist."),
        ({"model": "gpt-4o", "input": 7}, "Invalid type for 'input'"),
        (
            {"model": "gpt-4o", "input": "x", "conversation": "conv_1", "previous_response_id": "r"},
            "Mutually",
        ),
    ],
)
def test_strange_bodies_are_refused(simulator: SimulatorProcess, body: Any, message: str) -> None:
    answer = httpx2.post(f"{simulator.base_url}/responses", headers=HEADERS, json=body, timeout=60)
    assert answer.status_code == 400
    assert answer.json()["error"]["message"].startswith(message)


def test_a_body_that_nobody_foresaw_is_refused_and_not_an_error_of_the_server(
    simulator: SimulatorProcess,
) -> None:
    for body in (
        {"model": "gpt-4o", "input": "x", "tools": [{"type": "function"}], "tool_choice": "required"},
        {"model": "gpt-4o", "input": "x", "text": "none"},
    ):
        answer = httpx2.post(f"{simulator.base_url}/responses", headers=HEADERS, json=body, timeout=60)
        assert answer.status_code == 400
