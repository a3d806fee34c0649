"""Which objects a call speaks of, and whether the caller may.

An id in a path or under a name that holds ids must be one's own, or shared by the operator; any other value
that is an id may at least not be somebody else's. What is refused is told as OpenAI tells of an id that
does not exist, so that nobody learns what others have.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl

from common.errors import ApiError, BadRequest, NotFound
from openai_app.catalogue import Operation
from openai_app.owned.objects import (
    CHAT_COMPLETION,
    CONTAINER,
    CONVERSATION,
    FINE_TUNED,
    ITEM,
    MESSAGE,
    MODEL,
    REFERENCES,
    RESPONSE,
    RUN,
    RUN_STEP,
    SLOT_KINDS,
    THREAD,
    Kind,
    yielded,
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
# Streams and lists tell of objects of other kinds than the one that their operation is about.
_NAMED_KINDS = {
    "response": RESPONSE,
    "thread": THREAD,
    "thread.message": MESSAGE,
    "thread.run": RUN,
    "thread.run.step": RUN_STEP,
}
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


def mentions(operation: Operation, slots: Mapping[str, str], query: bytes, fields: Any) -> list[Mention]:
    """Every id in a call's path, query and body."""
    found = list(_in_path(operation, slots))
    found += _in_query(operation, query)
    found += _in_body(fields)
    return found


def mentions_in_lines(lines: Iterable[bytes]) -> list[Mention]:
    """Every id in the requests of a batch's file, a JSON object a line.

    Raises BadRequest for a line that cannot be read: OpenAI might be able to.
    """
    found: list[Mention] = []
    for line in lines:
        if may_mention(line):
            found += _in_body(request_body.parse(line, needs_model=False))
    return found


def check(found: Iterable[Mention], known: Mapping[str, Owned], user_id: int) -> None:
    """Raises NotFound for the first id that the user may not speak of."""
    for mention in found:
        owned = known.get(mention.object_id)
        if owned is None:
            if mention.must_be_known:
                raise missing(mention.kind, mention.object_id)
        elif owned.owner_id != user_id and (mention.changes or not owned.is_shared):
            raise missing(mention.kind, mention.object_id)


def missing(kind: Kind | None, object_id: str) -> ApiError:
    """What OpenAI says of an id that does not exist."""
    if kind is None:
        return NotFound(f"No such object: {object_id}", code=None)
    return NotFound(kind.missing.format(id=object_id), param=kind.param, code=kind.code)


def new_objects(
    operation: Operation, request: Mapping[str, Any], answer: Mapping[str, Any]
) -> list[tuple[str, str, Mapping[str, Any]]]:
    """(id, kind, object) of everything that came into being by an answered call."""
    found: list[tuple[str, str, Mapping[str, Any]]] = []
    kind, object_id = _kind_of(answer, operation.creates), answer.get("id")
    is_created = operation.creates is not None and operation.keeps(request)
    if is_created and kind is not None and isinstance(object_id, str):
        # An answer in a chat, or a stream's first piece of it, is less than what is stored of it.
        found.append((object_id, kind.name, {} if kind is CHAT_COMPLETION else _kept(kind, answer)))
    elements = answer.get("data")
    for one in (answer, *(elements if isinstance(elements, list) else ())):
        kind = _kind_of(one, operation.creates or _last_kind(operation))
        for other, yielded_id in yielded(kind, one) if kind is not None else ():
            found.append((yielded_id, other.name, {}))
    return found


def _kind_of(value: Any, otherwise: Kind | None) -> Kind | None:
    name = value.get("object") if isinstance(value, Mapping) else None
    return _NAMED_KINDS.get(name, otherwise) if isinstance(name, str) else otherwise


def kept(operation: Operation, answer: Mapping[str, Any]) -> Mapping[str, Any]:
    """What the records keep of an object that was read or changed."""
    kind = _last_kind(operation)
    return _kept(kind, answer) if kind is not None else {}


def _kept(kind: Kind, answer: Mapping[str, Any]) -> Mapping[str, Any]:
    """What the records keep of an object: all of it where lists are answered from them, else nothing."""
    return answer if kind.path and kind not in (RESPONSE, THREAD, CONVERSATION) else {}


def _last_kind(operation: Operation) -> Kind | None:
    """The kind of what is read or changed; of a list, that of its elements."""
    if operation.lists is not None:
        return operation.lists
    return SLOT_KINDS.get(operation.slots[-1]) if operation.slots else None


def may_mention(body: bytes) -> bool:
    """Whether a JSON body may hold ids at all: a look that costs next to nothing, for every call."""
    return _QUOTED_MENTION.search(body) is not None or _ESCAPE.search(body) is not None


def _in_path(operation: Operation, slots: Mapping[str, str]) -> Iterator[Mention]:
    for slot, object_id in slots.items():
        kind = SLOT_KINDS.get(slot)
        if kind is None:
            continue
        # Who may change a child is told by its parent; what is put into a parent may be a shared file.
        changes = operation.method != "GET" and not operation.only_reads and kind.parent is None
        if not kind.is_model:
            yield Mention(object_id, kind, _must_be_known(kind), changes)
        elif operation.deletes or kind.may_be(object_id):
            # OpenAI's own models are there for all to use, and for none to delete.
            yield Mention(object_id, kind, must_be_known=True, changes=operation.deletes)


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
            yield Mention(value, kind, _must_be_known(kind))
        elif value.startswith(FINE_TUNED):
            yield Mention(value, MODEL, must_be_known=True)
        elif _ID.fullmatch(value):
            yield Mention(value, None, must_be_known=False)


def _in_body(value: Any) -> Iterator[Mention]:
    yield from _references(value)
    for text in _other_strings(value):
        if text.startswith(FINE_TUNED):
            yield Mention(text, MODEL, must_be_known=True)
        elif _ID.fullmatch(text):
            yield Mention(text, None, must_be_known=False)


def _must_be_known(kind: Kind) -> bool:
    """Whether an id that nobody here is known to have is refused; of models, only tuned ones get this far.

    A child is looked for by OpenAI under its parent. A tuned model that is not recorded may be that of a job
    whose end has not been seen yet.
    """
    return kind.parent is None


def _is_item_reference(value: Any) -> bool:
    """Whether OpenAI puts an item in its place; others tell what they are, and their id is a mere label."""
    return isinstance(value, Mapping) and (
        value.get("type") == "item_reference" or value.keys() <= {"id", "type"}
    )


def _references(value: Any) -> Iterator[Mention]:
    """The ids in every field that holds ids, at any depth; under `id` where a reference is an object."""
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
                            must_be_known = _must_be_known(kind) or (kind is ITEM and _is_item_reference(one))
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
