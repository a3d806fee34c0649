"""A thousand calls of all kinds, a third of them cut by the client at a random moment, each charged rightly.

What the simulator really served (its journal) is held against the entries, by the rules in `charge`. Each
call has a key of its own, which its hold and its entry name.
"""

import asyncio
import json
import random
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import aiohttp
import pytest

from gateway.tests import console
from openai_app.settlement import charge
from openai_app.tests.harness import JSON, PATIENCE_S, House

CALLS = 1000
USERS = 20
AT_ONCE = 32
SEED = 20261121
TOOL = {
    "type": "function",
    "function": {
        "name": "look_up",
        "parameters": {"type": "object", "properties": {"q": {"type": "string"}}},
    },
}
# Directives, and whether the call may be a stream, or must be.
KINDS: tuple[tuple[int, str, bool | None], ...] = (
    (20, "tokens=12", None),
    (20, "tokens=60 chunk_delay=0.001", True),
    (10, "tokens=30 delay=0.02", None),
    (8, "tools=2", None),
    (6, "tokens=20 reasoning=30", None),
    (6, "prompt=50 cached=40 tokens=8", None),
    (6, "tokens=20 usage_with_choices", True),
    (4, "tokens=20 no_usage", None),
    (3, "status=400", None),
    (3, "status=429 retry_after=1", None),
    (3, "status=500", None),
    (2, "html", None),
    (2, "malformed tokens=20", False),
    (2, "reset", None),
    (3, "tokens=40 reset_after=15", None),
    (2, "tokens=40 close_after=15", None),
    (2, "tokens=40 truncate_after=15", None),
    (2, "tokens=40 error_after=15", True),
    (2, "tokens=40 no_done", True),
)


@dataclass
class Call:
    """One call: what was asked, and whether its client left before the end."""

    index: int
    key_id: int
    key: str
    does: str
    stream: bool
    cut_after_s: float | None
    was_cut: bool = False

    def body(self) -> bytes:
        said = {"role": "user", "content": f"Hello! [[simulate:{self.does}]]"}
        fields: dict[str, Any] = {"model": "gpt-4o-mini", "messages": [said], "max_completion_tokens": 200}
        if "tools" in self.does:
            fields["tools"] = [TOOL]
        return json.dumps({**fields, "stream": self.stream, "user": str(self.index)}).encode()


def longest_cut_s(house: House) -> float:
    """The time by which clients leave: on a slow machine the calls take longer, and so do they."""
    caller, took = house.caller(), []
    # The first has connections to make.
    for _ in range(3):
        began = time.monotonic()
        assert caller.chat().status == 200
        took.append(time.monotonic() - began)
    return max(0.06, 6 * min(took))


def plan(keys: list[console.Person], longest_s: float) -> list[Call]:
    """The calls, alike in each run but for how long `longest_s` is, within which clients leave."""
    chance = random.Random(SEED)
    calls = []
    for index, person in enumerate(keys):
        (_, does, must_stream) = chance.choices(KINDS, [kind[0] for kind in KINDS])[0]
        stream = chance.random() < 0.5 if must_stream is None else must_stream
        cut = chance.uniform(0, longest_s) if chance.random() < 1 / 3 else None
        calls.append(Call(index, person.key_id, person.key, does, stream, cut))
    chance.shuffle(calls)
    return calls


async def perform(url: str, calls: list[Call]) -> None:
    turn = asyncio.Semaphore(AT_ONCE)
    # A connection for each, because that is what a client that leaves closes.
    connector = aiohttp.TCPConnector(limit=0, force_close=True)
    async with aiohttp.ClientSession(connector=connector) as session:

        async def read(call: Call) -> None:
            headers = {"Authorization": f"Bearer {call.key}", **JSON}
            async with session.post(url, data=call.body(), headers=headers) as answer:
                # An answer that breaks off as directed.
                with suppress(aiohttp.ClientPayloadError):
                    await answer.read()

        async def one(call: Call) -> None:
            async with turn:
                try:
                    async with asyncio.timeout(call.cut_after_s or PATIENCE_S):
                        await read(call)
                except TimeoutError:
                    assert call.cut_after_s
                    call.was_cut = True

        await asyncio.gather(*[one(call) for call in calls])


