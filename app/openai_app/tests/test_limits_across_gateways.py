"""Two gateways on one database hold one limit between them."""

from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from gateway.tests.console import Console
from gateway.tests.running import environment, provisioned, running
from openai_app.tests.harness import OPERATORS_KEY, Caller, House
from openai_app.tests.test_limits import limit, limit_key, statuses_while_open
from simulator.testing import SimulatorProcess


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[House, House]]:
    """Two gateways of two workers each, with folders of their own, on one database."""
    folder = tmp_path_factory.mktemp("pair")
    with (
        SimulatorProcess() as simulator,
        provisioned(folder / "shared.sqlite3") as variables,
        ExitStack() as stack,
    ):
        given = {
            "WEB_CONCURRENCY": "2",
            "OPENAI_BASE_URL": simulator.base_url,
            "OPENAI_API_KEY": OPERATORS_KEY,
            "DJANGO_SUPERUSER_PASSWORD": "of no use here",
            **variables,
        }
        opened = []
        for name in ("one", "two"):
            gateway = stack.enter_context(running(folder / name, **given))
            beside = stack.enter_context(Console(environment(folder / name, **given)))
            opened.append(House(gateway, simulator, beside))
        yield opened[0], opened[1]


@pytest.mark.parametrize("of", ["user", "key"])
async def test_of_calls_at_the_same_time_on_two_gateways_exactly_so_many_pass_as_may(
    pair: tuple[House, House], of: str
) -> None:
    here, there = pair
    alice = here.caller()
    (limit if of == "user" else limit_key)(alice, parallel_calls=5)
    elsewhere = Caller(there, alice.id, alice.key, alice.key_id)
    assert await statuses_while_open([alice, elsewhere] * 10) == {200: 5, 429: 15}
    alice.settled()
    here.audit()


def test_a_request_at_one_gateway_counts_at_the_other(pair: tuple[House, House]) -> None:
    here, there = pair
    alice = here.caller()
    limit(alice, requests_per_minute=2)
    elsewhere = Caller(there, alice.id, alice.key, alice.key_id)
    answers = [caller.chat() for caller in (alice, elsewhere, alice, elsewhere)]
    assert Counter(answer.status for answer in answers[:2]) == {200: 2}
    assert answers[1].headers["x-ratelimit-remaining-requests"] == "0"
    assert {answer.status for answer in answers[2:]} == {429}
