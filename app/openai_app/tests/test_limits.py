"""Limits by the minute and of parallel calls, as callers meet them."""

import asyncio
import json
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import aiohttp
import openai
import pytest

from gateway.tests import console
from openai_app.tests.harness import HELLO, JSON, PATIENCE_S, Answer, Caller, House, chat_body, wait_for
from openai_app.tests.test_parallel_calls import statuses_of

# A stream that goes on until its client leaves.
ENDLESS = "tokens=10 stall=600 stall_after=2"
HELLO_TOKENS = 9


def limit(caller: Caller, **limits: int | None) -> None:
    """Limits of a user."""
    caller.house.console.run(console.change_user, caller.id, **limits)


def limit_key(caller: Caller, **limits: int | None) -> None:
    caller.house.console.run(console.change_key, caller.key_id, **limits)


def told(answer: Answer) -> dict[str, str]:
    """What an answer tells of limits."""
    return {
        name.removeprefix("x-ratelimit-"): value
        for name, value in answer.headers.items()
        if name.startswith("x-ratelimit-")
    }


def hello(client: openai.OpenAI, **fields: Any) -> Any:
    """The official client's call, with its headers and the number of its retries."""
    create: Any = client.chat.completions.with_raw_response.create
    return create(model="gpt-4o-mini", messages=HELLO, **fields)


def refusals(house: House) -> float:
    return house.metric("tollgate_calls_total", operation="createChatCompletion", status="429")


async def statuses_while_open(callers: list[Caller]) -> Counter[int]:
    """The statuses of streams that all callers open at once, none of which ends before each has one."""
    connector = aiohttp.TCPConnector(limit=0, force_close=True)
    timeout = aiohttp.ClientTimeout(total=PATIENCE_S)
    body = chat_body(ENDLESS, stream=True, max_tokens=20)
    async with aiohttp.ClientSession(timeout=timeout, connector=connector) as session:
        asked = [
            session.post(
                f"{caller.house.url}/v1/chat/completions",
                data=body,
                headers={"Authorization": f"Bearer {caller.key}", **JSON},
            )
            for caller in callers
        ]
        answers = await asyncio.gather(*asked)
        for answer in answers:
            answer.close()
        return Counter(answer.status for answer in answers)


# --- what a caller is told --------------------------------------------------------------------------------


def test_without_limits_no_answer_speaks_of_any(alice: Caller) -> None:
    answers = [alice.chat(), alice.call("GET", "/v1/models"), alice.chat("status=400")]
    with alice.chat_stream() as stream:
        names = [name.lower() for name, _ in stream.getheaders()]
    names += [name for answer in answers for name in answer.headers]
    assert not [name for name in names if name.startswith("x-ratelimit-")]


def test_answers_tell_what_is_left_as_openai_does(alice: Caller) -> None:
    limit(alice, requests_per_minute=1, tokens_per_minute=1_000)
    answer = alice.chat(max_tokens=491)
    reset = answer.headers["x-ratelimit-reset-tokens"]
    assert answer.status == 200
    assert told(answer) == {
        "limit-requests": "1",
        "remaining-requests": "0",
        "reset-requests": "1m0s",
        "limit-tokens": "1000",
        "remaining-tokens": "500",
        "reset-tokens": reset,
    }
    assert reset == "30s"


def test_the_tighter_of_key_and_user_speaks(alice: Caller) -> None:
    limit(alice, requests_per_minute=50, tokens_per_minute=100)
    limit_key(alice, requests_per_minute=20, tokens_per_minute=100_000)
    shown = told(alice.chat(max_tokens=11))
    assert (shown["limit-requests"], shown["remaining-requests"]) == ("20", "19")
    assert (shown["limit-tokens"], shown["remaining-tokens"]) == ("100", "80")


def test_streams_errors_and_free_calls_tell_it_too(alice: Caller) -> None:
    limit(alice, requests_per_minute=10)
    with alice.chat_stream() as stream:
        assert stream.getheader("x-ratelimit-limit-requests") == "10"
        stream.read()
    for number, answer in enumerate((alice.call("GET", "/v1/models"), alice.chat("status=400")), 2):
        shown = told(answer)
        assert shown.keys() == {"limit-requests", "remaining-requests", "reset-requests"}
        assert int(shown["remaining-requests"]) >= 10 - number