def complaint(
    call: Call, served: dict[str, Any] | None, hold: dict[str, Any] | None, entry: dict[str, Any] | None
) -> str | None:
    """What is wrong with a call's charge, if anything is."""
    charged = -entry["amount"] if entry else 0
    reason = hold["reason"] if hold else "(never held)"
    counted_input = hold["counted"].get("input", 0) if hold else 0
    units = entry["units"] if entry else {}
    if hold and hold["state"] == "open":
        return "it is still on hold"
    if bool(entry) != bool(hold and hold["state"] == "posted"):
        return f"its hold is {hold and hold['state']} and its entry {entry}"
    if served is None:
        # The client left before the request was out, or just as it went out.
        allowed = (call.was_cut and reason in (charge.UNSENT, charge.LEFT, "(never held)")) or charged == 0
        return None if allowed and charged in (0, counted_input) else f"not served, {charged}, {reason}"
    if hold is None:
        return "it was served without a hold"
    truth = served["usage"] and served["usage"]["total_tokens"]
    if served["status"] != 200 or "malformed" in call.does or "reset" in call.does.split():
        left = call.stream and call.was_cut and charged == counted_input
        return None if charged == 0 or left else f"it was refused and charged {charged}"
    if reason in (charge.FINISHED, charge.CUT_REPORTED):
        return None if charged == truth else f"charged {charged}, used {truth}"
    if reason == charge.NO_USAGE:
        fits = "no_usage" in call.does and charged == hold["amount"]
        return None if fits else f"charged {charged} of a hold of {hold['amount']}: {reason}"
    if not call.stream:
        half = served["state"] == "broken" and charged == 0
        return None if half else f"a call in one piece was charged {charged} of {truth}: {reason}"
    if reason == charge.FAILED:
        # Broken before the first event was out.
        return None if served["state"] == "broken" and charged == 0 else f"{reason} {served['state']}"
    if reason == charge.LEFT and not call.was_cut:
        return "nobody had left"
    if reason == charge.BROKEN and served["state"] != "broken" and "error_after" not in call.does:
        return f"nothing had broken: {served['state']}"
    # As far as it can be seen from the outside: the input, and no more output than was sent.
    # Pieces of a tool's call are counted together, and may come to a token more than one by one.
    most = served["tokens_sent"] + (2 if "tools" in call.does else 0)
    if served["tokens_sent"] and reason == charge.BROKEN and units["output"] != served["tokens_sent"]:
        return f"{units['output']} tokens counted, {served['tokens_sent']} sent before it broke"
    fits = units["input"] == counted_input and units["output"] <= most and charged == sum(units.values())
    return None if fits else f"{units} counted, {served['tokens_sent']} sent: {reason}"


@pytest.fixture(scope="module")
def calls(undisturbed: House) -> list[Call]:
    """The calls, made and settled."""
    undisturbed.simulator.clear()
    longest_s = longest_cut_s(undisturbed)
    # Of the calls that were only measured nothing is in the journal.
    undisturbed.simulator.clear()
    keys: list[console.Person] = []
    for _ in range(USERS):
        user = undisturbed.caller(10_000_000)
        keys += undisturbed.console.run(console.add_keys, user.id, CALLS // USERS)
    calls = plan(keys, longest_s)
    asyncio.run(perform(f"{undisturbed.url}/v1/chat/completions", calls))
    undisturbed.wait_until_settled()
    return calls


def test_nothing_is_on_hold_afterwards_and_the_ledger_adds_up(shared_house: House, calls: list[Call]) -> None:
    assert shared_house.console.run(console.holds, state="open") == []
    assert "wrong" not in shared_house.audit()


def test_each_call_is_charged_what_was_served(shared_house: House, calls: list[Call]) -> None:
    key_ids = [call.key_id for call in calls]
    holds = {h["key_id"]: h for h in shared_house.console.run(console.holds, key_id__in=key_ids)}
    entries = shared_house.console.run(console.entries, key_id__in=key_ids)
    assert {entry["kind"] for entry in entries} == {"charge"}
    charges = {entry["key_id"]: entry for entry in entries}
    assert len(charges) == len(entries)
    served = {int(line["body"]["user"]): line for line in shared_house.journal() if line["body"]}
    wrong = []
    for call in calls:
        line, hold, entry = served.get(call.index), holds.get(call.key_id), charges.get(call.key_id)
        if words := complaint(call, line, hold, entry):
            wrong.append(f"{call.does!r} stream={call.stream} cut={call.was_cut}: {words}")
    assert wrong == []
    # The mix is one: calls of every ending are in it.
    reasons = Counter(hold["reason"] for hold in holds.values())
    cut = sum(call.was_cut for call in calls)
    assert cut > CALLS / 10
    assert {charge.FINISHED, charge.NO_USAGE, charge.LEFT, charge.BROKEN, charge.REFUSED, charge.FAILED} <= (
        reasons.keys()
    ), reasons


def test_a_call_in_one_piece_is_charged_exactly_though_its_client_left(
    shared_house: House, calls: list[Call]
) -> None:
    served = {int(line["body"]["user"]): line for line in shared_house.journal() if line["body"]}
    checked = 0
    for call in calls:
        line = served.get(call.index)
        plain = call.does.startswith("tokens=12") or call.does.startswith("tokens=30")
        if call.was_cut and not call.stream and plain and line:
            (entry,) = shared_house.console.run(console.entries, key_id=call.key_id)
            assert -entry["amount"] == line["usage"]["total_tokens"]
            checked += 1
    assert checked > 0
