"""Which objects a call speaks of, and whether the caller may.

An id in a path or under a name that holds ids must be one's own, or shared by the operator; any other value
that is an id may at least not be somebody else's. What is refused is told as OpenAI tells of an id that
does not exist, so that nobody learns what others have.
"""

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl

from common.errors import ApiError, BadRequest, NotFound
from openai_app.catalogue import Operation
from openai_app.owned.described import PLACES, PLACES_IN_LINES, Places, without_schemas
from openai_app.owned.objects import (
    CONTAINER,
    CONVERSATION,
    FINE_TUNED,
    ITEM,
    MODEL,
    REFERENCES,
    SLOT_KINDS,
    Kind,
)
from openai_app.owned.records import Owned
from openai_app.request import request_body

# Each is looked at; no operation has near as many.
MAX_PARAMETERS = 1_000
# A whole value that looks like one of OpenAI's ids, wherever it stands.
_ID = re.compile(r"[a-z]+(?:_[a-z]+)?[-_][A-Za-z0-9_-]{6,200}")
# Names of fields that hold nothing but ids, and beginnings of ids; a chat's calls of functions are neither.
# Each of their characters can also be written as an escape.
_NAMES = "|".join(sorted(name for name, kind in REFERENCES.items() if not kind.form and not kind.is_model))
_BEGINNINGS = (
    "file|resp|conv|cntr|cfile|msg|rs|fc|ctc|ws|fs|ci|ig|cu|mcp|mcpr|mcpl|lsh|sh|ap|cmp|tsc|item|asst|thread|run|step"
    "|vs|vsfb|batch|ftjob|upload|part|chatcmpl|audio|eval|evalrun|outputitem|video|char|skill|skillver|voice|cons"
    "|pmpt|tunnel|cksess|cthr|ft"
)
# Both patterns begin with a plain text, which is found many times as fast as a choice of texts.
_QUOTED_MENTION = re.compile(
    rf'"(?:(?:{_NAMES})"\s*:|(?:{_BEGINNINGS})[-_][A-Za-z0-9]|item_reference|ft:|[a-z]+:ft-)'.encode()
)
_ESCAPE = re.compile(rb"\\u00[2-7]")
# What people write: a text is never taken for an id.
_TEXT = frozenset(
    ("content", "text", "input", "instructions", "description", "name", "title", "arguments", "output")
)
# What the caller says of its own, and what an answer cited that is sent back: nothing there is used as an id.
_LABELS = frozenset(("metadata", "attributes", "annotations", "results"))


# A response adds to the conversation and works in the container that it is given: it changes them.
_WRITTEN_TO = (CONVERSATION, CONTAINER)


@dataclass(frozen=True, slots=True)
class Mention:
    """An id that a call speaks of. `must_be_known`: not to be passed on unless it is recorded."""

    object_id: str
    kind: Kind | None
    must_be_known: bool
    changes: bool = False
    #: Whose child it is, in a path.
    parent_id: str | None = None

    @property
    def recorded_as(self) -> str:
        """The id in the records of what the path names: of a file in a vector store, that it is in it."""
        return self.kind.recorded_as(self.object_id, self.parent_id) if self.kind else self.object_id


def mentions(operation: Operation, slots: Mapping[str, str], query: bytes, fields: Any) -> list[Mention]:
    """Every id in a call's path, query and body."""
    found = list(_in_path(operation, slots))
    found += _in_query(operation, query)
    # What a form's fields can be taken for is a list, each a body.
    for body in fields if isinstance(fields, list) else [fields]:
        found += _in_body(body, PLACES.get(operation.name, {}))
    return found


def mentions_in_lines(lines: Iterable[bytes]) -> list[Mention]:
    """Every id in the requests of a batch's file, a JSON object a line.

    Raises BadRequest for a line that cannot be read: OpenAI might be able to.
    """
    found: list[Mention] = []
    for line in lines:
        if may_mention(line):
            fields = request_body.parse(line, needs_model=False)
            found += _in_body(fields.pop("body", None), PLACES_IN_LINES)
            found += _in_body(fields, {})
    return found


def ids(found: Iterable[Mention]) -> set[str]:
    """What must be looked up for `check`."""
    return {object_id for mention in found for object_id in (mention.object_id, mention.recorded_as)}


def check(found: Iterable[Mention], known: Mapping[str, Owned], user_id: int) -> None:
    """Raises NotFound for the first id that the user may not speak of."""
    for mention in found:
        if not _may_speak_of(mention, known, user_id):
            raise missing(mention.kind, mention.object_id)


def _may_speak_of(mention: Mention, known: Mapping[str, Owned], user_id: int) -> bool:
    owned = known.get(mention.recorded_as) or known.get(mention.object_id)
    if owned is None:
        return not mention.must_be_known
    parent = known.get(mention.parent_id) if mention.parent_id else None
    if mention.kind is not None and mention.kind.has_files_id and parent is not None:
        # Seen in it or not: it is in nobody's vector store but its owner's, or that of who was given it.
        if owned.owner_id == parent.owner_id:
            return True
    elif mention.kind is not ITEM and parent is not None and owned.parent_id not in (None, parent.object_id):
        # A response may take an item along into another conversation; all others stay where they are.
        return False
    return owned.owner_id == user_id or (owned.is_shared and not mention.changes)


