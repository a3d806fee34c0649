"""WebSockets: realtime sessions and responses, passed on frame by frame and metered on the way.

    client ─frame─► a hold, if it asks for work ─► OpenAI        (`Turns.sending`)
    client ◄─frame─ what has ended is paid for  ◄─ OpenAI        (`Turns.received`)

Frames pass as they came unless a bound of output must be written. Each direction reads its next frame when
the last one is out, so that neither side can make the gateway gather what the other does not take.

how a socket ended                      its close code
one side closed it                      the same on the other side
OpenAI broke off                        1011, after an error event
the balance does not cover what comes   1008, after an error event; what is being answered is finished first
the key is no longer good               likewise
nobody said anything for long           1001
the client does not read                none in the end: it is broken off
the database is away                    1013, after an error event, when an answer comes that nobody asked for
the gateway stops                       1012

What is charged then is written in `charge`.
"""

import asyncio
import logging
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, urlencode

import aiohttp
import orjson

from balances.limits import LimitReached
from common.asgi import JSON, Headers, Receive, Scope, Send, patient, transport_of
from common.errors import ApiError, BadRequest, InsufficientBalance, KeyRejected, NotFound, UpstreamFailed
from openai_app import metrics
from openai_app.answer.allowances import headers_of
from openai_app.answer.hiding import hide_in_event
from openai_app.exchange import new_id
from openai_app.metering.realtime import Settings
from openai_app.request.credentials import digest_from
from openai_app.request.paths import path_below_prefix
from openai_app.request.request_body import refuse_depth
from openai_app.services import Services
from openai_app.settlement import charge
from openai_app.sockets.charge import ENDED, Holds
from openai_app.sockets.realtime import RealtimeTurns
from openai_app.sockets.responses import ResponsesTurns
from openai_app.sockets.turns import Event, Turns
from openai_app.upstream import refusal
from users.models import digest_of

log = logging.getLogger(__name__)

# A socket on which no frame came for so long, or up to twice as long, is given up: its hold is in the way.
IDLE_S = 900.0
# What is being answered when the balance is used up may take so long to its end.
FINISH_S = 120.0
# One direction learns by an error that the other end is gone; this long the other may take to learn why.
EXPLAIN_S = 1.0
# So long a client that is behind may take to make room for the reason of the end, and for the close frame.
LEAVE_S = 10.0

_QUERY = {"/realtime": frozenset({"model", "intent"}), "/responses": frozenset[str]()}
# Sub-protocols that pass; the others hold keys, organizations and projects.
_PROTOCOL, _BETA, _KEY = "realtime", "openai-beta.", "openai-insecure-api-key."
# RFC 6455, 7.4: these may stand in a close frame. What else a library reports never stood in one.
_GONE, _POLICY, _FAILED, _RESTARTS, _LATER = 1001, 1008, 1011, 1012, 1013
_MOST_REASON_BYTES = 123


@dataclass(frozen=True)
class _End:
    """Why a socket ends. `charged_as` stands on the entries of what is open; the client is told `error`."""

    code: int
    reason: str = ""
    charged_as: str = charge.BROKEN
    error: ApiError | None = None


