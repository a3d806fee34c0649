"""A PostgreSQL server that can be made to go away, by a cable that can be cut: the server itself stays up."""

import selectors
import socket
import threading
from contextlib import suppress
from types import TracebackType
from urllib.parse import quote

from psycopg2.extensions import parse_dsn


class Forwarder:
    """Passes connections on to a server, until it is `cut`, and again once it is `mend`ed."""

    def __init__(self, database_url: str) -> None:
        """`database_url`: where to; `url` is then the same database, by way of this."""
        target = parse_dsn(database_url)
        self._host = target.get("host", "127.0.0.1")
        self._port = int(target.get("port", 5432))
        self._listener = socket.create_server(("127.0.0.1", 0))
        user, password = target.get("user", "postgres"), target.get("password", "")
        credentials = quote(user) + (f":{quote(password)}" if password else "")
        own_port = self._listener.getsockname()[1]
        self.url = f"postgresql://{credentials}@127.0.0.1:{own_port}/{target['dbname']}?sslmode=disable"
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._is_cut = False
        self._thread = threading.Thread(target=self._accept)

    def __enter__(self) -> "Forwarder":
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.cut()
        # Closing it would not wake the thread that waits on it.
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listener.close()

    def cut(self) -> None:
        """Ends all connections, and refuses new ones."""
        with self._lock:
            self._is_cut = True
            for connection in self._open:
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)

    def mend(self) -> None:
        with self._lock:
            self._is_cut = False

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            with self._lock:
                far = None if self._is_cut else self._connect()
                if far is None:
                    near.close()
                    continue
                self._open |= {near, far}
            threading.Thread(target=self._pass, args=(near, far)).start()

    def _connect(self) -> socket.socket:
        if self._host.startswith("/"):
            far = socket.socket(socket.AF_UNIX)
            far.connect(f"{self._host}/.s.PGSQL.{self._port}")
            return far
        return socket.create_connection((self._host, self._port))

    def _pass(self, near: socket.socket, far: socket.socket) -> None:
        """Passes bytes both ways until one side ends."""
        with near, far, selectors.DefaultSelector() as ready, suppress(OSError):
            ready.register(near, selectors.EVENT_READ, far)
            ready.register(far, selectors.EVENT_READ, near)
            going = True
            while going:
                for key, _ in ready.select():
                    data = key.fileobj.recv(65_536)  # type: ignore[union-attr]
                    key.data.sendall(data)
                    going = going and bool(data)
        with self._lock:
            self._open -= {near, far}
