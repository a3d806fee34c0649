"""What went wrong with money in gateways like this one, and must not here; see docs/lessons.md.

Holds, balances, entries: whatever the number of workers and instances, and however a call ends.
"""

import asyncio
import json
import socket
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gateway.tests import console
from openai_app.settlement import charge
from openai_app.tests.harness import JSON, Answer, Caller, House, chat_body, house, wait_for
from openai_app.tests.sites import at, site
from openai_app.tests.test_parallel_calls import statuses_of

HELLO_TOKENS = 9
OUTPUT_TOKENS = 20
CALL = HELLO_TOKENS + OUTPUT_TOKENS
PLENTY = 100_000


@pytest.fixture(scope="module")
def instances(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[House]]:
    """Two gateways of two workers on one database: two hosts behind one address."""
    with (
        site(tmp_path_factory.mktemp("instances")) as place,
        place.gateway("first") as first,
        place.gateway("second") as second,
    ):
        yield [first, second]


# --- one balance, many calls, workers and hosts ---------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True], ids=["json", "stream"])
def test_parallel_calls_at_two_instances_never_take_a_balance_below_zero(
    instances: list[House], stream: bool
) -> None:
    """The budget is neither overspent nor multiplied by the number of workers or instances."""
    first, second = instances
    first.simulator.clear()
    alice = first.caller(10 * CALL)
    # Nobody is answered before all have been decided upon.
    first.simulator.fault(f"tokens={OUTPUT_TOKENS} delay=1", times=None)
    callers = [alice, at(second, alice)] * 60
    statuses = asyncio.run(statuses_of(callers, chat_body(max_tokens=OUTPUT_TOKENS, stream=stream)))
    assert Counter(statuses) == {200: 10, 402: 110}
    assert alice.settled() == {"user": alice.id, "balance": 0, "held": 0, "available": 0}
    assert at(second, alice).account() == alice.account()
    assert len(first.journal()) == 10
    assert min(entry["balance_after"] for entry in alice.charges()) == 0
    assert "wrong" not in first.audit()


def test_a_hold_placed_at_one_instance_is_seen_at_the_other(instances: list[House]) -> None:
    """No instance counts for itself, not even for a moment."""
    first, second = instances
    first.simulator.clear()
    alice = first.caller(2 * CALL - 1)
    first.simulator.fault("tokens=20 stall=60 stall_after=1", contains="the one that is held")
    said = [{"role": "user", "content": "the one that is held"}]
    with alice.chat_stream(messages=said, max_tokens=OUTPUT_TOKENS) as response:
        assert response.readline().startswith(b"data: ")
        there = at(second, alice)
        assert there.account() == alice.account()
        assert there.account()["held"] > 0
        # Neither instance has so much left.
        assert there.account()["available"] < CALL
        shortened = there.chat(max_tokens=OUTPUT_TOKENS)
        assert shortened.status == 402 or shortened.json["usage"]["completion_tokens"] < OUTPUT_TOKENS
    alice.settled()


@pytest.mark.parametrize("traits", [{}, {"is_superuser": True}], ids=["rich-user", "superuser"])
def test_neither_a_rich_user_nor_a_superuser_bypasses_the_hold(
    gateway: House, traits: dict[str, Any]
) -> None:
    fortune = 2**53 - 1
    croesus = gateway.caller(fortune, **traits)
    with croesus.chat_stream("tokens=20 stall=60 stall_after=1", max_tokens=OUTPUT_TOKENS) as response:
        assert response.readline().startswith(b"data: ")
        account = croesus.account()
        assert account["held"] >= CALL
        assert account["available"] == fortune - account["held"]
    before = croesus.settled()["balance"]
    answer = croesus.chat(f"tokens={OUTPUT_TOKENS}")
    assert croesus.balance() == before - answer.json["usage"]["total_tokens"]
    assert croesus.hold_of(answer)["state"] == "posted"


def test_a_superuser_without_a_balance_is_refused_like_everybody(gateway: House) -> None:
    olga = gateway.caller(0, is_superuser=True)
    refused = olga.chat()
    assert (refused.status, refused.error["code"]) == (402, "insufficient_quota")
    assert gateway.journal() == []


# --- a hold has one end ---------------------------------------------------------------------------------

ENDINGS = {
    "finished": "tokens=20",
    "no usage": "tokens=20 no_usage",
    "refused": "status=400",
    "too many requests": "status=429",
    "quota of the operator": "status=429 quota",
    "failed": "status=500",
    "bad gateway": "html",
    "no JSON": "malformed",
    "reset before the first byte": "reset",
    "reset in the middle": "tokens=40 reset_after=15",
    "closed before the first event": "tokens=40 close_after=0",
    "closed in the middle": "tokens=40 close_after=15",
    "closed within an event": "tokens=40 truncate_after=15",
    "an error among the events": "tokens=40 error_after=15",
    "no last event": "tokens=20 no_done",
    "tools": "tools=1",
}


