"""Clients that ask for Django's pages and do not read them: they keep nobody else from theirs."""

import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from gateway.tests.running import log_of
from gateway.turns import DJANGO_AT_ONCE
from openai_app.owned.records import THREADS
from openai_app.tests.harness import House, house, wait_for
from openai_app.tests.test_lessons_running import IS_SQLITE, clients_of, database_of

BUNDLE = "/static/drf_spectacular_sidecar/swagger-ui-dist/swagger-ui-bundle.js"
READERS = DJANGO_AT_ONCE + 2
# The system would take whole answers off the gateway's hands.
SMALL_BUFFERS = """
import socket
from gunicorn.sock import BaseSocket
set_options = BaseSocket.set_options
def set_small_buffers(self, sock, **options):
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65_536)
    return set_options(self, sock, **options)
BaseSocket.set_options = set_small_buffers
"""
# The ledger's and the records', which a worker keeps, and the test's.
OWN_CONNECTIONS = 1 + THREADS + 1


@pytest.fixture
def served(tmp_path: Path) -> Iterator[House]:
    with house(tmp_path, workers=1, program=SMALL_BUFFERS) as opened:
        yield opened


def ask(served: House, path: str, authorization: str = "") -> list[socket.socket]:
    """Clients that ask and read nothing."""
    host, _, port = served.url.rpartition("/")[2].partition(":")
    request = f"GET {path} HTTP/1.1\r\nhost: localhost\r\n{authorization}\r\n".encode()
    readers = []
    for _ in range(READERS):
        reader = socket.socket()
        reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        reader.connect((host, int(port)))
        reader.sendall(request)
        readers.append(reader)
    return readers


def test_readers_of_pages_who_stop_reading_keep_nobody_waiting(served: House, tmp_path: Path) -> None:
    alice = served.caller()
    with ExitStack() as opened:
        for reader in ask(served, BUNDLE):
            opened.enter_context(reader)
        # All of them are being answered.
        time.sleep(1)
        # Whoever waits for a turn for too long gets a 503.
        assert alice.call("POST", "/api/user/auth", b"{}").status == 400
        assert alice.call("GET", BUNDLE).status == 200
    assert alice.call("GET", "/api/balance").status == 200
    assert "Traceback" not in log_of(tmp_path / "data").read_text()


@pytest.mark.skipif(IS_SQLITE, reason="SQLite keeps the files of connections that are closed, for new ones")
def test_readers_of_pages_who_stop_reading_keep_no_connection_to_the_database(
    served: House, tmp_path: Path
) -> None:
    alice = served.caller()
    assert alice.call("GET", "/api/schema").status == 200
    url = database_of(served)
    with ExitStack() as opened:
        for reader in ask(served, "/api/schema", f"Authorization: Bearer {alice.key}\r\n"):
            opened.enter_context(reader)
        # All of them are being answered, or have been.
        time.sleep(READERS * 0.5)
        wait_for(lambda: clients_of(url) <= OWN_CONNECTIONS, within_s=20)
    wait_for(lambda: clients_of(url) <= OWN_CONNECTIONS, within_s=10)
    assert "Traceback" not in log_of(tmp_path / "data").read_text()
