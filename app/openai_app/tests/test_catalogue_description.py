"""The catalogue against OpenAI's own description, where that is at hand."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
import yaml

from conftest import SHARED
from openai_app.catalogue import CATALOGUE, Operation
from openai_app.catalogue.operation import FORM, JSON
from openai_app.owned.objects import REFERENCES
from openai_app.request.forms import HAVE_ONE_VALUE
from openai_app.tests.description import takes

DESCRIPTION = SHARED / "openai" / "openapi.yaml"
pytestmark = [
    pytest.mark.skipif(not DESCRIPTION.exists(), reason="OpenAI's description is not at hand"),
    pytest.mark.xdist_group("description"),
]

METHODS = ("get", "post", "put", "patch", "delete")
ADMINISTRATION = ("/organization", "/projects")
# Rows that the description does not have, and why they are there.
EXPLAINED = {
    "listEngines": "models under their first name",
    "retrieveEngine": "models under their first name",
    "createEngineCompletion": "the model in the path",
    "createEngineEmbedding": "the model in the path",
    "createEngineSearch": "the model in the path",
    "createEdit": "withdrawn, still called by older clients",
    "createAnswer": "withdrawn, still called by older clients",
    "createClassification": "withdrawn, still called by older clients",
    "createFineTune": "what fine-tuning jobs were first",
    "listFineTunes": "what fine-tuning jobs were first",
    "retrieveFineTune": "what fine-tuning jobs were first",
    "cancelFineTune": "what fine-tuning jobs were first",
    "listFineTuneEvents": "what fine-tuning jobs were first",
    "listAssistantFiles": "assistants, version 1",
    "createAssistantFile": "assistants, version 1",
    "getAssistantFile": "assistants, version 1",
    "deleteAssistantFile": "assistants, version 1",
    "listMessageFiles": "assistants, version 1",
    "getMessageFile": "assistants, version 1",
    "listThreads": "never described, called by OpenAI's own clients",
}
# Answers of which the description says something else than OpenAI does: files are sent as bytes, subtitles as
# text, and a stream is there wherever a request may ask for one.
ANSWERS_DIFFER = {
    "createTranscription",
    "createTranslation",
    "downloadFile",
    "RetrieveContainerFileContent",
    "getResponse",
    "createThreadAndRun",
    "createRun",
    "submitToolOuputsToRun",
    "create-realtime-call",
}
# What the description leaves without a tag.
TAGS = {
    "/responses": "Responses",
    "/containers": "Containers",
    "/chatkit": "ChatKit",
    "/content_provenance_checks": "Content provenance",
}
# Fields that look like references and are none, and why.
NO_REFERENCES = {
    "approval_request_id": "an item of the same context",
    "call_id": "a call within the same request or context",
    "caller_id": "a call within the same request or context",
    "known_speaker_names": "labels of one's own",
    "name": "a label of one's own",
    "tool_call_id": "a call within the same request or context",
    "user": "a label of one's own",
}
# Where an `id` names something within the same request or context: under these.
NO_REFERENCE_IDS = {"tool_calls", "pending_safety_checks", "acknowledged_safety_checks"}
# References that no described request has, and where they stand.
OTHER_REFERENCES = {
    "fine_tuned_model": "in a job's answer",
    "fine_tuned_model_checkpoint": "in a checkpoint's answer",
    "search_model": "in classifications and answers",
    "thread_id": "in a run's answer",
}
ID_WORDS = re.compile(r"\bIDs?\b|\bidentifier")


@pytest.fixture(scope="module")
def description() -> Mapping[str, Any]:
    loaded: Mapping[str, Any] = yaml.load(DESCRIPTION.read_bytes(), Loader=yaml.CSafeLoader)
    return loaded


def address(method: str, path: str) -> tuple[str, str]:
    """Slots have names of our own; the beta variant of an operation is at the operation's address."""
    return method.upper(), re.sub(r"\{\w+\}", "{}", path.removesuffix("?beta=true"))


def described(description: Mapping[str, Any]) -> dict[tuple[str, str], Mapping[str, Any]]:
    found: dict[tuple[str, str], Mapping[str, Any]] = {}
    for path, item in description["paths"].items():
        if not path.startswith(ADMINISTRATION):
            for method in METHODS:
                if method in item:
                    found.setdefault(address(method, path), item[method])
    return found


def listed() -> dict[tuple[str, str], Operation]:
    return {address(row.method, row.path): row for row in CATALOGUE}


def pairs(description: Mapping[str, Any]) -> Iterator[tuple[Operation, Mapping[str, Any]]]:
    rows = listed()
    for where, operation in described(description).items():
        if where in rows:
            yield rows[where], operation


def test_every_operation_of_the_description_is_listed(description: Mapping[str, Any]) -> None:
    assert sorted(described(description).keys() - listed().keys()) == []


def test_every_row_that_is_not_in_the_description_is_explained(description: Mapping[str, Any]) -> None:
    extra = listed().keys() - described(description).keys()
    assert {listed()[where].name for where in extra} == EXPLAINED.keys()


def test_administration_is_not_listed() -> None:
    assert [row.name for row in CATALOGUE if row.path.startswith(ADMINISTRATION)] == []


def test_rows_have_the_names_and_tags_of_the_description(description: Mapping[str, Any]) -> None:
    differing = []
    for row, operation in pairs(description):
        tags = operation.get("tags") or [TAGS["/" + row.path.split("/")[1]]]
        if (row.name, [row.tag]) != (operation["operationId"], tags):
            differing.append((row.name, row.tag, operation["operationId"], tags))
    assert differing == []


