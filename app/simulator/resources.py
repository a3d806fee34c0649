"""What all kinds of things have in common: to be listed, looked at, changed and deleted."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from simulator import errors
from simulator.exchange import Exchange
from simulator.store import Kind, Thing

Handler = Callable[..., Awaitable[None]]  # takes the exchange and the ids in the path
MOST_ON_A_PAGE = 100
UNCHANGEABLE = frozenset({"id", "object", "created_at", "created", "usage", "status"})


@dataclass(frozen=True, slots=True)
class Resource:
    """A collection below `/v1`, `{}` standing for an id.

    Attributes:
        kinds: the kind of each id, from the outermost; the last is that of the collection.
        methods: which of list, get, update, delete it has.
        filters: query parameter → field of the document that must equal it.
    """

    path: str
    kinds: tuple[Kind, ...]
    methods: str = "list get delete"
    filters: tuple[tuple[str, str], ...] = ()

    def routes(self) -> Iterator[tuple[str, str, Handler]]:
        one = f"/v1/{self.path}/{{}}"
        for name in self.methods.split():
            match name:
                case "list":
                    yield "GET", f"/v1/{self.path}", self.list_things
                case "get":
                    yield "GET", one, self.retrieve
                case "update":
                    yield "POST", one, self.update
                case "delete":
                    yield "DELETE", one, self.delete

    async def list_things(self, exchange: Exchange, *ids: str) -> None:
        parent = resolve(exchange, self.kinds[:-1], ids).id if ids else ""
        things = exchange.world.store.all(self.kinds[-1], parent)
        await exchange.send_object(page(exchange, things, self.kinds[-1], dict(self.filters)))

    async def retrieve(self, exchange: Exchange, *ids: str) -> None:
        thing = resolve(exchange, self.kinds, ids)
        await exchange.world.work.look(thing)
        exchange.call.object_id = thing.id
        await exchange.send_object(thing.document)

    async def update(self, exchange: Exchange, *ids: str) -> None:
        thing = resolve(exchange, self.kinds, ids)
        changes = exchange.fields()
        thing.document.update({k: v for k, v in changes.items() if k not in UNCHANGEABLE})
        await exchange.send_object(thing.document)

    async def delete(self, exchange: Exchange, *ids: str) -> None:
        thing = resolve(exchange, self.kinds, ids)
        await remove(exchange, thing)


def resolve(exchange: Exchange, kinds: Iterable[Kind], ids: Iterable[str]) -> Thing:
    """The innermost thing of a path, each being a child of the one before.

    Raises:
        ApiError: 404, one of them is unknown.
    """
    thing: Thing | None = None
    for kind, id in zip(kinds, ids, strict=False):
        thing = exchange.world.store.get(kind, id, thing.id if thing else "")
    assert thing is not None
    return thing


async def remove(exchange: Exchange, thing: Thing) -> None:
    """Delete a thing, end the work on it, and say so."""
    await exchange.world.work.finish(thing.id, "cancelled", 0.0)
    exchange.world.store.remove(thing)
    kind = thing.kind
    await exchange.send_object(
        {"id": thing.id, "object": kind.deleted or f"{kind.object}.deleted", "deleted": True}
    )


def page(
    exchange: Exchange, things: list[Thing], kind: Kind, filters: dict[str, str] | None = None
) -> dict[str, Any]:
    """A page of things (given in the order of creation), as the address asks for it.

    Raises:
        ApiError: the limit is out of range, or there is nothing to go on from.
    """
    query = exchange.query()
    most = max(MOST_ON_A_PAGE, kind.page)
    limit = query.get("limit", str(kind.page))
    if not limit.isdigit():
        raise errors.invalid_type("limit", "an integer", limit)
    if int(limit) < 1:
        raise errors.below_minimum("limit", 1, int(limit))
    if int(limit) > most:
        raise errors.above_maximum("limit", most, int(limit))
    for name, wanted in query.items():
        field = (filters or {}).get(name)
        if field is not None:
            things = [thing for thing in things if str(thing.document.get(field)) == wanted]
        elif name.startswith("metadata["):
            key = name[len("metadata[") : -1]
            things = [t for t in things if (t.document.get("metadata") or {}).get(key) == wanted]
    if query.get("order", kind.ordered) == "desc":
        things = things[::-1]
    ids = [thing.document["id"] for thing in things]
    for name in ("after", "before"):
        if query.get(name) and query[name] not in ids:
            raise errors.ApiError(404, kind.missing.format(id=query[name]), param=name)
    if query.get("after"):
        things = things[ids.index(query["after"]) + 1 :]
    if query.get("before"):
        things = things[: [thing.document["id"] for thing in things].index(query["before"])]
    return listing([thing.document for thing in things[: int(limit)]], kind, len(things) > int(limit))


def listing(documents: list[dict[str, Any]], kind: Kind, has_more: bool = False) -> dict[str, Any]:
    answer: dict[str, Any] = {"object": "list", "data": documents, "has_more": has_more}
    if kind.has_ends:
        answer["first_id"] = documents[0]["id"] if documents else None
        answer["last_id"] = documents[-1]["id"] if documents else None
    return answer
