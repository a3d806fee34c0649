"""The database goes away under a gateway that serves, and comes back.

Nobody is told that a key is wrong, no charge is lost, and nothing needs a restart.
"""

import json
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.conf import settings

from balances import leases
from gateway.tests import console
from gateway.tests.forwarder import Forwarder
from gateway.tests.running import provisioned
from openai_app.settlement import charge
from openai_app.tests.harness import Answer, Caller, House, events_of, house, wait_for
from openai_app.tests.idempotent import REPLAYED, post

pytestmark = pytest.mark.skipif(
    settings.DATABASES["default"]["ENGINE"].endswith("sqlite3"),
    reason="SQLite is a file and does not go away: run it with DATABASE_URL naming a PostgreSQL server.",
)


@pytest.fixture
def cable(tmp_path: Path) -> Iterator[Forwarder]:
    with (
        provisioned(tmp_path / "tollgate.sqlite3") as variables,
        Forwarder(variables["DATABASE_URL"]) as opened,
    ):
        yield opened


@pytest.fixture
def served(cable: Forwarder, tmp_path: Path) -> Iterator[House]:
    with house(tmp_path, workers=1, DATABASE_URL=cable.url) as opened:
        yield opened
        # The end of the gateway should not have to wait for it.
        cable.mend()


def call_until(caller: Caller, status: int) -> Answer:
    """Calls until the answer is this one: the connection's end is noticed by the next who uses it."""
    answers: list[Answer] = []

    def is_answered_so() -> bool:
        answers.append(caller.chat())
        # Whatever happens, nobody hears that a good key is a bad one.
        assert answers[-1].status in (200, 503)
        return answers[-1].status == status

    wait_for(is_answered_so)
    return answers[-1]


def test_calls_are_refused_with_a_503_while_it_is_away_and_served_when_it_is_back(
    served: House, cable: Forwarder
) -> None:
    alice = served.caller()
    assert alice.chat().status == 200
    cable.cut()
    refused = call_until(alice, 503)
    assert refused.error["code"] == "service_unavailable"
    assert refused.headers["retry-after"] == "1"
    assert alice.call("GET", "/readyz").status == 503
    assert alice.call("GET", "/healthz").status == 200
    assert alice.call("GET", "/v1/models").status == 503
    forwarded = len(served.journal())
    assert alice.chat().status == 503
    # What cannot be paid for is not forwarded.
    assert len(served.journal()) == forwarded
    cable.mend()
    assert call_until(alice, 200).headers["x-balance-charged"]
    wait_for(lambda: alice.call("GET", "/readyz").status == 200)
    alice.settled()
    served.audit()


def test_a_stream_that_ends_while_it_is_away_is_served_and_charged_when_it_is_back(
    served: House, cable: Forwarder
) -> None:
    alice = served.caller()
    served.simulator.fault("tokens=20 stall=5 stall_after=10")
    with alice.chat_stream() as response:
        assert response.readline().startswith(b"data: ")
        cable.cut()
        assert events_of(response.read().lstrip())[-1] == "[DONE]"
    wait_for(lambda: served.metric("tollgate_owed_charges") == 1)
    cable.mend()
    account = alice.settled()
    (call,) = served.journal()
    assert account["balance"] == 100_000 - call["usage"]["total_tokens"]
    (entry,) = alice.charges()
    assert entry["reason"] == charge.FINISHED
    wait_for(lambda: served.metric("tollgate_owed_charges") == 0)
    served.audit()


def test_an_answer_that_comes_while_it_is_away_is_passed_and_charged_when_it_is_back(
    served: House, cable: Forwarder
) -> None:
    alice = served.caller()
    served.simulator.fault("tokens=20 wait")
    answers: list[Answer] = []
    thread = threading.Thread(target=lambda: answers.append(alice.chat()))
    thread.start()
    served.wait_for_a_call()
    cable.cut()
    served.simulator.release()
    thread.join()
    (answer,) = answers
    assert answer.status == 200
    assert "x-balance-charged" not in answer.headers
    cable.mend()
    assert alice.settled()["balance"] == 100_000 - answer.json["usage"]["total_tokens"]


def test_what_a_gateway_that_ends_still_owes_is_charged_by_the_next_one(
    cable: Forwarder, tmp_path: Path
) -> None:
    with house(tmp_path, workers=1, DATABASE_URL=cable.url) as first:
        alice = first.caller()
        first.simulator.fault("tokens=20 stall=5 stall_after=10")
        with alice.chat_stream() as response:
            assert response.readline().startswith(b"data: ")
            cable.cut()
            response.read()
        first.gateway.stop()
        cable.mend()
        (call,) = first.journal()
    with house(tmp_path, workers=1, DATABASE_URL=cable.url) as second:
        again = Caller(second, alice.id, alice.key, alice.key_id)
        wait_for(lambda: again.charges())
        assert again.settled()["balance"] == 100_000 - call["usage"]["total_tokens"]
        assert [hold["state"] for hold in second.console.run(console.holds, account_id=alice.id)] == [
            "posted"
        ]
        second.audit()


