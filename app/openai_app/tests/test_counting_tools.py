"""Functions, their calls, and response formats; the counts are ones that OpenAI published or reported."""

from __future__ import annotations

from typing import Any

import pytest

from openai_app.metering import chat
from openai_app.metering.tools import namespace

# OpenAI's cookbook, How to count tokens with tiktoken (MIT): this request and the counts in the first test.
WEATHER = {
    "name": "get_current_weather",
    "description": "Get the current weather in a given location",
    "parameters": {
        "type": "object",
        "properties": {
            "location": {"type": "string", "description": "The city and state, e.g. San Francisco, CA"},
            "unit": {
                "type": "string",
                "description": "The unit of temperature to return",
                "enum": ["celsius", "fahrenheit"],
            },
        },
        "required": ["location"],
    },
}
QUESTION = [
    {
        "role": "system",
        "content": "You are a helpful assistant that can answer to questions about the weather.",
    },
    {"role": "user", "content": "What's the weather like in San Francisco?"},
]


def counted(**body: Any) -> int:
    return chat.estimate(body).units["input"]


def tool(**function: Any) -> dict[str, Any]:
    return {"type": "function", "function": function}


def shown(**properties: Any) -> str:
    """How one function's parameters are shown, all of them required."""
    schema = {"type": "object", "properties": properties, "required": list(properties)}
    text = namespace([{"name": "f", "parameters": schema}])
    return text.partition("type f = (_: ")[2].partition(") => any;")[0]


@pytest.mark.parametrize(
    ("model", "reported"), [("gpt-3.5-turbo", 105), ("gpt-4", 105), ("gpt-4o", 101), ("gpt-4o-mini", 101)]
)
def test_the_cookbooks_function_costs_what_openai_reported(model: str, reported: int) -> None:
    assert counted(model=model, messages=QUESTION, tools=[tool(**WEATHER)]) == reported


def test_the_older_functions_cost_what_tools_do() -> None:
    assert counted(model="gpt-4o", messages=QUESTION, functions=[WEATHER]) == counted(
        model="gpt-4o", messages=QUESTION, tools=[tool(**WEATHER)]
    )


def test_functions_without_a_system_message_come_in_one_of_their_own() -> None:
    with_system = [{"role": "system", "content": ""}, QUESTION[1]]
    assert (
        counted(model="gpt-4o", messages=QUESTION[1:], tools=[tool(**WEATHER)])
        == counted(model="gpt-4o", messages=with_system, tools=[tool(**WEATHER)]) - 1
    )


def test_any_function_costs_85_tokens_more_with_gpt_5() -> None:
    def added(model: str) -> int:
        return counted(model=model, messages=QUESTION, tools=[tool(**WEATHER)]) - counted(
            model=model, messages=QUESTION
        )

    assert added("gpt-5-nano") - added("gpt-4o") == 85


def test_forcing_one_function_costs_its_name_and_six_more() -> None:
    forced = {"type": "function", "function": {"name": "get_current_weather"}}
    tools = [tool(**WEATHER)]
    free = counted(model="gpt-4o", messages=QUESTION, tools=tools)
    assert counted(model="gpt-4o", messages=QUESTION, tools=tools, tool_choice=forced) - free == 6 + 4
    assert counted(model="gpt-4o", messages=QUESTION, tools=tools, tool_choice="auto") == free
    assert counted(model="gpt-4o", messages=QUESTION, tools=tools, tool_choice="none") == free + 1


def test_properties_without_comments_stand_on_one_line() -> None:
    assert shown(a={"type": "number"}, b={"type": "integer"}) == "{ a: number, b: number }"


def test_titles_and_descriptions_stand_above_a_property() -> None:
    assert (
        shown(a={"type": "string", "title": "A", "description": "First\nof all"}, b={"type": "boolean"})
        == "{\n// A\n//\n// First\n// of all\na: string,\nb: boolean,\n}"
    )


def test_defaults_and_enums_are_shown() -> None:
    assert shown(a={"enum": ["x", "y"], "default": "x"}) == '{\na: "x" | "y", // default: "x"\n}'


