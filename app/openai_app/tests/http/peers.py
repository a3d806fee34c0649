"""Servers of bare sockets on the test's own event loop, and a client of theirs."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from openai_app.http.client import HttpClient
from openai_app.http.response import (
    Response,
)

PATIENCE_S = 30.0
HELLO = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Type: text/plain\r\n\r\nhello"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


@dataclass
class Peer:
    """The server's end of a connection."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def request(self) -> bytes:
        """The head of the next request, with the body that its length announces."""
        head = await self.reader.readuntil(b"\r\n\r\n")
        for line in head.lower().split(b"\r\n"):
            if line.startswith(b"content-length: "):
                return head + await self.reader.readexactly(int(line[16:]))
        return head

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def is_closed(self) -> bool:
        """Whether the client ends the connection, soon enough."""
        async with asyncio.timeout(PATIENCE_S):
            with suppress(ConnectionError):
                while await self.reader.read(65_536):
                    pass
            return True


Serve = Callable[[Peer], Awaitable[None]]


@dataclass
class Server:
    """Serves each connection by the next of `serves`, the last one again and again."""

    serves: list[Serve]
    port: int = 0
    accepted: int = 0
    tasks: list[asyncio.Task[Any]] = field(default_factory=list)

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.tasks.append(task)
        serve = self.serves[min(self.accepted, len(self.serves) - 1)]
        self.accepted += 1
        try:
            with suppress(asyncio.IncompleteReadError, ConnectionError):
                await serve(Peer(reader, writer))
        finally:
            await closed(writer)


async def closed(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with suppress(OSError):
        await writer.wait_closed()


@asynccontextmanager
async def serving(*serves: Serve, tls: ssl.SSLContext | None = None, port: int = 0) -> AsyncIterator[Server]:
    server = Server(list(serves))
    listener = await asyncio.start_server(server, "127.0.0.1", port, ssl=tls)
    server.port = listener.sockets[0].getsockname()[1]
    try:
        yield server
    finally:
        listener.close()
        # Raises what a connection's server raised.
        async with asyncio.timeout(PATIENCE_S):
            await asyncio.gather(*server.tasks)


@asynccontextmanager
async def client_of(port: int, **options: Any) -> AsyncIterator[HttpClient]:
    """A client, which leaves neither a connection nor a task behind."""
    base_url = options.pop("base_url", f"http://127.0.0.1:{port}/v1")
    given = {"connect_timeout_s": PATIENCE_S, "read_timeout_s": PATIENCE_S, "keep_alive_s": PATIENCE_S}
    client = HttpClient(base_url, [(b"authorization", b"Bearer sk-x")], **{**given, **options})
    try:
        yield client
    finally:
        await client.close()
        assert client._connections == set()
        assert client._idle == []


async def get(client: HttpClient, target: str = "/models") -> Response:
    return await client.request("GET", target, [], b"")


def answering(*answers: bytes) -> Serve:
    """Answers one request after the other on a connection, then closes it."""

    async def serve(peer: Peer) -> None:
        for answer in answers:
            await peer.request()
            await peer.send(answer)

    return serve


async def silent(peer: Peer) -> None:
    await peer.is_closed()


async def until(is_so: Callable[[], Any]) -> None:
    """Waits for what comes to be by itself, soon enough."""
    async with asyncio.timeout(PATIENCE_S):
        while not is_so():  # noqa: ASYNC110
            await asyncio.sleep(0.01)