def test_a_refusal_says_which_limit_how_much_was_used_and_when_to_try_again(alice: Caller) -> None:
    limit(alice, requests_per_minute=1)
    assert alice.chat().status == 200
    refused = alice.chat()
    wait_ms = int(refused.headers["retry-after-ms"])
    assert (refused.status, refused.error["type"], refused.error["code"]) == (
        429,
        "requests",
        "rate_limit_exceeded",
    )
    assert refused.error["message"].startswith(
        "Rate limit reached for gpt-4o-mini on requests per min (RPM) of your account: "
        "Limit 1, Used 1, Requested 1. Please try again in "
    )
    assert 0 < wait_ms <= 60_000
    assert int(refused.headers["retry-after"]) == -(-wait_ms // 1000)
    assert told(refused)["remaining-requests"] == "0"


def test_a_refused_call_costs_nothing_and_is_not_forwarded(alice: Caller) -> None:
    limit(alice, requests_per_minute=1)
    alice.chat()
    before = alice.account()
    assert {alice.chat().status for _ in range(4)} == {429}
    assert alice.account() == before
    assert len(alice.house.journal()) == len(alice.charges()) == len(alice.holds()) == 1


@pytest.mark.parametrize(("kind", "limits"), [("user", "requests"), ("key", "tokens")])
def test_who_waits_as_long_as_was_said_passes(gateway: House, alice: Caller, kind: str, limits: str) -> None:
    gateway.simulator.fault("tokens=91", times=None)
    if limits == "requests":
        limit(alice, requests_per_minute=1)
    else:
        limit_key(alice, tokens_per_minute=100)
    assert alice.chat(max_tokens=91).status == 200
    refused = alice.chat(max_tokens=91)
    wait_s = int(refused.headers["retry-after-ms"]) / 1000
    assert (refused.status, refused.error["type"]) == (429, limits)
    owner = f"{kind}:{alice.id if kind == 'user' else alice.key_id}"
    alice.house.console.run(console.let_limits_pass_by, owner, wait_s)
    assert alice.chat(max_tokens=91).status == 200


def test_a_changed_limit_is_in_force_with_the_next_call_on_every_worker(gateway: House) -> None:
    alice, olga = gateway.caller(kind="login"), gateway.caller(0, is_superuser=True)

    def change(**limits: int | None) -> None:
        body = json.dumps(limits).encode()
        assert olga.call("PATCH", f"/api/users/{alice.id}", body).status == 200

    change(requests_per_minute=1)
    assert [alice.chat().status for _ in range(6)] == [200] + [429] * 5
    change(requests_per_minute=3)
    assert sorted(alice.chat().status for _ in range(6)) == [200] * 2 + [429] * 4
    change(requests_per_minute=None)
    assert {alice.chat().status for _ in range(6)} == {200}
    body = b'{"requests_per_minute": 1}'
    assert alice.call("PATCH", f"/api/keys/{alice.key_id}", body).status == 200
    assert [alice.chat().status for _ in range(4)] == [200] + [429] * 3


def test_each_call_counts_once_free_or_paid_large_or_small(gateway: House) -> None:
    alice = gateway.caller(10_000_000)
    limit(alice, requests_per_minute=20)
    # So large that the key is looked at before the body is read.
    large = [{"role": "user", "content": "Hello! " * 200_000}]
    answers = [
        alice.call("GET", "/v1/models"),
        alice.chat(max_tokens=1),
        alice.chat(messages=large, max_tokens=1),
        alice.call("GET", "/v1/files?limit=2"),
        alice.call("GET", "/v1/files/file-of-nobody"),
        alice.call("POST", "/v1/responses", b'{"model": "gpt-4o-mini", "input": "Hello!"}'),
    ]
    assert [answer.status for answer in answers] == [200, 200, 200, 200, 404, 200]
    for number, answer in enumerate(answers, 1):
        # More is left where time has passed, never less.
        assert int(told(answer)["remaining-requests"]) >= 20 - number


# --- tokens -----------------------------------------------------------------------------------------------


def test_tokens_that_a_call_did_not_use_come_back_when_it_has_ended(gateway: House, alice: Caller) -> None:
    gateway.simulator.fault("tokens=1", times=None)
    limit(alice, tokens_per_minute=1_000)
    answers = [alice.chat(max_tokens=900) for _ in range(5)]
    assert [answer.status for answer in answers] == [200] * 5
    assert {hold["tokens"] for hold in alice.holds()} == {HELLO_TOKENS + 900}


def test_tokens_of_a_call_that_openai_refused_come_back_whole(gateway: House, alice: Caller) -> None:
    gateway.simulator.fault("status=400", times=5)
    limit_key(alice, tokens_per_minute=1_000)
    assert [alice.chat(max_tokens=990).status for _ in range(6)] == [400] * 5 + [200]


def test_a_call_larger_than_the_limit_is_told_that_it_never_passes(alice: Caller) -> None:
    limit(alice, tokens_per_minute=1_000)
    refused = alice.chat(max_tokens=992)
    assert (refused.status, refused.error["type"], refused.error["code"]) == (
        429,
        "tokens",
        "rate_limit_exceeded",
    )
    assert "Request too large" in refused.error["message"]
    assert "Limit 1000, Requested 1001" in refused.error["message"]
    assert "retry-after" not in refused.headers
    assert "retry-after-ms" not in refused.headers
    assert told(refused)["remaining-tokens"] == "1000"
    assert alice.chat(max_tokens=991).status == 200


def test_output_that_nobody_bounded_is_bounded_to_fit_into_the_minute(gateway: House, alice: Caller) -> None:
    gateway.simulator.fault("tokens=2000", times=None)
    limit(alice, tokens_per_minute=1_000)
    answer = alice.chat()
    assert (answer.status, answer.json["usage"]["total_tokens"]) == (200, 1_000)
    (call,) = gateway.journal()
    assert call["body"]["max_completion_tokens"] == 1_000 - HELLO_TOKENS


# --- parallel calls ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("of", ["user", "key"])
async def test_of_many_calls_at_the_same_time_exactly_so_many_pass_as_may(
    gateway: House, alice: Caller, bob: Caller, of: str
) -> None:
    (limit if of == "user" else limit_key)(alice, parallel_calls=4)
    statuses = await statuses_while_open([alice] * 25 + [bob] * 3)
    assert statuses == {200: 4 + 3, 429: 21}
    alice.settled()
    assert await statuses_while_open([alice] * 5) == {200: 4, 429: 1}
    alice.settled()
    gateway.audit()


def test_a_call_that_has_ended_makes_room(alice: Caller) -> None:
    limit(alice, parallel_calls=1)
    assert {alice.chat(max_tokens=5).status for _ in range(5)} == {200}
    with alice.chat_stream(ENDLESS) as stream:
        stream.readline()
        refused = alice.chat()
        assert (refused.status, refused.error["type"], refused.headers["retry-after"]) == (
            429,
            "requests",
            "1",
        )
        assert "parallel calls of your account: Limit 1, Used 1" in refused.error["message"]
        assert alice.call("GET", "/v1/models").status == 200
    alice.settled()
    assert alice.chat().status == 200


async def test_of_many_requests_at_once_no_more_pass_than_the_minute_allows(
    gateway: House, alice: Caller
) -> None:
    limit(alice, requests_per_minute=10)
    began = time.monotonic()
    statuses = Counter(await statuses_of([alice] * 60, chat_body(max_tokens=5)))
    drained = (time.monotonic() - began) * 10 / 60
    assert statuses.keys() == {200, 429}
    assert 10 <= statuses[200] <= 10 + drained
    assert len(gateway.journal()) == len(alice.charges()) == statuses[200]


# --- the official client ----------------------------------------------------------------------------------


def test_the_official_client_waits_and_tries_again_by_itself(gateway: House, alice: Caller) -> None:
    limit(alice, parallel_calls=1)
    before = refusals(gateway)
    with alice.client(max_retries=100) as client, ThreadPoolExecutor(1) as aside, ExitStack() as first:
        stream = first.enter_context(alice.chat_stream(ENDLESS))
        stream.readline()
        second = aside.submit(hello, client)
        wait_for(lambda: refusals(gateway) > before)
        first.close()
        answer = second.result(PATIENCE_S)
    assert answer.parse().choices[0].message.content
    assert answer.retries_taken == refusals(gateway) - before >= 1


def test_the_official_client_waits_for_the_minutes_limit_as_well(gateway: House, alice: Caller) -> None:
    limit(alice, requests_per_minute=60)
    owner = f"user:{alice.id}"
    alice.house.console.run(console.fill_limits, owner)
    before = refusals(gateway)
    with alice.client(max_retries=5) as client:
        answer = hello(client)
    assert answer.retries_taken == refusals(gateway) - before
    assert answer.headers["x-ratelimit-limit-requests"] == "60"


def test_the_official_client_does_not_try_again_what_never_passes(gateway: House, alice: Caller) -> None:
    limit(alice, tokens_per_minute=100)
    before = refusals(gateway)
    with alice.client(max_retries=5) as client, pytest.raises(openai.RateLimitError) as refused:
        hello(client, max_tokens=1_000)
    assert (refused.value.type, refused.value.code) == ("tokens", "rate_limit_exceeded")
    assert refusals(gateway) - before == 1
