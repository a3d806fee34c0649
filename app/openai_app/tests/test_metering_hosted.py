"""Tools that OpenAI runs itself cost by the call, beside the tokens."""

import json
from typing import Any

import pytest

from openai_app import metering
from openai_app.metering import hosted
from openai_app.tests.harness import HELLO, JSON, Caller, House

JSON_ANSWER = {"content-type": "application/json"}
SEARCH = {"type": "web_search_call", "action": {"type": "search", "query": "weather"}}
VISIT = {"type": "web_search_call", "action": {"type": "open_page", "url": "https://example.org"}}
CODE = {"type": "code_interpreter_call", "container_id": "cntr_1"}
SHELL = {"type": "shell_call", "environment": {"type": "container_reference", "container_id": "cntr_3"}}
ITS_OWN = {"type": "shell", "environment": {"type": "container_auto"}}
THE_CALLERS = {"type": "shell", "environment": {"type": "container_reference", "container_id": "cntr_3"}}
IMAGE = {"type": "image_generation_call", "status": "completed", "quality": "high", "size": "1024x1024"}
PAINTER = {"type": "image_generation", "quality": "low", "size": "1536x1024"}


@pytest.mark.parametrize(
    ("response", "used"),
    [
        ({"output": [SEARCH, SEARCH, VISIT]}, {"web_search": 2}),
        ({"output": [{"type": "web_search_call"}]}, {"web_search": 1}),
        ({"output": [SEARCH], "tool_usage": {"web_search": {"num_requests": 3}}}, {"web_search": 3}),
        ({"output": [{"type": "file_search_call"}] * 2}, {"file_search": 2}),
        ({"output": [CODE, CODE, {**CODE, "container_id": "cntr_2"}]}, {"code_interpreter": 2}),
        (
            {"output": [CODE], "tools": [{"type": "code_interpreter", "container": "cntr_1"}]},
            {},
        ),
        ({"output": [SHELL, SHELL], "tools": [ITS_OWN]}, {"code_interpreter": 1}),
        ({"output": [CODE, SHELL], "tools": [ITS_OWN]}, {"code_interpreter": 2}),
        ({"output": [CODE, SHELL], "tools": [THE_CALLERS]}, {"code_interpreter": 1}),
        ({"output": [{"type": "shell_call", "environment": {"type": "local"}}]}, {}),
        ({"output": [IMAGE, {**IMAGE, "size": "1536x1024"}]}, {"image_output": 4_160 + 6_240}),
        ({"output": [{**IMAGE, "quality": None, "size": None}], "tools": [PAINTER]}, {"image_output": 408}),
        ({"output": [{"type": "image_generation_call"}]}, {"image_output": 6_240}),
        ({"output": [{**IMAGE, "status": "failed"}]}, {}),
        ({"output": [IMAGE], "tool_usage": {"image_gen": {"output_tokens": 272}}}, {"image_output": 272}),
        ({"output": [IMAGE], "tool_usage": {"image_gen": {"output_tokens": 0}}}, {"image_output": 4_160}),
        ({"output": [{"type": "mcp_call"}, {"type": "function_call"}, 7, None]}, {}),
        ({"output": {"type": "web_search_call"}, "tool_usage": []}, {}),
    ],
)
def test_what_tools_did_is_read_from_a_response(response: dict[str, Any], used: dict[str, int]) -> None:
    assert hosted.used(response) == used


