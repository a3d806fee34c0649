"""A worker that lives is taken for dead, as after a long pause; what it says of its calls is the truth."""

import json
import threading
from collections.abc import Callable, Iterator

import pytest

from balances import leases
from gateway.tests import console
from openai_app.settlement import charge
from openai_app.tests.deferred_work import truth
from openai_app.tests.harness import JSON, Answer, Caller, House, house, wait_for


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with house(tmp_path_factory.mktemp("house"), workers=1) as opened:
        yield opened


@pytest.fixture
def alice(served: House) -> Caller:
    served.simulator.clear()
    return served.caller()


def sweep_during(served: House, call: Callable[[], Answer]) -> Answer:
    """The answer to a call whose hold is swept while it is under way."""
    answers: list[Answer] = []
    thread = threading.Thread(target=lambda: answers.append(call()))
    thread.start()
    served.wait_for_a_call()
    # The worker may renew its lease between the two.
    wait_for(lambda: "1 holds ended" in served.console.run(end_leases_and_sweep))
    served.simulator.release()
    thread.join()
    (answer,) = answers
    return answer


def end_leases_and_sweep() -> str:
    console.end_leases()
    return console.command("sweep")


def test_a_call_that_finishes_is_charged_its_usage(served: House, alice: Caller) -> None:
    answer = sweep_during(served, lambda: alice.chat("tokens=20 wait"))
    used = answer.json["usage"]["total_tokens"]
    swept, correction = alice.charges()
    assert swept["reason"] == leases.DIED
    assert correction["reason"].startswith(charge.FINISHED)
    assert answer.headers["x-balance-charged"] == str(used)
    assert alice.account() == {**alice.account(), "balance": 100_000 - used, "held": 0}
    assert "wrong" not in served.audit()


def test_a_call_that_is_refused_costs_nothing(served: House, alice: Caller) -> None:
    answer = sweep_during(served, lambda: alice.chat("status=400 wait"))
    assert answer.status == 400
    assert [entry["kind"] for entry in alice.charges()] == ["charge", "correction"]
    assert alice.account() == {**alice.account(), "balance": 100_000, "held": 0}
    assert "wrong" not in served.audit()


def test_work_that_goes_on_is_charged_at_its_end(served: House, alice: Caller) -> None:
    body = {
        "model": "gpt-4o-mini",
        "input": "Tell me a story. [[simulate: tokens=30 wait]]",
        "background": True,
    }
    answer = sweep_during(
        served, lambda: alice.call("POST", "/v1/responses", json.dumps(body).encode(), JSON)
    )
    work_id = answer.json["id"]
    assert alice.account()["balance"] == 100_000
    assert alice.account()["held"] > 0
    assert served.simulator.finish() == [work_id]
    used = sum(truth(served)[work_id].values())
    assert alice.settled()["balance"] == 100_000 - used
    assert "wrong" not in served.audit()
