"""Server-sent events as bytes: where they end, and what their data is.

Source: WHATWG HTML, "9.2.6 Interpreting an event stream". Lines end with \\r\\n, \\n or \\r.
"""

import re
from collections.abc import Iterator
from typing import Any

import orjson

_END = re.compile(rb"(?:\r\n|\n|\r(?!\n)){2}")
# An event that grows beyond this is passed on in pieces: no upstream's event of use to us is so long.
MAX_EVENT_BYTES = 4 * 1024 * 1024


class EventBuffer:
    """Gathers bytes until an event is complete."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> bytes:
        """All events that are complete now, as the bytes they came in."""
        if self._rest:
            data = self._rest + data
        end = _last_end(data)
        if end == 0 and len(data) > MAX_EVENT_BYTES:
            end = len(data)
        self._rest = data[end:]
        return data[:end]

    def rest(self) -> bytes:
        """What came after the last complete event."""
        rest, self._rest = self._rest, b""
        return rest


def split(data: bytes) -> Iterator[bytes]:
    """The events of `data`, each with the empty line that ends it."""
    start = 0
    if b"\r" in data:
        for found in _END.finditer(data):
            yield data[start : found.end()]
            start = found.end()
    else:
        # What all upstreams send; the pattern takes twenty times as long.
        while (found_at := data.find(b"\n\n", start)) >= 0:
            yield data[start : found_at + 2]
            start = found_at + 2
    if start < len(data):
        yield data[start:]


def payload(event: bytes) -> bytes:
    """The data of an event, its lines joined by a line feed; empty for a comment."""
    lines = []
    for line in event.splitlines():
        name, colon, value = line.partition(b":")
        if colon and name == b"data":
            lines.append(value.removeprefix(b" "))
    return b"\n".join(lines)


def parse(event: bytes) -> dict[str, Any] | None:
    """The JSON object in an event; None for a comment, `[DONE]` or anything else."""
    try:
        value = orjson.loads(payload(event))
    except orjson.JSONDecodeError:
        return None
    return value if isinstance(value, dict) else None


def _last_end(data: bytes) -> int:
    """Where the last complete event ends; 0 when there is none."""
    if b"\r" not in data:
        return data.rfind(b"\n\n") + 2 if b"\n\n" in data else 0
    end = 0
    for found in _END.finditer(data):
        # The line feed that belongs to a last carriage return may still be on its way.
        if found.end() < len(data) or not data.endswith(b"\r"):
            end = found.end()
    return end
