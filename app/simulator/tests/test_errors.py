"""Errors have OpenAI's shape and words, and raise the official client's own exceptions."""

from __future__ import annotations

from typing import Any

import httpx2
import openai
import pytest
from openai import OpenAI

from simulator.testing import SimulatorProcess

HELLO: Any = [{"role": "user", "content": "Hello!"}]


def post(simulator: SimulatorProcess, body: Any, key: str | None = "sk-alice-0001") -> httpx2.Response:
    headers = {} if key is None else {"Authorization": f"Bearer {key}"}
    content = body if isinstance(body, bytes) else None
    return httpx2.post(
        f"{simulator.base_url}/chat/completions",
        headers=headers,
        content=content,
        json=None if isinstance(body, bytes) else body,
        timeout=60,
    )


def test_a_call_without_a_key_is_refused(simulator: SimulatorProcess) -> None:
    answer = post(simulator, {"model": "gpt-4o", "messages": HELLO}, key=None)
    assert answer.status_code == 401
    assert answer.json()["error"]["message"].startswith("You didn't provide an API key.")


@pytest.mark.parametrize(
    ("body", "message", "param", "code"),
    [
        ({"messages": HELLO}, "you must provide a model parameter", None, None),
        (
            {"model": "gpt-4o"},
            "Missing required parameter: 'messages'.",
            "messages",
            "missing_required_parameter",
        ),
        (
            {"model": "gpt-4o", "messages": "Hello!"},
            "Invalid type for 'messages': expected an array of objects, but got a string instead.",
            "messages",
            "invalid_type",
        ),
        (
            {"model": "gpt-4o", "messages": HELLO, "max_tokens": 0},
            "Invalid 'max_tokens': integer below minimum value. Expected a value >= 1, but got 0 instead.",
            "max_tokens",
            "integer_below_min_value",
        ),
        (
            {"model": "o3-mini", "messages": HELLO, "max_tokens": 9},
            "Unsupported parameter: 'max_tokens' is not supported with this model. "
            "Use 'max_completion_tokens' instead.",
            "max_tokens",
            "unsupported_parameter",
        ),
        (
            {"model": "gpt-4o", "messages": HELLO, "stream_options": {"include_usage": True}},
            "The 'stream_options' parameter is only allowed when 'stream' is enabled.",
            "stream_options",
            None,
        ),
    ],
)
def test_a_wrong_body_is_refused_in_openais_words(
    simulator: SimulatorProcess, body: Any, message: str, param: str | None, code: str | None
) -> None:
    answer = post(simulator, body)
    assert answer.status_code == 400
    assert answer.json() == {
        "error": {"message": message, "type": "invalid_request_error", "param": param, "code": code}
    }


def test_a_body_that_is_no_json_is_refused(simulator: SimulatorProcess) -> None:
    answer = post(simulator, b'{"model": ')
    assert answer.status_code == 400
    assert answer.json()["error"]["message"].startswith("We could not parse the JSON body of your request.")


def test_an_unknown_model_is_not_found(client: OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as raised:
        client.chat.completions.create(model="gpt-99", messages=HELLO)
    assert raised.value.code == "model_not_found"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("no/such:model")


def test_an_unknown_url_and_a_wrong_method_are_told_apart(simulator: SimulatorProcess) -> None:
    headers = {"Authorization": "Bearer sk-alice-0001"}
    unknown = httpx2.get(f"{simulator.base_url}/nothing", headers=headers, timeout=60)
    assert unknown.status_code == 404
    assert unknown.json()["error"]["message"] == "Invalid URL (GET /v1/nothing)"
    wrong = httpx2.delete(f"{simulator.base_url}/chat/completions", headers=headers, timeout=60)
    assert wrong.status_code == 405


@pytest.mark.parametrize(
    ("status", "exception"),
    [
        (400, openai.BadRequestError),
        (401, openai.AuthenticationError),
        (403, openai.PermissionDeniedError),
        (404, openai.NotFoundError),
        (409, openai.ConflictError),
        (422, openai.UnprocessableEntityError),
        (429, openai.RateLimitError),
        (500, openai.InternalServerError),
        (503, openai.InternalServerError),
    ],
)
def test_a_status_on_request_raises_the_clients_exception(
    client: OpenAI, status: int, exception: type[openai.APIStatusError]
) -> None:
    with pytest.raises(exception) as raised:
        client.chat.completions.create(
            model="gpt-4o",
            messages=[{"role": "user", "content": f"[[simulate: status={status} retry_after=7]]"}],
        )
    assert raised.value.response.headers["retry-after"] == "7"
    assert raised.value.request_id


def test_an_unknown_directive_is_refused_and_not_overlooked(client: OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="no directive 'tokenz'"):
        client.chat.completions.create(
            model="gpt-4o", messages=[{"role": "user", "content": "[[simulate: tokenz=3]]"}]
        )


def tool(**function: Any) -> dict[str, Any]:
    return {"tools": [{"type": "function", "function": function}], "tool_choice": "required"}


@pytest.mark.parametrize(
    "more",
    [
        tool(name="f", parameters={"type": "object", "properties": [1]}),
        tool(name=["f"]),
        tool(name="f", parameters=7),
        {"tools": [7]},
        {"tools": [{"type": "function"}]},
        {"functions": "f"},
        {"messages": [7]},
        {"messages": [{"content": "no role"}]},
        {"n": 1000},
        {"n": "1"},
        {"stream": True, "stream_options": 7},
        {"response_format": {"type": "json_schema", "json_schema": 7}},
        {"max_tokens": 5, "max_completion_tokens": 5},
    ],
)
def test_a_strange_body_is_refused_as_the_callers_fault(
    simulator: SimulatorProcess, more: dict[str, Any]
) -> None:
    answer = post(simulator, {"model": "gpt-4o", "messages": HELLO} | more)
    assert answer.status_code == 400
    assert answer.json()["error"]["type"] == "invalid_request_error"
    assert simulator.journal()[0]["state"] == "refused"


@pytest.mark.parametrize(
    "more",
    [
        tool(name="f") | {"tool_choice": {"type": "function", "function": "f"}},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": 5}, 7], "x": {"a": 1}}]},
        {"messages": [{"role": "user", "content": None}]},
        {"messages": [{"role": "user", "content": "<|endoftext|>"}]},
        {"n": None, "max_tokens": None, "stream": None, "tools": None},
    ],
)
def test_a_lenient_body_is_answered(simulator: SimulatorProcess, more: dict[str, Any]) -> None:
    assert post(simulator, {"model": "gpt-4o", "messages": HELLO} | more).status_code == 200
