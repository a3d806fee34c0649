"""Lists: one's own things alone, paged and narrowed as OpenAI does; what others have costs nothing."""

import json
from collections.abc import Callable
from typing import Any
from urllib.request import Request, urlopen

import pytest

from openai_app.tests.attacks import record
from openai_app.tests.deferred_work import (
    BEGIN,
    MODEL,
    begin_batch,
    begin_job,
    get,
    new_thread,
    post,
    upload,
)
from openai_app.tests.harness import HELLO, Caller, House

OTHERS = 2_000


def ids(caller: Caller, path: str) -> list[str]:
    return [one["id"] for one in get(caller, path)["data"]]


def files(caller: Caller, count: int, purpose: str = "user_data") -> list[str]:
    return [upload(caller, b"{}\n", purpose, f"{number}.jsonl") for number in range(count)]


def assistants(caller: Caller, count: int) -> list[str]:
    return [
        str(post(caller, "/assistants", model=MODEL, name=f"Tutor {number}")["id"]) for number in range(count)
    ]


def chats(caller: Caller, count: int) -> list[str]:
    made = [post(caller, "/chat/completions", model=MODEL, messages=HELLO, store=True) for _ in range(count)]
    return [one["id"] for one in made]


def evals(caller: Caller, count: int) -> list[str]:
    config = {"type": "custom", "item_schema": {"type": "object", "properties": {}}}
    return [
        str(post(caller, "/evals", name="Sums", data_source_config=config, testing_criteria=[])["id"])
        for _ in range(count)
    ]


def vector_stores(caller: Caller, count: int) -> list[str]:
    return [str(post(caller, "/vector_stores", name=f"Store {number}")["id"]) for number in range(count)]


def containers(caller: Caller, count: int) -> list[str]:
    return [str(post(caller, "/containers", name=f"Box {number}")["id"]) for number in range(count)]


def jobs(caller: Caller, count: int) -> list[str]:
    return [begin_job(caller) for _ in range(count)]


def batches(caller: Caller, count: int) -> list[str]:
    return [begin_batch(caller) for _ in range(count)]


Make = Callable[[Caller, int], list[str]]
#: How things of the list are made, and whether the oldest come first when nothing is said.
LISTS: dict[str, tuple[Make, bool]] = {
    "/files": (files, False),
    "/assistants": (assistants, False),
    "/chat/completions": (chats, True),
    "/evals": (evals, True),
    "/vector_stores": (vector_stores, False),
    "/containers": (containers, False),
    "/fine_tuning/jobs": (jobs, False),
    "/batches": (batches, False),
}
lists = pytest.mark.parametrize("path", LISTS)


@pytest.fixture
def alice(gateway: House) -> Caller:
    return gateway.caller(10_000_000, name="alice")


@lists
def test_a_list_shows_ones_own_in_openais_order_and_form(gateway: House, alice: Caller, path: str) -> None:
    make, is_ascending = LISTS[path]
    hers = make(alice, 2)
    bob = gateway.caller(1_000_000)
    his = make(bob, 1)
    hers += make(alice, 1)
    assert ids(alice, path) == (hers if is_ascending else hers[::-1])
    assert ids(bob, path) == his
    assert ids(gateway.caller(), path) == []
    # What OpenAI says of the same things, to who asks with its own key.
    told, shown = direct(gateway, path), get(alice, path)
    assert shown.keys() == told.keys()
    assert shown["object"] == "list"
    assert shown["has_more"] is False
    by_id = {one["id"]: one for one in told["data"]}
    changing = {"status", "last_active_at", "file_counts"}
    for one in shown["data"]:
        known = by_id[one["id"]]
        assert {name: one[name] for name in one.keys() - changing} == {
            name: known[name] for name in known.keys() - changing
        }


def past_the_gateway(house: House, path: str) -> bytes:
    """What the simulator answers to who asks it by itself."""
    request = Request(house.simulator.base_url + path, headers={"Authorization": "Bearer any"})
    with urlopen(request) as answer:
        body: bytes = answer.read()
        return body


def direct(house: House, path: str) -> Any:
    """The list of all that everybody has."""
    return json.loads(past_the_gateway(house, f"{path}?limit=100"))