def test_rows_take_the_content_types_of_the_description(description: Mapping[str, Any]) -> None:
    differing = {}
    for row, operation in pairs(description):
        accepted = tuple(operation.get("requestBody", {}).get("content", ()))
        if set(row.accepts) != set(accepted):
            differing[row.name] = (row.accepts, accepted)
    assert differing == {}


def test_rows_answer_the_content_types_of_the_description(description: Mapping[str, Any]) -> None:
    differing = {}
    for row, operation in pairs(description):
        good = next(answer for status, answer in operation["responses"].items() if status.startswith("2"))
        answered = tuple(good.get("content", ())) or (JSON,)
        if set(row.answers) != set(answered) and row.name not in ANSWERS_DIFFER:
            differing[row.name] = (row.answers, answered)
    assert differing == {}


def test_rows_succeed_with_the_statuses_of_the_description(description: Mapping[str, Any]) -> None:
    differing = {}
    for row, operation in pairs(description):
        good = [status for status in operation["responses"] if status.startswith("2")]
        if str(row.succeeds_with) not in good and not row.refused:
            differing[row.name] = (row.succeeds_with, good)
    assert differing == {}


def test_rows_have_the_queries_of_the_description(description: Mapping[str, Any]) -> None:
    differing = {}
    for row, operation in pairs(description):
        named = {each["name"] for each in operation.get("parameters", ()) if each["in"] == "query"}
        if set(row.query) != named:
            differing[row.name] = (row.query, named)
    assert differing == {}


def test_no_list_or_object_of_a_form_is_refused(description: Mapping[str, Any]) -> None:
    refused = set()
    for row, operation in pairs(description):
        form = operation.get("requestBody", {}).get("content", {}).get(FORM)
        if form is not None:
            fields = [(n, s) for path, n, s in properties(description, form["schema"]) if not path]
            lists = {n for n, s in fields if takes(s, "array") or takes(s, "object")}
            refused |= {f"{row.name} {name}" for name in lists & HAVE_ONE_VALUE}
    assert refused == set()


# --- References ---------------------------------------------------------------------------------------------


def resolved(description: Mapping[str, Any], schema: Any) -> Any:
    while isinstance(schema, dict) and "$ref" in schema:
        target: Any = description
        for step in schema["$ref"].split("/")[1:]:
            target = target[step]
        schema = target
    return schema


def properties(
    description: Mapping[str, Any], schema: Any, path: str = "", seen: frozenset[str] = frozenset()
) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """(path of the object, name, schema) of every property at any depth."""
    reference = schema.get("$ref") if isinstance(schema, dict) else None
    if reference is not None:
        if reference in seen:
            return
        seen = seen | {reference}
    schema = resolved(description, schema)
    if not isinstance(schema, dict):
        return
    for together in ("allOf", "anyOf", "oneOf"):
        for part in schema.get(together, ()):
            yield from properties(description, part, path, seen)
    if "items" in schema:
        yield from properties(description, schema["items"], f"{path}[]", seen)
    for name, held in (schema.get("properties") or {}).items():
        yield path, name, {**resolved(description, held), **held}
        yield from properties(description, held, f"{path}.{name}", seen)


def may_hold_ids(description: Mapping[str, Any], schema: Mapping[str, Any]) -> bool:
    """Whether a schema admits a string that is not one of a list of words, or an array of such."""
    schema = resolved(description, schema)
    parts = [part for together in ("allOf", "anyOf", "oneOf") for part in schema.get(together, ())]
    if any(may_hold_ids(description, part) for part in parts):
        return True
    if schema.get("type") == "array":
        return may_hold_ids(description, schema.get("items", {}))
    return schema.get("type") == "string" and "enum" not in schema and schema.get("format") != "binary"


def of_requests(description: Mapping[str, Any]) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """Every property of every request that is offered, beta variants included."""
    rows = listed()
    for path, item in description["paths"].items():
        for method in METHODS:
            row = rows.get(address(method, path))
            if row is not None and not row.refused:
                for content in item.get(method, {}).get("requestBody", {}).get("content", {}).values():
                    yield from properties(description, content.get("schema", {}))


def test_every_field_that_holds_ids_is_a_known_reference(description: Mapping[str, Any]) -> None:
    unknown = set()
    explained = set()
    for path, name, schema in of_requests(description):
        looks_like_ids = name == "id" or name.endswith(("_id", "_ids"))
        if not looks_like_ids and not ID_WORDS.search(schema.get("description") or ""):
            continue
        if name in REFERENCES or not may_hold_ids(description, schema):
            continue
        holder = path.removesuffix("[]").rpartition(".")[2]
        if name in NO_REFERENCES:
            explained.add(name)
        elif name == "id" and holder in NO_REFERENCE_IDS:
            explained.add(holder)
        elif name != "id" or holder not in REFERENCES:
            unknown.add(f"{path}.{name}")
    assert unknown == set()
    assert explained == NO_REFERENCES.keys() | NO_REFERENCE_IDS


def test_every_reference_is_a_field_of_a_request(description: Mapping[str, Any]) -> None:
    names = {name for _, name, _ in of_requests(description)}
    assert REFERENCES.keys() - names == OTHER_REFERENCES.keys()