def missing(kind: Kind | None, object_id: str) -> ApiError:
    """What OpenAI says of an id that does not exist."""
    if kind is None:
        return NotFound(f"No such object: {object_id}", code=None)
    return NotFound(kind.missing.format(id=object_id), param=kind.param, code=kind.code)


def named_last(operation: Operation, slots: Mapping[str, str]) -> tuple[str, str]:
    """The id in the records, and the kind, of what the last slot of a path names."""
    slot = operation.slots[-1]
    kind, above = SLOT_KINDS[slot], {SLOT_KINDS[each].name: slots[each] for each in operation.slots[:-1]}
    return kind.recorded_as(slots[slot], above.get(kind.parent or "")), kind.name


def may_mention(body: bytes) -> bool:
    """Whether a JSON body may hold ids at all: a look that costs next to nothing, for every call."""
    return _QUOTED_MENTION.search(body) is not None or _ESCAPE.search(body) is not None


def _in_path(operation: Operation, slots: Mapping[str, str]) -> Iterator[Mention]:
    above: dict[str, str] = {}
    for slot, object_id in slots.items():
        kind = SLOT_KINDS.get(slot)
        if kind is None:
            continue
        # Who may change a child is told by its parent; what is put into a parent may be a shared file.
        changes = operation.method != "GET" and not operation.only_reads and kind.parent is None
        if not kind.is_model:
            parent_id = above.get(kind.parent) if kind.parent else None
            yield Mention(object_id, kind, _must_be_known(kind), changes, parent_id)
        elif operation.deletes or kind.may_be(object_id):
            # Models that nobody here made are there for all to use, and for none to delete.
            yield Mention(object_id, kind, must_be_known=operation.deletes, changes=operation.deletes)
        above[kind.name] = object_id


def _in_query(operation: Operation, query: bytes) -> Iterator[Mention]:
    try:
        pairs = parse_qsl(query.decode("latin-1"), keep_blank_values=True, max_num_fields=MAX_PARAMETERS)
    except ValueError:
        raise BadRequest(f"The query has more than {MAX_PARAMETERS} parameters.") from None
    for name, value in pairs:
        kind = REFERENCES.get(name)
        if operation.lists is not None and name in ("after", "before"):
            yield Mention(value, operation.lists, must_be_known=True)
        elif kind is not None and kind.may_be(value):
            yield Mention(value, kind, _must_be_known(kind) and kind.looks_like_one(value))
        elif value.startswith(FINE_TUNED):
            yield Mention(value, MODEL, must_be_known=False)
        elif _ID.fullmatch(value):
            yield Mention(value, None, must_be_known=False)


def _in_body(body: Any, places: Places) -> Iterator[Mention]:
    body = without_schemas(body)
    if isinstance(body, Mapping):
        for name, held in body.items():
            yield from _references({name: held}, places.get(name, ()))
    else:
        yield from _references(body, ())
    for text in _other_strings(body):
        if text.startswith(FINE_TUNED):
            yield Mention(text, MODEL, must_be_known=False)
        elif _ID.fullmatch(text):
            yield Mention(text, None, must_be_known=False)


def _must_be_known(kind: Kind) -> bool:
    """Whether an id that nobody here is known to have is refused; of models, only tuned ones get this far.

    A child is looked for by OpenAI under its parent. The name of a tuned model ends in what nobody can guess,
    and those that the operator had made before are for all; what a job of somebody's made is recorded before
    its owner hears of it.
    """
    return kind.parent is None and not kind.is_model


def _is_item_reference(value: Any) -> bool:
    """Whether OpenAI puts an item in its place; others tell what they are, and their id is a mere label."""
    return isinstance(value, Mapping) and (
        value.get("type") == "item_reference" or value.keys() <= {"id", "type"}
    )


def _references(value: Any, described: Collection[str]) -> Iterator[Mention]:
    """The ids in every field that holds ids, at any depth; under `id` where a reference is an object.

    Under the names that are `described` stands nothing but ids; under others only what is written like one
    must be known.
    """
    stack: list[Any] = [value]
    while stack:
        current = stack.pop()
        if isinstance(current, list):
            stack.extend(current)
        elif isinstance(current, Mapping):
            for name, held in current.items():
                kind = REFERENCES.get(name)
                if kind is not None:
                    for one in held if isinstance(held, list) else [held]:
                        object_id = one.get("id") if isinstance(one, Mapping) else one
                        if isinstance(object_id, str) and kind.may_be(object_id):
                            is_one = _is_item_reference(one) if kind is ITEM else _must_be_known(kind)
                            must_be_known = is_one and (name in described or kind.looks_like_one(object_id))
                            yield Mention(object_id, kind, must_be_known, changes=kind in _WRITTEN_TO)
                if name not in _LABELS and isinstance(held, Mapping | list):
                    stack.append(held)


def _other_strings(value: Any) -> Iterator[str]:
    """The strings at any depth but for texts: those under a name of theirs, in lists or not."""
    stack: list[tuple[Any, bool]] = [(value, False)]
    while stack:
        current, is_text = stack.pop()
        if isinstance(current, str):
            if not is_text:
                yield current
        elif isinstance(current, list):
            stack.extend((one, is_text) for one in current)
        elif isinstance(current, Mapping):
            stack.extend((held, name in _TEXT) for name, held in current.items())
