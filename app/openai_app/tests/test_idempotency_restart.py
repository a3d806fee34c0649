"""Idempotency-Keys outlive the process that served them, are the same on all hosts, and survive outages."""

import threading
from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest
from django.conf import settings

from balances import leases
from gateway.tests import console
from gateway.tests.forwarder import Forwarder
from gateway.tests.running import provisioned
from openai_app.tests.harness import Answer, Caller, House, chat_body, house, wait_for
from openai_app.tests.idempotent import (
    REPLAYED,
    assert_replayed,
    chat,
    chat_stream,
    finish_without_a_charge,
    grow_older,
    kept_rows,
    raw,
    until_ended,
)
from openai_app.tests.sites import Site, at, kill, site

CHAT = "/v1/chat/completions"
HELLO_TOKENS = 9
IS_SQLITE = settings.DATABASES["default"]["ENGINE"].endswith("sqlite3")
on_a_server = pytest.mark.skipif(IS_SQLITE, reason="SQLite is a file of one host and does not go away")


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Site]:
    with site(tmp_path) as found:
        yield found


def die_in_a_call(first: House, alice: Caller) -> str:
    """Has the gateway killed while it waits for the upstream's answer; the id of the call."""
    first.simulator.fault("delay=600")
    with first.connected() as connection:
        connection.sendall(raw(alice, "a", CHAT, chat_body()))
        first.wait_for_a_call()
        kill(first)
    first.simulator.clear()
    (row,) = first.console.run(kept_rows)
    assert row["status"] is None
    request_id: str = row["request_id"]
    return request_id


