"""Each row of the catalogue is complete in itself and stands well among the others."""

import re
from collections import Counter

import pytest

from openai_app.catalogue import CATALOGUE, Operation, evals, match
from openai_app.catalogue.operation import JSON
from openai_app.metering import FREE
from openai_app.owned.objects import REFERENCES, SLOT_KINDS, Kind, yielded

KINDS = {kind.name: kind for kind in SLOT_KINDS.values()}
OFFERED = [row for row in CATALOGUE if not row.refused]


def rows(operations: list[Operation]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("row", operations, ids=[row.name for row in operations])


def filled(path: str) -> str:
    return re.sub(r"\{(\w+)\}", r"\1-1", path)


def test_names_are_unique() -> None:
    assert [name for name, count in Counter(row.name for row in CATALOGUE).items() if count > 1] == []


def test_no_two_rows_have_one_address() -> None:
    addresses = Counter((row.method, filled(path)) for row in CATALOGUE for path in row.paths)
    assert [address for address, count in addresses.items() if count > 1] == []


@rows(list(CATALOGUE))
def test_each_path_leads_to_its_own_row(row: Operation) -> None:
    for path in row.paths:
        found, slots = match(row.method, filled(path))
        assert found.name == row.name
        assert slots == {slot: f"{slot}-1" for slot in row.slots}


@rows(OFFERED)
def test_each_slot_names_a_kind(row: Operation) -> None:
    assert set(row.slots) <= SLOT_KINDS.keys()


@rows(OFFERED)
def test_a_child_stands_behind_its_parent(row: Operation) -> None:
    kinds = [SLOT_KINDS[slot] for slot in row.slots]
    names = [kind.name for kind in kinds]
    for place, kind in enumerate(kinds):
        assert kind.parent is None or kind.parent in names[:place]


@rows([row for row in OFFERED if JSON in row.accepts])
def test_a_row_that_takes_json_has_an_example(row: Operation) -> None:
    assert row.example


@rows(list(CATALOGUE))
def test_a_rows_parts_fit_its_method(row: Operation) -> None:
    assert row.method in ("GET", "POST", "DELETE")
    assert row.method == "POST" or not (row.accepts or row.creates or row.only_reads or row.example)
    assert row.method == "DELETE" or not row.deletes
    assert row.method == "GET" or row.lists is None
    assert not (row.method == "GET" and row.meter is not FREE)
    assert not (row.refused and row.meter is not FREE)
    assert not (row.streams_body and row.meter is not FREE)


@rows([row for row in OFFERED if row.method == "DELETE"])
def test_what_is_deleted_is_forgotten(row: Operation) -> None:
    assert row.deletes
    assert row.path.endswith("}")


@rows([row for row in OFFERED if row.creates is not None])
def test_what_is_created_can_be_spoken_of(row: Operation) -> None:
    """By a slot or by a field: an object that no call can name need not be recorded."""
    assert row.creates is not None
    assert row.creates in SLOT_KINDS.values() or row.creates.name in {
        kind.name for kind in REFERENCES.values()
    }


@rows([row for row in OFFERED if row.lists is not None])
def test_what_is_listed_is_made_by_a_call_and_can_be_read(row: Operation) -> None:
    assert row.lists is not None
    assert row.lists.path


@pytest.mark.parametrize("kind", [kind for kind in KINDS.values() if kind.path], ids=lambda kind: kind.name)
def test_a_kinds_path_is_that_of_a_row_that_reads_it(kind: Kind) -> None:
    readers = {re.sub(r"\{\w+\}", "{id}", row.path) for row in CATALOGUE if row.method == "GET"}
    assert kind.path in readers


@pytest.mark.parametrize("kind", [*KINDS.values(), *REFERENCES.values()], ids=lambda kind: kind.name)
def test_what_is_missed_is_named(kind: Kind) -> None:
    assert "object-1" in kind.missing.format(id="object-1")


def test_the_objects_that_came_of_a_call_are_found_in_its_answer() -> None:
    response = {
        "id": "resp_1",
        "output": [
            {
                "id": "msg_0123456789",
                "type": "message",
                "content": [{"annotations": [{"file_id": "file-1"}]}],
            },
            {"id": "ci_0123456789", "type": "code_interpreter_call", "container_id": "cntr_1"},
        ],
        "metadata": {"container_id": "cntr_2"},
    }
    found = {(kind.name, id) for kind, id in yielded(SLOT_KINDS["response_id"], response)}
    assert found == {("item", "msg_0123456789"), ("item", "ci_0123456789"), ("container", "cntr_1")}


def test_a_fine_tuned_model_belongs_to_somebody_and_others_do_not() -> None:
    model = SLOT_KINDS["model"]
    assert model.may_be("ft:gpt-4o-mini-2024-07-18:acme::abc123")
    assert model.may_be("curie:ft-personal-2023-01-22-15-48-38")
    assert not model.may_be("gpt-4o-mini")


@pytest.mark.parametrize("source", ["stored_completions", "responses"])
def test_an_evaluation_of_what_all_users_have_left_is_not_offered(source: str) -> None:
    row = next(row for row in evals.OPERATIONS if row.name == "createEvalRun")
    asked = {"data_source": {"type": "responses", "source": {"type": source}}}
    assert "all users" in row.refusal(asked)


def test_an_evaluation_of_a_file_by_the_responses_api_is_offered() -> None:
    row = next(row for row in evals.OPERATIONS if row.name == "createEvalRun")
    asked = {"data_source": {"type": "responses", "source": {"type": "file_id", "id": "file-1"}}}
    assert row.refusal(asked) == ""
