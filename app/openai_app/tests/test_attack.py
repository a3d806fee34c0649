"""Bob tries to get at what Alice has left with OpenAI, by each operation of the catalogue and each place in
which an id can stand. He is told what he is told of ids that do not exist, and nothing happens."""

import json
from collections.abc import Iterator
from urllib.parse import quote

import pytest

from openai_app.catalogue import Operation
from openai_app.catalogue.operation import FORM
from openai_app.catalogue.operation import JSON as JSON_TYPE
from openai_app.owned.objects import REFERENCES, Kind
from openai_app.request.paths import PREFIXES
from openai_app.tests import description
from openai_app.tests.attacks import OFFERED, Attack, form, kinds_in, must_be_known, request_of
from openai_app.tests.harness import House


@pytest.fixture(scope="module")
def attack(undisturbed: House) -> Iterator[Attack]:
    undisturbed.simulator.clear()
    opened = Attack(undisturbed, undisturbed.caller(name="alice"), undisturbed.caller(10**12, name="bob"))
    yield opened
    opened.close()


def rows(operations: list[Operation]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("row", operations, ids=[row.name for row in operations])


def own_path(row: Operation, attack: Attack) -> str:
    """The row's path with Bob's own ids."""
    return "/v1" + row.path.format(
        **{slot: attack.bobs[kind.name] for slot, kind in kinds_in(row.path).items()}
    )


# --- Paths --------------------------------------------------------------------------------------------------


def in_paths(row: Operation, attack: Attack) -> Iterator[tuple[str, str, Kind, str]]:
    """(path with Alice's id in one slot, the same with one that nobody has, that slot's kind, Alice's id)."""
    for path in row.paths:
        kinds = kinds_in(path)
        own = {slot: attack.bobs[kind.name] for slot, kind in kinds.items()}
        for slot, kind in kinds.items():
            hers, nobodys = attack.alices[kind.name], attack.missing[kind.name]
            yield path.format(**{**own, slot: hers}), path.format(**{**own, slot: nobodys}), kind, hers


@rows([row for row in OFFERED if row.slots])
def test_nothing_of_anothers_is_reached_by_a_path(row: Operation, attack: Attack) -> None:
    body, headers = request_of(row)
    wrong = []
    with attack.without_effect():
        for path, _, kind, hers in in_paths(row, attack):
            spelled = "".join(f"%{byte:02x}" for byte in hers.encode())
            wrong += [attack.refused(row.method, prefix[:-1] + path, body, headers) for prefix in PREFIXES]
            for other in (f"{path}/", path.replace(hers, spelled), path.replace(hers, quote(hers))):
                wrong.append(attack.refused(row.method, f"/v1{other}", body, headers))
            if must_be_known(kind):
                for other in (hers.upper(), f"{hers}%20", f"{hers}%00", f"{hers};a=b", f"x%2F..%2F{hers}"):
                    wrong.append(attack.refused(row.method, f"/v1{path.replace(hers, other)}", body, headers))
        # A child of hers under the parent of hers.
        hers_all = {slot: attack.alices[kind.name] for slot, kind in kinds_in(row.path).items()}
        wrong.append(attack.refused(row.method, f"/v1{row.path.format(**hers_all)}", body, headers))
        assert not any(wrong), "\n".join(filter(None, wrong))


@rows([row for row in OFFERED if row.slots])
def test_an_id_of_anothers_in_a_path_is_missed_as_one_that_nobody_has(row: Operation, attack: Attack) -> None:
    body, headers = request_of(row)
    for path, other_path, kind, hers in in_paths(row, attack):
        if must_be_known(kind):
            told = attack.call(row.method, f"/v1{path}", body, headers)
            expected = attack.call(row.method, f"/v1{other_path}", body, headers)
            nobodys = attack.missing[kind.name]
            assert (told.status, told.body.decode()) == (404, expected.body.decode().replace(nobodys, hers))
            assert told.headers.keys() == expected.headers.keys()


# --- Bodies -------------------------------------------------------------------------------------------------


def forms_of(place: description.Place, object_id: str) -> Iterator[object]:
    """An id as the field takes it: by itself, in a list, in an object."""
    if description.takes(place.schema, "string"):
        yield object_id
    if description.takes(place.schema, "array"):
        yield [object_id]
        yield [{"id": object_id}]
    if description.takes(place.schema, "object"):
        yield {"id": object_id}


def described_bodies(row: Operation, ids: dict[str, str]) -> Iterator[tuple[str, bytes]]:
    """(place, body) with an id in each place of the description."""
    for place in description.places(row, JSON_TYPE):
        for value in forms_of(place, ids[place.kind.name]):
            fields = place.plant(value)
            if not row.refusal(fields):
                yield place.path, request_of(row, **fields)[0] or b""


def other_bodies(row: Operation, ids: dict[str, str]) -> Iterator[tuple[str, bytes]]:
    """The same under every name that holds ids, at the top and deep down, and under names of no meaning."""
    for name, kind in REFERENCES.items():
        hers = ids[kind.name]
        yield name, request_of(row, **{name: hers})[0] or b""
        yield f"content[].any.{name}[]", request_of(row, content=[{"any": {name: [hers]}}])[0] or b""
    for kind_name, hers in ids.items():
        yield f"metadata, {kind_name}", request_of(row, metadata={"any": hers})[0] or b""


def other_forms(attack: Attack) -> Iterator[dict[str, object]]:
    """Fields with an id of Alice's under every name that holds ids, and in every form for some."""
    for name, kind in REFERENCES.items():
        own, hers = attack.bobs[kind.name], attack.alices[kind.name]
        yield {name: hers}
        yield {"any": json.dumps([{name: hers}])}
        if name in ("file_id", "video", "consent"):
            yield {f"{name}[]": hers}
            yield {name: [own, hers]}
            yield {name: [hers, own]}
            yield {f"{name}[id]": hers}
            yield {f"any[0][{name}]": hers}
            yield {name: json.dumps({"id": hers})}


@pytest.mark.skipif(not description.FILE.exists(), reason="OpenAI's description is not beside the project")
@rows([row for row in OFFERED if JSON_TYPE in row.accepts])
def test_nothing_of_anothers_is_reached_by_a_described_body(row: Operation, attack: Attack) -> None:
    path = own_path(row, attack)
    wrong = []
    with attack.without_effect():
        for place, body in described_bodies(row, attack.alices):
            if error := attack.refused("POST", path, body):
                wrong.append(f"{place}: {error} to {body[:300]!r}")
        assert not wrong, "\n".join(wrong)


@rows([row for row in OFFERED if JSON_TYPE in row.accepts])
def test_nothing_of_anothers_is_reached_by_any_body(row: Operation, attack: Attack) -> None:
    path = own_path(row, attack)
    wrong = []
    with attack.without_effect():
        for place, body in other_bodies(row, attack.alices):
            if error := attack.refused("POST", path, body):
                wrong.append(f"{place}: {error}")
        assert not wrong, "\n".join(wrong)


@rows([row for row in OFFERED if FORM in row.accepts and not row.streams_body])
def test_nothing_of_anothers_is_reached_by_a_form(row: Operation, attack: Attack) -> None:
    path = own_path(row, attack)
    files = dict.fromkeys(row.files, b"RIFF")
    wrong = []
    with attack.without_effect():
        for fields in other_forms(attack):
            others = {name: data for name, data in files.items() if name not in fields}
            body, headers = form({**row.form_example, **fields}, others)
            if error := attack.refused("POST", path, body, headers):
                wrong.append(f"{fields}: {error}")
        assert not wrong, "\n".join(wrong)


# --- Queries ------------------------------------------------------------------------------------------------


@rows(OFFERED)
def test_nothing_of_anothers_is_reached_by_a_query(row: Operation, attack: Attack) -> None:
    path = own_path(row, attack)
    body, headers = request_of(row)
    wrong = []
    with attack.without_effect():
        for name in sorted({*row.query, "after", "before", "file_id", "anything"}):
            for kind in ("file", "response", "message", "batch", "vector_store"):
                hers = attack.alices[kind]
                for query in (f"{name}={hers}", f"{name}={quote(hers, safe='').replace('-', '%2D')}"):
                    if error := attack.refused(row.method, f"{path}?{query}", body, headers):
                        wrong.append(error)
        assert not wrong, "\n".join(wrong)


def test_the_attack_would_be_seen(attack: Attack) -> None:
    """What the other tests rely on: a call of Bob's that passes is in the journal."""
    body = json.dumps({"model": "gpt-4o-mini", "input": "Hello!"}).encode()
    with pytest.raises(AssertionError, match="reached"), attack.without_effect():
        attack.call("POST", "/v1/responses", body)