@pytest.mark.parametrize("is_stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("is_killed", [False, True], ids=["stopped", "killed"])
def test_an_answer_is_repeated_by_the_next_gateway(opened: Site, is_killed: bool, is_stream: bool) -> None:
    with opened.gateway() as first:
        alice = first.caller()
        answer = chat(alice, "a", stream=is_stream)
        if is_killed:
            kill(first)
    with opened.gateway() as second:
        assert_replayed(chat(at(second, alice), "a", stream=is_stream), answer)
        assert len(at(second, alice).charges()) == 1
        assert len(second.journal()) == 1
        second.audit()


def test_a_call_whose_process_died_runs_anew_once_its_lease_is_over(opened: Site) -> None:
    with opened.gateway(workers=1) as first:
        alice = first.caller()
        die_in_a_call(first, alice)
    opened.console.run(console.end_leases)
    with opened.gateway(workers=1) as second:
        alice = at(second, alice)
        # It may be alive, for all that the second one knows at first.
        assert chat(alice, "a").status == 409
        anew = until_ended(alice, "a", CHAT, chat_body())
        assert anew.status == 200
        assert REPLAYED not in anew.headers
        assert_replayed(chat(alice, "a"), anew)
        alice.settled()
        reasons = {entry["reason"]: entry["units"] for entry in alice.charges()}
        assert len(reasons) == len(alice.charges()) == 2
        assert reasons[leases.DIED] == {"input": HELLO_TOKENS}
        second.audit()


def test_a_call_whose_process_died_runs_anew_at_any_worker_as_soon_as_one_knows(opened: Site) -> None:
    with opened.gateway(workers=1) as first:
        alice = first.caller()
        die_in_a_call(first, alice)
    opened.console.run(console.end_leases)
    with opened.gateway(workers=4) as second:
        alice = at(second, alice)
        # None of the workers has been asked for the call, but one of them has swept its hold.
        wait_for(lambda: alice.account()["held"] == 0)
        anew = chat(alice, "a")
        assert anew.status == 200
        assert REPLAYED not in anew.headers
        assert len(alice.charges()) == 2
        second.audit()


def test_a_call_whose_process_has_lost_its_lease_is_soon_asked_for_again(opened: Site) -> None:
    with opened.gateway(workers=1) as first:
        alice = first.caller()
        die_in_a_call(first, alice)
    opened.console.run(grow_older, 1.0)
    with opened.gateway(workers=1) as second:
        refused = chat(at(second, alice), "a")
        assert (refused.status, refused.headers["retry-after"]) == (409, "30")
        opened.console.run(console.end_leases)
        refused = chat(at(second, alice), "a")
        assert (refused.status, refused.headers["retry-after"]) == (409, "5")


def test_a_process_that_dies_between_keeping_an_answer_and_its_charge_is_paid_exactly(opened: Site) -> None:
    with opened.gateway(workers=1) as first:
        alice = first.caller()
        request_id = die_in_a_call(first, alice)
    body = orjson.dumps({"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 77}})
    units = {"input": HELLO_TOKENS, "output": 77}
    opened.console.run(finish_without_a_charge, request_id, body, units)
    opened.console.run(console.end_leases)
    with opened.gateway(workers=1) as second:
        alice = at(second, alice)
        again = chat(alice, "a")
        assert (again.status, again.body) == (200, body)
        assert again.headers["x-original-request-id"] == request_id
        alice.settled()
        (entry,) = alice.charges()
        assert (entry["units"], entry["reason"]) == (units, leases.DIED)
        assert second.journal() == []
        second.audit()


@on_a_server
def test_two_gateways_on_one_database_know_each_others_calls(opened: Site) -> None:
    with opened.gateway("first", workers=1) as first, opened.gateway("second", workers=1) as second:
        alice = first.caller()
        answer = chat(alice, "a")
        assert_replayed(chat(at(second, alice), "a"), answer)
        opened.simulator.clear()
        opened.simulator.fault("delay=600")
        with first.connected() as connection:
            connection.sendall(raw(alice, "b", CHAT, chat_body(stream=True)))
            first.wait_for_a_call()
            refused = chat(at(second, alice), "b", stream=True)
            assert (refused.status, refused.error["code"]) == (409, "idempotency_key_in_use")
        # Its client has left: the claim is given up at the first gateway, and taken at the second.
        anew = until_ended(at(second, alice), "b", CHAT, chat_body(stream=True))
        assert anew.status == 200
        assert REPLAYED not in anew.headers
        alice.settled()
        assert len(alice.charges()) == 3


@on_a_server
def test_a_call_whose_gateway_died_is_taken_over_by_another(opened: Site) -> None:
    with opened.gateway("second", workers=1) as second:
        with opened.gateway("first", workers=1) as first:
            alice = at(second, first.caller())
            die_in_a_call(first, at(first, alice))
            opened.console.run(console.end_leases)
        anew = until_ended(alice, "a", CHAT, chat_body())
        assert anew.status == 200
        assert REPLAYED not in anew.headers
        alice.settled()
        assert len(alice.charges()) == 2


@on_a_server
def test_a_call_whose_gateway_was_without_the_database_is_not_taken_over(
    opened: Site, tmp_path: Path
) -> None:
    """As after an outage that was longer than all leases: the second gateway is back before the first."""
    direct = opened.variables["DATABASE_URL"]
    with opened.gateway("second", workers=1) as second, Forwarder(direct) as cable:
        opened.variables["DATABASE_URL"] = cable.url
        with opened.gateway("first", workers=1) as first:
            alice = first.caller()
            opened.simulator.fault("tokens=20 wait")
            answers: list[Answer] = []
            thread = threading.Thread(target=lambda: answers.append(chat(alice, "a")))
            thread.start()
            first.wait_for_a_call()
            cable.cut()
            opened.console.run(console.end_leases)
            opened.simulator.release()
            thread.join()
            (answer,) = answers
            assert answer.status == 200
            refused = chat(at(second, alice), "a")
            assert (refused.status, refused.error["code"]) == (409, "idempotency_key_in_use")
            assert int(refused.headers["retry-after"]) >= 1
            cable.mend()
            assert_replayed(until_ended(at(second, alice), "a", CHAT, chat_body()), answer)
            at(second, alice).settled()
            assert len(alice.charges()) == len(second.journal()) == 1
            second.audit()


# --- The database goes away --------------------------------------------------------------------------------


@pytest.fixture
def cable(tmp_path: Path) -> Iterator[Forwarder]:
    with (
        provisioned(tmp_path / "tollgate.sqlite3") as variables,
        Forwarder(variables["DATABASE_URL"]) as found,
    ):
        yield found


@pytest.fixture
def served(cable: Forwarder, tmp_path: Path) -> Iterator[House]:
    with house(tmp_path, workers=1, DATABASE_URL=cable.url) as found:
        yield found
        # The end of the gateway should not have to wait for it.
        cable.mend()


@on_a_server
def test_an_answer_that_comes_while_it_is_away_is_passed_and_kept_when_it_is_back(
    served: House, cable: Forwarder
) -> None:
    alice = served.caller()
    served.simulator.fault("tokens=20 wait")
    answers: list[Answer] = []
    thread = threading.Thread(target=lambda: answers.append(chat(alice, "a")))
    thread.start()
    served.wait_for_a_call()
    cable.cut()
    served.simulator.release()
    thread.join()
    (answer,) = answers
    assert answer.status == 200
    again = chat(alice, "a")
    assert again.status == 503
    assert again.headers["retry-after"] == "1"
    cable.mend()

    def is_repeated() -> bool:
        found = chat(alice, "a")
        # Whatever happens in between, it is not made anew.
        assert found.status in (503, 409) or REPLAYED in found.headers
        return found.status == 200 and found.body == answer.body

    wait_for(is_repeated)
    alice.settled()
    assert len(alice.charges()) == 1
    assert len(served.journal()) == 1


@on_a_server
def test_a_stream_that_ends_while_it_is_away_is_kept_when_it_is_back(served: House, cable: Forwarder) -> None:
    alice = served.caller()
    served.simulator.fault("tokens=20 stall=5 stall_after=10")
    with chat_stream(alice, "a") as response:
        came = response.readline()
        cable.cut()
        came += response.read()
    cable.mend()

    def is_repeated() -> bool:
        found = chat(alice, "a", stream=True)
        assert found.status in (503, 409) or REPLAYED in found.headers
        return found.status == 200 and found.body == came

    wait_for(is_repeated)
    alice.settled()
    assert len(alice.charges()) == 1


@on_a_server
def test_a_call_that_fails_while_it_is_away_is_not_under_way_when_it_is_back(
    served: House, cable: Forwarder
) -> None:
    alice = served.caller()
    served.simulator.fault("status=500 wait")
    thread = threading.Thread(target=lambda: chat(alice, "a"))
    thread.start()
    served.wait_for_a_call()
    cable.cut()
    served.simulator.release()
    thread.join()
    cable.mend()
    wait_for(lambda: chat(alice, "a").status == 200)
    alice.settled()
    assert len(alice.charges()) == 1
