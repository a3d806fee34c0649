"""The records of whose object is whose, for the data plane: a few threads that speak to the database.

Calls without ids never come here, so that chat needs nothing but the ledger's own transaction.
"""

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, NamedTuple, TypeVar

import orjson
from django.db import InterfaceError, OperationalError, connection
from django.db.models import JSONField, Q, Value
from django.db.models.fields.json import KeyTransform, KeyTransformExact
from django.utils import timezone

from balances.database_errors import bounded_waiting, leave_broken_connection, read_only_is_away
from common.errors import NotFound, Unavailable
from openai_app.models import UpstreamObject

# Each has a database connection of its own.
THREADS = 2

# A statement takes only so many parameters, and a request may hold any number of ids.
IDS_AT_ONCE = 1_000
# A file of a message of a thread, a step of a run of a thread.
MOST_PARENTS = 2
# How often it is looked whether the database still answers, while an answer of its is waited for.
LOOK_EVERY_S = 0.2

AWAY = "The gateway's database cannot be reached. Try again in a moment."

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Owned:
    """What is recorded of one object; of a child, whose its parent is, and whether that is shared."""

    object_id: str
    kind: str
    owner_id: int
    is_shared: bool
    parent_id: str | None = None


class New(NamedTuple):
    """What is to be recorded of one object."""

    object_id: str
    kind: str
    #: The object as it was seen.
    data: Mapping[str, Any] = {}
    parent_id: str | None = None


@dataclass(frozen=True, slots=True)
class Page:
    """The part of a list that a caller asked for; `after` and `before` are ids of one's own objects."""

    limit: int
    is_ascending: bool = False
    after: str = ""
    before: str = ""
    #: Fields of the objects that must have these values, such as a file's purpose or `metadata[topic]`; None
    #: for those that must be empty.
    where: Mapping[str, str | None] | None = None


class Records:
    """One for each serving process; `close`d at its end."""

    def __init__(self, is_stuck: Callable[[], bool]) -> None:
        """`is_stuck` says whether the database does not answer: then nobody waits for it any longer."""
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="records")
        self._is_stuck = is_stuck

    async def find(self, object_ids: Collection[str]) -> dict[str, Owned]:
        """What is recorded of each of the ids; those that are not recorded are left out."""
        return await self._run(lambda: _find(object_ids))

    async def remember(self, owner_id: int, objects: Sequence[New], *, are_new: bool = True) -> None:
        """Records objects for their owner; an object keeps the owner it has.

        `are_new` says that most of them will not be there: nothing is written of those that are.
        """
        if objects:
            await self._run(lambda: write_down(owner_id, objects, are_new=are_new))

    async def refresh(self, object_id: str, data: Mapping[str, Any]) -> None:
        """Keeps an object as it was seen last; empty `data` has it read again before it is listed."""
        kept = _storable(data)
        await self._run(lambda: UpstreamObject.objects.filter(object_id=object_id).update(data=kept))

    async def data_of(self, object_ids: Collection[str]) -> list[Mapping[str, Any]]:
        """What is kept of each of the objects that are recorded."""
        return await self._run(
            lambda: list(
                UpstreamObject.objects.filter(object_id__in=object_ids).values_list("data", flat=True)
            )
        )

    async def forget(self, object_id: str, kind: str, *, older_than_s: float = 0.0) -> None:
        """Forgets what was deleted; a file that was only taken out of a vector store is of another kind."""
        recorded_by = timezone.now() - timedelta(seconds=older_than_s)
        gone = UpstreamObject.objects.filter(object_id=object_id, kind=kind)
        await self._run((gone.filter(created_at__lte=recorded_by) if older_than_s else gone).delete)

    async def page(self, owner_id: int, kind: str, page: Page) -> tuple[list[UpstreamObject], bool]:
        """A page of one's own objects, and whether there are more. Raises NotFound for an unknown cursor."""
        return await self._run(lambda: _page(owner_id, kind, page))

    async def unread(self, owner_id: int, kind: str) -> list[UpstreamObject]:
        """One's own objects of which nothing is kept yet."""
        return await self._run(
            lambda: list(UpstreamObject.objects.filter(owner_id=owner_id, kind=kind, data={}))
        )

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def run(self, work: Callable[[], T]) -> T:
        """Runs any other work with the database on one of the threads."""
        return await self._run(work)

    async def _run(self, work: Callable[[], T]) -> T:
        """The work is done, whatever becomes of whoever waits for it."""
        answer = asyncio.get_running_loop().run_in_executor(self._threads, _guarded, work)
        # Nobody may be left to hear of its error: that is none of its own.
        answer.add_done_callback(lambda done: done.cancelled() or done.exception())
        while not (await asyncio.wait({answer}, timeout=LOOK_EVERY_S))[0]:
            if self._is_stuck():
                raise Unavailable(AWAY)
        return answer.result()


