"""What is part of something goes with it: whoever has or may read a thread, has or reads its messages."""

import json
from typing import Any

import pytest

from openai_app.catalogue import match
from openai_app.owned.made import new_objects
from openai_app.tests.attacks import record, recorded
from openai_app.tests.deferred_work import ASSISTANTS, MODEL, begin_job, get, new_thread, post, upload
from openai_app.tests.harness import HELLO, Answer, Caller, House

SAID = {"role": "user", "content": "Hello!"}


# --- In the gateway's database, by the console ----------------------------------------------------------


def share(object_id: str) -> None:
    from openai_app.models import UpstreamObject

    UpstreamObject.objects.filter(object_id=object_id).update(is_shared=True)


def give(object_id: str, owner_id: int) -> None:
    from openai_app.models import UpstreamObject

    UpstreamObject.objects.filter(object_id=object_id).update(owner_id=owner_id)


def orphan(object_id: str) -> None:
    """As it was recorded before anybody asked for its parent."""
    from openai_app.models import UpstreamObject

    UpstreamObject.objects.filter(object_id=object_id).update(parent_id=None)


def parents(owner_id: int) -> dict[str, str | None]:
    """Of all that a user has, what it is part of."""
    from openai_app.models import UpstreamObject

    return dict(UpstreamObject.objects.filter(owner_id=owner_id).values_list("object_id", "parent_id"))


def queries_to_find(*object_ids: str) -> int:
    """How often the database is asked for what a call speaks of."""
    from django.db import connection

    from openai_app.owned.records import _find

    connection.force_debug_cursor = True
    connection.queries_log.clear()
    assert len(_find(object_ids)) == len(object_ids)
    return len(connection.queries)


# --- What is called -------------------------------------------------------------------------------------


def call(caller: Caller, method: str, path: str, **fields: Any) -> Answer:
    body = json.dumps(fields).encode() if fields else None
    return caller.call(method, f"/v1{path}", body, ASSISTANTS)


def status_of(caller: Caller, path: str) -> int:
    return call(caller, "GET", path).status


def ids(caller: Caller, path: str) -> list[str]:
    return [one["id"] for one in get(caller, path)["data"]]


def assert_refused(house: House, caller: Caller, *paths: str) -> None:
    """None of them is there for the caller, and OpenAI hears of none."""
    house.simulator.control("DELETE", "journal")
    for path in paths:
        assert status_of(caller, path) == 404, path
    assert house.journal() == []


def thread_of(house: House, caller: Caller) -> tuple[str, list[str]]:
    """A thread with a run that has ended, and the paths of its children."""
    thread, assistant = new_thread(caller)
    message = post(caller, f"/threads/{thread}/messages", **SAID)["id"]
    run = post(caller, f"/threads/{thread}/runs", assistant_id=assistant)["id"]
    house.simulator.finish(run)
    messages = ids(caller, f"/threads/{thread}/messages")
    assert message in messages
    steps = ids(caller, f"/threads/{thread}/runs/{run}/steps")
    paths = [f"/messages/{each}" for each in messages] + [f"/runs/{run}", f"/runs/{run}/steps/{steps[0]}"]
    return thread, [f"/threads/{thread}{path}" for path in paths]


# --- Shared, handed over --------------------------------------------------------------------------------


def test_children_of_a_shared_thread_are_read_by_all_and_changed_by_its_owner(
    gateway: House, alice: Caller, bob: Caller
) -> None:
    thread, paths = thread_of(gateway, alice)
    assert_refused(gateway, bob, *paths)
    gateway.console.run(share, thread)
    for path in paths:
        assert status_of(bob, path) == 200, path
        if "/steps/" not in path:
            assert call(bob, "POST", path, metadata={"a": "b"}).status == 404
            assert call(alice, "POST", path, metadata={"a": "b"}).status == 200
    assert call(bob, "POST", f"/threads/{thread}/messages", **SAID).status == 404
    assert gateway.console.run(recorded, bob.id) == {}


