"""What Alice made by real calls stays hers: in lists, when it is shared, when it is deleted, with its
children, and when others mention it in a file."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from openai_app.catalogue import Operation
from openai_app.owned.objects import MODEL
from openai_app.settlement.deferred import POLLER
from openai_app.tests.attacks import (
    OFFERED,
    Attack,
    forget,
    form,
    kinds_in,
    new_ids,
    record,
    recorded,
    request_of,
)
from openai_app.tests.harness import JSON, Answer, Caller, House

BETA = {**JSON, "OpenAI-Beta": "assistants=v2"}
HELLO = {"role": "user", "content": "Hello!"}
EXAMPLES = [{"messages": [HELLO, {"role": "assistant", "content": "Hi!"}]}] * 10
# What the simulator's account had before there was a gateway.
OPERATORS_MODEL = "ft:gpt-4o-mini-2024-07-18:tollgate::sim00001"
LISTS = [row for row in OFFERED if row.lists not in (None, MODEL)]


def rows(operations: list[Operation]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("row", operations, ids=[row.name for row in operations])


def post(caller: Caller, path: str, **fields: Any) -> Answer:
    return caller.call("POST", f"/v1/{path}", json.dumps(fields).encode(), BETA)


def made(caller: Caller, path: str, **fields: Any) -> Any:
    """What a call has made."""
    answer = post(caller, path, **fields)
    assert answer.status == 200, answer.body
    return answer.json


def uploaded(caller: Caller, content: bytes = b"{}", purpose: str = "user_data") -> str:
    body, headers = form({"purpose": purpose}, {"file": content})
    answer = caller.call("POST", "/v1/files", body, headers)
    assert answer.status == 200, answer.body
    return str(answer.json["id"])


def ids_in(caller: Caller, path: str) -> list[str]:
    answer = caller.call("GET", f"/v1/{path}", headers=BETA)
    assert answer.status == 200, answer.body
    return [element["id"] for element in answer.json["data"]]


def status_of(caller: Caller, method: str, path: str) -> int:
    return caller.call(method, f"/v1/{path}", headers=BETA).status


# --- Lists --------------------------------------------------------------------------------------------------


@rows(LISTS)
def test_a_list_shows_nobody_elses(row: Operation, gateway: House, alice: Caller, bob: Caller) -> None:
    assert row.lists is not None
    hers, his = [new_ids()[row.lists.name] for _ in range(3)], [new_ids()[row.lists.name] for _ in range(3)]
    for one in zip(hers, his, strict=True):
        for person, object_id in zip((alice, bob), one, strict=True):
            gateway.console.run(record, person.id, {row.lists.name: object_id})
    shown = bob.call("GET", f"/v1{row.path}")
    assert not any(object_id.encode() in shown.body for object_id in hers)
    if not row.lists.changes_by_itself:
        assert {each["id"] for each in shown.json["data"]} == set(his)
        assert ids_in(bob, f"{row.path[1:]}?order=desc&limit=1&after={his[2]}") == [his[1]]
        assert ids_in(bob, f"{row.path[1:]}?order=asc&limit=2") == his[:2]
    for name in ("after", "before"):
        foreign = bob.call("GET", f"/v1{row.path}?{name}={hers[1]}")
        nobodys = bob.call("GET", f"/v1{row.path}?{name}={hers[1][:-1]}")
        assert (foreign.status, foreign.json.keys()) == (404, {"error"})
        assert nobodys.body.decode() == foreign.body.decode().replace(hers[1], hers[1][:-1])


def test_a_list_is_narrowed_by_metadata_whatever_its_names_are(bob: Caller) -> None:
    for topic in ("a", "b"):
        made(bob, "assistants", model="gpt-4o-mini", metadata={"t__x": topic})
    assert len(ids_in(bob, "assistants?metadata[t__x]=a")) == 1
    for name in ("t__regex", "t__gt", "t__x__startswith", "id", "0", ""):
        assert ids_in(bob, f"assistants?metadata[{name}]=a") == []


def test_a_list_is_narrowed_by_a_model(bob: Caller) -> None:
    stored = made(bob, "chat/completions", model="gpt-4o-mini", messages=[HELLO], store=True)
    assert ids_in(bob, f"chat/completions?model={stored['model']}") == [stored["id"]]
    assert ids_in(bob, "chat/completions?model=gpt-4") == []


def test_null_characters_in_what_is_made_do_not_keep_it_from_being_listed(bob: Caller) -> None:
    assistant = made(bob, "assistants", model="gpt-4o-mini", instructions="a\0b")["id"]
    assert ids_in(bob, "assistants") == [assistant]


# --- Sharing ------------------------------------------------------------------------------------------------


@pytest.fixture
def shared(gateway: House, alice: Caller) -> Iterator[Attack]:
    """Alice's ids are shared."""
    attack = Attack(gateway, alice, gateway.caller(10**12), alices={})
    attack.alices = new_ids()
    gateway.console.run(record, alice.id, attack.alices, is_shared=True)
    yield attack
    attack.close()


