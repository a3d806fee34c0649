"""Chat completions, asked for by the official client."""

from __future__ import annotations

import json
from typing import Any

import pytest
import tiktoken
from openai import AsyncOpenAI, OpenAI

from simulator import tokens
from simulator.testing import SimulatorProcess

WEATHER: Any = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
            "required": ["city"],
        },
    },
}


def user(text: str) -> Any:
    return [{"role": "user", "content": text}]


def tiktokens(text: str | None, model: str = "gpt-4o") -> int:
    return len(tiktoken.encoding_for_model(model).encode(text or ""))


def test_hello_is_answered_by_a_greeting_that_says_who_speaks(client: OpenAI) -> None:
    answer = client.chat.completions.create(model="gpt-4o", messages=user("Hello!"))
    assert "simulator" in (answer.choices[0].message.content or "")
    assert answer.choices[0].finish_reason == "stop"


def test_usage_is_what_tiktoken_and_the_cookbook_say(client: OpenAI) -> None:
    answer = client.chat.completions.create(
        model="gpt-4o",
        messages=[
            {"role": "system", "content": "Be brief.", "name": "boss"},
            {"role": "user", "content": "Wie geht es Dir? 🙂"},
        ],
    )
    assert answer.usage is not None
    words = ["system", "Be brief.", "boss", "user", "Wie geht es Dir? 🙂"]
    assert answer.usage.prompt_tokens == 3 + 2 * 3 + 1 + sum(tiktokens(word) for word in words)
    assert answer.usage.completion_tokens == tiktokens(answer.choices[0].message.content)
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens


def test_a_stream_brings_one_token_an_event_and_the_same_text_as_the_json_answer(client: OpenAI) -> None:
    question = user("Сколько будет дважды два? 数え 🙂🙃")
    whole = client.chat.completions.create(model="gpt-4o", messages=question)
    chunks = list(
        client.chat.completions.create(
            model="gpt-4o", messages=question, stream=True, stream_options={"include_usage": True}
        )
    )
    texts = [chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices]
    assert "".join(texts) == whole.choices[0].message.content
    assert chunks[-1].usage == whole.usage
    assert chunks[-1].choices == []
    assert [chunk.usage for chunk in chunks[:-1]] == [None] * (len(chunks) - 1)
    assert max(tiktokens(text) for text in texts if text.isascii()) == 1


def test_a_stream_has_no_usage_unless_it_was_asked_for(client: OpenAI) -> None:
    chunks = list(client.chat.completions.create(model="gpt-4o", messages=user("Hello!"), stream=True))
    assert all(chunk.usage is None and chunk.choices for chunk in chunks)


async def test_the_asynchronous_client_streams_too(simulator: SimulatorProcess) -> None:
    async with AsyncOpenAI(base_url=simulator.base_url, api_key="sk-alice-0001") as client:
        stream = await client.chat.completions.create(
            model="gpt-4o", messages=user("Say a lot [[simulate: tokens=40]]"), stream=True
        )
        texts = [chunk.choices[0].delta.content or "" async for chunk in stream]
    assert tiktokens("".join(texts)) == 40


@pytest.mark.parametrize("parameter", ["max_tokens", "max_completion_tokens"])
def test_the_output_limit_is_obeyed_to_the_token(client: OpenAI, parameter: str) -> None:
    answer = client.chat.completions.create(
        model="gpt-4o", messages=user("Hello!"), extra_body={parameter: 7}
    )
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 7 == tiktokens(answer.choices[0].message.content)
    assert answer.choices[0].finish_reason == "length"


def test_each_of_n_choices_is_paid_for(client: OpenAI) -> None:
    question = user("Hello [[simulate: tokens=5]]")
    answer = client.chat.completions.create(model="gpt-4o", messages=question, n=3)
    chunks = list(
        client.chat.completions.create(
            model="gpt-4o", messages=question, n=3, stream=True, stream_options={"include_usage": True}
        )
    )
    assert [choice.index for choice in answer.choices] == [0, 1, 2]
    assert answer.usage == chunks[-1].usage
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 15
    assert {chunk.choices[0].index for chunk in chunks[:-1]} == {0, 1, 2}


