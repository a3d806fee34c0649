"""What is lost when processes die or get into each other's way: nothing that a client was answered."""

import asyncio
import os
import random
import signal
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import aiohttp
import pytest

from gateway.tests import console
from gateway.tests.console import Console
from gateway.tests.running import environment
from openai_app.tests.harness import JSON, PATIENCE_S, Caller, House, chat_body, house, wait_for
from openai_app.tests.test_parallel_calls import statuses_of

HELLO_TOKENS = 9
USERS = 8
PLENTY = 10_000_000


@pytest.fixture
def mortal(tmp_path: Path) -> Iterator[House]:
    """A gateway whose workers are killed."""
    with house(tmp_path, workers=2) as opened:
        yield opened


class Load:
    """Clients that call one after another; what each was answered whole is kept."""

    def __init__(self, callers: list[Caller]) -> None:
        self._callers = callers
        self.answered: dict[str, int] = {}
        self.goes_on = True

    def has_answered(self, calls: int) -> bool:
        return len(self.answered) >= calls

    def run(self) -> None:
        asyncio.run(self._run())

    async def _run(self) -> None:
        timeout = aiohttp.ClientTimeout(total=PATIENCE_S)
        connector = aiohttp.TCPConnector(limit=0, force_close=True)
        async with aiohttp.ClientSession(timeout=timeout, connector=connector) as session:
            await asyncio.gather(*[self._call(session, caller) for caller in self._callers])

    async def _call(self, session: aiohttp.ClientSession, caller: Caller) -> None:
        headers = {"Authorization": f"Bearer {caller.key}", **JSON}
        url = f"{caller.house.url}/v1/chat/completions"
        while self.goes_on:
            try:
                async with session.post(url, data=chat_body(max_tokens=20), headers=headers) as answer:
                    document = await answer.json()
                    if answer.status == 200:
                        self.answered[answer.headers["x-request-id"]] = document["usage"]["total_tokens"]
            except (aiohttp.ClientError, ConnectionError):
                # Its worker was killed.
                await asyncio.sleep(0.01)


def test_a_worker_killed_under_load_loses_no_charge_of_an_answered_call(mortal: House) -> None:
    """Seconds of counters are not lost with it, and the counter of holds agrees with their rows at once."""
    chance = random.Random(20261121)
    users = [mortal.caller(PLENTY) for _ in range(USERS)]
    mortal.simulator.fault("tokens=5 chunk_delay=0.01", times=None)
    load = Load(users * 4)
    with ThreadPoolExecutor(1) as thread:
        running = thread.submit(load.run)
        try:
            for number in range(1, 5):
                wait_for(partial(load.has_answered, number * 40))
                os.kill(chance.choice(mortal.gateway.workers), signal.SIGKILL)
                # Before anybody has swept, and while the other worker goes on.
                assert "wrong" not in mortal.audit()
                wait_for(lambda: len(mortal.gateway.workers) == 2)
        finally:
            load.goes_on = False
        running.result()
    entries = mortal.console.run(console.entries, kind="charge")
    charged = {entry["hold_id"]: -entry["amount"] for entry in entries}
    assert {request_id: charged.get(request_id) for request_id in load.answered} == load.answered
    assert len(load.answered) >= 160
    mortal.console.run(console.end_leases)
    mortal.console.run(console.command, "sweep")
    mortal.wait_until_settled()
    assert "wrong" not in mortal.audit()


def test_a_charge_is_on_disk_the_moment_its_answer_is_read(mortal: House) -> None:
    """Both workers and the master are killed as soon as the last byte is there."""
    alice = mortal.caller()
    mortal.simulator.fault("tokens=7")
    answer = alice.chat()
    workers = mortal.gateway.workers
    mortal.gateway.process.kill()
    for worker in workers:
        os.kill(worker, signal.SIGKILL)
    (entry,) = mortal.console.run(console.entries, account_id=alice.id, kind="charge")
    assert entry["hold_id"] == answer.request_id
    assert entry["units"] == {"input": HELLO_TOKENS, "output": 7}
    assert "wrong" not in mortal.audit()


# --- processes that lock the same accounts --------------------------------------------------------------


def add_to_all(user_ids: list[int], rounds: int, seed: int) -> None:
    """Adds a credit to every user in each round, in an order of its own; for the console."""
    from balances import ledger
    from balances.models import Entry
    from balances.operations import Change, Posted

    chance = random.Random(seed)
    for _ in range(rounds):
        chance.shuffle(user_ids)
        changes = [Change(user_id, Entry.Kind.GRANT, 1, None, "For a test") for user_id in user_ids]
        assert all(isinstance(result, Posted) for result in ledger.apply(changes))


def test_no_increment_is_lost_to_a_deadlock_of_two_processes_with_crossing_batches(
    gateway: House, tmp_path: Path
) -> None:
    """Beside the gateway's own workers, who charge the same accounts at the same time."""
    rounds, users = 60, [gateway.caller(PLENTY) for _ in range(USERS)]
    ids = [user.id for user in users]
    gateway.simulator.fault("tokens=5", times=None)
    variables = gateway.console.run(database_variables)
    with (
        Console(environment(tmp_path / "data", **variables)) as another,
        ThreadPoolExecutor(2) as threads,
    ):
        adding = [
            threads.submit(place.run, add_to_all, ids, rounds, seed)
            for seed, place in enumerate((gateway.console, another))
        ]
        statuses = asyncio.run(statuses_of(users * 15, chat_body(max_tokens=20)))
        for each in adding:
            each.result()
    assert Counter(statuses) == {200: 15 * USERS}
    for user in users:
        assert user.account()["balance"] == PLENTY + 2 * rounds - 15 * (HELLO_TOKENS + 5)
    assert "wrong" not in gateway.audit()


def database_variables() -> dict[str, str]:
    """The environment by which another process reaches the same database; for the console."""
    from django.conf import settings

    given = {"OPENAI_BASE_URL": settings.OPENAI_BASE_URL, "SECRET_KEY": settings.SECRET_KEY}
    if settings.DATABASES["default"]["ENGINE"].endswith("sqlite3"):
        return {**given, "DATABASE_URL": f"sqlite:///{settings.DATABASES['default']['NAME']}"}
    return {**given, "DATABASE_URL": os.environ["DATABASE_URL"]}