def test_a_described_union_takes_a_line_for_each_variant() -> None:
    assert shown(a={"type": ["string", "null"], "description": "Maybe"}) == (
        "{\n// Maybe\na:\n// Maybe\n | string\n// Maybe\n | null\n,\n}"
    )
    assert shown(a={"anyOf": [{"type": "string"}, {"type": "null"}]}) == "{ a: string | null }"


def test_an_array_of_titled_objects_is_generic() -> None:
    item = {"type": "object", "title": "Item", "properties": {"b": {"type": "string"}}, "required": ["b"]}
    assert shown(a={"type": "array", "items": item}) == "{\na: Array<\n// Item\n{ b: string }\n>,\n}"
    assert shown(a={"type": "array", "items": {"type": "string"}}) == "{ a: string[] }"


def test_a_reference_is_shown_with_its_own_title() -> None:
    definition = {"title": "Inner", "type": "object", "properties": {"b": {"type": "string"}}}
    schema = {
        "type": "object",
        "$defs": {"Inner": definition},
        "properties": {"a": {"$ref": "#/$defs/Inner"}},
        "required": ["a"],
    }
    assert "{\na:\n// Inner\n{ b?: string },\n}" in namespace([{"name": "f", "parameters": schema}])


def test_a_call_and_its_result_cost_what_openai_reported() -> None:
    """A recorded call of gpt-4o-mini: its arguments are counted without the blanks in them."""
    called = {"name": "multiply_numbers", "arguments": '{"a": 1337, "b": 4242}'}
    compact = {"name": "multiply_numbers", "arguments": '{"a":1337,"b":4242}'}
    history: list[dict[str, Any]] = [
        {"role": "user", "content": "What is 1337 times 4242?"},
        {"role": "assistant", "content": None, "tool_calls": [{"id": "1", "function": called}]},
        {"role": "tool", "tool_call_id": "1", "content": "42"},
    ]
    plain = counted(model="gpt-4o", messages=history[:1])
    # 4 + 3 + functions.multiply_numbers (3) + the arguments (11); 4 + 1 + the name (2) + the result (1).
    assert counted(model="gpt-4o", messages=history) - plain == 21 + 8
    history[1]["tool_calls"] = [{"id": "1", "function": compact}]
    assert counted(model="gpt-4o", messages=history) - plain == 21 + 8


def test_parallel_calls_cost_what_openai_reported() -> None:
    """A recorded call of gpt-4o-2024-08-06: 149 tokens with these four messages and this function."""
    passphrase = {
        "properties": {"password": {"title": "Password", "type": "string"}},
        "required": ["password"],
    }
    secret = {
        "name": "secret_retrieval_tool",
        "description": "A tool that requires a password to retrieve a secret.",
        "parameters": {**passphrase, "additionalProperties": False, "type": "object"},
        "strict": True,
    }
    calls = [
        {"id": word, "function": {"name": secret["name"], "arguments": f'{{"password": "{word}"}}'}}
        for word in ("mellon", "radiance")
    ]
    messages = [
        {"role": "system", "content": "Use parallel tool calling."},
        {
            "role": "user",
            "content": "Please retrieve the secrets associated with each of these passwords: mellon,radiance",
        },
        {"role": "assistant", "content": None, "tool_calls": calls},
        {"role": "tool", "content": "Welcome to Moria!", "tool_call_id": "mellon"},
        {"role": "tool", "content": "Life before Death", "tool_call_id": "radiance"},
    ]
    assert counted(model="gpt-4o-2024-08-06", messages=messages, tools=[tool(**secret)]) == 149


def test_a_json_schema_costs_what_openai_reported() -> None:
    """A recorded call of gpt-4o: the schema of a book made the input 47 tokens longer."""
    schema = {
        "properties": {
            "title": {"title": "Title", "type": "string"},
            "author": {"title": "Author", "type": "string"},
        },
        "required": ["title", "author"],
        "title": "Book",
        "type": "object",
        "additionalProperties": False,
    }
    asked = {"model": "gpt-4o", "messages": [{"role": "user", "content": "Recommend a book"}]}
    book = {"type": "json_schema", "json_schema": {"name": "Book", "schema": schema, "strict": True}}
    assert counted(**asked, response_format=book) - counted(**asked) == 47
    assert counted(**asked, response_format={"type": "json_object"}) == counted(**asked)
