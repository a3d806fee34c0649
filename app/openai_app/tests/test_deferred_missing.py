"""Work of which OpenAI says that it does not exist: only when it says so for a while is the work over."""

import json
from collections.abc import Iterator

import pytest

from openai_app.settlement import deferred
from openai_app.tests.deferred_work import (
    BEGIN,
    MODEL,
    PREFIX,
    begin_batch,
    begin_response,
    charged,
    truth,
    upload,
)
from openai_app.tests.harness import Caller, House, house, polling, wait_for

# It asks so often that a minute's worth of answers is not waited for.
EAGER = polling(TICK_S=0.05, LEAST_PAUSE_S=0.05, PAUSE_BY_AGE=0.0)


@pytest.fixture(scope="module")
def eager_house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """A gateway that asks after work all the time, and has work be gone when it usually is."""
    with house(tmp_path_factory.mktemp("eager"), workers=1, program=EAGER) as opened:
        yield opened


@pytest.fixture
def eager(eager_house: House) -> Caller:
    eager_house.simulator.clear()
    return eager_house.caller(10_000_000, name="alice")


@pytest.fixture
def alice(gateway: House) -> Caller:
    return gateway.caller(10_000_000, name="alice")


def answer(caller: Caller, path: str, *answers: tuple[int, object]) -> None:
    """Has the poller be answered with these statuses and JSON, one after the other."""
    asked = {"method": "GET", "path": PREFIX + path, "request_base64": ""}
    headers = {"content-type": "application/json"}
    caller.house.simulator.record(
        *(
            {**asked, "headers": headers, "status": status, "body": json.dumps(body)}
            for status, body in answers
        )
    )


def begin_untold_batch(caller: Caller, *, missed: int | None) -> str:
    """The id of a batch that has ended without a word of its usage, which is in its output.

    Of the output OpenAI says `missed` times that it does not exist, None being always: from before the batch
    begins, for the poller may ask at any moment after that.
    """
    usage = {"prompt_tokens": 30, "completion_tokens": 12, "total_tokens": 42}
    line = {"custom_id": "1", "response": {"status_code": 200, "body": {"model": MODEL, "usage": usage}}}
    file_id = upload(caller, json.dumps(line).encode(), "batch")
    caller.house.simulator.fault("status=404", times=missed, path=f"{PREFIX}/files/{file_id}/content")
    work = begin_batch(caller)
    nothing = dict.fromkeys(("input_tokens", "output_tokens", "total_tokens"), 0)
    ended = {
        "id": work,
        "object": "batch",
        "status": "completed",
        "usage": nothing,
        "output_file_id": file_id,
    }
    answer(caller, f"/batches/{work}", *[(200, ended)] * 20)
    return work


def faults_are_over(caller: Caller) -> bool:
    return not caller.house.simulator.control("GET", "faults")["faults"]


def assert_paid(caller: Caller, *work: str) -> None:
    """Each by what it used."""
    true = truth(caller.house)
    assert charged(caller) == {work_id: true[work_id] for work_id in work}
    assert {entry["reason"] for entry in caller.charges()} == {deferred.ENDED}


# --- Not known for less than a minute -------------------------------------------------------------------


@pytest.mark.parametrize("kind", BEGIN)
def test_work_that_is_not_found_for_a_moment_is_paid_by_its_end(eager: Caller, kind: str) -> None:
    work = BEGIN[kind](eager)
    (hold,) = eager.holds(state="open")
    path = PREFIX + hold["awaits"].partition(" ")[2]
    eager.house.simulator.fault("status=404", times=5, path=path)
    wait_for(lambda: faults_are_over(eager))
    assert [hold["state"] for hold in eager.holds()] == ["open"]
    eager.house.simulator.finish(work)
    eager.settled()
    assert charged(eager) == {work: truth(eager.house)[work]}


def test_an_output_that_is_not_found_for_a_moment_is_read_when_it_is(eager: Caller) -> None:
    work = begin_untold_batch(eager, missed=5)
    eager.settled()
    assert charged(eager) == {work: {"input": 30, "output": 12}}
    assert faults_are_over(eager)


# --- Not known for longer, which is a second for these tests --------------------------------------------


def test_an_output_that_is_not_found_for_long_costs_the_hold(alice: Caller) -> None:
    work = begin_untold_batch(alice, missed=None)
    alice.settled()
    assert charged(alice) == {work: {}}
    assert [entry["reason"] for entry in alice.charges()] == [deferred.ENDED_WITHOUT_USAGE]


def test_work_is_gone_only_when_openai_says_so_again_and_not_otherwise_in_between(alice: Caller) -> None:
    """A proxy's page says nothing of it, nor does JSON that is not OpenAI's error."""
    pages, words, seen_again = (begin_response(alice) for _ in range(3))
    alice.house.simulator.fault("html status=404", times=3, path=f"{PREFIX}/responses/{pages}")
    other = 404, {"detail": "Not Found"}
    answer(alice, f"/responses/{words}", other, (404, {"error": "Not Found"}), other)
    known = {"id": seen_again, "object": "response", "status": "in_progress"}
    missing = {"message": "Not found.", "type": "invalid_request_error", "param": None, "code": None}
    gone = 404, {"error": missing}
    answer(alice, f"/responses/{seen_again}", gone, (200, known), gone)
    wait_for(lambda: faults_are_over(alice) and not waiting(alice))
    assert [hold["state"] for hold in alice.holds()] == ["open"] * 3
    alice.house.simulator.finish()
    alice.settled()
    assert_paid(alice, pages, words, seen_again)


def waiting(caller: Caller) -> int:
    """How many prepared answers nobody has asked for yet."""
    left: int = caller.house.simulator.control("GET", "recordings")["waiting"]
    return left
