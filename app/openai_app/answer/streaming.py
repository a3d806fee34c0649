"""A stream on its way through: events pass as bytes, and only the one with usage is decoded."""

import re

from balances.usage import Usage
from openai_app.answer import sse
from openai_app.answer.hiding import hide_in_event
from openai_app.metering import Meter
from openai_app.metering.chat import count_output
from openai_app.metering.meter import Answer, Request
from openai_app.metering.reading import model_name

# What an event holds that is worth decoding: usage, an error, an object that begins or ends, the end itself.
# Quotes inside of JSON strings are escaped: these bytes are the field itself, never a text that speaks of it.
# Each begins with a plain text: it is found ten times as fast as a choice of texts or a line's start.
_TELLING = (
    re.compile(rb'"usage"\s*:\s*\{'),
    re.compile(rb'"error"\s*:\s*\{'),
    re.compile(rb'"type"\s*:\s*"[\w.]*\.(?:created|completed|incomplete|failed|done)"'),
)
_THREAD = re.compile(rb"^event:\s*thread\.[\w.]*\s", re.MULTILINE)
_DONE = re.compile(rb"^data:\s*\[DONE\]", re.MULTILINE)
# Counting may lag behind by so much; then it is caught up with at once, so that memory stays bounded.
MAX_UNCOUNTED_BYTES = 256 * 1024


class Stream:
    """Reads a stream's events while they pass."""

    def __init__(self, meter: Meter, request: Request, *, hide_usage: bool) -> None:
        """`hide_usage`: the client did not ask for the chunk that only holds usage, so it is taken out."""
        self._meter = meter
        self._hide_usage = hide_usage
        self._buffer = sse.EventBuffer()
        self._request = request
        self._output = OutputCounter(meter, str(request.get("model", "")))
        self._objects: list[Answer] = []
        self.usage: Usage | None = None
        #: The model that the first object in it names, if any.
        self.model = ""
        self.has_begun = False
        self.is_done = False
        self.has_failed = False
        #: An event, or the object in one, told of an error.
        self.has_told_error = False

    def take(self, data: bytes) -> bytes:
        """Reads what has come in and answers what may be passed on: events that are complete."""
        return self._read(self._buffer.feed(data))

    def rest(self) -> bytes:
        """The same of an event without the empty line that ends it: some upstreams leave out the last one."""
        return self._read(self._buffer.rest())

    def _read(self, events: bytes) -> bytes:
        if not events:
            return b""
        self._output.add(events)
        if not self.has_begun or _tells(events):
            events = b"".join([hide_in_event(event) for event in sse.split(events) if self._passes(event)])
        self.is_done |= b"[DONE]" in events and _DONE.search(events) is not None
        return events

    def _passes(self, event: bytes) -> bool:
        """Reads an event if it tells anything; False for one that the client did not ask for."""
        is_first, self.has_begun = not self.has_begun, True
        if not is_first and not _tells(event):
            return True
        parsed = sse.parse(event)
        if parsed is None:
            return True
        self._note_object(parsed)
        self.is_done |= self._meter.ends(parsed)
        self.has_failed |= isinstance(parsed.get("error"), dict)
        self.has_told_error |= self.has_failed or _tells_error(parsed)
        usage = self._meter.usage(parsed, self._request)
        if usage is None:
            return True
        self.usage = usage
        return not self._hide_usage or bool(parsed.get("choices"))

    def _note_object(self, event: Answer) -> None:
        """An event is an object itself, or holds the response that it is of."""
        response = event.get("response")
        found = response if isinstance(response, dict) else event
        if isinstance(found.get("id"), str) and isinstance(found.get("object"), str):
            self._objects.append(found)
            self.model = self.model or model_name(found.get("model"))

    def take_objects(self) -> list[Answer]:
        """The objects that events have announced since the last call."""
        found, self._objects = self._objects, []
        return found

    def output_tokens(self) -> int:
        """The output that has passed so far, counted."""
        return self._output.tokens()


def _tells_error(event: Answer) -> bool:
    response = event.get("response")
    return isinstance(response, dict) and isinstance(response.get("error"), dict)


def _tells(data: bytes) -> bool:
    """Whether an event is worth decoding, or one of several."""
    if any(pattern.search(data) for pattern in _TELLING):
        return True
    return b"event:" in data and _THREAD.search(data) is not None


class OutputCounter:
    """Counts the output of a stream that may be cut, from the events that have passed."""

    def __init__(self, meter: Meter, model: str) -> None:
        self._meter = meter
        self._model = model
        self._uncounted: list[bytes] = []
        self._uncounted_bytes = 0
        self._tokens = 0

    def add(self, events: bytes) -> None:
        self._uncounted.append(events)
        self._uncounted_bytes += len(events)
        if self._uncounted_bytes > MAX_UNCOUNTED_BYTES:
            self._catch_up()

    def tokens(self) -> int:
        self._catch_up()
        return self._tokens

    def _catch_up(self) -> None:
        texts: dict[int, list[str]] = {}
        for event in sse.split(b"".join(self._uncounted)):
            parsed = sse.parse(event)
            for choice, added in self._meter.text(parsed) if parsed is not None else ():
                texts.setdefault(choice, []).append(added)
        self._tokens += sum(count_output(self._model, "".join(parts)) for parts in texts.values())
        self._uncounted.clear()
        self._uncounted_bytes = 0