def test_children_of_a_thread_that_is_handed_over_are_the_new_owners_alone(
    gateway: House, alice: Caller, bob: Caller
) -> None:
    thread, paths = thread_of(gateway, alice)
    gateway.console.run(give, thread, bob.id)
    assert_refused(gateway, alice, *paths)
    for path in paths:
        assert status_of(bob, path) == 200, path
    assert call(bob, "POST", paths[0], metadata={"a": "b"}).status == 200
    assert call(bob, "DELETE", paths[0]).status == 200


def test_what_is_read_of_a_shared_thread_is_recorded_for_its_owner(
    gateway: House, alice: Caller, bob: Caller
) -> None:
    thread, assistant = new_thread(alice)
    run = post(alice, f"/threads/{thread}/runs", assistant_id=assistant)["id"]
    gateway.simulator.finish(run)
    gateway.console.run(share, thread)
    messages = ids(bob, f"/threads/{thread}/messages")
    steps = ids(gateway.caller(is_superuser=True), f"/threads/{thread}/runs/{run}/steps")
    assert gateway.console.run(recorded, bob.id) == {}
    hers = gateway.console.run(parents, alice.id)
    assert {hers[each] for each in messages} == {thread}
    assert [hers[each] for each in steps] == [run]


def test_an_item_by_its_id_alone_goes_with_its_conversation(
    gateway: House, alice: Caller, bob: Caller
) -> None:
    talk = post(alice, "/conversations", items=[{"type": "message", **SAID}])["id"]
    said = post(alice, "/responses", model=MODEL, input="A secret", conversation=talk)["output"][0]["id"]
    alone = post(alice, "/responses", model=MODEL, input="Another")
    items = [*ids(alice, f"/conversations/{talk}/items"), said]
    other = alone["output"][0]["id"]

    def referring(caller: Caller, item: str) -> int:
        asked = {"model": MODEL, "input": [{"type": "item_reference", "id": item}]}
        return call(caller, "POST", "/responses", **asked).status

    assert {referring(bob, item) for item in (*items, other)} == {404}
    gateway.console.run(give, talk, bob.id)
    assert {referring(bob, item) for item in items} == {200}
    assert {referring(alice, item) for item in items} == {404}
    assert {status_of(bob, f"/conversations/{talk}/items/{item}") for item in items} == {200}
    assert (referring(alice, other), referring(bob, other)) == (200, 404)
    gateway.console.run(share, alone["id"])
    assert referring(bob, other) == 200


def test_a_child_is_found_under_its_own_parent_only(gateway: House, alice: Caller) -> None:
    _, paths = thread_of(gateway, alice)
    other, other_paths = thread_of(gateway, alice)
    run = other_paths[-1].split("/")[4]
    _, _, _, kind, child, *rest = paths[-1].split("/")
    wrong = [f"/threads/{other}/" + "/".join(path.split("/")[3:]) for path in paths]
    assert_refused(gateway, alice, *wrong, f"/threads/{other}/runs/{run}/" + "/".join(rest))
    assert (kind, status_of(alice, f"/threads/{other}/runs/{child}")) == ("runs", 404)


def test_what_is_recorded_without_a_parent_is_its_makers_as_before(
    gateway: House, alice: Caller, bob: Caller
) -> None:
    thread, _ = new_thread(alice)
    message = post(alice, f"/threads/{thread}/messages", **SAID)["id"]
    gateway.console.run(orphan, message)
    assert status_of(alice, f"/threads/{thread}/messages/{message}") == 200
    assert_refused(gateway, bob, f"/threads/{post(bob, '/threads')['id']}/messages/{message}")


def test_whose_a_child_is_takes_one_question_more_at_most(gateway: House, alice: Caller) -> None:
    thread, paths = thread_of(gateway, alice)
    _, _, _, _, run, _, step = paths[-1].split("/")
    message = paths[0].split("/")[-1]
    assert gateway.console.run(queries_to_find, thread) == 1
    assert gateway.console.run(queries_to_find, thread, run, step) == 1
    assert gateway.console.run(queries_to_find, message) == 2


# --- Files in a vector store ----------------------------------------------------------------------------


def store_of(caller: Caller) -> tuple[str, str]:
    file_id = upload(caller, b"The lessons.", "assistants", "lessons.txt")
    store = post(caller, "/vector_stores", name="Lessons")["id"]
    post(caller, f"/vector_stores/{store}/files", file_id=file_id)
    return store, file_id


