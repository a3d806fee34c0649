"""Answers given beforehand: the next call with the same request gets the recording, byte for byte."""

from __future__ import annotations

import base64
import hashlib
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import orjson

from simulator.exchange import Exchange, Headers

# What a gateway may write into a request; two requests that differ only in these are the same.
GATEWAY_FIELDS = frozenset({"max_tokens", "max_completion_tokens", "max_output_tokens", "stream_options"})
# They speak of one connection or of how the body was recorded, and the body is stored decoded.
DROPPED_HEADERS = frozenset(
    {"connection", "content-encoding", "content-length", "date", "keep-alive", "transfer-encoding"}
)


class RecordingError(ValueError):
    """A recording that cannot be understood."""


@dataclass(slots=True)
class Recording:
    status: int
    headers: Headers
    body: bytes
    split: int
    usage: dict[str, Any] | None

    def pieces(self) -> Iterator[bytes]:
        for start in range(0, len(self.body), self.split):
            yield self.body[start : start + self.split]


def key_of(method: str, target: str, body: bytes) -> str:
    """What identifies a request: method, path with query, body as sorted JSON without GATEWAY_FIELDS."""
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        canonical = body
    else:
        if isinstance(document, dict):
            document = {name: value for name, value in document.items() if name not in GATEWAY_FIELDS}
        canonical = orjson.dumps(document, option=orjson.OPT_SORT_KEYS)
    return hashlib.sha256(b"%s %s\n%s" % (method.encode(), target.encode(), canonical)).hexdigest()


@dataclass(slots=True)
class Recordings:
    """Recordings that wait for their calls: a queue for each distinct request."""

    _queues: dict[str, deque[Recording]] = field(default_factory=dict)

    def __len__(self) -> int:
        return sum(len(queue) for queue in self._queues.values())

    def add(self, document: object) -> str:
        """Add a recording from its JSON form; return the key of its request.

        Raises:
            RecordingError: the document has another shape.
        """
        if not isinstance(document, dict):
            raise RecordingError("want an object")
        try:
            if "request_base64" in document:
                request = base64.b64decode(document["request_base64"])
            else:
                request = orjson.dumps(document["request"]) if document.get("request") is not None else b""
            if "body_base64" in document:
                body = base64.b64decode(document["body_base64"])
            else:
                body = str(document["body"]).encode("utf-8", "surrogatepass")
            headers = tuple(
                (name.lower().encode("latin-1"), str(value).encode("latin-1"))
                for name, value in (document.get("headers") or {}).items()
                if name.lower() not in DROPPED_HEADERS
            )
            recording = Recording(
                status=int(document.get("status", 200)),
                headers=headers,
                body=body,
                split=int(document.get("split") or len(body) or 1),
                usage=document.get("usage"),
            )
            method, target = document.get("method", "POST"), document.get("path", "/v1/chat/completions")
        except (KeyError, ValueError, TypeError, AttributeError) as error:
            raise RecordingError(f"{type(error).__name__}: {error}") from error
        key = key_of(method, target, request)
        self._queues.setdefault(key, deque()).append(recording)
        return key

    def take(self, method: str, target: str, body: bytes) -> Recording | None:
        """The recording for this request, if one waits."""
        if not self._queues:
            return None
        key = key_of(method, target, body)
        queue = self._queues.get(key)
        if queue is None:
            return None
        recording = queue.popleft()
        if not queue:
            del self._queues[key]
        return recording

    def clear(self) -> None:
        self._queues.clear()


async def play(exchange: Exchange, recording: Recording) -> None:
    """Answer with a recording: a JSON body with its length, a stream in chunks."""
    exchange.call.usage = recording.usage
    headers = recording.headers
    exchange.call.request_id = next(
        (value.decode() for name, value in headers if name == b"x-request-id"), ""
    )
    if not any(name == b"content-type" and b"event-stream" in value for name, value in headers):
        headers = (*headers, (b"content-length", b"%d" % len(recording.body)))
    await exchange.send_bare_head(recording.status, headers)
    await exchange.send_pieces(recording.pieces())
    exchange.call.usage_reported = recording.usage is not None and b'"usage"' in recording.body
