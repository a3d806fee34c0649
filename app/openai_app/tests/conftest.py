"""One gateway of two workers and its simulator for all tests of a process; people are made for each test."""

from collections.abc import Iterator

import pytest

from openai_app.tests.harness import (
    GONE_AFTER_S,
    Caller,
    House,
    give_up_deferred_work,
    house,
    polling,
)


@pytest.fixture(scope="session")
def shared_house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with house(tmp_path_factory.mktemp("house"), program=polling(GONE_AFTER_S=GONE_AFTER_S)) as opened:
        yield opened


@pytest.fixture(scope="module")
def undisturbed(shared_house: House) -> House:
    """The gateway, which no longer asks after what the tests of other files have left."""
    shared_house.console.run(give_up_deferred_work)
    return shared_house


@pytest.fixture
def gateway(undisturbed: House) -> House:
    """The gateway, its simulator without memories."""
    undisturbed.simulator.clear()
    return undisturbed


@pytest.fixture
def alice(gateway: House) -> Caller:
    """A user with plenty."""
    return gateway.caller(name="alice")


@pytest.fixture
def bob(gateway: House) -> Caller:
    return gateway.caller(name="bob")
