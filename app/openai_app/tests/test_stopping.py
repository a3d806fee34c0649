"""The end of a gateway, orderly or not: no charge is lost and nothing stays on hold."""

import json
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from balances import leases
from gateway.tests import console
from gateway.tests.running import log_of
from openai_app.settlement import charge
from openai_app.tests.harness import (
    JSON,
    Caller,
    House,
    chat_body,
    events_of,
    house,
    raw_request,
    wait_for,
)
from openai_app.tests.sites import end_turn_to_poll

HELLO_TOKENS = 9


@pytest.fixture
def mortal(tmp_path: Path) -> Iterator[House]:
    """A gateway of one worker, to be stopped."""
    with house(tmp_path, workers=1) as opened:
        yield opened


def ends_of(house: House, caller: Caller) -> list[tuple[str, str]]:
    """State and reason of the caller's holds, oldest first, read past the gateway."""
    holds = house.console.run(console.holds, account_id=caller.id)
    return [(hold["state"], hold["reason"]) for hold in holds]


def charged(house: House, caller: Caller) -> list[dict[str, int]]:
    entries = house.console.run(console.entries, account_id=caller.id, kind="charge")
    return [entry["units"] for entry in entries]


def test_a_stream_that_is_open_at_the_end_is_served_to_its_end_and_charged_exactly(mortal: House) -> None:
    alice = mortal.caller()
    mortal.simulator.fault("tokens=30 chunk_delay=0.03", times=None)
    with alice.chat_stream() as response, alice.chat_stream() as another:
        first = response.readline() + another.readline()
        assert first.count(b"data: ") == 2
        mortal.gateway.process.send_signal(signal.SIGTERM)
        assert events_of(response.read().lstrip())[-1] == "[DONE]"
        assert events_of(another.read().lstrip())[-1] == "[DONE]"
    assert mortal.gateway.process.wait() == 0
    assert ends_of(mortal, alice) == [("posted", charge.FINISHED)] * 2
    assert charged(mortal, alice) == [{"input": HELLO_TOKENS, "output": 30}] * 2
    assert "wrong" not in mortal.audit()


def test_a_call_in_one_piece_at_the_end_is_answered_and_charged(mortal: House) -> None:
    alice = mortal.caller()
    with mortal.connected() as connection:
        mortal.simulator.fault("tokens=30 delay=1")
        connection.sendall(raw_request(alice, chat_body()))
        mortal.wait_for_a_call()
        mortal.gateway.process.send_signal(signal.SIGTERM)
        assert connection.recv(65_536).startswith(b"HTTP/1.1 200 ")
    assert mortal.gateway.process.wait() == 0
    assert charged(mortal, alice) == [{"input": HELLO_TOKENS, "output": 30}]


def test_a_client_that_left_just_before_the_end_is_charged_too(mortal: House) -> None:
    alice = mortal.caller()
    mortal.simulator.fault("tokens=50 stall=60 stall_after=20")
    with alice.chat_stream() as response:
        came = b""
        while came.count(b'"content"') < 21:
            came += response.readline()
    assert mortal.gateway.stop() == 0
    assert ends_of(mortal, alice) == [("posted", charge.LEFT)]
    assert charged(mortal, alice) == [{"input": HELLO_TOKENS, "output": 20}]


def test_what_a_killed_worker_had_counted_is_charged_by_the_sweep(mortal: House) -> None:
    alice = mortal.caller()
    mortal.simulator.fault("tokens=50 stall=600 stall_after=20")
    with alice.chat_stream() as response:
        came = b""
        while came.count(b'"content"') < 21:
            came += response.readline()
        # The worker notes about once a second what its streams have used.
        wait_for(lambda: alice.holds()[0]["counted"].get("output", 0) == 20)
        worker = mortal.gateway.workers[0]
        # Stopped first, so that nobody puts another worker in its place, which would sweep.
        os.kill(mortal.gateway.process.pid, signal.SIGSTOP)
        os.kill(worker, signal.SIGKILL)
    assert [state for state, _ in ends_of(mortal, alice)] == ["open"]
    # Its lease still runs: it might be alive, on another host.
    assert "0 holds ended" in mortal.console.run(console.command, "sweep")
    mortal.console.run(console.end_leases)
    assert "1 holds ended" in mortal.console.run(console.command, "sweep")
    assert ends_of(mortal, alice) == [("posted", leases.DIED)]
    assert charged(mortal, alice) == [{"input": HELLO_TOKENS, "output": 20}]
    assert "0 holds ended" in mortal.console.run(console.command, "sweep")
    assert "wrong" not in mortal.audit()
    os.kill(mortal.gateway.process.pid, signal.SIGCONT)