@pytest.mark.parametrize("change", ["shared", "handed over"])
def test_files_in_a_vector_store_go_with_it_and_not_with_their_uploader(
    gateway: House, alice: Caller, bob: Caller, change: str
) -> None:
    store, file_id = store_of(alice)
    batch = post(alice, f"/vector_stores/{store}/file_batches", file_ids=[file_id])["id"]
    inside = f"/vector_stores/{store}/files/{file_id}"
    paths = [inside, f"{inside}/content", f"/vector_stores/{store}/file_batches/{batch}"]
    assert_refused(gateway, bob, *paths)
    if change == "shared":
        gateway.console.run(share, store)
    else:
        gateway.console.run(give, store, bob.id)
    assert [status_of(bob, path) for path in paths] == [200] * 3
    # The file itself is hers, and goes into no other store.
    his = post(bob, "/vector_stores", name="His")["id"]
    assert_refused(gateway, bob, f"/files/{file_id}", f"/vector_stores/{his}/files/{file_id}")
    assert call(bob, "POST", f"/vector_stores/{his}/files", file_id=file_id).status == 404
    expected = 404 if change == "shared" else 200
    assert call(bob, "DELETE", inside).status == expected
    assert status_of(alice, f"/files/{file_id}") == 200


def test_a_file_may_be_in_stores_of_several_owners(gateway: House, alice: Caller, bob: Caller) -> None:
    store, file_id = store_of(alice)
    gateway.console.run(share, file_id)
    his = post(bob, "/vector_stores", file_ids=[file_id])["id"]
    assert ids(bob, f"/vector_stores/{his}/files") == [file_id]
    assert status_of(bob, f"/vector_stores/{his}/files/{file_id}") == 200
    assert_refused(gateway, bob, f"/vector_stores/{store}/files/{file_id}")
    assert gateway.console.run(recorded, alice.id)[file_id] == "file"
    assert call(bob, "DELETE", f"/vector_stores/{his}/files/{file_id}").status == 200
    assert f"{his}/{file_id}" not in gateway.console.run(recorded, bob.id)
    assert status_of(alice, f"/vector_stores/{store}/files/{file_id}") == 200


# --- Children that nobody made by a call ----------------------------------------------------------------


def test_messages_and_steps_of_a_run_that_was_not_streamed_are_hidden_once_they_were_seen(
    gateway: House, alice: Caller, bob: Caller
) -> None:
    _, paths = thread_of(gateway, alice)
    his, his_paths = thread_of(gateway, bob)
    run = his_paths[-1].split("/")[4]
    step = paths[-1].split("/")[-1]
    moved = [f"/threads/{his}/" + "/".join(path.split("/")[3:]) for path in paths]
    assert_refused(gateway, bob, *moved, f"/threads/{his}/runs/{run}/steps/{step}")


def test_outputs_of_an_evaluation_are_hidden_once_they_were_seen(
    gateway: House, alice: Caller, bob: Caller
) -> None:
    outputs = {}
    for caller in (alice, bob):
        config = {"type": "custom", "item_schema": {"type": "object", "properties": {}}}
        made = post(caller, "/evals", name="Sums", data_source_config=config, testing_criteria=[])["id"]
        content = [{"item": {"answer": "4"}, "sample": {"output_text": "4"}}]
        source = {"type": "jsonl", "source": {"type": "file_content", "content": content}}
        run = post(caller, f"/evals/{made}/runs", data_source=source)["id"]
        gateway.simulator.finish(run)
        path = f"/evals/{made}/runs/{run}/output_items"
        outputs[caller.id] = path, ids(caller, path)
    (hers, items), (his, _) = outputs[alice.id], outputs[bob.id]
    assert items
    assert status_of(alice, f"{hers}/{items[0]}") == 200
    assert_refused(gateway, bob, f"{his}/{items[0]}")