def _guarded(work: Callable[[], T]) -> T:
    """Raises Unavailable when the database is away; the next call connects anew."""
    try:
        leave_broken_connection()
        with read_only_is_away(), bounded_waiting():
            return work()
    except (OperationalError, InterfaceError):
        connection.close()
        raise Unavailable(AWAY) from None


def _find(object_ids: Collection[str]) -> dict[str, Owned]:
    found = _rows([object_id for object_id in object_ids if "\0" not in object_id])
    known = dict(found)
    # Parents mostly stand in the same path; an id that stands by itself has few above it.
    for _ in range(MOST_PARENTS):
        above = {each.parent_id for each in known.values() if each.parent_id} - known.keys()
        if not above:
            break
        known.update(_rows(above))
    return {object_id: _as_its_parent(owned, known) for object_id, owned in found.items()}


def _rows(object_ids: Collection[str]) -> dict[str, Owned]:
    told = list(object_ids)
    found: dict[str, Owned] = {}
    for start in range(0, len(told), IDS_AT_ONCE):
        rows = UpstreamObject.objects.filter(object_id__in=told[start : start + IDS_AT_ONCE])
        for row in rows.values_list("object_id", "kind", "owner_id", "is_shared", "parent_id"):
            found[row[0]] = Owned(*row)
    return found


def _as_its_parent(owned: Owned, known: Mapping[str, Owned]) -> Owned:
    """What is recorded of an object, with the owner of the uppermost thing that it is a part of."""
    top = owned
    for _ in range(MOST_PARENTS):
        above = known.get(top.parent_id) if top.parent_id else None
        if above is None:
            break
        top = above
    return replace(owned, owner_id=top.owner_id, is_shared=top.is_shared or owned.is_shared)


def write_down(owner_id: int, objects: Sequence[New], *, are_new: bool = True) -> None:
    """What `Records.remember` has done, on a database thread."""
    known = frozenset() if are_new else _rows({each.object_id for each in objects}).keys()
    rows = [
        UpstreamObject(
            object_id=each.object_id,
            kind=each.kind,
            owner_id=owner_id,
            data=_storable(each.data),
            parent_id=each.parent_id,
        )
        for each in objects
        if each.object_id not in known
    ]
    if rows:
        UpstreamObject.objects.bulk_create(rows, ignore_conflicts=True)


def _storable(data: Mapping[str, Any]) -> Mapping[str, Any]:
    """What the database can keep of an object: nothing if it holds null characters, of which PostgreSQL has
    none, or is nested too deeply to be written; such an object is read again for every list."""
    try:
        return {} if b"\\u0000" in orjson.dumps(data) else data
    except orjson.JSONEncodeError:
        return {}


def _field(name: str) -> KeyTransform:
    """The field `name` of an object's data, or `b` within `a` where the name is `a[b]`; never a lookup."""
    outer, _, inner = name.removesuffix("]").partition("[")
    field = KeyTransform(outer, "data")
    return KeyTransform(inner, field) if inner else field


def _is(name: str, value: Any) -> KeyTransformExact:
    return KeyTransformExact(_field(name), Value(value, JSONField()))


def _is_empty(name: str) -> Q:
    """There is no field of this name, or nothing in it."""
    return ~Q(data__has_key=name) | Q(_is(name, None)) | Q(_is(name, {}))


def _page(owner_id: int, kind: str, page: Page) -> tuple[list[UpstreamObject], bool]:
    own = UpstreamObject.objects.filter(kind=kind, owner_id=owner_id)
    for name, value in (page.where or {}).items():
        own = own.filter(_is_empty(name) if value is None else _is(name, value))
    cursors = dict(
        UpstreamObject.objects.filter(owner_id=owner_id, object_id__in=[page.after, page.before]).values_list(
            "object_id", "id"
        )
    )
    for cursor in filter(None, (page.after, page.before)):
        if cursor not in cursors:
            raise NotFound(f"No such object: {cursor}", code=None)
    if page.after:
        position = cursors[page.after]
        own = own.filter(id__gt=position) if page.is_ascending else own.filter(id__lt=position)
    if page.before:
        position = cursors[page.before]
        own = own.filter(id__lt=position) if page.is_ascending else own.filter(id__gt=position)
    found = list(own.order_by("id" if page.is_ascending else "-id")[: page.limit + 1])
    return found[: page.limit], len(found) > page.limit