@lists
def test_a_list_is_read_page_by_page(gateway: House, alice: Caller, path: str) -> None:
    make, _ = LISTS[path]
    made = make(alice, 5)
    make(gateway.caller(1_000_000), 1)
    for order, expected in (("asc", made), ("desc", made[::-1])):
        first = get(alice, f"{path}?limit=2&order={order}")
        assert [one["id"] for one in first["data"]] == expected[:2]
        assert first["has_more"] is True
        if "last_id" in first:
            assert (first["first_id"], first["last_id"]) == (expected[0], expected[1])
        second = get(alice, f"{path}?limit=2&order={order}&after={expected[1]}")
        assert [one["id"] for one in second["data"]] == expected[2:4]
        last = get(alice, f"{path}?limit=2&order={order}&after={expected[3]}")
        assert ([one["id"] for one in last["data"]], last["has_more"]) == (expected[4:], False)
        assert ids(alice, f"{path}?order={order}&before={expected[2]}") == expected[:2]


@pytest.mark.parametrize("query", ["limit=0", "limit=-1", "limit=many", "limit=10001", "order=up"])
def test_a_query_that_means_nothing_is_refused(alice: Caller, query: str) -> None:
    answer = alice.call("GET", f"/v1/files?{query}")
    assert answer.status == 400
    assert answer.error["param"] == query.partition("=")[0]


@pytest.mark.parametrize("name", ["after", "before"])
@pytest.mark.parametrize("order", ["asc", "desc"])
def test_what_is_not_there_is_no_place_to_go_on_from(
    gateway: House, alice: Caller, bob: Caller, name: str, order: str
) -> None:
    files(alice, 2)
    (his,) = files(bob, 1)
    for cursor in (his, "file-nobodysatall", "nonsense"):
        answer = alice.call("GET", f"/v1/files?order={order}&{name}={cursor}")
        assert answer.status == 404
        assert answer.error["message"] == f"No such File object: {cursor}"


def test_all_files_are_listed_when_no_limit_is_asked_for(alice: Caller) -> None:
    made = files(alice, 25)
    assert ids(alice, "/files") == made[::-1]
    assert ids(alice, "/files?limit=3") == made[::-1][:3]


@pytest.mark.filterwarnings("ignore:deprecated:DeprecationWarning")
def test_the_official_client_pages_through_by_itself(gateway: House, alice: Caller) -> None:
    made = assistants(alice, 25)
    uploaded = files(alice, 7)
    begun = jobs(alice, 5)
    with alice.client() as client:
        assert [one.id for one in client.beta.assistants.list(limit=10)] == made[::-1]
        assert [one.id for one in client.beta.assistants.list(order="asc", limit=4)] == made
        assert [one.id for one in client.files.list(limit=3, order="asc")][:7] == uploaded
        assert [one.id for one in client.fine_tuning.jobs.list(limit=2)] == begun[::-1]
        page = client.beta.assistants.list(limit=10)
        assert page.has_next_page()
        assert not page.get_next_page().get_next_page().has_next_page()


# --- Filters --------------------------------------------------------------------------------------------


def test_files_are_narrowed_by_purpose(alice: Caller) -> None:
    for_training, for_users = files(alice, 3, "fine-tune"), files(alice, 2)
    assert ids(alice, "/files?purpose=fine-tune") == for_training[::-1]
    assert ids(alice, "/files?purpose=user_data") == for_users[::-1]
    assert ids(alice, "/files?purpose=fine-tune&limit=1&order=asc") == for_training[:1]
    assert ids(alice, "/files?purpose=vision") == []


def test_files_that_nobody_has_looked_at_yet_are_narrowed_too(gateway: House, alice: Caller) -> None:
    begin_batch(alice)
    gateway.simulator.finish()
    alice.settled()
    (output,) = get(alice, "/files?purpose=batch_output")["data"]
    assert output["purpose"] == "batch_output"
    assert len(get(alice, "/files?purpose=batch")["data"]) == 1