def test_files_in_a_container_are_hidden_once_they_were_seen(
    gateway: House, alice: Caller, bob: Caller
) -> None:
    box = post(alice, "/containers", name="Hers")["id"]
    file_id = upload(alice, b"1", "user_data")
    inside = post(alice, f"/containers/{box}/files", file_id=file_id)["id"]
    gateway.console.run(forget_row, inside)
    assert ids(alice, f"/containers/{box}/files") == [inside]
    his = post(bob, "/containers", name="His")["id"]
    assert_refused(gateway, bob, f"/containers/{his}/files/{inside}")
    assert gateway.console.run(parents, alice.id)[inside] == box
    gateway.console.run(give, box, bob.id)
    assert status_of(bob, f"/containers/{box}/files/{inside}") == 200


def forget_row(object_id: str) -> None:
    """As if the code interpreter had made it; for the console."""
    from openai_app.models import UpstreamObject

    UpstreamObject.objects.filter(object_id=object_id).delete()


def test_a_file_that_a_response_cites_is_its_containers() -> None:
    note = {"type": "container_file_citation", "container_id": "cntr_1", "file_id": "cfile_1"}
    other = {"type": "file_citation", "file_id": "file-1"}
    part = {"type": "output_text", "text": "See it.", "annotations": [note, other]}
    message = {"type": "message", "id": "msg_abcdef", "content": [part]}
    answer = {"id": "resp_1", "object": "response", "conversation": {"id": "conv_1"}, "output": [message]}
    operation, _ = match("POST", "/responses")
    found = {(new.object_id, new.kind, new.parent_id) for new in new_objects(operation, {}, answer)}
    assert found == {
        ("resp_1", "response", None),
        ("msg_abcdef", "item", "conv_1"),
        ("cfile_1", "container_file", "cntr_1"),
    }


def test_a_child_that_nobody_has_seen_is_looked_for_under_ones_own_parent(
    gateway: House, alice: Caller
) -> None:
    thread, assistant = new_thread(alice)
    run = post(alice, f"/threads/{thread}/runs", assistant_id=assistant)["id"]
    gateway.simulator.finish(run)
    messages = json.loads(json.dumps(get(alice, f"/threads/{thread}/messages")["data"]))
    gateway.console.run(forget_row, messages[0]["id"])
    path = f"/threads/{thread}/messages/{messages[0]['id']}"
    assert get(alice, path)["id"] == messages[0]["id"]
    # Read once, it is recorded.
    assert gateway.console.run(parents, alice.id)[messages[0]["id"]] == thread


# --- Tuned models ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["job", "job by the operator", "list", "events", "checkpoints"])
def test_a_tuned_model_is_its_owners_whichever_way_its_job_was_seen_to_end(
    gateway: House, alice: Caller, bob: Caller, way: str
) -> None:
    job = begin_job(alice)
    gateway.simulator.finish(job)
    olga = gateway.caller(is_superuser=True)
    path = f"/fine_tuning/jobs/{job}"
    told = {
        "job": lambda: get(alice, path),
        "job by the operator": lambda: get(olga, path),
        "list": lambda: get(alice, "/fine_tuning/jobs"),
        "events": lambda: get(alice, f"{path}/events"),
        "checkpoints": lambda: get(alice, f"{path}/checkpoints"),
    }[way]()
    models = [name for name, kind in gateway.console.run(recorded, alice.id).items() if kind == "model"]
    assert models
    assert all(model in json.dumps(told) for model in models)
    for model in models:
        assert_refused(gateway, bob, f"/models/{model}")
        asked = {"model": model, "messages": HELLO}
        assert call(bob, "POST", "/chat/completions", **asked).status == 404
        assert call(bob, "DELETE", f"/models/{model}").status == 404


def test_the_settlers_own_look_at_a_job_records_its_model(gateway: House, alice: Caller) -> None:
    gateway.simulator.finish(begin_job(alice))
    alice.settled()
    assert "model" in gateway.console.run(recorded, alice.id).values()


def test_a_tuned_model_that_is_recorded_for_somebody_is_that_ones_alone(
    gateway: House, alice: Caller, bob: Caller
) -> None:
    model = "ft:gpt-4o-mini-2024-07-18:acme::hers0001"
    asked = {"model": model, "messages": HELLO}
    gateway.console.run(record, alice.id, {"model": model})
    assert call(bob, "POST", "/chat/completions", **asked).status == 404
    assert gateway.journal() == []
