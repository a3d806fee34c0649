"""Requests made to break the counting: it must end soon, without an error or a gross under-count."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from openai_app.metering import chat, tokens
from openai_app.tests.harness import Caller, House, chat_body

# Far above what any of these takes on a slow machine (0.4 s), far below what they took unguarded.
LIMIT_S = 20


def nested(depth: int) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for _ in range(depth):
        value = {"a": value}
    return value


@pytest.mark.parametrize("encoding", tokens.ENCODINGS)
@pytest.mark.parametrize(
    "text",
    [
        "a" * 1_000_000,
        " " * 1_000_000,
        "\n" * 1_000_000,
        " " * 1_000_000 + "x",
        "😀" * 300_000,
        "ab1!" * 250_000,
        "\ud800" * 100_000,
        "<|endoftext|>" * 50_000,
    ],
    ids=["letters", "spaces", "line ends", "spaces then a letter", "emoji", "mixed", "surrogates", "special"],
)
def test_a_hostile_text_is_counted_in_bounded_time(text: str, encoding: str) -> None:
    started = time.monotonic()
    assert tokens.count(text, encoding) > len(text) // 200
    assert time.monotonic() - started < LIMIT_S


def test_hostile_texts_at_once_are_answered_and_so_are_small_calls_beside_them(
    gateway: House, alice: Caller
) -> None:
    hostile = [letter * 1_000_000 for letter in ("a", " ", "\n", "é")]
    rich = gateway.caller(name="rich", credits=10**9)
    with ThreadPoolExecutor(8) as threads:
        large = [
            threads.submit(
                rich.call,
                "POST",
                "/v1/embeddings",
                json.dumps({"model": "text-embedding-3-small", "input": text}).encode(),
            )
            for text in hostile
        ]
        small = [threads.submit(alice.call, "POST", "/v1/chat/completions", chat_body()) for _ in range(8)]
        assert [call.result().status for call in small] == [200] * 8
        assert {call.result().status for call in large} <= {200, 400}


def test_a_long_text_counts_as_its_parts_do() -> None:
    sentence = "The quick brown fox jumps over the lazy dog, 12 times; then it rests.\n"
    once = tokens.count(sentence, "o200k_base")
    assert 0 <= tokens.count(sentence * 2_000, "o200k_base") - once * 2_000 <= 20


def test_a_tokeniser_that_panics_costs_a_token_a_byte(monkeypatch: pytest.MonkeyPatch) -> None:
    class Panic(BaseException):
        pass

    class Broken:
        def encode_ordinary(self, text: str) -> list[int]:
            raise Panic

    monkeypatch.setattr(tokens, "_encoding", lambda name: Broken())
    assert tokens.count("é", "o200k_base") == 2


@pytest.mark.parametrize(
    "odd",
    [None, True, 7, -1.5, "text", [], [[]], {}, {"a": 1}, [None, 3, "x", {}], nested(5_000)],
    ids=["null", "true", "whole", "fraction", "text", "list", "lists", "object", "pair", "mixed", "deep"],
)
@pytest.mark.parametrize(
    "field",
    [
        "model",
        "messages",
        "tools",
        "functions",
        "tool_choice",
        "function_call",
        "response_format",
        "n",
        "max_tokens",
        "role",
        "content",
        "part",
        "name",
        "tool_calls",
        "tool_call_id",
        "arguments",
        "image_url",
        "input_audio",
        "file",
        "function",
        "parameters",
        "properties",
        "property",
        "type",
        "required",
        "enum",
        "json_schema",
        "schema",
    ],
)
def test_any_json_anywhere_is_counted_without_an_error(field: str, odd: object) -> None:
    function = {
        "name": "f",
        "parameters": {
            "type": "object",
            "properties": {"a": {"type": "string", "enum": ["x"]}, "b": {"$ref": "#/properties/a"}},
            "required": ["a"],
        },
    }
    body: dict[str, Any] = {
        "model": "gpt-4o",
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "hi"}]},
            {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:,"}}]},
            {"role": "user", "content": [{"type": "input_audio", "input_audio": {"data": "AAAA"}}]},
            {"role": "user", "content": [{"type": "file", "file": {"file_data": "AAAA"}}]},
            {
                "role": "assistant",
                "tool_calls": [{"id": str(n), "function": {"name": "f", "arguments": "{}"}} for n in (1, 2)],
            },
            {"role": "tool", "tool_call_id": "1", "content": "x"},
            {"role": "tool", "tool_call_id": "2", "content": "y"},
        ],
        "tools": [{"type": "function", "function": function}],
        "functions": [function],
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "n", "schema": {"type": "object"}},
        },
    }
    assert chat.estimate(replaced(body, field, odd)).units["input"] >= 0


def replaced(value: Any, field: str, odd: object) -> Any:
    """The body with every value under that key replaced; a part or a property is replaced as a whole."""
    if isinstance(value, list):
        return [replaced(each, field, odd) for each in value]
    if not isinstance(value, dict):
        return value
    copy = {key: odd if key == field else replaced(each, field, odd) for key, each in value.items()}
    if field == "part" and isinstance(value.get("content"), list):
        copy["content"] = [odd, *value["content"]]
    if field == "property" and isinstance(value.get("properties"), dict):
        copy["properties"] = {"a": odd}
    if "messages" in value and field in ("tool_choice", "function_call", "n", "max_tokens"):
        copy[field] = odd
    return copy


def test_references_that_multiply_do_not_run_away() -> None:
    definitions = {
        f"d{level}": {
            "type": "object",
            "properties": {side: {"$ref": f"#/$defs/d{level + 1}"} for side in ("left", "right")},
        }
        for level in range(60)
    }
    parameters = {"type": "object", "$defs": definitions, "properties": {"top": {"$ref": "#/$defs/d0"}}}
    tools = [{"type": "function", "function": {"name": f"f{n}", "parameters": parameters}} for n in range(50)]
    started = time.monotonic()
    assert chat.estimate({"model": "gpt-4o", "messages": [], "tools": tools}).units["input"] > 10_000
    assert time.monotonic() - started < LIMIT_S


def test_a_schema_that_refers_to_itself_is_shown_once() -> None:
    parameters = {
        "type": "object",
        "properties": {"next": {"$ref": "#"}, "value": {"type": "string"}},
    }
    tools = [{"type": "function", "function": {"name": "f", "parameters": parameters}}]
    assert chat.estimate({"model": "gpt-4o", "messages": [], "tools": tools}).units["input"] < 80
