"""What the gateway knows of one operation of OpenAI's API."""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from openai_app.metering import FREE, Meter, calls
from openai_app.owned.objects import Kind

MEGABYTE = 1024 * 1024
# OpenAI takes up to 512 MB of images in one chat request; this bounds what a caller makes a worker hold.
MAX_JSON_BYTES = 64 * MEGABYTE

JSON = "application/json"
FORM = "multipart/form-data"
EVENTS = "text/event-stream"
BYTES = "application/octet-stream"

#: The query of most lists.
PAGE = ("limit", "order", "after", "before")
PAGE_FORWARD = ("limit", "order", "after")


def per_call(name: str) -> Meter:
    """The meter of an operation of which nothing but the call can be counted, rated by this name."""
    return Meter(estimate=calls.estimate, usage=calls.usage, rated_as=lambda _: name, needs_model=False)


def always(_: Mapping[str, Any]) -> bool:
    return True


@dataclass(frozen=True)
class Operation:
    """One row of the catalogue.

    `name`, `path` and `tag` are those of OpenAI's own description (openai/openai-openapi), but that each slot
    is named for its kind of object: see `objects.SLOT_KINDS`. What belongs to whom is told by the slots and
    by `creates`, `lists` and `deletes`.
    """

    name: str
    method: str
    path: str
    tag: str
    summary: str
    meter: Meter = FREE
    #: Content types of the request; none for an operation without a body.
    accepts: tuple[str, ...] = ()
    #: Content types of the answer.
    answers: tuple[str, ...] = (JSON,)
    #: The status of an answer to a call that went well.
    succeeds_with: int = 200
    #: Names of the parameters that the query may have.
    query: tuple[str, ...] = ()
    #: The answer is a new object of this kind, which belongs to the caller.
    creates: Kind | None = None
    #: Whether OpenAI keeps what a request creates; what it does not keep need not be recorded.
    keeps: Callable[[Mapping[str, Any]], bool] = always
    #: The answer is a page of objects of this kind: the caller's own, from the gateway's records.
    lists: Kind | None = None
    #: On success the object named by the path's last slot is forgotten.
    deletes: bool = False
    #: It leaves what its path names as it is, though it is no GET: what is shared may be used so.
    only_reads: bool = False
    #: The body is free, may be large and names no objects: it passes through unread.
    streams_body: bool = False
    #: Of a form, which waits on disk, or of a body that streams through; JSON has MAX_JSON_BYTES at most.
    max_body_bytes: int = MAX_JSON_BYTES
    #: Other paths by which older clients call it, below the same prefix.
    aliases: tuple[str, ...] = ()
    #: Why it is not offered; the caller is told, with status 403.
    refused: str = ""
    #: Why an object of this `type` under this field is not offered, likewise: it reaches what all users have.
    refused_types: Mapping[tuple[str, str], str] = field(default_factory=dict)
    #: The parts of a form that hold files, at least one of which is needed.
    files: tuple[str, ...] = ()
    #: The `items` of its body are read by every later response in the conversation that they are put into.
    adds_items: bool = False
    #: A JSON body that works; its plain values are those of the form that works, with `files`.
    example: Mapping[str, Any] | None = None

    def refusal(self, fields: Mapping[str, Any]) -> str:
        """Why a body with these fields is not offered; empty if it is."""
        if not self.refused_types:
            return ""
        return next(
            (self.refused_types[found] for found in _types(fields) if found in self.refused_types), ""
        )

    @cached_property
    def form_example(self) -> Mapping[str, str]:
        """The fields that are no files of a form that works."""
        plain = (str, int, float)
        example = self.example or {}
        return {
            name: str(value)
            for name, value in example.items()
            if isinstance(value, plain) and name not in self.files
        }

    @cached_property
    def paths(self) -> tuple[str, ...]:
        return (self.path, *self.aliases)

    @cached_property
    def patterns(self) -> tuple[re.Pattern[str], ...]:
        """Of each of the paths, with a named group for each slot."""
        return tuple(re.compile(_pattern(path)) for path in self.paths)

    @cached_property
    def is_repeatable(self) -> bool:
        """Whether an `Idempotency-Key` has it answered again rather than served and charged again."""
        return self.method == "POST" and self.meter.estimate is not None

    @cached_property
    def answers_bytes(self) -> bool:
        """Whether an answer may be something else than JSON or events: sound, a file, plain text."""
        return any(kind not in (JSON, EVENTS) for kind in self.answers)

    @cached_property
    def slots(self) -> tuple[str, ...]:
        return tuple(re.findall(r"\{(\w+)\}", self.path))


def _types(value: Any) -> Iterator[tuple[str, str]]:
    """The field and the `type` of every object in a JSON value, at any depth."""
    stack: list[tuple[str, Any]] = [("", value)]
    while stack:
        name, current = stack.pop()
        if isinstance(current, list):
            stack.extend((name, element) for element in current)
        elif isinstance(current, Mapping):
            if isinstance(current.get("type"), str):
                yield name, current["type"]
            stack.extend(current.items())


def _pattern(path: str) -> str:
    """Models' names may contain slashes, so a `{model}` takes all that it can."""
    parts = re.split(r"\{(\w+)\}", path)
    return "".join(
        (rf"(?P<{part}>.+)" if part == "model" else rf"(?P<{part}>[^/]+)") if index % 2 else re.escape(part)
        for index, part in enumerate(parts)
    )