@pytest.mark.parametrize(
    ("request_", "held"),
    [
        ({"tools": [{"type": "web_search"}]}, {"web_search": 1}),
        ({"tools": [{"type": "web_search_preview_2025_03_11"}], "max_tool_calls": 3}, {"web_search": 3}),
        ({"tools": [{"type": "file_search"}], "max_tool_calls": 10**9}, {"file_search": 128}),
        (
            {"tools": [{"type": "code_interpreter", "container": {"type": "auto"}}], "max_tool_calls": 5},
            {"code_interpreter": 1},
        ),
        ({"tools": [{"type": "code_interpreter", "container": "cntr_1"}]}, {}),
        ({"tools": [{"type": "function", "name": "web_search"}], "max_tool_calls": -1}, {}),
        ({"tools": "web_search"}, {}),
        ({"tools": [ITS_OWN]}, {"code_interpreter": 1}),
        ({"tools": [THE_CALLERS]}, {}),
        ({"tools": [{"type": "shell", "environment": {"type": "local"}}]}, {}),
        ({"tools": [PAINTER]}, {"image_output": 408}),
        ({"tools": [{"type": "image_generation"}], "max_tool_calls": 2}, {"image_output": 2 * 6_240}),
    ],
)
def test_what_tools_may_do_is_held(request_: dict[str, Any], held: dict[str, int]) -> None:
    assert metering.RESPONSES.estimate is not None
    assert metering.RESPONSES.estimate({"model": "gpt-4o", "input": "Hi", **request_}).besides == held


def test_searches_of_a_response_are_charged_beside_its_tokens(gateway: House, alice: Caller) -> None:
    gateway.simulator.fault("searches=2")
    body = {"model": "gpt-4o-mini", "input": "Hello!", "tools": [{"type": "web_search"}]}
    answer = alice.call("POST", "/v1/responses", json.dumps(body).encode(), JSON)
    assert answer.status == 200
    (entry,) = alice.charges()
    assert entry["units"]["web_search"] == 2
    assert -entry["amount"] == answer.json["usage"]["total_tokens"] + 2 * 1_000


def test_images_of_a_response_that_tells_no_tokens_of_them_are_charged_by_the_image(
    gateway: House, alice: Caller
) -> None:
    request = {"model": "gpt-4o-mini", "input": "Draw!", "tools": [{"type": "image_generation"}]}
    answer = {
        "object": "response",
        "status": "completed",
        "model": "gpt-4o-mini-2024-07-18",
        "output": [IMAGE],
        "usage": {"input_tokens": 3_189, "output_tokens": 72},
    }
    gateway.simulator.record(
        {"path": "/v1/responses", "request": request, "body": json.dumps(answer), "headers": JSON_ANSWER}
    )
    assert alice.call("POST", "/v1/responses", json.dumps(request).encode(), JSON).status == 200
    (entry,) = alice.charges()
    assert entry["units"] == {"input": 3_189, "output": 72, "image_output": 4_160}
    assert entry["amount"] == -(3_189 + 72 + 4_160)


def test_a_balance_that_does_not_pay_for_a_search_gets_none(gateway: House) -> None:
    poor = gateway.caller(900)
    body: dict[str, Any] = {"model": "gpt-4o-mini", "input": "Hello!"}
    searching = {**body, "tools": [{"type": "web_search"}]}
    assert poor.call("POST", "/v1/responses", json.dumps(searching).encode(), JSON).status == 402
    assert gateway.journal() == []
    assert poor.call("POST", "/v1/responses", json.dumps(body).encode(), JSON).status == 200


def test_a_chat_by_a_model_that_searches_is_charged_for_its_search(alice: Caller) -> None:
    fields: dict[str, Any] = {"model": "gpt-4o-mini", "messages": HELLO, "web_search_options": {}}
    answer = alice.call("POST", "/v1/chat/completions", json.dumps(fields).encode(), JSON)
    (entry,) = alice.charges()
    assert -entry["amount"] == answer.json["usage"]["total_tokens"] + 1_000


def test_the_search_of_a_chat_that_was_cut_is_not_charged(gateway: House, alice: Caller) -> None:
    gateway.simulator.fault("tokens=50 stall=600 stall_after=20")
    with alice.chat_stream(web_search_options={}) as response:
        came = b""
        while came.count(b'"content"') < 21:
            came += response.readline()
    assert alice.settled()["held"] == 0
    (entry,) = alice.charges()
    assert "web_search" not in entry["units"]