def test_a_worker_in_the_place_of_a_killed_one_serves_and_sweeps(mortal: House) -> None:
    alice = mortal.caller()
    mortal.simulator.fault("tokens=50 stall=600 stall_after=20")
    with alice.chat_stream() as response:
        assert response.readline().startswith(b"data: ")
        worker = mortal.gateway.workers[0]
        os.kill(worker, signal.SIGKILL)
    mortal.console.run(console.end_leases)
    mortal.simulator.clear()
    # Whoever calls now waits until the new worker is there; its sweep is due every few seconds.
    assert alice.settled()["held"] == 0
    (state, reason), *_ = ends_of(mortal, alice)
    assert (state, reason) in [("posted", leases.DIED), ("voided", leases.DIED_UNCOUNTED)]
    assert alice.chat().status == 200
    assert "wrong" not in mortal.audit()


def test_work_whose_stream_died_with_its_worker_is_paid_at_its_end(mortal: House) -> None:
    alice = mortal.caller()
    mortal.simulator.fault("tokens=40 stall=600 stall_after=10", path="/v1/responses")
    body = {"model": "gpt-4o-mini", "input": "Hello!", "background": True, "stream": True}
    with alice.open("POST", "/v1/responses", json.dumps(body).encode(), JSON) as response:
        came = b""
        while came.count(b".delta") < 10:
            came += response.readline()
        wait_for(lambda: alice.holds()[0]["awaits"])
        os.kill(mortal.gateway.workers[0], signal.SIGKILL)
    mortal.console.run(console.end_leases)
    mortal.console.run(end_turn_to_poll)
    mortal.console.run(console.command, "sweep")
    assert [state for state, _ in ends_of(mortal, alice)] == ["open"]
    mortal.simulator.finish()
    assert alice.settled()["held"] == 0
    assert [units["output"] for units in charged(mortal, alice)] == [40]
    assert "wrong" not in mortal.audit()


def test_a_call_in_one_piece_that_died_with_its_worker_costs_its_input(mortal: House) -> None:
    alice = mortal.caller()
    mortal.simulator.fault("delay=600")
    with mortal.connected() as connection:
        connection.sendall(raw_request(alice, chat_body()))
        mortal.wait_for_a_call()
        os.kill(mortal.gateway.workers[0], signal.SIGKILL)
    mortal.console.run(console.end_leases)
    mortal.console.run(console.command, "sweep")
    alice.settled()
    assert charged(mortal, alice) == [{"input": HELLO_TOKENS}]
    assert "wrong" not in mortal.audit()


def test_a_worker_that_cannot_keep_its_counters_serves_and_notes_all_the_same(
    mortal: House, tmp_path: Path
) -> None:
    alice = mortal.caller()
    # As when the disk is full while a worker starts: there is no place for the files of its counters.
    (counters,) = tmp_path.glob("tollgate-metrics-*")
    shutil.rmtree(counters)
    os.kill(mortal.gateway.workers[0], signal.SIGKILL)
    assert alice.chat().status == 200
    mortal.simulator.fault("tokens=50 stall=600 stall_after=20")
    with alice.chat_stream() as response:
        came = b""
        while came.count(b'"content"') < 21:
            came += response.readline()
        wait_for(lambda: alice.holds()[-1]["counted"].get("output", 0) == 20)
    assert alice.settled()["held"] == 0
    assert alice.charges()[-1]["reason"] == charge.LEFT
    assert "Traceback" not in log_of(tmp_path / "data").read_text()
