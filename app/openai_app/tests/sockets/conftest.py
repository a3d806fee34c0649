"""A gateway whose upstream of WebSockets does what a test tells it, for all tests of a process."""

from collections.abc import Iterator

import pytest

from openai_app.tests.harness import Caller, House, house
from openai_app.tests.sockets.upstream import SocketUpstream


@pytest.fixture(scope="session")
def socket_upstream() -> Iterator[SocketUpstream]:
    upstream = SocketUpstream()
    yield upstream
    upstream.close()


@pytest.fixture(scope="session")
def opened(tmp_path_factory: pytest.TempPathFactory, socket_upstream: SocketUpstream) -> Iterator[House]:
    folder = tmp_path_factory.mktemp("sockets")
    with house(folder, workers=1, upstream=socket_upstream.base_url) as opened_house:
        yield opened_house


@pytest.fixture
def caller(opened: House) -> Iterator[Caller]:
    """A user with plenty; in the end nothing is on hold, and the ledger adds up."""
    yield opened.caller()
    opened.wait_until_settled()
    opened.audit()