def test_stored_chats_are_narrowed_by_metadata_and_model(alice: Caller) -> None:
    made = {}
    for model, topic in ((MODEL, "a"), ("gpt-4o", "a"), (MODEL, "b")):
        chat = post(
            alice, "/chat/completions", model=model, messages=HELLO, store=True, metadata={"topic": topic}
        )
        made[model, topic] = chat["id"]
    assert ids(alice, "/chat/completions?metadata[topic]=a") == [made[MODEL, "a"], made["gpt-4o", "a"]]
    assert ids(alice, "/chat/completions?metadata%5Btopic%5D=b") == [made[MODEL, "b"]]
    assert ids(alice, "/chat/completions?metadata[topic]=c") == []
    assert ids(alice, "/chat/completions?metadata[none]=a") == []
    both = ids(alice, "/chat/completions?metadata[topic]=a&limit=1&order=desc")
    assert both == [made["gpt-4o", "a"]]


def test_a_chat_that_was_streamed_is_listed_as_it_is_stored(gateway: House, alice: Caller) -> None:
    fields = {"model": MODEL, "messages": HELLO, "store": True, "stream": True, "metadata": {"topic": "a"}}
    answer = alice.call("POST", "/v1/chat/completions", json.dumps(fields).encode())
    assert answer.status == 200
    (shown,) = get(alice, "/chat/completions?metadata[topic]=a")["data"]
    assert shown["object"] == "chat.completion"
    assert shown["usage"]


def test_jobs_are_narrowed_by_metadata(alice: Caller) -> None:
    made = [
        post(
            alice,
            "/fine_tuning/jobs",
            model="gpt-4o-mini-2024-07-18",
            training_file=upload(alice, b'{"messages": []}\n', "fine-tune"),
            metadata={"team": team},
        )["id"]
        for team in ("red", "blue")
    ]
    assert ids(alice, "/fine_tuning/jobs?metadata[team]=red") == made[:1]


def test_jobs_without_metadata_are_asked_for_by_null(alice: Caller) -> None:
    plain = [begin_job(alice), begin_job(alice)]
    for metadata in ({"team": "red"}, {}):
        job = post(
            alice,
            "/fine_tuning/jobs",
            model="gpt-4o-mini-2024-07-18",
            training_file=upload(alice, b'{"messages": []}\n', "fine-tune"),
            metadata=metadata,
        )
        plain += [] if metadata else [job["id"]]
    assert len(ids(alice, "/fine_tuning/jobs")) == 4
    assert ids(alice, "/fine_tuning/jobs?metadata=null") == plain[::-1]


@pytest.mark.parametrize("path", ["/videos", "/skills", "/chatkit/threads"])
def test_a_list_of_none_is_one_where_openai_takes_it_for_one(
    gateway: House, alice: Caller, path: str
) -> None:
    assert get(alice, f"{path}?limit=0")["data"] == []
    kind = {"/videos": "video", "/skills": "skill"}.get(path, "chatkit_thread")
    gateway.console.run(record, alice.id, {kind: f"{kind}_1"})
    page = get(alice, f"{path}?limit=0")
    assert (page["data"], page["has_more"]) == ([], True)
    for limit in ("-1", "many", "101"):
        assert alice.call("GET", f"/v1{path}?limit={limit}").status == 400


# --- What changes ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "path"),
    [("batch", "/batches"), ("fine_tuning.job", "/fine_tuning/jobs"), ("video", "/videos")],
)
def test_what_is_under_way_is_shown_as_it_is_now(gateway: House, alice: Caller, kind: str, path: str) -> None:
    work = BEGIN[kind](alice)
    gateway.simulator.finish()
    (shown,) = get(alice, path)["data"]
    assert shown["id"] == work
    assert shown["status"] in ("completed", "succeeded")
    assert shown == next(one for one in direct(gateway, path)["data"] if one["id"] == work)
    # And what has ended is not asked after again.
    before = len(gateway.journal())
    assert get(alice, path)["data"] == [shown]
    assert len(gateway.journal()) == before


def test_the_output_of_a_batch_that_only_a_list_has_shown_can_be_read(gateway: House, alice: Caller) -> None:
    begin_batch(alice)
    gateway.simulator.finish()
    (batch,) = get(alice, "/batches")["data"]
    assert alice.call("GET", f"/v1/files/{batch['output_file_id']}/content").status == 200


