"""What a call asks the simulator to do, and the faults set from outside. The package lists the names."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

MARKER_START = b"[[simulate:"
MARKER = re.compile(rb"\[\[simulate:([^\]\\]*)\]\]")
MARKER_IN_TEXT = re.compile(r"\s*\[\[simulate:[^\]]*\]\]")
SEPARATORS = re.compile(r"[;,\s]+")


@dataclass(slots=True)
class Directives:
    """Parsed directives. Times are in seconds, lengths in tokens, `big` in millions of bytes."""

    tokens: int | None = None
    big: float | None = None
    reasoning: int = 0
    audio: int = 0
    cached: int = 0
    prompt: int | None = None
    tools: int = 0
    no_usage: bool = False
    usage_with_choices: bool = False
    wait: bool = False
    delay: float = 0.0
    chunk_delay: float = 0.0
    stall: float = 0.0
    stall_after: int = 0
    status: int | None = None
    quota: bool = False
    retry_after: float | None = None
    html: bool = False
    malformed: bool = False
    reset: bool = False
    reset_after: int | None = None
    close_after: int | None = None
    truncate_after: int | None = None
    error_after: int | None = None
    no_done: bool = False
    finish_after: float | None = None
    searches: int = 0
    seconds: float | None = None


NOTHING = Directives()  # shared by all calls without directives: it must not be changed


def _parsers() -> dict[str, type[int] | type[float] | type[bool]]:
    kinds: dict[str, type[int] | type[float] | type[bool]] = {}
    for name, annotation in Directives.__annotations__.items():
        words = str(annotation).split(" ")
        kinds[name] = {"int": int, "float": float, "bool": bool}[words[0]]
    return kinds


PARSERS = _parsers()


class DirectiveError(ValueError):
    """A directive that does not exist, or whose value isn't a number at or above zero."""


def parse(text: str, onto: Directives | None = None) -> Directives:
    """Read `name=value name …`; with `onto`, into that object.

    Raises:
        DirectiveError: the text has a name or a value that means nothing.
    """
    directives = onto if onto is not None else Directives()
    for word in SEPARATORS.split(text.strip()):
        if not word:
            continue
        name, _, value = word.partition("=")
        name = name.replace("-", "_")
        kind = PARSERS.get(name)
        if kind is None:
            raise DirectiveError(f"there is no directive {name!r}")
        try:
            number = kind(value) if value and kind is not bool else kind(1)
        except ValueError:
            raise DirectiveError(f"{name}: want a number, got {value!r}") from None
        if number < 0:
            raise DirectiveError(f"{name}: want a number at or above zero, got {value!r}")
        setattr(directives, name, number)
    return directives


def in_body(body: bytes) -> str:
    """The text of the last marker in a raw body; empty if there is none."""
    if MARKER_START not in body:
        return ""
    found = MARKER.findall(body)
    return found[-1].decode("ascii", "replace") if found else ""


def without_marker(text: str) -> str:
    return MARKER_IN_TEXT.sub("", text).strip() if "[[simulate:" in text else text.strip()


# What a fault may name of the calls that it is for.
MATCHES = {"method", "path", "model", "contains", "except_agent"}


@dataclass(slots=True)
class Fault:
    """A behaviour set from outside for calls that match.

    Attributes:
        times: how many calls it is still good for; None: all.
    """

    id: int
    match: dict[str, str]
    action: str
    times: int | None

    def matches(self, *, method: str, path: str, model: str, body: bytes, agent: str) -> bool:
        match = self.match
        return (
            match.get("method", method) == method
            and match.get("except_agent") != agent
            and path.startswith(match.get("path", ""))
            and match.get("model", model) == model
            and match.get("contains", "").encode() in body
        )

    def document(self) -> dict[str, Any]:
        return {"id": self.id, "match": self.match, "action": self.action, "times": self.times}


@dataclass(slots=True)
class Faults:
    """The faults now set, in the order in which they came."""

    waiting: list[Fault] = field(default_factory=list)
    last_id: int = 0

    def add(self, document: object) -> Fault:
        """Add a fault from its JSON form.

        Raises:
            DirectiveError: the document has another shape, or its action means nothing.
        """
        if not isinstance(document, dict) or not isinstance(document.get("action"), str):
            raise DirectiveError("want an object with match, action and times")
        parse(document["action"])
        match = document.get("match") or {}
        if not isinstance(match, dict) or set(match) - MATCHES:
            raise DirectiveError(f"match: want an object with {', '.join(sorted(MATCHES))}")
        times = document.get("times")
        if times is not None and (not isinstance(times, int) or times < 1):
            raise DirectiveError("times: want a number above zero or null")
        self.last_id += 1
        fault = Fault(self.last_id, {k: str(v) for k, v in match.items()}, document["action"], times)
        self.waiting.append(fault)
        return fault

    def take(self, *, method: str, path: str, model: str, body: bytes, agent: str) -> str:
        """The action of the first fault that matches, which is thereby used once; empty if none does."""
        for fault in self.waiting:
            if fault.matches(method=method, path=path, model=model, body=body, agent=agent):
                if fault.times is not None:
                    fault.times -= 1
                    if fault.times == 0:
                        self.waiting.remove(fault)
                return fault.action
        return ""

    def documents(self) -> Iterable[dict[str, Any]]:
        return [fault.document() for fault in self.waiting]

    def clear(self) -> None:
        self.waiting.clear()
