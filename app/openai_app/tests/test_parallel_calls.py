"""Many calls at once on one balance: never is more spent than there is."""

import asyncio
from collections import Counter

import aiohttp

from openai_app.tests.harness import JSON, PATIENCE_S, Caller, House, chat_body

HELLO_TOKENS = 9
OUTPUT_TOKENS = 20
CALL = HELLO_TOKENS + OUTPUT_TOKENS


async def statuses_of(callers: list[Caller], body: bytes) -> list[int]:
    """Calls for all callers at once and answers the statuses, in their order."""
    timeout = aiohttp.ClientTimeout(total=PATIENCE_S)
    connector = aiohttp.TCPConnector(limit=0, force_close=True)
    async with aiohttp.ClientSession(timeout=timeout, connector=connector) as session:

        async def call(caller: Caller) -> int:
            headers = {"Authorization": f"Bearer {caller.key}", **JSON}
            url = f"{caller.house.url}/v1/chat/completions"
            async with session.post(url, data=body, headers=headers) as answer:
                await answer.read()
                return answer.status

        return await asyncio.gather(*[call(caller) for caller in callers])


async def test_of_200_parallel_calls_exactly_the_10_that_the_balance_pays_for_pass(gateway: House) -> None:
    alice = gateway.caller(10 * CALL)
    # Nobody is answered before all have been decided upon.
    gateway.simulator.fault(f"tokens={OUTPUT_TOKENS} delay=0.5", times=None)
    statuses = await statuses_of([alice] * 200, chat_body(max_tokens=OUTPUT_TOKENS))
    assert Counter(statuses) == {200: 10, 402: 190}
    assert alice.account() == {"user": alice.id, "balance": 0, "held": 0, "available": 0}
    assert len(gateway.journal()) == 10
    assert [charge["amount"] for charge in alice.charges()] == [-CALL] * 10
    gateway.audit()


async def test_200_parallel_calls_without_a_limit_of_their_own_never_overspend(gateway: House) -> None:
    alice = gateway.caller(10 * CALL)
    gateway.simulator.fault("tokens=1000", times=None)
    statuses = await statuses_of([alice] * 200, chat_body())
    assert set(statuses) == {200, 402}
    account = alice.account()
    assert account["held"] == 0
    assert account["balance"] >= 0
    truth = [call["usage"]["total_tokens"] for call in gateway.journal()]
    assert account["balance"] == 10 * CALL - sum(truth)
    assert sorted(-charge["amount"] for charge in alice.charges()) == sorted(truth)
    gateway.audit()


async def test_parallel_streams_never_overspend_either(gateway: House) -> None:
    alice = gateway.caller(10 * CALL)
    gateway.simulator.fault(f"tokens={OUTPUT_TOKENS} delay=0.5", times=None)
    statuses = await statuses_of([alice] * 50, chat_body(max_tokens=OUTPUT_TOKENS, stream=True))
    assert Counter(statuses) == {200: 10, 402: 40}
    assert alice.settled()["balance"] == 0
    gateway.audit()


async def test_two_users_who_call_at_once_each_pay_for_their_own_calls(
    gateway: House, alice: Caller, bob: Caller
) -> None:
    gateway.simulator.fault("tokens=5", times=None)
    statuses = await statuses_of([alice, bob, bob] * 20, chat_body(max_tokens=5))
    assert set(statuses) == {200}
    assert alice.balance() == 100_000 - 20 * (HELLO_TOKENS + 5)
    assert bob.balance() == 100_000 - 40 * (HELLO_TOKENS + 5)
    assert {charge["key_id"] for charge in alice.charges()} == {alice.key_id}


async def test_one_user_without_balance_does_not_disturb_another(gateway: House, alice: Caller) -> None:
    poor = gateway.caller(0)
    statuses = await statuses_of([alice, poor] * 30, chat_body(max_tokens=5))
    assert statuses == [200, 402] * 30


def test_a_relaxed_account_may_end_below_zero_by_one_call(gateway: House) -> None:
    alice = gateway.caller(HELLO_TOKENS, relaxed=True)
    gateway.simulator.fault("tokens=200", times=None)
    assert [alice.chat().status, alice.chat().status] == [200, 402]
    assert alice.balance() == -200
    gateway.audit()


def test_a_relaxed_account_must_still_cover_the_input(gateway: House) -> None:
    alice = gateway.caller(HELLO_TOKENS - 1, relaxed=True)
    assert alice.chat().status == 402
    assert gateway.journal() == []
