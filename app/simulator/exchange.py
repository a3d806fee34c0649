"""One HTTP exchange: the request as it was read, and the ways of answering it, whole, piecemeal and broken.

What is the same for every family of endpoints is here, so that a family only says what its answer is.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import re
import socket
import struct
import time
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

import orjson

from simulator import errors
from simulator.blobs import Blob
from simulator.directives import NOTHING
from simulator.forms import Form, FormReader
from simulator.journal import Call

if TYPE_CHECKING:
    from simulator.world import World

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Headers = tuple[tuple[bytes, bytes], ...]

# Between bursts the event loop sees whether the client left. One event a burst would be truer to OpenAI's
# pace, but `chunk_delay` gives that to who wants it, and load wants speed.
BURST_EVENTS = 16

JSON_TYPE = (b"content-type", b"application/json")
STREAM_TYPE = (b"content-type", b"text/event-stream; charset=utf-8")
HTML_TYPE = (b"content-type", b"text/html")
DONE = b"data: [DONE]\n\n"
HTML_PAGE = (
    b"<html>\r\n<head><title>%d</title></head>\r\n<body><center><h1>%d</h1></center></body>\r\n</html>\r\n"
)

# As OpenAI sends them; the account's are made up, but a gateway has to keep them to itself all the same.
OPENAI_HEADERS: Headers = (
    (b"openai-version", b"2020-10-01"),
    (b"openai-organization", b"org-simulator"),
    (b"openai-project", b"proj_simulator"),
    (b"server", b"cloudflare"),
    (b"cf-cache-status", b"DYNAMIC"),
    (b"set-cookie", b"__cf_bm=simulator; path=/; HttpOnly; Secure; SameSite=None"),
)
RATE_LIMIT_HEADERS: Headers = (
    (b"x-ratelimit-limit-requests", b"10000"),
    (b"x-ratelimit-limit-tokens", b"30000000"),
    (b"x-ratelimit-remaining-requests", b"9999"),
    (b"x-ratelimit-remaining-tokens", b"29999973"),
    (b"x-ratelimit-reset-requests", b"6ms"),
    (b"x-ratelimit-reset-tokens", b"0s"),
)

_PROCESS = os.urandom(8).hex()
_serial = itertools.count(1)


class ClientLeft(Exception):
    """The client closed the connection before the answer was over."""


class Broken(Exception):
    """The answer was broken off, as directed."""


def new_id() -> str:
    """32 hexadecimal digits, unique over processes; cheaper than a random number for each call."""
    return f"{_PROCESS}{next(_serial):016x}"


class Exchange:
    """A request with its answer.

    Attributes:
        body: the raw body, whole; of a multipart body, its form as JSON (`Form.as_json`).
        form: the form of a multipart body; reader: what read it, which knows of its raw bytes.
        world: what all calls share.
        call: its line in the journal.
        directives: what it asked for; never to be changed.
    """

    __slots__ = (
        "_receive",
        "_send",
        "_started",
        "_transport",
        "body",
        "call",
        "directives",
        "form",
        "key",
        "reader",
        "scope",
        "world",
    )

    def __init__(self, scope: Scope, receive: Receive, send: Send, world: World) -> None:
        self.scope = scope
        self.world = world
        self._receive = receive
        self._send = send
        self._transport: asyncio.Transport = scope["extensions"]["simulator"]["transport"]
        self._started = time.perf_counter()
        self.body = b""
        self.form: Form | None = None
        self.reader: FormReader | None = None
        self.key = ""
        self.directives = NOTHING
        self.call: Call

    async def read_body(self) -> bytes:
        """Read the whole body.

        Raises:
            ClientLeft: the client left before its end.
        """
        message = await self._receive()
        # A form begins with its boundary, and no JSON does so: other calls needn't look at their headers.
        if message["type"] == "http.request" and message["body"][:2] == b"--":
            content_type = self.header(b"content-type")
            if content_type.startswith(b"multipart/form-data"):
                return await self._read_form(content_type, message)
        if message["type"] == "http.request" and not message.get("more_body"):
            self.body = message["body"]
            return self.body
        parts = []
        while message["type"] == "http.request":
            parts.append(message["body"])
            if not message.get("more_body"):
                self.body = b"".join(parts)
                return self.body
            message = await self._receive()
        raise ClientLeft

    async def _read_form(self, content_type: bytes, message: Message) -> bytes:
        reader = FormReader(content_type)
        while message["type"] == "http.request":
            reader.feed(message["body"])
            if not message.get("more_body"):
                reader.end()
                self.reader, self.form = reader, reader.form
                self.body = reader.form.as_json()
                return self.body
            message = await self._receive()
        raise ClientLeft

    def header(self, name: bytes) -> bytes:
        return next((value for known, value in self.scope["headers"] if known == name), b"")

    def query(self) -> dict[str, str]:
        """The parameters of the address; the last one wins."""
        return dict(parse_qsl(self.scope["query_string"].decode("latin-1"), keep_blank_values=True))

    def fields(self) -> dict[str, Any]:
        """The fields of a form, all texts; or the JSON body; an empty body is an empty object."""
        if self.form is not None:
            return self.form.fields
        return self.json_object() if self.body else {}

    def json_object(self) -> dict[str, Any]:
        """The body as a JSON object.

        Raises:
            ApiError: it is none.
        """
        try:
            document = orjson.loads(self.body)
        except orjson.JSONDecodeError:
            raise errors.not_json() from None
        if not isinstance(document, dict):
            raise errors.not_json()
        return document

    async def pause(self, seconds: float) -> None:
        """Wait.

        Raises:
            ClientLeft: the client left meanwhile.
        """
        try:
            async with asyncio.timeout(seconds):
                await self._receive()  # after the body, this returns only when the client leaves
        except TimeoutError:
            return
        raise ClientLeft

    async def wait_for(self, event: asyncio.Event) -> None:
        """Wait until the event is set.

        Raises:
            ClientLeft: the client left meanwhile.
        """
        set_, left = asyncio.ensure_future(event.wait()), asyncio.ensure_future(self._receive())
        try:
            await asyncio.wait((set_, left), return_when=asyncio.FIRST_COMPLETED)
        finally:
            set_.cancel()
            left.cancel()
        if not event.is_set():
            raise ClientLeft

    async def send_json(self, status: int, body: bytes, *, headers: Headers = (), tokens: int = 0) -> None:
        """Send a JSON answer of `tokens` completion tokens, obeying the directives about broken answers."""
        wish = self.directives
        if wish is not NOTHING:
            if wish.malformed:
                body = body[: len(body) * 2 // 3]
            if wish.stall or self._breaks_bytes():
                await self._send_half_json(status, body, headers=headers, tokens=tokens)
                return
        await self.send_head(status, (JSON_TYPE, (b"content-length", b"%d" % len(body)), *headers))
        await self._write(body, tokens=tokens, more=False)

    async def send_object(self, document: object, status: int = 200) -> None:
        """Send a JSON answer that isn't generated text."""
        await self.send_json(status, orjson.dumps(document, option=orjson.OPT_INDENT_2))

    async def send_text(self, content_type: bytes, body: bytes) -> None:
        """Send a whole answer that isn't JSON."""
        length = (b"content-length", b"%d" % len(body))
        await self.send_head(200, ((b"content-type", content_type), length))
        half = len(body) // 2
        if self._breaks_bytes():
            await self._write(body[:half])
            await self._break_off()
            body = body[half:]
        await self._write(body, more=False)

    async def send_blob(self, content_type: bytes, blob: Blob, headers: Headers = ()) -> None:
        """Send a content, or the range of it that was asked for.

        Raises:
            ApiError: 416, there is nothing in this range.
        """
        start, end, status = 0, blob.size, 200
        extent = re.fullmatch(rb"bytes=(\d*)-(\d*)", self.header(b"range").strip())
        if extent and extent.group() != b"bytes=-":
            first, last = extent.groups()
            start = int(first) if first else max(0, blob.size - int(last))
            end = min(int(last) + 1, blob.size) if first and last else blob.size
            if start >= end:
                raise errors.ApiError(416, "Requested range not satisfiable.")
            status = 206
            headers = (*headers, (b"content-range", b"bytes %d-%d/%d" % (start, end - 1, blob.size)))
        length = (b"content-length", b"%d" % (end - start))
        kind = (b"content-type", content_type)
        await self.send_head(status, (kind, length, (b"accept-ranges", b"bytes"), *headers))
        for piece in blob.pieces(start, end):
            if self._breaks_bytes():
                await self._write(piece[: len(piece) // 2])
                await self._break_off()
            await self._write(piece)
            if self.directives.chunk_delay:
                await self.pause(self.directives.chunk_delay)
        await self._write(b"", more=False)

    async def _send_half_json(self, status: int, body: bytes, *, headers: Headers, tokens: int) -> None:
        half = len(body) // 2
        await self.send_head(status, (JSON_TYPE, (b"content-length", b"%d" % len(body)), *headers))
        await self._write(body[:half])
        if self.directives.stall:
            await self.pause(self.directives.stall)
        await self._break_off()
        await self._write(body[half:], tokens=tokens, more=False)

    async def send_stream(
        self, events: Iterable[tuple[bytes, int]], *, done: bytes = DONE, named: bool = False
    ) -> None:
        """Send server-sent events, each with the number of completion tokens that it carries.

        `done` is sent after the last one; `named`: an error within the stream is an event named so.
        """
        await self.send_head(200, (STREAM_TYPE, *RATE_LIMIT_HEADERS))
        wish = self.directives
        breaks = self._breaks()
        stall_after = wish.stall_after if wish.stall else None
        burst_events = 1 if wish.chunk_delay else BURST_EVENTS
        burst: list[bytes] = []
        burst_tokens = sent = 0
        for event, tokens in events:
            if wish.malformed and tokens and sent == 0 and burst_tokens == 0:
                event = b"%s\n\n" % event[: len(event) * 2 // 3]
            burst.append(event)
            burst_tokens += tokens
            reached = sent + burst_tokens
            stalls = stall_after is not None and reached >= stall_after
            broken = breaks is not None and reached >= breaks
            if not (stalls or broken or len(burst) >= burst_events):
                continue
            await self._write(b"".join(burst), tokens=burst_tokens)
            burst.clear()
            sent, burst_tokens = reached, 0
            if stalls:
                stall_after = None
                await self.pause(wish.stall)
            if broken:
                await self._break_off(event, named=named)
            if wish.chunk_delay:
                await self.pause(wish.chunk_delay)
            else:
                await asyncio.sleep(0)
        if not wish.no_done:
            burst.append(done)
        await self._write(b"".join(burst), tokens=burst_tokens, more=False)

    async def send_pieces(self, pieces: Iterable[bytes]) -> None:
        """Send the body in these pieces, each in a write of its own; the head has been sent."""
        for piece in pieces:
            await self._write(piece)
            await asyncio.sleep(0)
        await self._write(b"", more=False)

    async def send_error(self, error: errors.ApiError) -> None:
        body = error.body()
        length = (b"content-length", b"%d" % len(body))
        await self.send_head(error.status, (JSON_TYPE, length, *error.headers))
        await self._write(body, more=False)

    async def send_html(self, status: int) -> None:
        page = HTML_PAGE % (status, status)
        await self.send_head(status, (HTML_TYPE, (b"content-length", b"%d" % len(page))))
        await self._write(page, more=False)

    async def send_head(self, status: int, headers: Headers) -> None:
        """Send the status and headers, with those that OpenAI gives to every answer."""
        call = self.call
        call.request_id = f"req_{new_id()}"
        milliseconds = int((time.perf_counter() - self._started) * 1000) + 1
        own = (
            (b"x-request-id", call.request_id.encode()),
            (b"openai-processing-ms", b"%d" % milliseconds),
        )
        await self.send_bare_head(status, (*headers, *own, *OPENAI_HEADERS))

    async def send_bare_head(self, status: int, headers: Headers) -> None:
        self.call.status = status
        await self._send({"type": "http.response.start", "status": status, "headers": headers})

    def reset(self) -> None:
        """Close the connection with a TCP reset."""
        connection = self._transport.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._transport.abort()

    async def _write(self, data: bytes, *, tokens: int = 0, more: bool = True) -> None:
        if self._transport.is_closing():
            raise ClientLeft
        await self._send({"type": "http.response.body", "body": data, "more_body": more})
        if more and self._transport.is_closing():  # at the end it may be ourselves who close
            raise ClientLeft
        self.call.tokens_sent += tokens

    def _breaks(self) -> int | None:
        """After how many tokens the answer breaks; None: it doesn't."""
        wish = self.directives
        for after in (wish.reset_after, wish.close_after, wish.truncate_after, wish.error_after):
            if after is not None:
                return after
        return None

    def _breaks_bytes(self) -> bool:
        """Whether an answer that is no stream breaks: an error has no place in the middle of one."""
        return self._breaks() is not None and self.directives.error_after is None

    async def _break_off(self, last_event: bytes = b"", *, named: bool = False) -> None:
        """End the answer in the middle, in the way that the directives ask for, if they do.

        Raises:
            Broken: the answer is over.
        """
        wish = self.directives
        if wish.reset_after is not None:
            await asyncio.sleep(0.02)  # else the reset overtakes what was just written
            self.reset()
        elif wish.truncate_after is not None:
            await self._write(last_event[: len(last_event) // 2])
            self._transport.close()
        elif wish.close_after is not None:
            self._transport.close()
        elif wish.error_after is not None:
            error = errors.of_status(
                500, model="", key="", request_id=self.call.request_id, quota=False, retry_after_s=None
            )
            if named:
                detail = {"type": "error", **error.document()["error"], "sequence_number": 0}
                detail["code"] = "server_error"
                await self._write(b"event: error\ndata: %s\n\n" % orjson.dumps(detail), more=False)
            else:
                await self._write(b"data: %s\n\n" % orjson.dumps(error.document()) + DONE, more=False)
        else:
            return
        raise Broken

    async def send_control(self, status: int, body: bytes) -> None:
        """Answer a control endpoint: no journal, no directives, nothing of OpenAI's."""
        headers = (JSON_TYPE, (b"content-length", b"%d" % len(body)))
        await self._send({"type": "http.response.start", "status": status, "headers": headers})
        await self._send({"type": "http.response.body", "body": body})

    async def closed(self) -> None:
        """Return when the connection is gone, so that the server doesn't complain of an unfinished answer."""
        await self._receive()
