"""The caller's side of a call: what has been answered so far, and what may still be."""

import asyncio
from collections.abc import Iterable
from contextlib import closing, suppress

from balances.limits import LimitReached
from balances.operations import Allowances
from common.asgi import JSON, NOSNIFF, Headers, Send, patient, respond
from common.errors import ApiError
from openai_app.answer.allowances import headers_of
from openai_app.answer.parked import Parked
from openai_app.idempotency.claims import Claim

# How long a reader that is behind may take to make room for the event that ends its stream.
LAST_EVENT_S = 1.0


def error_event(error: ApiError) -> bytes:
    """An error amid a stream, as OpenAI sends it and its clients raise it."""
    return b"data: " + error.as_bytes() + b"\n\n"


class Reply:
    """One answer; every one carries the request's id, by which an operator finds its entry."""

    def __init__(self, send: Send, request_id: str) -> None:
        self._send = patient(send)
        self._own: Headers = [(b"x-request-id", request_id.encode())]
        self.has_begun = False
        #: What has been sent so far are whole events, and more may follow.
        self.sends_events = False
        #: What the call's `Idempotency-Key` has claimed; an answer that did not finish it releases it.
        self.claim: Claim | None = None

    def tell(self, allowances: Allowances | None) -> None:
        """The answer will say what is left of the caller's limits."""
        self._own = [*self._own[:1], *headers_of(allowances)]

    async def whole(self, status: int, headers: Headers, body: bytes | Parked) -> None:
        """An answer in one piece."""
        self.has_begun = True
        if self.claim is not None:
            await self.claim.release()
        headers = [*headers, *self._own]
        if isinstance(body, bytes):
            await respond(self._send, status, headers, body)
            return
        headers.append((b"content-length", str(body.length).encode()))
        with closing(body):
            await self._send(
                {"type": "http.response.start", "status": status, "headers": [*headers, NOSNIFF]}
            )
            async for piece in body.pieces():
                await self._send({"type": "http.response.body", "body": piece, "more_body": True})
        await self._send({"type": "http.response.body", "body": b""})

    async def start(self, status: int, headers: Headers) -> None:
        self.has_begun = True
        if self.claim is not None:
            self.claim.begin(status, headers)
        headers = [*headers, *self._own, NOSNIFF]
        await self._send({"type": "http.response.start", "status": status, "headers": headers})

    async def piece(self, data: bytes) -> None:
        if self.claim is not None:
            self.claim.add(data)
        await self._send({"type": "http.response.body", "body": data, "more_body": True})

    async def end(self, data: bytes = b"") -> None:
        self.sends_events = False
        if self.claim is not None:
            await self.claim.release()
        await self._send({"type": "http.response.body", "body": data})

    async def last_event(self, error: ApiError) -> None:
        """Ends a stream of events that is cut off, so that nobody takes what has come for the whole."""
        if self.sends_events:
            if self.claim is not None:
                # The database may be slow, and the reader is to hear of the end.
                self.claim.abandon()
            with suppress(OSError, TimeoutError):
                async with asyncio.timeout(LAST_EVENT_S):
                    await self.end(error_event(error))

    async def error(self, error: ApiError, headers: Iterable[tuple[bytes, bytes]] = ()) -> None:
        """Answers an error. Once the answer has begun, only events can tell it; all else is broken off."""
        if self.has_begun:
            await self.last_event(error)
            return
        if isinstance(error, LimitReached):
            self.tell(error.allowances)
        own = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in error.headers.items()]
        # Whoever has gone in the meantime cannot be told.
        with suppress(OSError):
            await self.whole(error.status, [JSON, *own, *headers], error.as_bytes())
