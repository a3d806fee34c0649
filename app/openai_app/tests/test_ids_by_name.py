"""A field may have the name of one that holds ids, or a text look like an id, and be neither."""

import json
from typing import Any

import pytest

from openai_app.catalogue import CATALOGUE
from openai_app.catalogue.operation import FORM
from openai_app.catalogue.operation import JSON as JSON_TYPE
from openai_app.owned.described import PLACES
from openai_app.tests import description
from openai_app.tests.deferred_work import ASSISTANTS, MODEL, lines_of, post, upload
from openai_app.tests.harness import HELLO, Answer, Caller, House

SCHEMA = {
    "type": "object",
    "properties": {
        "file": {"type": "string", "enum": ["file-abcdefghijkl"]},
        "assistant_id": {"type": "string", "default": "asst_abcdefghijkl"},
        "of": {"type": "object", "examples": [{"file_id": "abc"}, {"thread_id": "thread_abcdefghijkl"}]},
    },
    "examples": [{"file_id": "file-abcdefghijkl", "vector_store_ids": ["vs_abcdefghijkl"]}],
}
FUNCTION = {"name": "look", "parameters": SCHEMA}
CHAT_TOOLS = [{"type": "function", "function": FUNCTION}]
FORMAT = {"type": "json_schema", "json_schema": {"name": "found", "schema": SCHEMA}}


def answered(caller: Caller, path: str, **fields: Any) -> Answer:
    return caller.call("POST", f"/v1{path}", json.dumps(fields).encode(), ASSISTANTS)


def assert_missed(house: House, answer: Answer) -> None:
    assert (answer.status, answer.error["type"]) == (404, "invalid_request_error"), answer.body
    assert [call["path"] for call in house.journal() if call["method"] == "POST"] == []


@pytest.mark.parametrize(
    "fields",
    [
        {"stop": ["ft:"]},
        {"user": "ft:1"},
        {"user": "ada:ft-1"},
        {"thread_id": "t-1"},
        {"assistant_id": "mine"},
        {"x_video": {"video": "abc"}},
        {"x": {"file_ids": ["1", "2"], "training_file": "sums.jsonl"}},
        {"x": {"items": [{"id": "sku_abcdefg"}]}},
        {"metadata": {"file": "file-abcdefghijkl", "file_id": "file-abcdefghijkl"}},
        {"tools": CHAT_TOOLS},
        {"functions": [FUNCTION]},
        {"response_format": FORMAT},
    ],
    ids=lambda fields: next(iter(fields)),
)
def test_a_chat_passes_whatever_its_other_fields_are_called(alice: Caller, fields: dict[str, Any]) -> None:
    answer = answered(alice, "/chat/completions", model=MODEL, messages=HELLO, **fields)
    assert answer.status == 200, answer.body


def test_nothing_is_looked_for_in_the_schemas_of_a_request(alice: Caller) -> None:
    tools = [{"type": "function", **FUNCTION}]
    text = {"format": {"type": "json_schema", "name": "found", "schema": SCHEMA}}
    assert answered(alice, "/responses", model=MODEL, input="Hi", tools=tools, text=text).status == 200
    space = [{"type": "namespace", "name": "all", "description": "All.", "tools": tools}]
    assert answered(alice, "/responses/input_tokens", model=MODEL, input="Hi", tools=space).status == 200
    assistant = post(alice, "/assistants", model=MODEL, tools=CHAT_TOOLS, response_format=FORMAT)["id"]
    thread = post(alice, "/threads", messages=HELLO)["id"]
    post(alice, f"/threads/{thread}/runs", assistant_id=assistant, tools=CHAT_TOOLS, response_format=FORMAT)
    request = {"model": MODEL, "messages": HELLO, "tools": CHAT_TOOLS, "thread_id": "t-1"}
    file_id = upload(alice, lines_of(request), "batch")
    endpoint = "/v1/chat/completions"
    post(alice, "/batches", input_file_id=file_id, endpoint=endpoint, completion_window="24h")


