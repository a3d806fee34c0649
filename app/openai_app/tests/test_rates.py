"""What the operator's rates do to a charge, to a hold and to a cap."""

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest

from openai_app.tests.deferred_work import ASSISTANTS, lines_of, new_thread, post, upload
from openai_app.tests.harness import Caller, House, wait_for

# Models that no other test calls, so that their rates are nobody else's business.
DEAR_OUTPUT = "gpt-4.1-nano"
TENTHS = "o3-mini"
FREE = "gpt-3.5-turbo"
BY_PATTERN = "o4-mini"
REASONING = "o3"
RATES = (
    (DEAR_OUTPUT, "cached_input", "0.25"),
    (DEAR_OUTPUT, "output", "4"),
    (TENTHS, "input", "0.1"),
    (TENTHS, "output", "0.1"),
    (FREE, "input", "0"),
    (FREE, "output", "0"),
    ("o4-m*", "input", "2"),
    ("o4-mi*", "output", "3"),
    ("o4-m*", "output", "2"),
    (REASONING, "output", "2"),
    (REASONING, "reasoning", "5"),
)
HELLO_TOKENS = 9
REASONING_HELLO_TOKENS = 8


@pytest.fixture(scope="module", autouse=True)
def operator(shared_house: House) -> Iterator[Caller]:
    """Who has set the rates."""
    olga = shared_house.caller(0, is_superuser=True)
    made = [set_rate(olga, *rate) for rate in RATES]
    # They are in force within a second.
    time.sleep(1.5)
    yield olga
    for number in made:
        assert olga.call("DELETE", f"/api/rates/{number}").status == 204


def set_rate(olga: Caller, model: str, unit: str, credits: str) -> int:
    rate = {"model": model, "unit": unit, "credits_per_unit": credits}
    made = olga.call("POST", "/api/rates", json.dumps(rate).encode())
    assert made.status == 201, made.body
    number: int = made.json["id"]
    return number


def only_charge(caller: Caller) -> dict[str, Any]:
    (charge,) = caller.charges()
    return charge


def test_cached_input_may_cost_less_and_output_more(gateway: House, alice: Caller) -> None:
    gateway.simulator.fault("prompt=1000 cached=800 tokens=10")
    answer = alice.chat(model=DEAR_OUTPUT)
    assert answer.headers["x-balance-charged"] == str(200 + 800 // 4 + 10 * 4)
    charge = only_charge(alice)
    assert charge["amount"] == -440
    assert charge["units"] == {"input": 200, "cached_input": 800, "output": 10}
    assert charge["rate"] == {"input": 1_000_000, "cached_input": 250_000, "output": 4_000_000}


@pytest.mark.parametrize(("model", "credits"), [(REASONING, 5), (DEAR_OUTPUT, 4)])
def test_reasoning_has_a_rate_of_its_own_or_that_of_output(
    gateway: House, alice: Caller, model: str, credits: int
) -> None:
    gateway.simulator.fault("prompt=10 tokens=20 reasoning=30")
    assert alice.chat(model=model).json["usage"]["completion_tokens"] == 50
    charge = only_charge(alice)
    assert charge["units"] == {"input": 10, "output": 20, "reasoning": 30}
    output = {REASONING: 2, DEAR_OUTPUT: 4}[model]
    assert charge["amount"] == -(10 + 20 * output + 30 * credits)
    assert charge["rate"]["reasoning"] == credits * 1_000_000


def test_output_that_may_all_be_reasoning_is_capped_at_its_rate(gateway: House) -> None:
    alice = gateway.caller(REASONING_HELLO_TOKENS + 5 * 20 + 4)
    gateway.simulator.fault("tokens=1000")
    assert alice.chat(model=REASONING).status == 200
    assert gateway.journal()[0]["body"]["max_completion_tokens"] == 20


def test_a_batch_costs_what_the_model_of_its_lines_does(gateway: House, alice: Caller) -> None:
    asked = {"model": DEAR_OUTPUT, "messages": [{"role": "user", "content": "Hello!"}], "max_tokens": 100}
    file_id = upload(alice, lines_of(asked), "batch")
    endpoint = "/v1/chat/completions"
    post(alice, "/batches", input_file_id=file_id, endpoint=endpoint, completion_window="24h")
    (hold,) = alice.holds(state="open")
    # No batch is held for less input than this.
    assert (hold["model"], hold["amount"]) == (DEAR_OUTPUT, 1_000 + 4 * 100)
    gateway.simulator.finish()
    alice.settled()
    charge = only_charge(alice)
    assert charge["model"] == DEAR_OUTPUT
    assert charge["amount"] == -(charge["units"]["input"] + 4 * charge["units"]["output"])


def test_a_fraction_of_a_credit_is_rounded_up_once(gateway: House, alice: Caller) -> None:
    gateway.simulator.fault("prompt=11 tokens=10")
    alice.chat(model=TENTHS)
    assert only_charge(alice)["amount"] == -3


def test_dear_output_is_capped_so_that_it_can_be_paid(gateway: House) -> None:
    alice = gateway.caller(HELLO_TOKENS + 4 * 25 + 3)
    gateway.simulator.fault("tokens=1000")
    assert alice.chat(model=DEAR_OUTPUT).json["usage"]["completion_tokens"] == 25
    assert gateway.journal()[0]["body"]["max_completion_tokens"] == 25
    assert alice.balance() == 3


def test_a_pattern_prices_the_models_that_begin_so_and_the_longer_one_wins(
    gateway: House, alice: Caller
) -> None:
    gateway.simulator.fault("prompt=100 tokens=10")
    alice.chat(model=BY_PATTERN)
    assert only_charge(alice)["amount"] == -(100 * 2 + 10 * 3)


def test_free_input_and_output_cost_nothing_and_need_no_balance(gateway: House) -> None:
    alice = gateway.caller(0)
    answer = alice.chat(model=FREE)
    assert answer.status == 200
    assert answer.headers["x-balance-charged"] == "0"
    assert "max_completion_tokens" not in gateway.journal()[0]["body"]
    assert only_charge(alice)["amount"] == 0


@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "asked after"])
def test_a_run_that_names_no_model_costs_what_its_assistants_model_costs(
    gateway: House, alice: Caller, stream: bool
) -> None:
    thread_id, assistant_id = new_thread(alice, model=DEAR_OUTPUT)
    path = f"/v1/threads/{thread_id}/runs"
    body = json.dumps({"assistant_id": assistant_id, "stream": stream}).encode()
    answer = alice.call("POST", path, body, ASSISTANTS)
    assert answer.status == 200
    if not stream:
        gateway.simulator.finish()
        alice.settled()
    charge = only_charge(alice)
    assert charge["model"] == DEAR_OUTPUT
    assert charge["amount"] == -(charge["units"]["input"] + 4 * charge["units"]["output"])


def test_a_change_of_a_rate_is_soon_in_force_on_every_worker(gateway: House, operator: Caller) -> None:
    gateway.simulator.fault("prompt=9 tokens=10", times=None)
    alice = gateway.caller()

    def charged() -> set[str]:
        return {alice.chat(model="o1").headers["x-balance-charged"] for _ in range(8)}

    wait_for(lambda: charged() == {str(9 + 10)})
    number = set_rate(operator, "o1", "output", "9")
    wait_for(lambda: charged() == {str(9 + 10 * 9)})
    operator.call("PATCH", f"/api/rates/{number}", b'{"credits_per_unit": "2"}')
    wait_for(lambda: charged() == {str(9 + 10 * 2)})
    operator.call("DELETE", f"/api/rates/{number}")
    wait_for(lambda: charged() == {str(9 + 10)})
