"""What is downloaded is whatever somebody put there: though it be JSON, it ends no work, and nothing becomes
one's own by it."""

import json
from typing import Any

import pytest

from openai_app.catalogue import Operation
from openai_app.owned.objects import SLOT_KINDS
from openai_app.tests.attacks import OFFERED, new_ids, record, recorded
from openai_app.tests.deferred_work import BEGIN, MODEL, charged, get, post, truth, upload
from openai_app.tests.harness import Caller, House

DOWNLOADS = [row for row in OFFERED if row.method == "GET" and row.answers_bytes]
AS_JSON = "application/json"
works = pytest.mark.parametrize("kind", ["batch", "response"])
downloads = pytest.mark.parametrize("row", DOWNLOADS, ids=lambda row: row.name)


@pytest.fixture
def alice(gateway: House) -> Caller:
    """A user with enough for batches."""
    return gateway.caller(10_000_000, name="alice")


def serve(house: House, path: str, content: bytes, content_type: str = AS_JSON) -> None:
    """Has the upstream answer the next GET of a path with this."""
    answer = {"headers": {"content-type": content_type}, "body": content.decode()}
    house.simulator.record({"method": "GET", "path": f"/v1{path}", "request_base64": "", **answer})


def download(caller: Caller, row: Operation, content: bytes) -> bytes:
    """What the caller gets as the content of a thing of her own, which the upstream serves as JSON."""
    ids = new_ids()
    caller.house.console.run(record, caller.id, ids)
    path = row.path.format(**{slot: ids[SLOT_KINDS[slot].name] for slot in row.slots})
    serve(caller.house, path, content)
    answer = caller.call("GET", f"/v1{path}")
    assert answer.status == 200
    assert answer.headers["content-type"] == AS_JSON
    return answer.body


def cancelled(kind: str, work: str) -> dict[str, Any]:
    """What would end work at no cost, if OpenAI said it."""
    return {"id": work, "object": kind, "status": "cancelled", "usage": None}


def test_the_downloads_are_known() -> None:
    names = {row.name for row in DOWNLOADS}
    assert names >= {"downloadFile", "RetrieveContainerFileContent", "RetrieveVideoContent"}


@downloads
@works
def test_work_is_not_ended_by_what_a_download_says_of_it(alice: Caller, kind: str, row: Operation) -> None:
    work = BEGIN[kind](alice)
    for lie in (cancelled(kind, work), {"object": "list", "data": [cancelled(kind, work)]}):
        content = json.dumps(lie).encode()
        assert download(alice, row, content) == content
    assert [hold["state"] for hold in alice.holds()] == ["open"]
    assert alice.charges() == []
    alice.house.simulator.finish(work)
    alice.settled()
    assert charged(alice) == {work: truth(alice.house)[work]}
    assert truth(alice.house)[work]


@works
def test_nobody_ends_the_work_of_others_by_a_file(alice: Caller, bob: Caller, kind: str) -> None:
    work = BEGIN[kind](alice)
    file_id = upload(bob, json.dumps(cancelled(kind, work)).encode(), "user_data", "file.json")
    serve(bob.house, f"/files/{file_id}/content", json.dumps(cancelled(kind, work)).encode())
    assert bob.call("GET", f"/v1/files/{file_id}/content").json["id"] == work
    assert [hold["state"] for hold in alice.holds()] == ["open"]
    alice.house.simulator.finish(work)
    alice.settled()
    assert charged(alice) == {work: truth(alice.house)[work]}


@downloads
def test_no_id_becomes_ones_own_by_a_download(gateway: House, row: Operation) -> None:
    """Nor are things that the operator has beside the gateway."""
    bob = gateway.caller(name="bob")
    said = new_ids()
    tools = {"file_search": {"vector_store_ids": [said["vector_store"]]}}
    ran = {"id": said["item"], "type": "code_interpreter_call", "container_id": said["container"]}
    for lie in (
        {"id": said["file"], "object": "file"},
        {"id": said["thread"], "object": "thread", "tool_resources": tools},
        {"object": "list", "data": [{"id": said["response"], "object": "response", "output": [ran]}]},
    ):
        download(bob, row, json.dumps(lie).encode())
    assert not set(said.values()) & gateway.console.run(recorded, bob.id).keys()
    for path in (f"files/{said['file']}", f"containers/{said['container']}"):
        assert bob.call("GET", f"/v1/{path}").status == 404
    assert bob.charges() == []


@pytest.mark.parametrize("content_type", ["application/octet-stream", AS_JSON])
def test_a_file_that_says_it_is_another_is_listed_as_what_it_is(alice: Caller, content_type: str) -> None:
    file_id = upload(alice, b"{}", "user_data", "file.json")
    content = json.dumps({"id": file_id, "object": "file", "filename": "other.json"}).encode()
    serve(alice.house, f"/files/{file_id}/content", content, content_type)
    assert alice.call("GET", f"/v1/files/{file_id}/content").body == content
    assert [one["filename"] for one in get(alice, "/files")["data"]] == ["file.json"]


@pytest.mark.parametrize("content", ["[1, 2]", '"text"', "{", "", '{"error": {"message": "x"}}'])
def test_a_file_served_as_json_passes_whatever_it_holds(alice: Caller, content: str) -> None:
    assert download(alice, DOWNLOADS[0], content.encode()) == content.encode()


# --- Answers that are OpenAI's --------------------------------------------------------------------------


def test_what_a_user_is_answered_ends_nothing_of_others(alice: Caller, bob: Caller) -> None:
    work = BEGIN["response"](alice)
    his = post(bob, "/responses", model=MODEL, input="Hello!")["id"]
    serve(bob.house, f"/responses/{his}", json.dumps(cancelled("response", work)).encode())
    assert get(bob, f"/responses/{his}")["id"] == work
    assert [hold["state"] for hold in alice.holds()] == ["open"]
    alice.house.simulator.finish(work)
    alice.settled()
    assert charged(alice) == {work: truth(alice.house)[work]}


def test_an_end_that_an_operator_is_answered_settles_at_once(gateway: House, alice: Caller) -> None:
    work = BEGIN["response"](alice)
    gateway.simulator.finish(work)
    get(gateway.caller(is_superuser=True), f"/responses/{work}")
    assert alice.account()["held"] == 0
    assert charged(alice) == {work: truth(gateway)[work]}
