"""A pool of HTTP/1.1 connections to one origin, directly or by a proxy."""

import asyncio
import base64
import socket
import ssl
from collections.abc import Callable, Iterable
from urllib.parse import unquote, urlsplit

import aiohappyeyeballs
from yarl import URL

from openai_app.http.connection import Body, Connection
from openai_app.http.response import ConnectTimeoutError, DisconnectedError, NotConnectedError, Response

# A second address of the server's is tried as well after this time (RFC 8305).
NEXT_ADDRESS_S = 0.25
# How often connections are looked at that may have been silent too long; that costs less than a timer each.
MOST_TICK_S = 1.0
# A proxy's answer to CONNECT has no business to be longer.
MOST_PROXY_BYTES = 64 * 1024


class HttpClient:
    """Made and used on one event loop, `close`d at its end."""

    def __init__(
        self,
        base_url: str,
        headers: Iterable[tuple[bytes, bytes]],
        *,
        connect_timeout_s: float,
        read_timeout_s: float,
        keep_alive_s: float,
        proxy: str | None = None,
        when_connected: Callable[[], None] = lambda: None,
    ) -> None:
        """`headers` go with each request. `proxy` is an address as the environment names it: http://host:port.

        `read_timeout_s` passes at most between two pieces of an answer; an idle connection is closed after
        `keep_alive_s`. `when_connected` is told of each new connection.
        """
        self._when_connected = when_connected
        self._loop = asyncio.get_running_loop()
        self._connect_timeout_s = connect_timeout_s
        self._read_timeout_s = read_timeout_s
        self._keep_alive_s = keep_alive_s
        url = URL(base_url)
        if url.scheme not in ("http", "https") or not url.raw_host or url.port is None:
            raise ValueError(f"No address of an HTTP server: {base_url!r}")
        self._host, self._port = url.raw_host, url.port
        self._peer = self._host, self._port
        self._prefix = url.raw_path.rstrip("/")
        self._tls = _tls_context() if url.scheme == "https" else None
        common = [(b"host", (url.host_port_subcomponent or "").encode("ascii")), *headers]
        self._connect_head = b""
        if proxy is not None:
            self._peer, authorization = _proxy_parts(proxy)
            if self._tls is None:
                self._prefix = f"{url.origin()}{self._prefix}"
                common += authorization
            else:
                name = f"{url.host_subcomponent}:{url.port}".encode("ascii")
                self._connect_head = _lines(b"CONNECT " + name, [(b"host", name), *authorization]) + b"\r\n"
        self._common = _header_lines(common)
        #: Those that are free, the last used last: it is the least likely to be closed just now.
        self._idle: list[Connection] = []
        self._connections: set[Connection] = set()
        self._tick: asyncio.TimerHandle | None = None
        self._is_closed = False

    async def request(
        self,
        method: str,
        target: str,
        headers: Iterable[tuple[bytes, bytes]],
        body: Body,
        length: int | None = None,
        when_sent: Callable[[], None] = lambda: None,
    ) -> Response:
        """The answer to a request for `target`, a path below the base URL with its query, percent-encoded.

        `length` is that of a body in pieces, if it is known. `when_sent` is told once there is a connection
        and the request goes out on it. Raises HttpError, TimeoutError when there is no
        answer; ValueError for what would not be one request. Only a GET is sent again, when it met a
        connection that was being closed.
        """
        head = self._head(method, target, headers, body, length)
        connection = self._idle.pop() if self._idle else None
        if connection is not None:
            try:
                return await self._send(connection, method, head, body, length, when_sent)
            except DisconnectedError:
                if method != "GET" or body != b"":
                    raise
        return await self._send(await self._connect(), method, head, body, length, when_sent)

    async def close(self) -> None:
        """Ends all connections and what goes on on them."""
        self._is_closed = True
        if self._tick is not None:
            self._tick.cancel()
        for connection in tuple(self._connections):
            connection.abort()
        # The transports close their sockets in the loop's next step.
        await asyncio.sleep(0)

    async def _send(
        self,
        connection: Connection,
        method: str,
        head: bytes,
        body: Body,
        length: int | None,
        when_sent: Callable[[], None],
    ) -> Response:
        response = connection.send(head, body, length, is_without_body=method == "HEAD")
        when_sent()
        try:
            await response.head()
        except BaseException:
            response.close()
            raise
        return response

    def _head(
        self,
        method: str,
        target: str,
        headers: Iterable[tuple[bytes, bytes]],
        body: Body,
        length: int | None,
    ) -> bytes:
        line = f"{method} {self._prefix}{target}"
        if not line.isascii() or not line.isprintable() or line.count(" ") != 1:
            raise ValueError(f"No request line: {line!r}")
        lines = _lines(line.encode("ascii"), headers) + self._common
        if not isinstance(body, bytes):
            framing = b"transfer-encoding: chunked" if length is None else b"content-length: %d" % length
        elif body or method not in ("GET", "HEAD"):
            framing = b"content-length: %d" % len(body)
        else:
            return lines + b"\r\n"
        return lines + framing + b"\r\n\r\n"

    # --- connections --------------------------------------------------------------------------------------

    async def _connect(self) -> Connection:
        """A new connection. Raises NotConnectedError."""
        try:
            async with asyncio.timeout(self._connect_timeout_s):
                connection = await self._connected()
        except TimeoutError as error:
            raise ConnectTimeoutError(f"{self._peer[0]}:{self._peer[1]} does not answer.") from error
        except OSError as error:
            raise NotConnectedError(f"{self._peer[0]}:{self._peer[1]}: {error}") from error
        if self._is_closed:
            connection.abort()
            raise NotConnectedError("The client is closed.")
        self._when_connected()
        self._connections.add(connection)
        if self._tick is None:
            self._tick = self._loop.call_later(self._tick_s(), self._expire)
        return connection

    async def _connected(self) -> Connection:
        # Names are looked up each time: what they stand for changes while a worker lives for months.
        found = await self._loop.getaddrinfo(*self._peer, type=socket.SOCK_STREAM)
        connected = await aiohappyeyeballs.start_connection(
            found, happy_eyeballs_delay=NEXT_ADDRESS_S, interleave=1, loop=self._loop
        )
        try:
            connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            # Ten minutes may pass without a byte, which routers between would take for the end.
            connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            if self._connect_head:
                await self._tunnel(connected)
            _, connection = await self._loop.create_connection(
                lambda: Connection(self._idle.append, self._forget),
                sock=connected,
                ssl=self._tls,
                server_hostname=self._host if self._tls is not None else None,
            )
        except BaseException:
            connected.close()
            raise
        return connection

    async def _tunnel(self, connected: socket.socket) -> None:
        """Has the proxy join the socket to the server (RFC 9110, section 9.3.6)."""
        await self._loop.sock_sendall(connected, self._connect_head)
        answer = b""
        # The server does not speak first in TLS: nothing of its comes along.
        while not answer.endswith(b"\r\n\r\n"):
            data = await self._loop.sock_recv(connected, 4096)
            answer += data
            if not data or len(answer) > MOST_PROXY_BYTES:
                raise NotConnectedError("The proxy gives no answer to CONNECT.")
        version, _, status = answer.partition(b"\r\n")[0].partition(b" ")
        if not version.startswith(b"HTTP/1.") or not status.startswith(b"2"):
            raise NotConnectedError(f"The proxy refuses to connect: {status[:100]!r}")

    def _forget(self, connection: Connection) -> None:
        self._connections.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)

    def _tick_s(self) -> float:
        return min(MOST_TICK_S, self._read_timeout_s / 10)

    def _expire(self) -> None:
        now = self._loop.time()
        for connection in tuple(self._connections):
            connection.expire(now, read_timeout_s=self._read_timeout_s, keep_alive_s=self._keep_alive_s)
        self._tick = self._loop.call_later(self._tick_s(), self._expire) if self._connections else None


def _tls_context() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    return context


def _proxy_parts(proxy: str) -> tuple[tuple[str, int], list[tuple[bytes, bytes]]]:
    """A proxy's host and port, and the header by which it lets us in."""
    parts = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
    if parts.scheme != "http" or not parts.hostname:
        raise ValueError("The proxy's address must be http://host:port.")
    authorization = []
    if parts.username is not None:
        password = f"{unquote(parts.username)}:{unquote(parts.password or '')}".encode()
        authorization.append((b"proxy-authorization", b"Basic " + base64.b64encode(password)))
    return (parts.hostname, parts.port or 80), authorization


def _lines(request: bytes, headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    return request + b" HTTP/1.1\r\n" + _header_lines(headers)


def _header_lines(headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Raises ValueError for what would break out of its line."""
    lines = [b"%b: %b\n" % header for header in headers]
    joined = b"".join(lines)
    if joined.count(b"\n") != len(lines) or b"\r" in joined or b"\0" in joined:
        raise ValueError("A header holds a control character.")
    return joined.replace(b"\n", b"\r\n")