@pytest.mark.parametrize(
    "tool",
    [
        {"type": "file_search", "vector_store_ids": ["THE ID"]},
        {"type": "function", **FUNCTION, "vector_store_ids": ["THE ID"]},
        {"type": "function", "function": {**FUNCTION, "vector_store_ids": ["THE ID"]}},
        {"type": "file_search", "parameters": {"vector_store_ids": ["THE ID"]}},
        {"type": "namespace", "tools": [{"type": "file_search", "vector_store_ids": ["THE ID"]}]},
    ],
    ids=str,
)
def test_what_stands_in_a_tool_beside_its_schema_is_still_looked_at(
    gateway: House, alice: Caller, bob: Caller, tool: dict[str, Any]
) -> None:
    store = post(alice, "/vector_stores", name="Hers")["id"]
    gateway.simulator.control("DELETE", "journal")
    for object_id in (store, "vs_nobodysatall", "odd"):
        told = json.loads(json.dumps(tool).replace("THE ID", object_id))
        assert_missed(gateway, answered(bob, "/responses", model=MODEL, input="Hi", tools=[told]))
    hers = json.loads(json.dumps(tool).replace("THE ID", store))
    file_id = upload(
        bob, lines_of({"model": MODEL, "input": "Hi", "tools": [hers]}, url="/v1/responses"), "batch"
    )
    gateway.simulator.control("DELETE", "journal")
    fields = {"input_file_id": file_id, "endpoint": "/v1/responses", "completion_window": "24h"}
    assert_missed(gateway, answered(bob, "/batches", **fields))


@pytest.mark.parametrize("odd", ["odd", "file", "\U0001f600", "1"])
def test_where_ids_are_described_nothing_unknown_passes(gateway: House, alice: Caller, odd: str) -> None:
    thread = post(alice, "/threads")["id"]
    gateway.simulator.control("DELETE", "journal")
    image = {"type": "image_file", "image_file": {"file_id": odd}}
    file = {"type": "input_file", "file_id": odd}
    calls: dict[str, dict[str, Any]] = {
        "/fine_tuning/jobs": {"model": MODEL, "training_file": odd},
        "/batches": {"input_file_id": odd, "endpoint": "/v1/responses", "completion_window": "24h"},
        "/responses": {"model": MODEL, "input": "Hi", "previous_response_id": odd},
        "/responses/compact": {"model": MODEL, "input": [{"role": "user", "content": [file]}]},
        f"/threads/{thread}/runs": {"assistant_id": odd},
        f"/threads/{thread}/messages": {"role": "user", "content": [image]},
        "/vector_stores": {"file_ids": [odd]},
    }
    for path, fields in calls.items():
        assert_missed(gateway, answered(alice, path, **fields))


def test_what_looks_like_an_id_of_that_kind_must_be_known_wherever_it_stands(
    gateway: House, alice: Caller
) -> None:
    for name, object_id in (("file_id", "file-abcdefghijkl"), ("thread_id", "thread_abcdefghijkl")):
        x = [{name: object_id}]
        missed = answered(alice, "/chat/completions", model=MODEL, messages=HELLO, x=x)
        assert_missed(gateway, missed)


@pytest.mark.skipif(not description.FILE.exists(), reason="OpenAI's description is not beside the project")
def test_the_places_of_ids_are_those_of_the_description() -> None:
    missing = []
    for row in CATALOGUE:
        for place in [each for kind in (JSON_TYPE, FORM) for each in description.places(row, kind)]:
            if row.refused or not place.kind.begins or (place.kind.form and place.kind.name != "item"):
                continue
            names = [step.removesuffix("[]") for step in place.path.split(".")]
            # What is read or searched in is text, but for the items of a conversation.
            is_text = place.kind.name == "item" and "items" not in names and names != ["input"]
            if not is_text and names[-1] not in PLACES.get(row.name, {}).get(names[0], ()):
                missing.append(f"{row.name}: {place.path}")
    # A prompt's text, and what is to be embedded, moderated or spoken: no items.
    texts = {"createEmbedding: input", "createModeration: input", "createSpeech: input"}
    assert set(missing) == texts