def test_what_is_shared_is_read_and_used_but_not_changed(shared: Attack) -> None:
    reached = []
    for row in OFFERED:
        slots = {slot: shared.alices[kind.name] for slot, kind in kinds_in(row.path).items()}
        if not slots or (row.deletes is False and {"model", "engine_id"} & slots.keys()):
            continue
        body, headers = request_of(row)
        last = shared.house.simulator.control("GET", "journal?limit=1000000")["last"]
        answer = shared.call(row.method, "/v1" + row.path.format(**slots), body, headers)
        page = shared.house.simulator.control("GET", f"journal?after={last}&limit=1000000")
        calls = [call for call in page["calls"] if call["headers"].get("user-agent") != POLLER.decode()]
        if row.method == "GET" or row.only_reads:
            reached.append(row.name)
            assert calls, row.name
        else:
            assert answer.status == 404, row.name
            assert calls == [], row.name
    assert len(reached) > 40
    assert set(shared.house.console.run(recorded, shared.alice.id)) >= set(shared.alices.values())


@pytest.mark.parametrize("name", ["conversation", "container"])
def test_what_a_response_would_change_is_not_used_though_it_is_shared(shared: Attack, name: str) -> None:
    hers = shared.alices[name]
    fields = {"conversation": hers} if name == "conversation" else {}
    tools = [{"type": "code_interpreter", "container": hers}] if name == "container" else []
    body = json.dumps({"model": "gpt-4o-mini", "input": "Hi", "tools": tools, **fields}).encode()
    with shared.without_effect():
        assert not shared.refused("POST", "/v1/responses", body)


def test_a_shared_file_is_put_into_ones_own_vector_store_and_taken_out(
    gateway: House, alice: Caller, bob: Caller
) -> None:
    file_id = uploaded(alice)
    gateway.console.run(share, file_id)
    store = made(bob, "vector_stores", name="Bob's")["id"]
    made(bob, f"vector_stores/{store}/files", file_id=file_id)
    assert status_of(bob, "GET", f"vector_stores/{store}/files/{file_id}") == 200
    assert status_of(bob, "DELETE", f"vector_stores/{store}/files/{file_id}") == 200
    assert status_of(bob, "DELETE", f"files/{file_id}") == 404
    assert status_of(alice, "GET", f"files/{file_id}") == 200
    assert ids_in(bob, "files") == []


def share(object_id: str) -> None:
    from openai_app.models import UpstreamObject

    UpstreamObject.objects.filter(object_id=object_id).update(is_shared=True)


# --- Deleting, children -------------------------------------------------------------------------------------


def test_what_is_deleted_is_forgotten(gateway: House, alice: Caller, bob: Caller) -> None:
    file_id = uploaded(alice)
    assert status_of(bob, "DELETE", f"files/{file_id}") == 404
    assert ids_in(alice, "files") == [file_id]
    assert status_of(alice, "DELETE", f"files/{file_id}") == 200
    assert ids_in(alice, "files") == []
    assert status_of(alice, "GET", f"files/{file_id}") == 404
    assert file_id not in gateway.console.run(recorded, alice.id)


def test_a_file_that_is_taken_out_of_a_vector_store_is_still_ones_own(alice: Caller, bob: Caller) -> None:
    file_id = uploaded(alice)
    store = made(alice, "vector_stores", file_ids=[])["id"]
    made(alice, f"vector_stores/{store}/files", file_id=file_id)
    assert status_of(alice, "DELETE", f"vector_stores/{store}/files/{file_id}") == 200
    assert status_of(alice, "GET", f"files/{file_id}") == 200
    assert ids_in(alice, "files") == [file_id]
    assert status_of(bob, "GET", f"files/{file_id}") == 404