def respond_body() -> bytes:
    return json.dumps({"model": "gpt-4o-mini", "input": "Hello!", "stream": True}).encode()


def test_a_streamed_response_whose_last_event_comes_while_it_is_away_costs_its_usage(
    served: House, cable: Forwarder
) -> None:
    alice = served.caller()
    served.simulator.fault("tokens=20 stall=5 stall_after=10")
    with alice.open("POST", "/v1/responses", respond_body()) as response:
        assert response.readline().startswith(b"event: response.created")
        cable.cut()
        # It names ids that cannot be recorded.
        rest = response.read()
        assert b"event: response.output_text.delta" in rest
        assert b"event: response.completed" not in rest
        assert b'"error"' in rest
    cable.mend()
    account = alice.settled()
    (call,) = served.journal()
    assert account["balance"] == 100_000 - call["usage"]["total_tokens"]
    (entry,) = alice.charges()
    assert entry["reason"] == charge.CUT_REPORTED
    served.audit()


def test_a_streamed_response_that_cannot_be_recorded_ends_and_costs_what_had_been_counted(
    served: House, cable: Forwarder
) -> None:
    alice = served.caller()
    served.simulator.fault("tokens=20 wait chunk_delay=0.05")
    bodies: list[bytes] = []

    def read() -> None:
        with alice.open("POST", "/v1/responses", respond_body()) as response:
            bodies.append(response.read())

    thread = threading.Thread(target=read)
    thread.start()
    served.wait_for_a_call()
    cable.cut()
    served.simulator.release()
    thread.join()
    # Nobody is told of an object that would be nobody's.
    assert b"resp_" not in bodies[0]
    assert b'"error"' in bodies[0]
    cable.mend()
    account = alice.settled()
    (entry,) = alice.charges()
    (hold,) = alice.holds()
    assert entry["reason"] == charge.INTERRUPTED
    assert entry["units"]["input"] == hold["counted"]["input"]
    (call,) = served.journal()
    assert entry["units"].get("output", 0) <= call["usage"]["output_tokens"]
    assert account["balance"] == 100_000 + entry["amount"]
    served.audit()


@pytest.mark.parametrize("is_background", [False, True], ids=["at once", "in the background"])
def test_a_response_that_cannot_be_recorded_is_repeated_by_its_idempotency_key_and_paid_once(
    served: House, cable: Forwarder, is_background: bool
) -> None:
    alice = served.caller()
    asked = {"model": "gpt-4o-mini", "input": "Hello!", "background": is_background}
    answers: list[Answer] = []
    served.simulator.fault("tokens=20 wait")
    thread = threading.Thread(target=lambda: answers.append(post(alice, "a", "/responses", **asked)))
    thread.start()
    served.wait_for_a_call()
    cable.cut()
    served.simulator.release()
    thread.join()
    assert answers[0].status == 503
    cable.mend()

    def is_answered() -> bool:
        answers.append(post(alice, "a", "/responses", **asked))
        assert answers[-1].status in (200, 409, 503)
        return answers[-1].status == 200

    wait_for(is_answered)
    assert answers[-1].headers[REPLAYED] == "true"
    # What it tells of is its caller's.
    response_id = answers[-1].json["id"]
    if is_background:
        served.simulator.finish(response_id)
    wait_for(lambda: alice.call("GET", f"/v1/responses/{response_id}").json["status"] == "completed")
    alice.settled()
    made = [call for call in served.journal() if call["method"] == "POST"]
    assert len(made) == 1
    (entry,) = alice.charges()
    assert -entry["amount"] == sum(entry["units"].values())
    served.audit()


def noted_output(spool: Path) -> int:
    """The most output that the files of a gateway's folder say an open call has used."""
    noted = [0]
    for file in spool.glob("*.jsonl"):
        for line in file.read_text().splitlines()[1:]:
            operation = json.loads(line.partition(" ")[2])
            if operation["kind"] == "progress":
                noted.append(operation["units"].get("output", 0))
    return max(noted)


def test_a_worker_that_is_killed_while_it_is_away_leaves_what_its_streams_have_used(
    served: House, cable: Forwarder, tmp_path: Path
) -> None:
    alice = served.caller()
    served.simulator.fault("tokens=100000 chunk_delay=0.01")
    spool = tmp_path / "data" / "spool"
    with alice.chat_stream(max_tokens=50_000) as response:
        assert response.readline().startswith(b"data: ")
        cable.cut()
        wait_for(lambda: noted_output(spool) > 0)
        (worker,) = served.gateway.workers
        os.kill(worker, signal.SIGKILL)
        noted = noted_output(spool)
    cable.mend()
    # The worker in its place takes the file over before it sweeps.
    wait_for(lambda: alice.holds()[0]["counted"].get("output") == noted)
    served.console.run(console.end_leases)
    served.console.run(console.command, "sweep")
    (entry,) = alice.charges()
    assert (entry["reason"], entry["units"]["output"]) == (leases.DIED, noted)
    served.audit()
