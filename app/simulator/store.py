"""What the simulated account holds: things of many kinds, each under its parent, in memory."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from simulator import errors
from simulator.exchange import new_id

Document = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of thing.

    Attributes:
        object: the value of `object` in its documents.
        prefix: how its ids begin.
        digits: how many characters follow, as OpenAI forms them.
        missing: the words of the 404; `{id}` is the id asked for.
        deleted: the value of `object` in the answer to DELETE; empty: `object` with `.deleted`.
        states: statuses that work passes through before it ends; each look at it takes it one further.
        missing_param, missing_code: the other fields of the 404.
        ordered: the default order of lists.
        most: how many are kept, the oldest being forgotten; 0: all.
        has_ends: whether lists carry `first_id` and `last_id`.
        page: the default length of lists.
    """

    object: str
    prefix: str
    digits: int
    missing: str
    deleted: str = ""
    states: tuple[str, ...] = ()
    missing_param: str | None = None
    missing_code: str | None = None
    ordered: str = "desc"
    has_ends: bool = True
    page: int = 20
    most: int = 0

    def new_id(self) -> str:
        return f"{self.prefix}{new_id()[::-1] * 2}"[: len(self.prefix) + self.digits]


@dataclass(slots=True, eq=False)
class Thing:
    """One object of the account; `hidden` is what only the simulator knows about it."""

    kind: Kind
    id: str
    parent: str
    document: Document
    hidden: dict[str, Any] = field(default_factory=dict)


class Store:
    def __init__(self) -> None:
        self._things: dict[tuple[str, str], dict[str, Thing]] = {}

    def add(
        self, kind: Kind, fields: Document, *, parent: str = "", id: str = "", created: str = "created_at"
    ) -> Thing:
        """Create a thing; its document begins with id, object and time of creation."""
        id = id or kind.new_id()
        head: Document = {"id": id, "object": kind.object, created: int(time.time())}
        thing = Thing(kind, id, parent, head | fields)
        self.keep(thing)
        return thing

    def keep(self, thing: Thing) -> None:
        siblings = self._things.setdefault((thing.kind.prefix + thing.kind.object, thing.parent), {})
        siblings[thing.id] = thing
        if 0 < thing.kind.most < len(siblings):
            oldest = siblings.pop(next(iter(siblings)))
            if oldest.hidden.get("under_way"):
                siblings[oldest.id] = oldest  # work is never forgotten; its turn comes again

    def find(self, kind: Kind, id: object, parent: str = "") -> Thing | None:
        return self._things.get((kind.prefix + kind.object, parent), {}).get(str(id))

    def get(self, kind: Kind, id: object, parent: str = "") -> Thing:
        """The thing with this id below this parent.

        Raises:
            ApiError: 404 in OpenAI's words.
        """
        thing = self.find(kind, id, parent)
        if thing is None:
            message = kind.missing.format(id=id)
            raise errors.ApiError(404, message, param=kind.missing_param, code=kind.missing_code)
        return thing

    def all(self, kind: Kind, parent: str = "") -> list[Thing]:
        """In the order of creation."""
        return list(self._things.get((kind.prefix + kind.object, parent), {}).values())

    def remove(self, thing: Thing) -> None:
        """Forget a thing and all that is below it."""
        self._things.get((thing.kind.prefix + thing.kind.object, thing.parent), {}).pop(thing.id, None)
        for child in list(self._below(thing.id)):
            self.remove(child)

    def _below(self, id: str) -> Iterator[Thing]:
        for (_, parent), things in list(self._things.items()):
            if parent == id:
                yield from list(things.values())

    def clear(self) -> None:
        self._things.clear()
