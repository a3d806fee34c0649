"""WebSockets: what their two endpoints, /v1/realtime and /v1/responses, have in common.

Directives are taken from the last event that had a marker, and serve one response. Of those about the way
things go, delay, chunk_delay, status, stall with stall_after, close_after and reset_after work here; both of
the last two end the connection in the middle.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import orjson

from simulator import errors
from simulator.directives import NOTHING, DirectiveError, Directives, in_body, parse
from simulator.exchange import Receive, Scope, Send, new_id
from simulator.journal import Call
from simulator.world import World

KEY_PROTOCOL = "openai-insecure-api-key."  # how a browser, which can't set headers, passes its key
SUBPROTOCOL = "realtime"
NORMAL_CLOSE = 1000
SERVER_ERROR_CLOSE = 1011
LOOK_EVERY_S = 0.02


class Left(Exception):
    """The client closed the connection, or the simulator did, as directed."""


class Socket:
    """One open connection.

    Attributes:
        call: its line in the journal; each response has a line of its own.
        inbox: events that wait.
    """

    def __init__(self, world: World, scope: Scope, receive: Receive, send: Send, call: Call) -> None:
        self.world = world
        self.scope = scope
        self.call = call
        self.inbox: deque[dict[str, Any]] = deque()
        self._receive = receive
        self._send = send
        self._arrived = asyncio.Event()
        self._left = False
        self._marker = ""

    async def read(self) -> None:
        """Fill the inbox until the client leaves."""
        while True:
            message = await self._receive()
            if message["type"] != "websocket.receive":
                self._left = True
                self._arrived.set()
                return
            raw = message.get("bytes") or (message.get("text") or "").encode()
            try:
                event = orjson.loads(raw)
            except orjson.JSONDecodeError:
                event = None
            self._marker = in_body(raw) or self._marker
            self.inbox.append(event if isinstance(event, dict) else {"type": "invalid"})
            self._arrived.set()

    async def next(self) -> dict[str, Any]:
        """The next event.

        Raises:
            Left: there will be none.
        """
        while not self.inbox:
            if self._left:
                raise Left
            self._arrived.clear()
            await self._arrived.wait()
        return self.inbox.popleft()

    def directives(self) -> Directives:
        """What was asked for since the last response.

        Raises:
            ApiError: it means nothing, or asks for an error.
        """
        text, self._marker = self._marker, ""
        if not text:
            return NOTHING
        try:
            wish = parse(text)
        except DirectiveError as error:
            raise errors.ApiError(400, f"Simulator: {error}", code="simulator_directive") from None
        if wish.status is not None and wish.status >= 400:
            raise errors.of_status(
                wish.status, model="", key="", request_id="", quota=wish.quota, retry_after_s=None
            )
        return wish

    async def tell(self, event: dict[str, Any]) -> None:
        """Send an event.

        Raises:
            Left: there is nobody to read it.
        """
        if self._left:
            raise Left
        await self._send({"type": "websocket.send", "text": orjson.dumps(event).decode()})

    async def tell_all(
        self,
        events: Iterable[tuple[dict[str, Any], int]],
        wish: Directives,
        stops: Callable[[], bool] = lambda: False,
    ) -> int:
        """Send the events of an answer; the tokens in those that were sent, if `stops` ends it earlier.

        Raises:
            Left: with the number of tokens that were sent.
        """
        sent = 0
        breaks = wish.close_after if wish.close_after is not None else wish.reset_after
        stall = wish.stall
        await self._pause(wish.delay, stops)
        for event, length in events:
            if self._left:
                raise Left(sent)
            if stops():
                break
            await self.tell(event)
            sent += length
            if breaks is not None and sent >= breaks:
                await self.close(SERVER_ERROR_CLOSE)
                raise Left(sent)
            if stall and sent >= wish.stall_after:
                await self._pause(stall, stops)
                stall = 0.0
            await self._pause(wish.chunk_delay, stops)
        return sent

    async def _pause(self, seconds: float, stops: Callable[[], bool]) -> None:
        until = asyncio.get_running_loop().time() + seconds
        await asyncio.sleep(0)
        while not self._left and not stops():
            rest = until - asyncio.get_running_loop().time()
            if rest <= 0:
                return
            await asyncio.sleep(min(rest, LOOK_EVERY_S))

    async def tell_error(self, error: errors.ApiError, event: dict[str, Any]) -> None:
        detail = {**error.document()["error"], "event_id": event.get("event_id")}
        await self.tell({"type": "error", "event_id": f"event_{new_id()[-21:]}", "error": detail})

    async def close(self, code: int = NORMAL_CLOSE) -> None:
        if not self._left:
            self._left = True
            await self._send({"type": "websocket.close", "code": code})

    def record(
        self,
        kind: str,
        id: str,
        model: str,
        usage: dict[str, Any] | None,
        outcome: str,
        sent: int,
        state: str,
    ) -> None:
        """Write a line for one answer within the connection."""
        self.world.journal.add_work(
            kind=kind,
            object_id=id,
            model=model,
            usage=usage,
            outcome=outcome,
            tokens_sent=sent,
            state=state,
        )


Talk = Callable[[Socket], Awaitable[None]]


async def serve(world: World, scope: Scope, receive: Receive, send: Send, talks: dict[str, Talk]) -> None:
    """Open the connection and talk until one side closes it."""
    path = scope["path"]
    headers = scope["headers"]
    call = world.journal.open_call("WEBSOCKET", path, scope["query_string"], headers, b"")
    await receive()  # websocket.connect
    try:
        if not _key(scope):
            await _refuse(send, call, errors.no_key())
        elif path not in talks:
            await _refuse(send, call, errors.unknown_url("GET", path))
        else:
            await _accept(scope, send)
            call.status = 101
            await _talk(Socket(world, scope, receive, send, call), talks[path])
    finally:
        if call.state == "open":
            call.state = "broken"
        world.journal.close_call(call)


async def _talk(socket: Socket, talk: Talk) -> None:
    reader = asyncio.get_running_loop().create_task(socket.read())
    try:
        await talk(socket)
    except (Left, OSError):
        pass
    finally:
        reader.cancel()
        await socket.close()
    socket.call.state = "finished"


async def _accept(scope: Scope, send: Send) -> None:
    message: dict[str, Any] = {"type": "websocket.accept"}
    if SUBPROTOCOL in scope["subprotocols"]:
        message["subprotocol"] = SUBPROTOCOL
    await send(message)


async def _refuse(send: Send, call: Call, error: errors.ApiError) -> None:
    call.state, call.status = "refused", error.status
    body = error.body()
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "websocket.http.response.start", "status": error.status, "headers": headers})
    await send({"type": "websocket.http.response.body", "body": body})


def _key(scope: Scope) -> str:
    for name, value in scope["headers"]:
        if name == b"authorization":
            return str(value.partition(b" ")[2].strip().decode("latin-1"))
    for protocol in scope["subprotocols"]:
        if protocol.startswith(KEY_PROTOCOL):
            return str(protocol.removeprefix(KEY_PROTOCOL))
    return ""
