"""The ASGI application: routes, the control endpoints, and what every call goes through."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs

import orjson

from simulator import errors, sockets
from simulator.directives import NOTHING, DirectiveError, Faults, in_body, parse
from simulator.exchange import Broken, ClientLeft, Exchange, Receive, Scope, Send
from simulator.journal import PAGE_CALLS, Journal
from simulator.recordings import Recordings, play
from simulator.routes import TALKS, route
from simulator.store import Store
from simulator.work import Work
from simulator.world import World

CONTROL = "/simulator/"


class Simulator:
    """The application; `scope["extensions"]["simulator"]["transport"]` must be the connection's."""

    def __init__(self, journal: Journal, *, finish_after_s: float | None = None) -> None:
        self.journal = journal
        self.world = World(journal, Store(), Work(journal, finish_after_s))
        self.faults = Faults()
        self.recordings = Recordings()
        self._release = asyncio.Event()
        #: Stops listening for so many seconds; set by the server.
        self.refuse: Callable[[float], None] = lambda _: None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await sockets.serve(self.world, scope, receive, send, TALKS)
            return
        exchange = Exchange(scope, receive, send, self.world)
        path = scope["path"]
        try:
            body = await exchange.read_body()
        except ClientLeft:
            return  # an unfinished request is no call
        if path.startswith(CONTROL):
            await self.control(exchange, scope["method"], path[len(CONTROL) :])
            return
        call = self.journal.open_call(scope["method"], path, scope["query_string"], scope["headers"], body)
        exchange.call = call
        if exchange.reader is not None:
            call.body_bytes, call.body_sha256 = exchange.reader.size, exchange.reader.digest.hexdigest()
        try:
            try:
                await self.serve(exchange)
            except errors.ApiError as error:
                await exchange.send_error(error)
            if call.status >= 400:
                call.state = "refused"
            else:
                call.state = "broken" if exchange.directives.malformed else "finished"
        except Broken:
            call.state = "broken"
            await exchange.closed()
        except ClientLeft:
            call.state = "cut"
            await exchange.closed()
        except asyncio.CancelledError:  # the process stops
            call.state = "broken"
            exchange.reset()
            await exchange.closed()
        finally:
            if call.state == "open":  # the simulator itself failed
                call.state = "broken"
            self.journal.close_call(call)

    async def serve(self, exchange: Exchange) -> None:
        """Obey the directives that concern every endpoint, then answer by recording or route.

        Raises:
            ApiError: the answer is an error.
            Broken: the answer was broken off as directed.
            ClientLeft: there is nobody to answer.
        """
        scope = exchange.scope
        method, path = scope["method"], scope["path"]
        exchange.key = bearer_key(scope["headers"])
        if not exchange.key:
            raise errors.no_key()
        if exchange.reader is not None and exchange.reader.error:
            message = f"Could not parse multipart form: {exchange.reader.error}."
            raise errors.ApiError(400, message)
        self.direct(exchange)
        wish = exchange.directives
        if wish is not NOTHING:
            if wish.wait:
                await exchange.wait_for(self._release)
            if wish.delay:
                await exchange.pause(wish.delay)
            if wish.reset:
                exchange.reset()
                raise Broken
            if wish.html:
                await exchange.send_html(wish.status or 502)
                return
            if wish.status is not None and wish.status >= 400:
                raise errors.of_status(
                    wish.status,
                    model=model_of(exchange.body),
                    key=exchange.key,
                    request_id=exchange.call.request_id,
                    quota=wish.quota,
                    retry_after_s=wish.retry_after,
                )
        target = f"{path}?{scope['query_string'].decode('latin-1')}" if scope["query_string"] else path
        recording = self.recordings.take(method, target, exchange.body)
        if recording is not None:
            exchange.call.model = model_of(exchange.body)
            await play(exchange, recording)
            return
        try:
            await route(exchange, method, path)
        except (TypeError, KeyError, AttributeError, ValueError, IndexError) as error:
            # Validation stops short of every type at every depth; OpenAI refuses what is left, too.
            if exchange.call.status:
                raise
            message = f"Simulator: this body cannot be understood: {error!r}"
            raise errors.ApiError(400, message, code="invalid_value") from error

    def direct(self, exchange: Exchange) -> None:
        """Find the directives of this call: those in its body, and on top those of a fault."""
        text = in_body(exchange.body)
        if self.faults.waiting:
            scope = exchange.scope
            fault = self.faults.take(
                method=scope["method"],
                path=scope["path"],
                model=model_of(exchange.body),
                body=exchange.body,
                agent=exchange.header(b"user-agent").decode("latin-1"),
            )
            text = f"{text} {fault}".strip()
        if not text:
            return
        exchange.call.directives = text
        try:
            exchange.directives = parse(text)
        except DirectiveError as error:
            raise errors.ApiError(400, f"Simulator: {error}", code="simulator_directive") from None

    async def control(self, exchange: Exchange, method: str, name: str) -> None:
        """Answer a control endpoint; these calls are not in the journal."""
        try:
            if (method, name) == ("POST", "finish"):
                answer: dict[str, Any] | None = await self.finish(orjson.loads(exchange.body or b"{}"))
            else:
                answer = self.control_answer(exchange, method, name)
        except ValueError as error:
            await exchange.send_control(400, orjson.dumps({"error": str(error)}))
            return
        if answer is None:
            missing = {"error": f"there is no {method} {CONTROL}{name}"}
            await exchange.send_control(404, orjson.dumps(missing))
            return
        await exchange.send_control(200, orjson.dumps(answer))

    def control_answer(self, exchange: Exchange, method: str, name: str) -> dict[str, Any] | None:
        match method, name:
            case "GET", "health":
                return {"status": "ok"}
            case "GET", "journal":
                query = parse_qs(exchange.scope["query_string"].decode("latin-1"))
                after, limit = query.get("after", ["0"])[0], query.get("limit", [str(PAGE_CALLS)])[0]
                return self.journal.page(after=int(after), limit=int(limit))
            case "DELETE", "journal":
                self.journal.clear()
            case "POST", "faults":
                return {"id": self.faults.add(orjson.loads(exchange.body)).id}
            case "GET", "faults":
                return {"faults": list(self.faults.documents())}
            case "DELETE", "faults":
                self.faults.clear()
            case "POST", "recordings":
                given = orjson.loads(exchange.body)
                documents = given if isinstance(given, list) else [given]
                return {"keys": [self.recordings.add(document) for document in documents]}
            case "GET", "recordings":
                return {"waiting": len(self.recordings)}
            case "DELETE", "recordings":
                self.recordings.clear()
            case "POST", "release":
                # Those that come from now on wait for the next one.
                self._release.set()
                self._release = asyncio.Event()
            case "POST", "refuse":
                self.refuse(float(orjson.loads(exchange.body)["seconds"]))
            case "GET", "work":
                return {"ids": self.world.work.ids()}
            case "DELETE", "objects":
                self.world.clear()
            case _:
                return None
        return {}

    async def finish(self, document: object) -> dict[str, Any]:
        """End the work on these ids, or on all; work that this leads to is not meant.

        Raises:
            ValueError: the document has another shape.
        """
        if not isinstance(document, dict) or set(document) - {"id", "ids", "status", "share"}:
            raise ValueError("want an object with id or ids, status, share")
        if not isinstance(document.get("share") or 0, (int, float)):
            raise ValueError("share: want a number from 0 to 1")
        work = self.world.work
        ids = document.get("ids") or ([document["id"]] if "id" in document else work.ids())
        status, share = document.get("status") or "completed", document.get("share")
        return {"finished": [id for id in ids if await work.finish(str(id), status, share)]}


def bearer_key(headers: list[tuple[bytes, bytes]]) -> str:
    for name, value in headers:
        if name == b"authorization":
            scheme, _, key = value.partition(b" ")
            return key.strip().decode("latin-1") if scheme.lower() == b"bearer" else ""
    return ""


def model_of(body: bytes) -> str:
    """The model that a JSON body names; empty if it names none."""
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        return ""
    return str(document.get("model") or "") if isinstance(document, dict) else ""
