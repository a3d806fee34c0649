"""Work that goes on after its call was answered: held until its end, then charged once, by what it used."""

import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from openai_app.settlement import deferred
from openai_app.tests.deferred_work import (
    ASSISTANTS,
    BEGIN,
    MODEL,
    begin_batch,
    begin_job,
    begin_response,
    begin_run,
    charged,
    chats,
    get,
    lines_of,
    new_thread,
    post,
    truth,
    upload,
)
from openai_app.tests.harness import HELLO, Caller, House, events_of, wait_for

kinds = pytest.mark.parametrize("kind", BEGIN)
WEATHER = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}
CALLS_A_TOOL = "[[simulate:tools=1]]"


@pytest.fixture
def alice(gateway: House) -> Caller:
    """A user with enough for films."""
    return gateway.caller(10_000_000, name="alice")


def path_of(caller: Caller) -> str:
    """Where the caller's only open work is read."""
    (hold,) = caller.holds(state="open")
    path: str = hold["awaits"].partition(" ")[2]
    return path


def assert_paid(caller: Caller, *work: str) -> None:
    """Each has one charge, of what it used, and nothing is held."""
    paid, true = charged(caller), truth(caller.house)
    assert paid == {work_id: true[work_id] for work_id in work}
    assert caller.account()["held"] == 0
    assert "wrong" not in caller.house.audit()


@kinds
def test_work_is_held_until_its_end_and_an_end_that_passes_by_settles_it_at_once(
    gateway: House, alice: Caller, kind: str
) -> None:
    work = BEGIN[kind](alice)
    path = path_of(alice)
    assert alice.account()["held"] > 0
    assert get(alice, path)["id"] == work
    assert alice.charges() == []
    assert gateway.simulator.finish(work) == [work]
    get(alice, path)
    assert alice.account()["held"] == 0
    assert_paid(alice, work)


def begin_all(caller: Caller) -> list[str]:
    """One of each kind of work."""
    return [begin(caller) for begin in BEGIN.values()]


def test_the_poller_settles_what_nobody_asks_after(gateway: House, alice: Caller) -> None:
    work = begin_all(alice)
    gateway.simulator.finish()
    alice.settled()
    assert_paid(alice, *work)


@pytest.mark.parametrize("kind", ["batch", "response"])
def test_poller_and_many_answers_at_the_same_time_settle_once(
    gateway: House, alice: Caller, kind: str
) -> None:
    work = [BEGIN[kind](alice) for _ in range(4)]
    paths = [hold["awaits"].partition(" ")[2] for hold in alice.holds(state="open")] * 6
    gateway.simulator.finish()
    with ThreadPoolExecutor(len(paths)) as threads:
        assert len(list(threads.map(lambda path: get(alice, path), paths))) == len(paths)
    alice.settled()
    assert_paid(alice, *work)


@pytest.mark.parametrize("path", ["/batches", "/fine_tuning/jobs", "/videos"])
def test_an_end_that_a_list_tells_of_settles_at_once(gateway: House, alice: Caller, path: str) -> None:
    kind = {"/batches": "batch", "/fine_tuning/jobs": "fine_tuning.job", "/videos": "video"}[path]
    work = [BEGIN[kind](alice), BEGIN[kind](alice)]
    gateway.simulator.finish()
    assert {one["id"] for one in get(alice, path)["data"]} == set(work)
    assert alice.account()["held"] == 0
    assert_paid(alice, *work)


def test_an_end_that_a_threads_list_of_runs_tells_of_settles_at_once(gateway: House, alice: Caller) -> None:
    work = begin_run(alice)
    runs = path_of(alice).removesuffix(f"/{work}")
    gateway.simulator.finish(work)
    assert [run["status"] for run in get(alice, runs)["data"]] == ["completed"]
    assert alice.account()["held"] == 0
    assert_paid(alice, work)


