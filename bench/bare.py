"""The yardstick: the least that a relay in Python on ASGI and aiohttp does, with no key, count or charge.

It reads the body, sends it on with the operator's key, and passes the answer back, whole or as it comes in.
Served exactly as Tollgate is: the same server, worker class, event loop, parser and collector settings.

    bare.py UPSTREAM LISTENER      the upstream's address; the descriptor of a bound socket
"""

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "app"))

import aiohttp
from gunicorn.app.base import BaseApplication

from common.asgi import Receive, Scope, Send, read_body
from gateway.server import BACKLOG, GRACEFUL_TIMEOUT_S, KEEP_ALIVE_S

MOST_BYTES = 64 * 1024 * 1024


class Relay:
    def __init__(self, upstream: str) -> None:
        self._upstream = upstream
        self._session: aiohttp.ClientSession | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await self._relay(scope, receive, send)
        elif scope["type"] == "lifespan":
            await self._live(receive, send)

    async def _live(self, receive: Receive, send: Send) -> None:
        await receive()
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            headers={"authorization": "Bearer the-operators-key", "accept-encoding": "identity"},
        )
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await self._session.close()
        await send({"type": "lifespan.shutdown.complete"})

    async def _relay(self, scope: Scope, receive: Receive, send: Send) -> None:
        assert self._session is not None
        body = await read_body(receive, MOST_BYTES)
        url = self._upstream + scope["path"].removeprefix("/v1")
        headers = {"content-type": "application/json"}
        async with self._session.request(scope["method"], url, data=body, headers=headers) as answer:
            content_type = answer.headers["content-type"].encode()
            passed = [(b"content-type", content_type)]
            if content_type.startswith(b"text/event-stream"):
                await send({"type": "http.response.start", "status": answer.status, "headers": passed})
                async for data in answer.content.iter_any():
                    await send({"type": "http.response.body", "body": data, "more_body": True})
                await send({"type": "http.response.body", "body": b""})
            else:
                whole = await answer.read()
                passed.append((b"content-length", str(len(whole)).encode()))
                await send({"type": "http.response.start", "status": answer.status, "headers": passed})
                await send({"type": "http.response.body", "body": whole})


class Server(BaseApplication):
    def __init__(self, upstream: str, listener: int) -> None:
        self._relay = Relay(upstream)
        self._listener = listener
        super().__init__()

    def load_config(self) -> None:
        options: dict[str, Any] = {
            "bind": f"fd://{self._listener}",
            "workers": 1,
            "worker_class": "gateway.worker.Worker",
            "preload_app": True,
            "graceful_timeout": GRACEFUL_TIMEOUT_S,
            "keepalive": KEEP_ALIVE_S,
            "backlog": BACKLOG,
            "control_socket_disable": True,
            "loglevel": "warning",
        }
        for name, value in options.items():
            self.cfg.set(name, value)

    def load(self) -> Relay:
        return self._relay


if __name__ == "__main__":
    Server(sys.argv[1], int(sys.argv[2])).run()