def test_reasoning_and_cached_tokens_are_reported_as_directed(client: OpenAI) -> None:
    answer = client.chat.completions.create(
        model="gpt-5",
        messages=user("Think! [[simulate: reasoning=30 tokens=4 cached=6]]"),
        max_completion_tokens=33,
    )
    usage = answer.usage
    assert usage is not None
    assert usage.completion_tokens == 33
    assert usage.completion_tokens_details is not None
    assert usage.completion_tokens_details.reasoning_tokens == 30
    assert usage.prompt_tokens_details is not None
    assert usage.prompt_tokens_details.cached_tokens == 6
    assert tiktokens(answer.choices[0].message.content) == 3


def test_tools_are_called_when_they_are_required(client: OpenAI) -> None:
    answer = client.chat.completions.create(
        model="gpt-4o", messages=user("Weather?"), tools=[WEATHER], tool_choice="required"
    )
    calls: Any = answer.choices[0].message.tool_calls
    assert calls[0].function.name == "get_weather"
    assert json.loads(calls[0].function.arguments) == {"city": "example", "days": 1}
    assert answer.choices[0].finish_reason == "tool_calls"


def test_tool_calls_are_streamed_in_parts_that_add_up(client: OpenAI) -> None:
    stream = client.chat.completions.create(
        model="gpt-4o", messages=user("[[simulate: tools=2]]"), tools=[WEATHER], stream=True
    )
    arguments = {0: "", 1: ""}
    for chunk in stream:
        for part in chunk.choices[0].delta.tool_calls or []:
            assert part.function is not None
            arguments[part.index] += part.function.arguments or ""
    assert [json.loads(text) for text in arguments.values()] == [{"city": "example", "days": 1}] * 2


def test_offered_tools_alone_are_answered_in_words(client: OpenAI) -> None:
    answer = client.chat.completions.create(model="gpt-4o", messages=user("Hello!"), tools=[WEATHER])
    assert answer.choices[0].message.content


def test_legacy_functions_are_called(client: OpenAI) -> None:
    answer = client.chat.completions.create(
        model="gpt-4",
        messages=user("Weather?"),
        functions=[WEATHER["function"]],
        function_call={"name": "get_weather"},
    )
    called = answer.choices[0].message.function_call
    assert called is not None
    assert json.loads(called.arguments)["city"] == "example"


def test_a_schema_is_answered_by_json_that_fits(client: OpenAI) -> None:
    schema: dict[str, object] = {
        "type": "object",
        "properties": {
            "kind": {"enum": ["a", "b"]},
            "next": {"anyOf": [{"type": "null"}, {"$ref": "#"}]},
            "tags": {"type": "array", "items": {"type": "string"}},
        },
    }
    answer = client.chat.completions.create(
        model="gpt-4o",
        messages=user("JSON please"),
        response_format={"type": "json_schema", "json_schema": {"name": "thing", "schema": schema}},
    )
    content = json.loads(answer.choices[0].message.content or "")
    assert content == {"kind": "a", "next": None, "tags": ["example"]}


@pytest.mark.parametrize("encoding", ["o200k_base", "cl100k_base", "p50k_base", "r50k_base"])
def test_filler_has_exactly_the_length_asked_for(encoding: str) -> None:
    for length in (1, 2, 9, 10, 11, 1234):
        text = tokens.filler(length)
        assert len(tiktoken.get_encoding(encoding).encode(text)) == length
        assert "".join(tokens.filler_pieces(length)) == text
    assert tokens.filler(0) == ""


def test_a_million_spaces_are_counted() -> None:
    assert tokens.count("o200k_base", " " * 1_000_000) > 0


def test_models_are_listed_and_found_whatever_their_names(client: OpenAI) -> None:
    names = [model.id for model in client.models.list()]
    for name in ("gpt-4o", "tollgate/simulator-1.0:latest", "ft:gpt-4o-mini-2024-07-18:tollgate::sim00001"):
        assert name in names
        assert client.models.retrieve(name).id == name