# --- ends of other kinds --------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_work_that_failed_is_paid_as_far_as_it_is_reported(
    gateway: House, alice: Caller, share: float
) -> None:
    work = begin_all(alice)
    gateway.simulator.finish(status="failed", share=share)
    alice.settled()
    assert_paid(alice, *work)
    if share == 0:
        assert not any(charged(alice).values())


def test_work_that_was_cancelled_is_paid_as_far_as_it_is_reported(gateway: House, alice: Caller) -> None:
    work = [begin(alice) for kind, begin in BEGIN.items() if kind != "video"]
    for hold in alice.holds(state="open"):
        path = hold["awaits"].partition(" ")[2]
        answer = alice.call("POST", f"/v1{path}{'' if '/evals' in path else '/cancel'}", headers=ASSISTANTS)
        assert answer.status == 200
    alice.settled()
    assert_paid(alice, *work)


def test_work_that_openai_no_longer_knows_costs_its_hold(gateway: House, alice: Caller) -> None:
    work = begin_all(alice)
    held = alice.account()["held"]
    before = gateway.metric("tollgate_usage_missing_total")
    gateway.simulator.control("DELETE", "objects")
    alice.settled()
    assert {charge["reason"] for charge in alice.charges()} == {deferred.GONE}
    assert sum(charge["amount"] for charge in alice.charges()) == -held
    assert charged(alice) == {work_id: {} for work_id in work}
    assert gateway.metric("tollgate_usage_missing_total") == before + len(work)


def test_work_is_asked_after_again_when_openai_fails(gateway: House, alice: Caller) -> None:
    work = begin_response(alice)
    path = f"/v1{path_of(alice)}"
    for action in ("status=500", "html", "malformed", "reset", "status=429"):
        gateway.simulator.fault(action, path=path)
    gateway.simulator.finish(work)
    alice.settled()
    assert not gateway.simulator.control("GET", "faults")["faults"]
    assert_paid(alice, work)


def test_a_batch_that_does_not_tell_its_usage_is_paid_by_the_lines_of_its_output(
    gateway: House, alice: Caller
) -> None:
    work = begin_batch(alice, 20)
    path = path_of(alice)
    gateway.simulator.fault("delay=1", path=f"/v1{path}", times=None)
    gateway.simulator.finish(work)
    told = direct(gateway, path)
    nothing = dict.fromkeys(("input_tokens", "output_tokens", "total_tokens"), 0)
    recording = {
        "method": "GET",
        "path": f"/v1{path}",
        "request_base64": "",
        "headers": {"content-type": "application/json"},
        "body": json.dumps({**told, "usage": nothing}),
    }
    gateway.simulator.record(*[recording] * 10)
    # A file that cannot be read now is no reason to charge nothing.
    gateway.simulator.fault("status=500", path=f"/v1/files/{told['output_file_id']}", times=2)
    alice.settled()
    assert_paid(alice, work)


def direct(house: House, path: str) -> Any:
    """An object as the simulator has it, asked past the gateway."""
    from urllib.request import Request, urlopen

    request = Request(house.simulator.base_url + path, headers={"Authorization": "Bearer any"})
    with urlopen(request) as answer:
        return json.loads(answer.read())


# --- what comes of it -----------------------------------------------------------------------------------


def test_the_output_of_a_batch_that_nobody_looked_at_is_its_owners_alone(
    gateway: House, alice: Caller, bob: Caller
) -> None:
    work = begin_batch(alice)
    path = path_of(alice)
    gateway.simulator.finish(work)
    alice.settled()
    output = f"/files/{direct(gateway, path)['output_file_id']}/content"
    assert alice.call("GET", f"/v1{output}").body.count(b"\n") == 3
    assert bob.call("GET", f"/v1{output}").status == 404