def test_what_cannot_be_deleted_upstream_is_not_forgotten(gateway: House, alice: Caller) -> None:
    file_id = uploaded(alice)
    gateway.simulator.fault("status=500", method="DELETE")
    assert status_of(alice, "DELETE", f"files/{file_id}") == 500
    assert ids_in(alice, "files") == [file_id]


def test_children_follow_their_parents(gateway: House, alice: Caller, bob: Caller) -> None:
    assistant = made(alice, "assistants", model="gpt-4o-mini")["id"]
    thread = made(alice, "threads", messages=[HELLO])["id"]
    message = made(alice, f"threads/{thread}/messages", **HELLO)["id"]
    run = made(alice, f"threads/{thread}/runs", assistant_id=assistant)["id"]
    gateway.simulator.finish(run)
    step = ids_in(alice, f"threads/{thread}/runs/{run}/steps")[0]
    others = [each for each in ids_in(alice, f"threads/{thread}/messages") if each != message]
    assert len(others) == 2
    mine = made(bob, "threads")["id"]
    for path in (f"messages/{message}", f"runs/{run}", f"runs/{run}/steps/{step}", f"messages/{others[0]}"):
        assert status_of(alice, "GET", f"threads/{thread}/{path}") == 200
        assert status_of(bob, "GET", f"threads/{thread}/{path}") == 404
        assert status_of(bob, "GET", f"threads/{mine}/{path}") == 404
        assert status_of(bob, "POST", f"threads/{mine}/{path}") in (404, 405)
    assert status_of(bob, "POST", f"threads/{thread}/runs/{run}/cancel") == 404
    assert post(bob, f"threads/{mine}/runs", assistant_id=assistant).status == 404
    assert bob.charges() == []


# --- Items and turns ----------------------------------------------------------------------------------------


def test_turns_and_items_of_anothers_are_not_gone_on_with(gateway: House, alice: Caller, bob: Caller) -> None:
    conversation = made(alice, "conversations", items=[{"type": "message", **HELLO}])["id"]
    response = made(alice, "responses", model="gpt-4o-mini", input="A secret", conversation=conversation)
    items = [item["id"] for item in response["output"]]
    items += ids_in(alice, f"conversations/{conversation}/items")
    items += ids_in(alice, f"responses/{response['id']}/input_items")
    assert len(set(items)) >= 3
    requests: list[dict[str, Any]] = [
        {"previous_response_id": response["id"]},
        {"conversation": conversation},
        {"conversation": {"id": conversation}},
        *({"input": [{"type": "item_reference", "id": item}]} for item in items),
        *({"input": [{"id": item}]} for item in items),
        {"input": [{"type": "item_reference", "id": "msg_" + "0" * 48}]},
    ]
    gateway.simulator.control("DELETE", "journal")
    for request in requests:
        for path in ("responses", "responses/input_tokens", "responses/compact"):
            assert post(bob, path, **{"model": "gpt-4o-mini", "input": "Hi", **request}).status == 404, (
                request
            )
    assert gateway.journal() == []
    assert bob.charges() == []
    for request in requests[:-1]:
        if "conversation" not in request:
            answer = post(alice, "responses", **{"model": "gpt-4o-mini", "input": "Hi", **request})
            assert answer.status == 200, (request, answer.body)


# --- What a file mentions -----------------------------------------------------------------------------------


def line(**body: Any) -> bytes:
    return json.dumps({"custom_id": "1", "method": "POST", "url": "/v1/responses", "body": body}).encode()


def test_a_batch_of_requests_that_mention_anothers_is_not_begun(
    gateway: House, alice: Caller, bob: Caller
) -> None:
    hers = uploaded(alice)
    plain = line(model="gpt-4o-mini", input="Hi")
    secret = line(
        model="gpt-4o-mini", input=[{"role": "user", "content": [{"type": "input_file", "file_id": hers}]}]
    )
    escaped = "".join(f"\\u{ord(character):04x}" for character in hers).encode()
    files = [
        secret,
        plain + b"\n" + secret + b"\n" + plain + b"\n",
        plain + b"\n\n" + secret.replace(hers.encode(), escaped).replace(b"file_id", b"file\\u005fid"),
        secret.replace(b', "url"', b',\r"url"'),
        secret.replace(b'"Hi"', b'"\\ud800"').replace(b'"role"', b'"a": NaN, "role"'),
        secret.replace(b'"method"', b'"body": {}, "method"') + b"\n",
    ]
    for content in files:
        file_id = uploaded(bob, content, "batch")
        begun = post(bob, "batches", input_file_id=file_id, endpoint="/v1/responses", completion_window="24h")
        assert begun.status in (400, 404), content
        assert begun.error["type"] == "invalid_request_error"
    assert not [call for call in gateway.journal() if call["path"] == "/v1/batches"]
    assert bob.account()["held"] == 0
    file_id = uploaded(bob, plain + b"\n" + plain, "batch")
    made(bob, "batches", input_file_id=file_id, endpoint="/v1/responses", completion_window="24h")