@pytest.mark.parametrize("stream", [False, True], ids=["json", "stream"])
@pytest.mark.parametrize("ending", ENDINGS)
def test_no_hold_leaks_however_a_call_ends(gateway: House, alice: Caller, ending: str, stream: bool) -> None:
    """Exactly one end: posted with one charge, or voided without any; and nothing stays reserved."""
    gateway.simulator.fault(ENDINGS[ending])
    with alice.open("POST", "/v1/chat/completions", chat_body(stream=stream, max_tokens=60)) as response:
        try:
            response.read()
        except OSError:
            pass  # An answer that breaks off as directed.
    assert alice.settled()["held"] == 0
    (hold,) = alice.holds()
    charges = alice.charges()
    assert hold["state"] == ("posted" if charges else "voided")
    assert hold["reason"]
    assert hold["ended_at"] is not None
    assert [entry["hold_id"] for entry in charges] == [hold["id"]] * (hold["state"] == "posted")
    assert alice.balance() == PLENTY + sum(entry["amount"] for entry in charges)
    assert "wrong" not in gateway.audit()


def test_no_hold_leaks_when_the_upstream_cannot_be_reached(tmp_path: Path) -> None:
    with socket.socket() as nobody_listens:
        nobody_listens.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{nobody_listens.getsockname()[1]}/v1"
        with house(tmp_path, workers=1, upstream=address) as alone:
            alice = alone.caller()
            for stream in (False, True):
                answer = alice.chat(stream=stream)
                assert answer.status in (502, 503)
                assert answer.headers["retry-after"]
            assert alice.account() == {
                "user": alice.id,
                "balance": PLENTY,
                "held": 0,
                "available": PLENTY,
            }
            assert {hold["state"] for hold in alice.holds()} <= {"voided"}
            assert "wrong" not in alone.audit()


# --- what is shown is what counts -----------------------------------------------------------------------


def test_the_shown_balance_is_the_enforced_one_and_follows_from_the_entries(
    gateway: House, alice: Caller
) -> None:
    """To the token: what is shown as available pays for exactly that, and for nothing more."""
    answers = [alice.chat(f"tokens={count}", max_tokens=60) for count in (1, 17, 40)]
    with alice.chat_stream("tokens=50 stall=60 stall_after=2", max_tokens=50) as response:
        assert response.readline().startswith(b"data: ")
        shown = alice.account()
        assert shown["available"] == shown["balance"] - shown["held"] < shown["balance"]
        entries = alice.call("GET", "/api/balance/entries").json["results"]
        assert shown["balance"] == sum(entry["amount"] for entry in entries)
        assert entries[0]["balance_after"] == shown["balance"]
        # One token less than a call takes is not enough; what a call takes is.
        set_balance(gateway, alice, shown["held"] + CALL - 1)
        assert alice.account()["available"] == CALL - 1
        gateway.simulator.fault(f"tokens={OUTPUT_TOKENS}", times=None)
        short = alice.chat(max_tokens=OUTPUT_TOKENS)
        assert short.json["usage"]["total_tokens"] == CALL - 1
        assert alice.account()["available"] == 0
        assert alice.chat(max_tokens=OUTPUT_TOKENS).status == 402
        set_balance(gateway, alice, shown["held"] + CALL)
        last = alice.chat(max_tokens=OUTPUT_TOKENS)
        assert last.json["usage"]["total_tokens"] == CALL
        assert last.headers["x-balance-remaining"] == str(alice.account()["available"]) == "0"
    assert all(answer.status == 200 for answer in answers)
    alice.settled()
    assert "wrong" not in gateway.audit()


def set_balance(gateway: House, caller: Caller, to_credits: int) -> None:
    olga = gateway.caller(0, is_superuser=True)
    body = json.dumps({"balance": to_credits}).encode()
    assert olga.call("PATCH", f"/api/balance/{caller.id}", body).status == 200


# --- nothing is dropped, and nobody waits for money afterwards ------------------------------------------


@pytest.mark.parametrize("stream", [False, True], ids=["json", "stream"])
def test_of_300_calls_at_once_none_beyond_the_first_100_loses_its_entry(gateway: House, stream: bool) -> None:
    alice = gateway.caller(300 * CALL)
    gateway.simulator.fault(f"tokens={OUTPUT_TOKENS} delay=0.5", times=None)
    made = gateway.console.run(console.add_keys, alice.id, 300)
    callers = [replace(alice, key=person.key, key_id=person.key_id) for person in made]
    statuses = asyncio.run(statuses_of(callers, chat_body(max_tokens=OUTPUT_TOKENS, stream=stream)))
    assert Counter(statuses) == {200: 300}
    assert alice.settled()["balance"] == 0
    charges = alice.charges()
    assert len(charges) == 300
    assert {entry["key_id"] for entry in charges} == {person.key_id for person in made}
    assert {entry["amount"] for entry in charges} == {-CALL}
    assert "wrong" not in gateway.audit()