def test_a_model_whose_job_nobody_looked_at_is_its_owners_alone(
    gateway: House, alice: Caller, bob: Caller
) -> None:
    work = begin_job(alice)
    path = path_of(alice)
    gateway.simulator.finish(work)
    alice.settled()
    model = direct(gateway, path)["fine_tuned_model"]
    assert model in [one["id"] for one in get(alice, "/models")["data"]]
    assert model not in [one["id"] for one in get(bob, "/models")["data"]]
    assert alice.chat(model=model).status == 200
    assert bob.chat(model=model).status == 404


def test_ids_of_others_in_the_lines_of_a_batch_do_not_exist(
    gateway: House, alice: Caller, bob: Caller
) -> None:
    alices = str(post(alice, "/responses", model=MODEL, input="Hello!")["id"])
    earlier = {"model": MODEL, "input": "Go on.", "previous_response_id": alices}
    lines = lines_of(*chats(200), url="/v1/chat/completions") + lines_of(earlier, url="/v1/responses")
    for caller, status in ((bob, 404), (alice, 200)):
        file_id = upload(caller, lines, "batch")
        body = {"input_file_id": file_id, "endpoint": "/v1/responses", "completion_window": "24h"}
        answer = caller.call("POST", "/v1/batches", json.dumps(body).encode())
        assert answer.status == status
    assert bob.account()["held"] == 0
    assert bob.charges() == []
    gateway.simulator.finish()
    alice.settled()


# --- streams, tools -------------------------------------------------------------------------------------


def stream_background(caller: Caller) -> tuple[str, Mapping[str, Any]]:
    return "/v1/responses", {"model": MODEL, "input": "Hello!", "background": True}


def stream_run(caller: Caller) -> tuple[str, Mapping[str, Any]]:
    thread_id, assistant_id = new_thread(caller)
    return f"/v1/threads/{thread_id}/runs", {"assistant_id": assistant_id}


def stream_thread_and_run(caller: Caller) -> tuple[str, Mapping[str, Any]]:
    _, assistant_id = new_thread(caller)
    thread = {"messages": [{"role": "user", "content": "Hello!"}]}
    return "/v1/threads/runs", {"assistant_id": assistant_id, "thread": thread}


streams = pytest.mark.parametrize("begin", [stream_background, stream_run, stream_thread_and_run])


@streams
def test_a_stream_of_work_that_is_read_to_its_end_is_paid_for_with_it(
    gateway: House, alice: Caller, begin: Any
) -> None:
    path, fields = begin(alice)
    body = json.dumps({**fields, "stream": True}).encode()
    answer = alice.call("POST", path, body, ASSISTANTS)
    assert answer.status == 200
    assert alice.account()["held"] == 0
    (work,) = truth(gateway)
    (charge,) = alice.charges()
    assert charge["units"] == truth(gateway)[work]
    assert "wrong" not in gateway.audit()


@streams
def test_a_client_that_leaves_the_stream_of_such_work_pays_for_its_end(
    gateway: House, alice: Caller, begin: Any
) -> None:
    path, fields = begin(alice)
    gateway.simulator.fault("tokens=40 stall=600 stall_after=10", method="POST", path=path)
    body = json.dumps({**fields, "stream": True}).encode()
    with alice.open("POST", path, body, ASSISTANTS) as response:
        came = b""
        while came.count(b".delta") < 10:
            came += response.readline()
        assert alice.account()["held"] > 0
    wait_for(lambda: alice.holds(state="open")[0]["awaits"])
    assert alice.charges() == []
    (work,) = gateway.simulator.finish()
    alice.settled()
    assert_paid(alice, work)
    assert truth(gateway)[work]["output"] == 40


