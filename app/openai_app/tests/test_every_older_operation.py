"""The operations that OpenAI's description does not have, through the gateway and straight to the simulator:
the same answer but for ids, times and what is made up."""

import json
from collections.abc import Callable, Mapping
from http.client import HTTPConnection
from typing import Any
from urllib.parse import urlsplit

import pytest

from openai_app.catalogue import Operation
from openai_app.catalogue.operation import EVENTS
from openai_app.tests.attacks import OFFERED, form, kinds_in, request_of
from openai_app.tests.harness import JSON, PATIENCE_S, Answer, House
from openai_app.tests.test_catalogue_description import EXPLAINED

# The simulator answers these as OpenAI does now: no such address.
WITHDRAWN = {"createAnswer", "createClassification"}
OLDER = [row for row in OFFERED if row.name in EXPLAINED]
HELLO = {"role": "user", "content": "Hello!"}

Call = Callable[..., Answer]


def rows(operations: list[Operation]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("row", operations, ids=[row.name for row in operations])


def shape(value: Any) -> Any:
    """A JSON value without its contents."""
    if isinstance(value, dict):
        return {name: shape(held) for name, held in value.items()}
    if isinstance(value, list):
        return [shape(held) for held in value]
    return type(value).__name__


def shape_of(answer: Answer) -> tuple[int, str | None, Any]:
    told = answer.headers.get("content-type")
    if told and told.startswith(EVENTS):
        events = [line[6:] for line in answer.body.decode().splitlines() if line.startswith("data: ")]
        return answer.status, told, [line if line == "[DONE]" else shape(json.loads(line)) for line in events]
    return answer.status, told, shape(answer.json)


def made(call: Call, path: str, **fields: Any) -> str:
    answer = call("POST", f"/v1/{path}", json.dumps(fields).encode())
    assert answer.status == 200, answer.body
    return str(answer.json["id"])


def objects(call: Call) -> dict[str, str]:
    """An object for each slot of an older path."""
    body, headers = form({"purpose": "fine-tune"}, {"file": b'{"prompt": "a", "completion": "b"}\n' * 20})
    file_id = call("POST", "/v1/files", body, headers).json["id"]
    assistant = made(call, "assistants", model="gpt-4o-mini")
    thread = made(call, "threads", messages=[HELLO])
    return {
        "engine_id": "gpt-4o-mini",
        "file_id": file_id,
        "assistant_id": assistant,
        "assistant_file_id": made(call, f"assistants/{assistant}/files", file_id=file_id),
        "thread_id": thread,
        "message_id": made(call, f"threads/{thread}/messages", **HELLO, file_ids=[file_id]),
        "message_file_id": file_id,
        "fine_tune_id": made(call, "fine-tunes", model="curie", training_file=file_id),
    }


def fields_of(row: Operation, slots: dict[str, str]) -> dict[str, str]:
    """The files of a row's example, as they are named in the account."""
    return {name: slots["file_id"] for name in ("file_id", "training_file") if name in (row.example or {})}


@pytest.fixture
def straight(gateway: House) -> Call:
    """Calls the simulator itself."""
    address = urlsplit(gateway.simulator.root)

    def call(method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] = JSON) -> Answer:
        connection = HTTPConnection(address.hostname or "", address.port, timeout=PATIENCE_S)
        try:
            connection.request(method, path, body, {"Authorization": "Bearer sk-straight", **headers})
            response = connection.getresponse()
            told = {name.lower(): value for name, value in response.getheaders()}
            return Answer(response.status, told, response.read())
        finally:
            connection.close()

    return call


@rows(OLDER)
def test_an_older_call_is_answered_as_without_the_gateway(
    row: Operation, gateway: House, straight: Call
) -> None:
    olga = gateway.caller(10**9, name="olga", is_superuser=True)
    answers = []
    for call in (straight, olga.call):
        gateway.simulator.clear()
        slots = objects(call)
        path = "/v1" + row.path.format(**{slot: slots[slot] for slot in kinds_in(row.path)})
        body, headers = request_of(row, **fields_of(row, slots))
        answers.append(call(row.method, path, body, headers))
    assert answers[1].status == (404 if row.name in WITHDRAWN else 200), answers[1].body
    assert shape_of(answers[1]) == shape_of(answers[0])


@rows([row for row in OLDER if EVENTS in row.answers])
def test_an_older_stream_is_passed_as_it_comes(row: Operation, gateway: House, straight: Call) -> None:
    olga = gateway.caller(10**9, name="olga", is_superuser=True)
    answers = []
    for call in (straight, olga.call):
        gateway.simulator.clear()
        slots = objects(call)
        gateway.simulator.finish(slots["fine_tune_id"])
        path = "/v1" + row.path.format(**{slot: slots[slot] for slot in kinds_in(row.path)})
        if row.method == "GET":
            answers.append(call("GET", f"{path}?stream=true"))
        else:
            body, headers = request_of(row, stream=True, stream_options={"include_usage": True})
            answers.append(call("POST", path, body, headers))
    assert shape_of(answers[1]) == shape_of(answers[0])
    assert answers[1].headers["content-type"].startswith(EVENTS)


def test_all_that_the_description_lacks_is_called(gateway: House) -> None:
    assert {row.name for row in OLDER} == EXPLAINED.keys()
