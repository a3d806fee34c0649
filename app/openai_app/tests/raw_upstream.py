"""An upstream of bare sockets, for what the simulator, a decent HTTP server, cannot do: wait for the test."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from openai_app.tests.harness import PATIENCE_S

STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n"
)
LAST_CHUNK = b"0\r\n\r\n"


def chunk(data: bytes) -> bytes:
    """A piece of a chunked body."""
    return b"%x\r\n%s\r\n" % (len(data), data)


class Connection:
    """A connection of the gateway's, with one request read from it."""

    def __init__(self, accepted: socket.socket) -> None:
        accepted.settimeout(PATIENCE_S)
        self.socket = accepted
        self.request = self._read_request()

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def send_chunk(self, data: bytes) -> None:
        self.send(chunk(data))

    def wait_until_closed(self) -> None:
        """Until the gateway closes the connection. Raises TimeoutError when it never does."""
        try:
            while self.socket.recv(65_536):
                pass
        except ConnectionResetError:
            pass

    def close(self) -> None:
        self.socket.close()

    def _read_request(self) -> bytes:
        data = b""
        while b"\r\n\r\n" not in data:
            data += self._receive()
        head, _, body = data.partition(b"\r\n\r\n")
        length = next(
            (int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")), 0
        )
        while len(body) < length:
            body += self._receive()
        return head + b"\r\n\r\n" + body

    def _receive(self) -> bytes:
        data = self.socket.recv(65_536)
        if not data:
            raise ConnectionError("The gateway closed the connection before its request was complete.")
        return data


class RawUpstream:
    """Listens; what becomes of a connection is up to the test."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(PATIENCE_S)
        self.base_url = f"http://127.0.0.1:{self._listener.getsockname()[1]}/v1"

    def accept(self) -> Connection:
        return Connection(self._listener.accept()[0])

    def close(self) -> None:
        self._listener.close()

    @contextmanager
    def serving(self, serve: Callable[[Connection], None]) -> Iterator[None]:
        """Serves one call by `serve` while the block runs, and raises what it raised."""
        errors: list[BaseException] = []

        def run() -> None:
            try:
                connection = self.accept()
                try:
                    serve(connection)
                finally:
                    connection.close()
            except BaseException as error:
                errors.append(error)

        thread = threading.Thread(target=run)
        thread.start()
        try:
            yield
        finally:
            thread.join()
        if errors:
            raise errors[0]