class Socket:
    """One connection of a client's, from its handshake to its last settlement."""

    def __init__(self, services: Services, scope: Scope, receive: Receive, send: Send) -> None:
        self._services = services
        self._scope = scope
        self._receive = receive
        self._send = send
        self._send_patiently = patient(send)
        self._own: Headers = [(b"x-request-id", new_id().encode())]
        self._headers: Headers = scope["headers"]
        self._operation = "none"
        self._is_idle = False
        #: How the socket will end once what is being answered is finished.
        self._last: _End | None = None
        self._upstream: aiohttp.ClientWebSocketResponse
        self._turns: Turns

    async def run(self) -> None:
        """Serves the socket. Never raises but for cancellation, and leaves no hold open."""
        began = time.monotonic()
        try:
            status = await self._serve()
        except ApiError as error:
            status = error.status
            if isinstance(error, LimitReached):
                self._own += headers_of(error.allowances)
            await self._refuse(status, error.headers, error.as_bytes())
        except aiohttp.WSServerHandshakeError as error:
            status, body = refusal(error.status, "", b"")
            await self._refuse(status, _retry_after(error, status), body)
        metrics.count_call(self._operation, status, time.monotonic() - began)

    # --- the handshake --------------------------------------------------------------------------------------

    async def _serve(self) -> int:
        """Answers the handshake, passes all frames, and says with which status."""
        await self._receive()
        path = path_below_prefix(self._scope["path"])
        if path not in _QUERY:
            raise NotFound(f"No WebSockets are served at {path}.", code="unknown_url")
        is_realtime = path == "/realtime"
        operation = RealtimeTurns.operation if is_realtime else ResponsesTurns.operation
        self._operation = operation.name
        offered: list[str] = self._scope["subprotocols"]
        digest = _digest(self._headers, offered)
        holds = Holds(self._services, digest, operation.name)
        query = _query(self._scope["query_string"], _QUERY[path])
        model = _model_in(query) if is_realtime else ""
        caller = await holds.recognise(model)
        self._own += headers_of(caller.allowances)
        if is_realtime:
            settings = Settings(model, is_beta=self._is_beta(offered))
            self._turns = RealtimeTurns(self._services, caller, holds, self._inject, settings)
            await self._turns.check({"model": model})
        else:
            self._turns = ResponsesTurns(self._services, caller, holds, self._inject)
        protocols = [name for name in offered if name == _PROTOCOL or name.startswith(_BETA)]
        self._upstream = await self._services.upstream.connect_socket(
            path, urlencode(query).encode(), self._headers, protocols, caller=digest
        )
        chosen = self._upstream.protocol or next(iter(protocols), None)
        try:
            await self._relay(chosen)
        finally:
            await self._upstream.close()
        return 101

    def _is_beta(self, offered: list[str]) -> bool:
        named = [value for name, value in self._headers if name == b"openai-beta"]
        return any(b"realtime=v1" in value for value in named) or "openai-beta.realtime-v1" in offered

    async def _refuse(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        """Answers the handshake with an error, in HTTP where the server can."""
        own = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
        with suppress(OSError):
            if "websocket.http.response" not in (self._scope.get("extensions") or {}):
                await self._send({"type": "websocket.close", "code": _POLICY})
                return
            start = {"type": "websocket.http.response.start", "status": status}
            await self._send({**start, "headers": [JSON, *own, *self._own]})
            await self._send({"type": "websocket.http.response.body", "body": body})

    # --- frames ---------------------------------------------------------------------------------------------

    async def _relay(self, protocol: str | None) -> None:
        """Passes frames both ways until one side ends; then ends the other, and every hold."""
        accept = {"type": "websocket.accept", "subprotocol": protocol, "headers": self._own}
        end = _End(_RESTARTS, charged_as=charge.STOPPED)
        tasks: list[asyncio.Task[_End]] = []
        try:
            await self._to_client(accept)
            ways = (self._from_client(), self._from_upstream(), self._watch_idleness())
            tasks += map(asyncio.ensure_future, ways)
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            end = _end_of(done.pop())
        except OSError:
            end = _End(_GONE, charged_as=charge.LEFT)
        finally:
            for task in tasks:
                task.cancel()
            self._turns.cut(end.charged_as)
            await asyncio.gather(*tasks, return_exceptions=True)
            # A hold may have been granted in between.
            self._turns.cut(end.charged_as)
        # Neither side waits for the other's end: a client that does not read must not keep OpenAI's.
        leaving = self._upstream.close(code=end.code, message=_short(end.reason).encode())
        await asyncio.gather(leaving, self._take_leave(end))

    async def _take_leave(self, end: _End) -> None:
        """Tells the client why it ends; one that does not read it in time is broken off."""
        try:
            async with asyncio.timeout(LEAVE_S):
                if end.error is not None:
                    await self._tell(end.error, {})
                with suppress(OSError):
                    close = {"type": "websocket.close", "code": end.code, "reason": _short(end.reason)}
                    await self._to_client(close)
        except TimeoutError:
            transport_of(self._send).abort()

    async def _from_client(self) -> _End:
        while True:
            message = await self._receive()
            if message["type"] == "websocket.disconnect":
                code = message.get("code", _GONE)
                left = charge.STOPPED if code == _RESTARTS else charge.LEFT
                return _End(_sendable(code, _GONE), message.get("reason") or "", left)
            self._is_idle = False
            frame: str | bytes = message["text"] if message.get("text") is not None else message["bytes"]
            event: Event = {}
            try:
                event = _parse(frame)
                await self._pass_on(frame, event)
            except (InsufficientBalance, KeyRejected) as error:
                await self._tell(error, event)
                return await self._finish(_End(_POLICY, error.message, ENDED))
            except ApiError as error:
                await self._tell(error, event)
            except (aiohttp.ClientError, OSError):
                # The other direction is about to learn why.
                await asyncio.sleep(EXPLAIN_S)
                return _broken()

    async def _pass_on(self, frame: str | bytes, event: Event) -> None:
        sent = await self._turns.sending(event, len(frame))
        if sent is not event:
            await self._inject(sent)
        elif isinstance(frame, str):
            await self._upstream.send_str(frame)
        else:
            await self._upstream.send_bytes(frame)

    async def _inject(self, event: Event) -> None:
        await self._upstream.send_str(orjson.dumps(event).decode())

    async def _finish(self, end: _End) -> _End:
        """Takes nothing more from the client; what is being answered goes on to its end."""
        self._last = end
        if self._turns.is_working:
            await asyncio.sleep(FINISH_S)
        return end

    async def _from_upstream(self) -> _End:
        while True:
            message = await self._upstream.receive()
            self._is_idle = False
            try:
                if message.type is aiohttp.WSMsgType.TEXT:
                    await self._pass_back(message.data)
                    if self._last is not None and not self._turns.is_working:
                        return self._last
                elif message.type is aiohttp.WSMsgType.BINARY:
                    await self._to_client({"type": "websocket.send", "bytes": message.data})
                else:
                    return self._upstream_end(message)
            except ApiError as error:
                code = _POLICY if error.status < 500 else _LATER
                return _End(code, error.message, ENDED, error)
            except aiohttp.ClientError:
                # Something of the gateway's own could not be sent; the next message tells why.
                continue
            except OSError:
                return _End(_GONE, charged_as=charge.LEFT)

    async def _pass_back(self, frame: str) -> None:
        """Raises the ApiError that ends the socket."""
        try:
            event = orjson.loads(frame)
        except orjson.JSONDecodeError:
            event = None
        if isinstance(event, dict):
            await self._turns.received(event, len(frame))
        shown = hide_in_event(frame.encode()).decode() if '"error"' in frame else frame
        await self._to_client({"type": "websocket.send", "text": shown})
        await self._turns.passed()

    def _upstream_end(self, message: aiohttp.WSMessage) -> _End:
        code = self._upstream.close_code
        if message.type is aiohttp.WSMsgType.CLOSE and code is not None:
            return _End(_sendable(code, 1000), message.extra or "")
        log.warning("upstream broke off a socket: %s", message.data)
        return _broken()

    async def _watch_idleness(self) -> _End:
        while not self._is_idle:
            self._is_idle = True
            await asyncio.sleep(IDLE_S)
        return _End(_GONE, "Nothing was said for a long time.", charge.LEFT)

    async def _tell(self, error: ApiError, cause: Mapping[str, Any]) -> None:
        event = orjson.dumps(self._turns.error_event(error, cause)).decode()
        with suppress(OSError):
            await self._to_client({"type": "websocket.send", "text": event})

    async def _to_client(self, message: dict[str, Any]) -> None:
        """Raises OSError when the client has gone."""
        try:
            await self._send_patiently(message)
        except RuntimeError as error:
            # The server has closed the connection by itself, and takes this for a mistake of ours.
            raise ConnectionResetError(str(error)) from error


def _end_of(task: "asyncio.Task[_End]") -> _End:
    if (error := task.exception()) is None:
        return task.result()
    log.error("a socket met an unexpected error", exc_info=error)
    failed = ApiError("The gateway failed on this connection.")
    return _End(_FAILED, failed.message, error=failed)


def _broken() -> _End:
    error = UpstreamFailed("OpenAI broke off the connection. Connect again.")
    return _End(_FAILED, error.message, charge.BROKEN, error)


def _retry_after(error: aiohttp.WSServerHandshakeError, status: int) -> dict[str, str]:
    """When to try again, as OpenAI says; soon where the refusal is not the caller's fault."""
    told = error.headers.get("retry-after", "") if error.headers is not None else ""
    # Other letters have no place there, nor in the header that they would go into.
    if told and told.isascii():
        return {"retry-after": told}
    return {"retry-after": "1"} if status >= 500 else {}


def _digest(headers: Headers, offered: list[str]) -> str:
    """The digest of the key in the header, or in the sub-protocol by which browsers send it."""
    keys = [name.removeprefix(_KEY) for name in offered if name.startswith(_KEY)]
    if len(keys) == 1 and not any(name == b"authorization" for name, _ in headers):
        return digest_of(keys[0])
    return digest_from(headers)


def _query(raw: bytes, allowed: frozenset[str]) -> dict[str, str]:
    """Raises BadRequest for anything else, such as what would attach to a call of somebody's."""
    query: dict[str, str] = {}
    for name, value in parse_qsl(raw.decode("latin-1"), keep_blank_values=True):
        if name not in allowed or name in query:
            raise BadRequest(f"Unknown parameter: '{name[:60]}'.", param=name[:60], code="unknown_parameter")
        query[name] = value
    return query


def _model_in(query: Mapping[str, str]) -> str:
    model = query.get("model", "")
    if not model and query.get("intent") != "transcription":
        raise BadRequest(
            "You must provide a model parameter.", param="model", code="missing_required_parameter"
        )
    return model


def _parse(frame: str | bytes) -> Event:
    """A client's event. What cannot be read cannot be metered, so it is not passed on. Raises BadRequest."""
    try:
        event = orjson.loads(frame)
    except orjson.JSONDecodeError as error:
        raise BadRequest(
            f"We could not parse the JSON of your event: {error}.", code="invalid_json"
        ) from None
    refuse_depth(frame, event)
    if not isinstance(event, dict):
        raise BadRequest("An event must be a JSON object.", code="invalid_json")
    return event


def _sendable(code: int, otherwise: int) -> int:
    return code if code in (1000, 1001, 1002, 1003, *range(1007, 1015), *range(3000, 5000)) else otherwise


def _short(reason: str) -> str:
    """As much of a reason as fits into a close frame."""
    return reason.encode()[:_MOST_REASON_BYTES].decode("utf-8", "ignore")