# --- Models -------------------------------------------------------------------------------------------------


def test_a_model_that_alice_had_fine_tuned_is_hers(gateway: House, alice: Caller, bob: Caller) -> None:
    training = uploaded(alice, b"\n".join(json.dumps(each).encode() for each in EXAMPLES), "fine-tune")
    job = made(alice, "fine_tuning/jobs", model="gpt-4o-mini-2024-07-18", training_file=training)["id"]
    gateway.simulator.finish(job)
    model = alice.call("GET", f"/v1/fine_tuning/jobs/{job}").json["fine_tuned_model"]
    assert model in ids_in(alice, "models")
    assert model not in ids_in(bob, "models")
    assert model not in ids_in(bob, "engines")
    gateway.simulator.control("DELETE", "journal")
    assert status_of(bob, "GET", f"models/{model}") == 404
    assert status_of(bob, "DELETE", f"models/{model}") == 404
    assert post(bob, "chat/completions", model=model, messages=[HELLO]).status == 404
    assert post(bob, f"engines/{model}/completions", prompt="Hi").status == 404
    assert post(bob, "assistants", model=model).status == 404
    assert gateway.journal() == []
    assert post(alice, "chat/completions", model=model, messages=[HELLO]).status == 200
    assert status_of(alice, "DELETE", f"models/{model}") == 200


def test_a_tuned_model_whose_jobs_end_nobody_has_seen_yet_is_shown_to_nobody_and_then_its_owners(
    gateway: House, alice: Caller, bob: Caller
) -> None:
    training = uploaded(alice, b"\n".join(json.dumps(each).encode() for each in EXAMPLES), "fine-tune")
    job = made(alice, "fine_tuning/jobs", model="gpt-4o-mini-2024-07-18", training_file=training)["id"]
    olga = gateway.caller(0, name="olga", is_superuser=True)
    before = set(ids_in(olga, "models"))
    gateway.simulator.finish(job)
    (model,) = set(ids_in(olga, "models")) - before
    assert model not in ids_in(bob, "models")
    assert status_of(bob, "DELETE", f"models/{model}") == 404
    assert alice.call("GET", f"/v1/fine_tuning/jobs/{job}").json["fine_tuned_model"] == model
    # From the moment that anybody can know its name.
    assert status_of(bob, "GET", f"models/{model}") == 404
    assert post(bob, "chat/completions", model=model, messages=[HELLO]).status == 404
    assert post(bob, "assistants", model=model).status == 404
    assert post(bob, "responses", model="gpt-4o-mini", input="Hi!", field_of_2027={"by": model}).status == 404
    assert post(alice, "chat/completions", model=model, messages=[HELLO]).status == 200


@pytest.fixture
def shared_model(gateway: House) -> Iterator[str]:
    """A tuned model that the operator gave to all users."""
    olga = gateway.caller(0, name="olga", is_superuser=True)
    gateway.console.run(record, olga.id, {"model": OPERATORS_MODEL}, is_shared=True)
    yield OPERATORS_MODEL
    gateway.console.run(forget, OPERATORS_MODEL)


def test_a_tuned_model_that_nobody_here_made_is_used_by_all_and_listed_and_deleted_by_none(
    gateway: House, alice: Caller
) -> None:
    olga = gateway.caller(0, name="olga", is_superuser=True)
    assert OPERATORS_MODEL in ids_in(olga, "models")
    assert OPERATORS_MODEL not in ids_in(alice, "models")
    assert alice.chat(model=OPERATORS_MODEL).status == 200
    assert status_of(alice, "GET", f"models/{OPERATORS_MODEL}") == 200
    assert status_of(alice, "DELETE", f"models/{OPERATORS_MODEL}") == 404


def test_a_tuned_model_that_the_operator_shares_is_used_by_all_and_deleted_by_none(
    alice: Caller, shared_model: str
) -> None:
    assert shared_model in ids_in(alice, "models")
    assert alice.chat(model=shared_model).status == 200
    assert status_of(alice, "DELETE", f"models/{shared_model}") == 404
