"""The journal: what the simulator really served, call by call.

A call reads, as JSON:

    id                  1, 2, 3, … in the order of arrival
    at, seconds         Unix time of arrival; how long it took (null while open)
    method, path, query method is WEBSOCKET for a connection, empty for a line that isn't a call
    authorization       "…" and the last four characters of the key
    headers             name → value, less credentials
    body                the JSON body (null if there was none, it wasn't JSON, or it was above 64 kB); of a
                        multipart body, its fields, with {filename, content_type, bytes, sha256} for a file
    body_bytes, body_sha256   of the raw body
    model, stream
    kind                "call"; or, when a line stands for work that goes on after its call was answered, or
                        for one answer within a WebSocket, the `object` of what was made: batch, response,
                        thread.run, fine_tuning.job, video, realtime.response, …
    outcome             how such work ended: completed, failed, cancelled, …; null for calls
    directives          the text of the marker or fault that it obeyed
    request_id          what it sent as x-request-id
    object_id           id of the completion, or of what was made
    usage               the truth in OpenAI's form, reported or not (null: nothing was generated, or work
                        goes on and gets a line of its own when it ends); what OpenAI gives no usage for is
                        stated in its unit: images, characters, seconds, trained_tokens
    usage_reported      whether the usage went out, whole, before anyone closed the connection
    tokens_sent         completion tokens that were written to the connection before the client left or the
                        answer was broken off; without reasoning and audio tokens; 0 for recordings
    status              HTTP status; 0 when there was no head
    state               open, finished, refused (an error answer), cut (by the client), broken (as directed
                        or because the simulator stopped)
"""

from __future__ import annotations

import hashlib
import os
import time
from collections import deque
from itertools import islice
from pathlib import Path
from typing import Any

import orjson

BODY_KEPT_BYTES = 65_536
PAGE_CALLS = 1000
CREDENTIALS = frozenset(
    {
        b"authorization",
        b"cookie",
        b"api-key",
        b"x-api-key",
        b"proxy-authorization",
        b"sec-websocket-protocol",
    }
)


class Call:
    """One call. Only what is cheap is done while it is served; the rest when it is read."""

    __slots__ = (
        "at",
        "body",
        "body_bytes",
        "body_sha256",
        "directives",
        "headers",
        "id",
        "kind",
        "method",
        "model",
        "object_id",
        "outcome",
        "path",
        "query",
        "request_id",
        "seconds",
        "state",
        "status",
        "stream",
        "tokens_sent",
        "usage",
        "usage_reported",
    )

    def __init__(
        self, id: int, method: str, path: str, query: bytes, headers: list[tuple[bytes, bytes]], body: bytes
    ) -> None:
        self.id = id
        self.at = time.time()
        self.seconds: float | None = None
        self.method = method
        self.path = path
        self.query = query
        self.headers = headers
        self.body_bytes = len(body)
        if self.body_bytes <= BODY_KEPT_BYTES:
            self.body = body
            self.body_sha256 = ""  # computed when it is read
        else:
            self.body = b""
            self.body_sha256 = hashlib.sha256(body).hexdigest()
        self.kind = "call"
        self.outcome: str | None = None
        self.model = ""
        self.stream = False
        self.directives = ""
        self.request_id = ""
        self.object_id = ""
        self.usage: dict[str, Any] | None = None
        self.usage_reported = False
        self.tokens_sent = 0
        self.status = 0
        self.state = "open"

    def document(self) -> dict[str, Any]:
        try:
            body = orjson.loads(self.body) if self.body else None
        except orjson.JSONDecodeError:
            body = None
        key = next((value for name, value in self.headers if name == b"authorization"), b"")
        return {
            "id": self.id,
            "kind": self.kind,
            "at": self.at,
            "seconds": self.seconds,
            "method": self.method,
            "path": self.path,
            "query": self.query.decode("latin-1"),
            "authorization": f"…{key[-4:].decode('latin-1')}" if key else "",
            "headers": {
                name.decode("latin-1"): value.decode("latin-1")
                for name, value in self.headers
                if name not in CREDENTIALS
            },
            "body": body,
            "body_bytes": self.body_bytes,
            "body_sha256": self.body_sha256 or hashlib.sha256(self.body).hexdigest(),
            "model": self.model,
            "stream": self.stream,
            "directives": self.directives,
            "request_id": self.request_id,
            "object_id": self.object_id,
            "outcome": self.outcome,
            "usage": self.usage,
            "usage_reported": self.usage_reported,
            "tokens_sent": self.tokens_sent,
            "status": self.status,
            "state": self.state,
        }


class Journal:
    """The last `size` calls in memory and, with `file`, each call appended to it when it ends."""

    def __init__(self, *, size: int, file: Path | None = None) -> None:
        self._calls: deque[Call] = deque(maxlen=size)
        self._keeps = size > 0
        self._last_id = 0
        self._file: int | None = None
        if file is not None:
            self._file = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def open_call(
        self, method: str, path: str, query: bytes, headers: list[tuple[bytes, bytes]], body: bytes
    ) -> Call:
        self._last_id += 1
        call = Call(self._last_id, method, path, query, headers, body)
        if self._keeps:
            self._calls.append(call)
        return call

    def add_work(
        self,
        *,
        kind: str,
        object_id: str,
        model: str,
        usage: dict[str, Any] | None,
        outcome: str,
        tokens_sent: int = 0,
        state: str = "finished",
    ) -> None:
        """Write down what was used outside of a call."""
        call = self.open_call("", "", b"", [], b"")
        call.kind, call.object_id, call.model, call.usage = kind, object_id, model, usage
        call.outcome, call.state, call.tokens_sent = outcome, state, tokens_sent
        self.close_call(call)

    def close_call(self, call: Call) -> None:
        call.seconds = time.time() - call.at
        if self._file is not None:
            # One write of a whole line: a crash leaves complete lines.
            os.write(self._file, orjson.dumps(call.document()) + b"\n")

    def page(self, *, after: int, limit: int = PAGE_CALLS) -> dict[str, Any]:
        """Calls with an id above `after`, at most `limit`, and the number of calls still open among all."""
        first_id = self._calls[0].id if self._calls else 0
        start = max(0, after + 1 - first_id)
        chosen = list(islice(self._calls, start, start + limit))
        return {
            "calls": [call.document() for call in chosen],
            "last": chosen[-1].id if chosen else after,
            "open": sum(call.state == "open" for call in self._calls),
        }

    def clear(self) -> None:
        self._calls.clear()