def test_what_is_changed_is_shown_changed(alice: Caller) -> None:
    (assistant,) = assistants(alice, 1)
    post(alice, f"/assistants/{assistant}", name="Coach")
    assert [one["name"] for one in get(alice, "/assistants")["data"]] == ["Coach"]
    (chat,) = chats(alice, 1)
    post(alice, f"/chat/completions/{chat}", metadata={"topic": "greeting"})
    assert ids(alice, "/chat/completions?metadata[topic]=greeting") == [chat]
    thread, _ = new_thread(alice)
    assert ids(alice, "/threads") == [thread]
    post(alice, f"/threads/{thread}", metadata={"topic": "greeting"})
    assert [one["metadata"] for one in get(alice, "/threads")["data"]] == [{"topic": "greeting"}]


@pytest.mark.parametrize("path", ["/files", "/assistants", "/chat/completions", "/vector_stores"])
def test_what_is_deleted_vanishes(alice: Caller, path: str) -> None:
    made = LISTS[path][0](alice, 3)
    assert alice.call("DELETE", f"/v1{path}/{made[1]}").status == 200
    assert sorted(ids(alice, path)) == sorted([made[0], made[2]])
    assert alice.call("GET", f"/v1{path}/{made[1]}").status == 404


def test_what_the_operator_deleted_at_openai_vanishes_once_it_is_missed(
    gateway: House, alice: Caller
) -> None:
    made = vector_stores(alice, 2)
    gateway.simulator.control("DELETE", "objects")
    assert ids(alice, "/vector_stores") == []
    assert alice.call("GET", f"/v1/vector_stores/{made[0]}").status == 404


def test_a_file_that_was_merely_uploaded_is_shown_as_it_is_now(gateway: House, alice: Caller) -> None:
    (file_id,) = files(alice, 1)
    gateway.console.run(seen_as, file_id, "uploaded")
    assert [one["status"] for one in get(alice, "/files")["data"]] == ["processed"]


def seen_as(object_id: str, status: str) -> None:
    """Has an object's last known state be this; for the console."""
    from openai_app.models import UpstreamObject

    row = UpstreamObject.objects.get(object_id=object_id)
    row.data["status"] = status
    row.save(update_fields=["data"])


def age(object_id: str) -> None:
    """Has an object be recorded long ago; for the console."""
    from datetime import timedelta

    from django.db.models import F

    from openai_app.models import UpstreamObject

    past = F("created_at") - timedelta(minutes=5)
    UpstreamObject.objects.filter(object_id=object_id).update(created_at=past)


@pytest.mark.parametrize("method", ["GET", "DELETE"])
def test_what_openai_no_longer_has_vanishes_once_it_is_missed(
    gateway: House, alice: Caller, method: str
) -> None:
    expired, assistant = files(alice, 1)[0], assistants(alice, 1)[0]
    gateway.console.run(age, expired)
    gateway.simulator.control("DELETE", "objects")
    # Neither another's call, nor one for a part of it, nor an answer of a proxy says that it is gone.
    assert gateway.caller().call(method, f"/v1/files/{expired}").status == 404
    assert alice.call("GET", f"/v1/files/{expired}/content").status == 404
    gateway.simulator.fault("html status=404", method=method)
    assert alice.call(method, f"/v1/files/{expired}").status == 404
    assert ids(alice, "/files") == [expired]
    assert alice.call(method, f"/v1/files/{expired}").status == 404
    assert (ids(alice, "/files"), ids(alice, "/assistants")) == ([], [assistant])


def test_what_openai_does_not_know_yet_is_not_forgotten(gateway: House, alice: Caller) -> None:
    (file_id,) = files(alice, 1)
    gateway.simulator.control("DELETE", "objects")
    assert alice.call("GET", f"/v1/files/{file_id}").status == 404
    assert ids(alice, "/files") == [file_id]
    assert alice.call("DELETE", f"/v1/files/{file_id}").status == 404
    assert ids(alice, "/files") == []


def test_a_list_is_answered_when_openai_is_not(gateway: House, alice: Caller) -> None:
    """What was seen last is better than nothing."""
    made = [begin_batch(alice), *vector_stores(alice, 1)]
    gateway.simulator.fault("status=500", times=None, method="GET")
    assert ids(alice, "/batches") == made[:1]
    assert ids(alice, "/vector_stores") == made[1:]