@pytest.mark.parametrize("stream", [False, True], ids=["json", "stream"])
def test_the_charge_is_no_fire_and_forget_but_committed_when_the_answer_ends(
    gateway: House, alice: Caller, stream: bool
) -> None:
    """Read in the database itself, by another process, as soon as the last byte is there."""
    for count in range(1, 31):
        gateway.simulator.fault(f"tokens={count}")
        answer = alice.chat(stream=stream)
        entries = gateway.console.run(console.entries, account_id=alice.id, kind="charge")
        assert [entry["hold_id"] for entry in entries][-1] == answer.request_id
        assert entries[-1]["units"] == {"input": HELLO_TOKENS, "output": count}
        assert len(entries) == count


def test_no_money_is_ever_a_float(gateway: House, alice: Caller) -> None:
    """Neither a column, nor a number in an answer; fractions of a credit add up without an error."""
    assert gateway.console.run(columns_that_are_floats) == []
    # A model that no other test calls.
    rate = {"model": "gpt-4o-2024-05-13", "unit": "output", "credits_per_unit": "0.1"}
    olga = gateway.caller(0, is_superuser=True)
    made = olga.call("POST", "/api/rates", json.dumps(rate).encode())
    assert made.status == 201

    def charged(output: int) -> int:
        gateway.simulator.fault(f"tokens={output}")
        return int(alice.chat(model=rate["model"]).headers["x-balance-charged"])

    # Enough calls to land on both workers.
    wait_for(lambda: {charged(10) for _ in range(8)} == {HELLO_TOKENS + 1})
    # As floats, 3 times a tenth is more than 0.3, and 30 times would be more than 3.
    for output, credits in ((3, 1), (7, 1), (11, 2), (30, 3), (31, 4)):
        assert charged(output) == HELLO_TOKENS + credits
    assert olga.call("DELETE", f"/api/rates/{made.json['id']}").status == 204
    for path in ("/api/balance", "/api/balance/entries", "/api/usage"):
        assert floats_in(alice.call("GET", path).json) == []


def columns_that_are_floats() -> list[str]:
    """Every column of the ledger that is a floating-point number; for the console."""
    from django.apps import apps
    from django.db.models import FloatField

    return [
        f"{model.__name__}.{field.name}"
        for model in apps.get_app_config("balances").get_models()
        for field in model._meta.get_fields()
        if isinstance(field, FloatField)
    ]


def floats_in(value: Any) -> list[float]:
    """All numbers with a point in a JSON document."""
    if isinstance(value, dict | list):
        inner = value.values() if isinstance(value, dict) else value
        return [found for one in inner for found in floats_in(one)]
    return [value] if isinstance(value, float) else []


# --- retries --------------------------------------------------------------------------------------------


def test_a_call_that_is_refused_and_tried_again_is_released_once_each_time(
    gateway: House, alice: Caller
) -> None:
    """A refund that is repeated would leave more than there was."""
    for _ in range(5):
        gateway.simulator.fault("status=500")
        gateway.simulator.fault("reset")
        with alice.client(max_retries=4) as client:
            answer = client.chat.completions.create(
                model="gpt-4o-mini", messages=[{"role": "user", "content": "Hello!"}]
            )
        assert answer.usage is not None
    used = sum(call["usage"]["total_tokens"] for call in gateway.journal() if call["usage"])
    assert alice.account() == {
        "user": alice.id,
        "balance": PLENTY - used,
        "held": 0,
        "available": PLENTY - used,
    }
    assert Counter(hold["state"] for hold in alice.holds()) == {"posted": 5, "voided": 10}
    assert {hold["reason"] for hold in alice.holds(state="voided")} == {charge.REFUSED, charge.FAILED}


def nothing_moved(answer: Answer, caller: Caller) -> None:
    assert answer.status >= 400
    assert caller.account()["available"] == PLENTY


def test_a_body_that_breaks_the_counting_reserves_nothing(alice: Caller) -> None:
    """A panic on the way to the hold, or just behind it, must not leave one."""
    for body in (b'{"model": "gpt-4o-mini", "messages": 7}', b'{"model": "x", "n": -1}', b"[" * 3_000):
        nothing_moved(alice.call("POST", "/v1/chat/completions", body, JSON), alice)
    assert alice.holds(state="open") == []