@pytest.mark.parametrize("answers_streamed", [False, True], ids=["outputs-whole", "outputs-streamed"])
@pytest.mark.parametrize("begins_streamed", [False, True], ids=["run-whole", "run-streamed"])
def test_a_run_that_calls_tools_is_paid_once_in_full(
    gateway: House, alice: Caller, begins_streamed: bool, answers_streamed: bool
) -> None:
    thread_id, assistant_id = new_thread(alice, tools=[WEATHER])
    runs = f"/v1/threads/{thread_id}/runs"
    fields = {"assistant_id": assistant_id, "additional_instructions": CALLS_A_TOOL}
    begun = alice.call("POST", runs, json.dumps({**fields, "stream": begins_streamed}).encode(), ASSISTANTS)
    assert begun.status == 200
    gateway.simulator.finish()
    (run,) = get(alice, runs.removeprefix("/v1"))["data"]
    assert run["status"] == "requires_action"
    assert alice.charges() == []
    assert alice.account()["held"] > 0
    called = run["required_action"]["submit_tool_outputs"]["tool_calls"]
    outputs = [{"tool_call_id": call["id"], "output": "Sunny, 20 degrees."} for call in called]
    answer = alice.call(
        "POST",
        f"{runs}/{run['id']}/submit_tool_outputs",
        json.dumps({"tool_outputs": outputs, "stream": answers_streamed}).encode(),
        ASSISTANTS,
    )
    assert answer.status == 200
    if answers_streamed:
        assert b"event: thread.run.completed" in answer.body
    gateway.simulator.finish()
    alice.settled()
    assert_paid(alice, run["id"])
    turns = [line for line in gateway.journal() if line["kind"] == "thread.run"]
    assert len(turns) == 2


def test_a_run_that_is_cancelled_while_it_waits_for_tools_is_paid_for_its_first_turn(
    gateway: House, alice: Caller
) -> None:
    thread_id, assistant_id = new_thread(alice, tools=[WEATHER])
    run = post(
        alice,
        f"/threads/{thread_id}/runs",
        assistant_id=assistant_id,
        additional_instructions=CALLS_A_TOOL,
    )
    gateway.simulator.finish()
    post(alice, f"/threads/{thread_id}/runs/{run['id']}/cancel")
    assert alice.account()["held"] == 0
    assert_paid(alice, run["id"])


def test_events_of_a_background_response_can_be_followed_again_later(gateway: House, alice: Caller) -> None:
    work = begin_response(alice)
    gateway.simulator.finish(work)
    answer = alice.call("GET", f"/v1/responses/{work}?stream=true")
    assert answer.status == 200
    if answer.headers["content-type"].startswith("text/event-stream"):
        assert events_of(answer.body)
    alice.settled()
    assert_paid(alice, work)


# --- the gateway's own failures -------------------------------------------------------------------------


def rename_records(old: str, new: str) -> None:
    """Takes the records away, or gives them back; for the console."""
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute(f"ALTER TABLE {old} RENAME TO {new}")


@pytest.mark.parametrize("path", ["/responses", "/chat/completions"])
def test_what_openai_has_done_is_paid_for_though_the_gateway_fails_on_its_answer(
    gateway: House, alice: Caller, path: str
) -> None:
    fields: dict[str, Any] = {"messages": HELLO, "store": True}
    if path == "/responses":
        fields = {"input": "Hello!", "background": True}
    gateway.simulator.fault("wait", method="POST", path=f"/v1{path}")
    body = json.dumps({"model": MODEL, **fields}).encode()
    table = "openai_app_upstreamobject"
    with ThreadPoolExecutor(1) as thread:
        answer = thread.submit(alice.call, "POST", f"/v1{path}", body)
        gateway.wait_for_a_call()
        gateway.console.run(rename_records, table, "away")
        gateway.simulator.release()
        try:
            assert answer.result().status in (500, 503)
        finally:
            gateway.console.run(rename_records, "away", table)
    if path == "/responses":
        (work,) = gateway.simulator.finish()
        alice.settled()
        assert_paid(alice, work)
    else:
        alice.settled()
        assert -alice.charges()[0]["amount"] == gateway.journal()[0]["usage"]["total_tokens"]
    assert alice.account()["held"] == 0
    assert alice.chat().status == 200
