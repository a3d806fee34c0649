"""Work that ends while no gateway runs is paid for once, when one runs again."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from django.conf import settings

from gateway.tests import console
from openai_app.tests.deferred_work import BEGIN, begin_batch, charged, truth
from openai_app.tests.harness import Caller
from openai_app.tests.sites import Site, at, end_turn_to_poll, kill, site

LINES = 1_000
IS_SQLITE = settings.DATABASES["default"]["ENGINE"].endswith("sqlite3")


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Site]:
    with site(tmp_path) as found:
        yield found


def begin_all(alice: Caller) -> list[str]:
    """One of each kind of work, the batch a large one."""
    others = [begin(alice) for kind, begin in BEGIN.items() if kind != "batch"]
    return [begin_batch(alice, LINES), *others]


def open_holds(place: Site) -> list[str]:
    return [hold["awaits"] for hold in place.console.run(console.holds, state="open")]


def assert_paid_once(alice: Caller, work: list[str]) -> None:
    paid, true = charged(alice), truth(alice.house)
    assert paid.keys() == set(work)
    assert paid == true
    assert all(paid[work_id] for work_id in work if not work_id.startswith("ft-"))
    account = alice.account()
    assert account["held"] == 0
    assert account["balance"] == 10_000_000 + sum(entry["amount"] for entry in alice.charges())
    assert "wrong" not in alice.house.audit()


@pytest.mark.parametrize("is_killed", [False, True], ids=["stopped", "killed"])
def test_work_that_ends_while_the_gateway_is_down_is_paid_once_it_is_up(
    opened: Site, is_killed: bool
) -> None:
    with opened.gateway() as first:
        alice = first.caller(10_000_000)
        work = begin_all(alice)
        if is_killed:
            kill(first)
    assert len(open_holds(opened)) == len(work)
    assert set(opened.simulator.finish()) == set(work)
    # What awaits its end is not given up as what a dead process left.
    assert "0 holds ended" in opened.console.run(console.command, "sweep")
    assert len(open_holds(opened)) == len(work)
    if is_killed:
        opened.console.run(end_turn_to_poll)
    with opened.gateway() as second:
        second.wait_until_settled()
        assert_paid_once(at(second, alice), work)


@pytest.mark.skipif(IS_SQLITE, reason="one host alone can have a database that is a file")
def test_two_gateways_on_one_database_settle_once(opened: Site) -> None:
    with opened.gateway("first") as first, opened.gateway("second") as second:
        alice = first.caller(10_000_000)
        work = begin_all(alice) + [BEGIN["response"](at(second, alice)) for _ in range(10)]
        assert set(opened.simulator.finish()) == set(work)
        second.wait_until_settled()
        assert_paid_once(at(second, alice), work)


@pytest.mark.skipif(IS_SQLITE, reason="one host alone can have a database that is a file")
def test_when_the_gateway_that_polls_dies_another_takes_over(opened: Site) -> None:
    with opened.gateway("first", workers=1) as first:
        alice = first.caller(10_000_000)
        earlier = [BEGIN["response"](alice)]
        opened.simulator.finish()
        first.wait_until_settled()
        with opened.gateway("second", workers=1) as second:
            later = [BEGIN["response"](alice), BEGIN["video"](alice)]
            kill(first)
            opened.console.run(end_turn_to_poll)
            opened.simulator.finish()
            second.wait_until_settled()
            assert_paid_once(at(second, alice), earlier + later)
