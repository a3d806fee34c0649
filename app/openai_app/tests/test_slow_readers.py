"""Clients that read next to nothing of what OpenAI sends at full speed: the rest waits there, not here."""

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from openai_app.settlement import charge
from openai_app.tests.harness import Caller, House, chat_body, house, wait_for
from openai_app.tests.raw_upstream import STREAM_HEAD, chunk
from openai_app.tests.test_timeouts import WORD

READERS = 20
# What one reader may cost at most.
MOST_BYTES_A_READER = 2 * 1024 * 1024
SOUND_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: audio/mpeg\r\ncontent-length: 100000000\r\n\r\n"
# More than all buffers on the way hold.
EMBEDDED = (
    b'{"object":"list","data":[{"object":"embedding","index":0,"embedding":"%s"}],'
    b'"model":"text-embedding-3-small","usage":{"prompt_tokens":2,"total_tokens":2}}' % (b"A" * 16_000_000)
)
EMBEDDED_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(
    EMBEDDED
)


class Torrent:
    """An upstream that sends without end, as fast as it is taken from it; embeddings in one piece."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=100)
        self.base_url = f"http://127.0.0.1:{self._listener.getsockname()[1]}/v1"
        self.sent_bytes = 0
        self.connections: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                self.connections.append(connection)
                self._threads.append(threading.Thread(target=self._serve, args=(connection,)))
                self._threads[-1].start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, suppress(OSError):
            request = connection.recv(65_536)
            if request.startswith(b"POST /v1/embeddings "):
                connection.sendall(EMBEDDED_HEAD + EMBEDDED)
                return
            is_sound = request.startswith(b"POST /v1/audio/speech ")
            connection.sendall(SOUND_HEAD if is_sound else STREAM_HEAD)
            piece = bytes(65_536) if is_sound else chunk(WORD * 1_000)
            while True:
                self.sent_bytes += connection.send(piece)

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in self.connections:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()

    def wait_until_nobody_takes_more(self) -> None:
        """Until nothing more was sent for as long as it takes to be sure."""
        seen = [(0.0, -1)]

        def is_quiet() -> bool:
            now, sent = time.monotonic(), self.sent_bytes
            if sent != seen[-1][1]:
                seen[:] = [(now, sent)]
            return now - seen[0][0] > 2

        # A slow machine takes minutes to fill all the buffers.
        wait_for(is_quiet, within_s=600)


@pytest.fixture(scope="module")
def torrent() -> Iterator[Torrent]:
    opened = Torrent()
    yield opened
    opened.close()


@pytest.fixture
def served(torrent: Torrent, tmp_path: Path) -> Iterator[House]:
    with house(tmp_path, workers=1, upstream=torrent.base_url) as opened:
        yield opened


@pytest.fixture
def hasty(torrent: Torrent, tmp_path: Path) -> Iterator[House]:
    """A gateway that waits three seconds for a reader, not ten minutes."""
    program = "import common.asgi; common.asgi.READER_WITHIN_S = 3.0"
    with house(tmp_path, workers=1, upstream=torrent.base_url, program=program) as opened:
        yield opened


def resident_bytes(process: int) -> int:
    status = Path(f"/proc/{process}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) * 1024


def begin(served: House, alice: Caller, path: str, body: bytes) -> socket.socket:
    """A call of whose answer only the beginning is read."""
    host, _, port = served.url.rpartition("/")[2].partition(":")
    connection = socket.create_connection((host, int(port)), timeout=60)
    head = (
        f"POST {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {alice.key}\r\n"
        f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    connection.sendall(head.encode() + body)
    assert connection.recv(1_000).startswith(b"HTTP/1.1 200 ")
    return connection


SPEECH = json.dumps({"model": "tts-1", "input": "Hello!", "voice": "alloy"}).encode()


@pytest.mark.parametrize(
    ("path", "body", "reason"),
    [
        ("/v1/chat/completions", chat_body(stream=True), charge.LEFT),
        ("/v1/audio/speech", SPEECH, charge.LEFT),
    ],
    ids=["events", "bytes"],
)
def test_readers_that_hardly_read_cost_little_memory_and_are_charged_when_they_leave(
    served: House,
    torrent: Torrent,
    path: str,
    body: bytes,
    reason: str,
    record_property: Callable[[str, object], None],
) -> None:
    alice = served.caller(10_000_000)
    worker = served.gateway.workers[0]
    # Whatever the first call takes once and for all.
    begin(served, alice, path, body).close()
    alice.settled()
    before = resident_bytes(worker)
    with ExitStack() as opened:
        readers = [opened.enter_context(begin(served, alice, path, body)) for _ in range(READERS)]
        # A kilobyte a second each, while all buffers on the way are filled.
        torrent.wait_until_nobody_takes_more()
        for _ in range(3):
            for reader in readers:
                assert reader.recv(1_000)
        torrent.wait_until_nobody_takes_more()
        during = resident_bytes(worker)
        # They are in nobody's way.
        assert alice.call("GET", "/api/balance").status == 200
        assert len(alice.holds(state="open")) == READERS
    each = (during - before) / READERS
    record_property("figures", f"slow readers of {path}: {each / 1024:.0f} kB of memory each")
    assert each < MOST_BYTES_A_READER
    alice.settled()
    assert {entry["reason"] for entry in alice.charges()} == {reason}
    assert len(alice.charges()) == READERS + 1
    served.audit()


def test_readers_that_hardly_read_a_large_answer_in_one_piece_cost_little_memory(
    served: House, torrent: Torrent, record_property: Callable[[str, object], None]
) -> None:
    alice = served.caller()
    worker = served.gateway.workers[0]
    body = json.dumps({"model": "text-embedding-3-small", "input": "Hello!", "encoding_format": "base64"})
    path = "/v1/embeddings"
    # Whatever the first call takes once and for all.
    whole = alice.call("POST", path, body.encode())
    assert whole.body == EMBEDDED
    assert whole.headers["content-length"] == str(len(EMBEDDED))
    assert whole.headers["x-balance-charged"] == "2"
    before = resident_bytes(worker)
    with ExitStack() as opened:
        readers = [opened.enter_context(begin(served, alice, path, body.encode())) for _ in range(READERS)]
        torrent.wait_until_nobody_takes_more()
        during = resident_bytes(worker)
        # They have been paid for already, and are in nobody's way.
        assert len(alice.charges()) == READERS + 1
        assert until_it_has_come(readers[0])
    each = (during - before) / READERS
    record_property("figures", f"slow readers of {path}: {each / 1024:.0f} kB of memory each")
    assert each < MOST_BYTES_A_READER
    assert {entry["reason"] for entry in alice.charges()} == {charge.FINISHED}
    served.audit()


def until_it_has_come(reader: socket.socket) -> bool:
    """Whether all that was begun comes to its end."""
    last = b""
    while not last.endswith(EMBEDDED[-100:]):
        data = reader.recv(1024 * 1024)
        if not data:
            return False
        last = (last + data)[-100:]
    return True


def until_it_is_cut_off(reader: socket.socket) -> int:
    """Reads what is left, and says how much it was. Raises TimeoutError if the connection stays open."""
    read = 0
    with suppress(ConnectionResetError):
        while data := reader.recv(1024 * 1024):
            read += len(data)
    return read


@pytest.mark.parametrize(
    ("path", "body"),
    [("/v1/chat/completions", chat_body(stream=True)), ("/v1/audio/speech", SPEECH)],
    ids=["events", "bytes"],
)
def test_a_reader_who_stops_is_given_up_as_one_who_left(
    hasty: House, torrent: Torrent, path: str, body: bytes
) -> None:
    alice = hasty.caller(10_000_000)
    with begin(hasty, alice, path, body) as reader:
        # It stays connected, and says nothing.
        alice.settled()
        (hold,) = alice.holds()
        assert (hold["state"], hold["reason"]) == ("posted", charge.LEFT)
        assert len(alice.charges()) == 1
        torrent.wait_until_nobody_takes_more()
        assert 0 < until_it_is_cut_off(reader) < 100_000_000
    hasty.audit()


def test_a_reader_who_is_slow_is_not_given_up(hasty: House) -> None:
    alice = hasty.caller(10_000_000)
    with begin(hasty, alice, "/v1/audio/speech", SPEECH) as reader:
        until = time.monotonic() + 10
        while time.monotonic() < until:
            # For seconds at a time the gateway can write nothing: buffers go down in large steps.
            assert reader.recv(60_000)
            time.sleep(0.2)
        assert len(alice.holds(state="open")) == 1
    alice.settled()
