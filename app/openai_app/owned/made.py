"""What an answer tells of that somebody now has: what came into being, and whose child is whose."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from openai_app.catalogue import Operation
from openai_app.owned.objects import (
    CHAT_COMPLETION,
    CONTAINER_FILE,
    CONVERSATION,
    EVAL_OUTPUT_ITEM,
    EVAL_RUN,
    FINE_TUNE,
    FINE_TUNING_JOB,
    ITEM,
    MESSAGE,
    MESSAGE_FILE,
    MODEL,
    RESPONSE,
    RUN,
    RUN_STEP,
    SLOT_KINDS,
    THREAD,
    VECTOR_STORE_FILE,
    VECTOR_STORE_FILE_BATCH,
    Kind,
    yielded,
)
from openai_app.owned.records import New

# Streams and lists tell of objects of other kinds than the one that their operation is about.
_NAMED_KINDS: Mapping[str, Kind] = {
    "container.file": CONTAINER_FILE,
    "eval.run": EVAL_RUN,
    "eval.run.output_item": EVAL_OUTPUT_ITEM,
    "response": RESPONSE,
    "thread": THREAD,
    "thread.message": MESSAGE,
    "thread.message.file": MESSAGE_FILE,
    "thread.run": RUN,
    "thread.run.step": RUN_STEP,
    "vector_store.file": VECTOR_STORE_FILE,
    "vector_store.file_batch": VECTOR_STORE_FILE_BATCH,
    "vector_store.files_batch": VECTOR_STORE_FILE_BATCH,
}
# Of a job's events some name a model, in words.
_TUNED = re.compile(r"(?:\bft:|\b[a-z]+:ft-)[\w.:-]{0,200}\w")


def new_objects(
    operation: Operation,
    request: Mapping[str, Any],
    answer: Mapping[str, Any],
    slots: Mapping[str, str] | None = None,
) -> list[New]:
    """Everything that came into being by an answered call, and the children that it tells of."""
    if operation.deletes:
        return []
    above = {SLOT_KINDS[slot].name: held for slot, held in (slots or {}).items() if slot in SLOT_KINDS}
    found: list[New] = []
    created, object_id = _kind_of(answer, operation.creates), answer.get("id")
    if operation.creates is not None and operation.keeps(request) and created and isinstance(object_id, str):
        # An answer in a chat, or a stream's first piece of it, is less than what is stored of it.
        data = {} if created is CHAT_COMPLETION else _kept(created, answer)
        found.append(_new(created, object_id, answer, above, data))
    elements = answer.get("data")
    for one in (answer, *(elements if isinstance(elements, list) else ())):
        if isinstance(one, Mapping):
            found += _told_of(operation, one, above)
    return found


def objects_in(kind: Kind, answer: Mapping[str, Any], above: Mapping[str, str] | None = None) -> list[New]:
    """The objects that an answer, itself one of `kind`, names as having come into being by it.

    `above` has ids of parents by their kind.
    """
    found = [_new(other, id_, answer, above or {}) for other, id_ in yielded(kind, answer)]
    return found + (list(_cited(answer)) if kind is RESPONSE else [])


def kept(operation: Operation, answer: Mapping[str, Any]) -> Mapping[str, Any]:
    """What the records keep of an object that was read or changed."""
    kind = _last_kind(operation)
    return _kept(kind, answer) if kind is not None else {}


def _told_of(operation: Operation, one: Mapping[str, Any], above: Mapping[str, str]) -> Iterator[New]:
    """What an answer tells of, or an element of the list that it is."""
    kind = _kind_of(one, operation.creates or _last_kind(operation))
    if kind is None:
        return
    object_id = one.get("id")
    is_named = one.get("object") in _NAMED_KINDS or object_id == above.get(kind.name)
    if kind.parent is not None and is_named and isinstance(object_id, str):
        yield _new(kind, object_id, one, above)
    yield from objects_in(kind, one, above)
    if kind in (FINE_TUNING_JOB, FINE_TUNE) and isinstance(one.get("message"), str):
        for name in _TUNED.findall(one["message"]):
            yield New(name, MODEL.name)


def _new(
    kind: Kind,
    object_id: str,
    told_by: Mapping[str, Any],
    above: Mapping[str, str],
    data: Mapping[str, Any] | None = None,
) -> New:
    parent_id = _parent_of(kind, told_by, above)
    return New(kind.recorded_as(object_id, parent_id), kind.name, data or {}, parent_id)


def _parent_of(kind: Kind, told_by: Mapping[str, Any], above: Mapping[str, str]) -> str | None:
    """The id of what an object is a child of, from an answer that tells of it or from the path."""
    if kind.parent is None:
        return None
    if kind is not ITEM:
        held = told_by.get(f"{kind.parent}_id")
        return held if isinstance(held, str) else above.get(kind.parent)
    # Items are a conversation's, or those of a response that has none.
    conversation = told_by.get("conversation")
    held = conversation.get("id") if isinstance(conversation, Mapping) else conversation
    if not isinstance(held, str):
        held = above.get(CONVERSATION.name) or above.get(RESPONSE.name)
    if held is None and told_by.get("object") == "response":
        held = told_by.get("id")
    return held if isinstance(held, str) else None


def _cited(response: Mapping[str, Any]) -> Iterator[New]:
    """The files in containers that a response cites: the code interpreter made them."""
    for item in _objects(response.get("output")):
        for part in _objects(item.get("content")):
            for note in _objects(part.get("annotations")):
                file_id, container_id = note.get("file_id"), note.get("container_id")
                if isinstance(file_id, str) and isinstance(container_id, str):
                    yield New(file_id, CONTAINER_FILE.name, parent_id=container_id)


def _objects(value: Any) -> Iterator[Mapping[str, Any]]:
    return (one for one in value if isinstance(one, Mapping)) if isinstance(value, list) else iter(())


def _kind_of(value: Any, otherwise: Kind | None) -> Kind | None:
    name = value.get("object") if isinstance(value, Mapping) else None
    return _NAMED_KINDS.get(name, otherwise) if isinstance(name, str) else otherwise


def _kept(kind: Kind, answer: Mapping[str, Any]) -> Mapping[str, Any]:
    """What the records keep of an object: all of it where lists are answered from them, else nothing."""
    return answer if kind.path and kind not in (RESPONSE, THREAD, CONVERSATION) else {}


def _last_kind(operation: Operation) -> Kind | None:
    """The kind of what is read or changed; of a list, that of its elements."""
    if operation.lists is not None:
        return operation.lists
    return SLOT_KINDS.get(operation.slots[-1]) if operation.slots else None