# --- Cost -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/files", "/assistants", "/batches", "/vector_stores"])
def test_a_list_costs_the_same_whatever_others_have(gateway: House, alice: Caller, path: str) -> None:
    LISTS[path][0](alice, 3)
    kind = {"/files": "file", "/assistants": "assistant", "/batches": "batch"}.get(path, "vector_store")

    def cost() -> int:
        before = len(gateway.journal())
        assert len(ids(alice, path)) == 3
        return len(gateway.journal()) - before

    alone = cost()
    gateway.console.run(record_many, gateway.caller().id, kind, OTHERS)
    assert cost() == alone <= 3
    assert gateway.console.run(rows_read, alice.id, kind) == 3


def record_many(owner_id: int, kind: str, count: int) -> None:
    """As many things of somebody's, for the console."""
    for number in range(count):
        record(owner_id, {kind: f"{kind}-of-others-{owner_id}-{number}"})


def rows_read(owner_id: int, kind: str) -> int:
    """How many of an owner's things the gateway's own query finds, by an index alone; for the console."""
    from django.db import connection

    from openai_app.owned.records import Page, _page

    connection.force_debug_cursor = True
    connection.queries_log.clear()
    found, _ = _page(owner_id, kind, Page(limit=20))
    assert len(connection.queries) <= 2
    query = connection.queries[-1]["sql"]
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            cursor.execute("ANALYZE openai_app_upstreamobject")
            cursor.execute(f"EXPLAIN {query}")
        else:
            cursor.execute(f"EXPLAIN QUERY PLAN {query}")
        plan = "\n".join(str(row) for row in cursor.fetchall())
    # The words by which either database tells that it went through all rows.
    assert "SCAN " not in plan.replace("Index Scan", "").replace("Bitmap Heap Scan", "").upper(), plan
    return len(found)


# --- Models ---------------------------------------------------------------------------------------------


def test_models_are_openais_byte_for_byte_but_for_the_operators_tuned_ones(
    gateway: House, alice: Caller
) -> None:
    upstreams = past_the_gateway(gateway, "/models")
    everyones = [one for one in json.loads(upstreams)["data"] if not one["id"].startswith("ft:")]
    assert get(alice, "/models")["data"] == everyones
    assert gateway.caller(is_superuser=True).call("GET", "/v1/models").body == upstreams


def test_models_that_others_have_tuned_are_not_shown(gateway: House, alice: Caller) -> None:
    bob = gateway.caller(1_000_000)
    tuned = {}
    for caller in (alice, bob):
        job = begin_job(caller)
        gateway.simulator.finish(job)
        tuned[caller.id] = get(caller, f"/fine_tuning/jobs/{job}")["fine_tuned_model"]
    everyones = [one["id"] for one in json.loads(past_the_gateway(gateway, "/models"))["data"]]
    assert set(tuned.values()) <= set(everyones)
    untuned = [model for model in everyones if not model.startswith("ft:")]
    for caller in (alice, bob):
        assert sorted(ids(caller, "/models")) == sorted([*untuned, tuned[caller.id]])
    assert alice.call("GET", f"/v1/models/{tuned[bob.id]}").status == 404
    assert alice.call("DELETE", f"/v1/models/{tuned[bob.id]}").status == 404
    assert alice.call("DELETE", f"/v1/models/{tuned[alice.id]}").status == 200
    assert tuned[alice.id] not in ids(alice, "/models")


# --- Whose --------------------------------------------------------------------------------------------


def test_superusers_see_everything(gateway: House, alice: Caller) -> None:
    made = files(alice, 2)
    olga = gateway.caller(is_superuser=True)
    assert set(made) <= set(ids(olga, "/files"))


def test_a_form_in_a_query_is_no_filter(alice: Caller) -> None:
    """Unknown parameters do not matter, as they do not at OpenAI."""
    made = files(alice, 1)
    assert ids(alice, "/files?id__gt=0&data__purpose=x&owner=1&kind=assistant&foo=bar") == made
