"""A caller's own list of things, from the gateway's records, with OpenAI's paging.

OpenAI's own lists hold what all users of the account have; to sift them would cost ever more.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any
from urllib.parse import parse_qsl

import orjson

from common.errors import ApiError, BadRequest
from openai_app.answer.missing import is_missing
from openai_app.answer.passing import parse_answer, read_answer
from openai_app.answer.reply import Reply
from openai_app.http.response import Response
from openai_app.models import UpstreamObject
from openai_app.owned.objects import MODEL, Kind
from openai_app.owned.records import Page, Records
from openai_app.upstream import Upstream, response_headers

MOST = 100
# How many objects are read again at a time for one list.
READ_AT_ONCE = 8
# What still changes by itself is read again before it is shown.
_BUSY = ("queued", "in_progress", "validating", "validating_files", "finalizing", "cancelling")
_UNSETTLED = frozenset((*_BUSY, "uploaded", "running", "pending", "paused", "active"))


def page_of(query: bytes, kind: Kind) -> Page:
    """The part of the list that a query asks for. Raises BadRequest."""
    asked = dict(parse_qsl(query.decode("latin-1")))
    for name, value in asked.items():
        if "\0" in name + value:
            # PostgreSQL knows no such text.
            raise BadRequest(f"Invalid '{name}': it holds a null character.")
    limit = _whole_number(asked.get("limit", str(kind.usually_listed)))
    most = max(MOST, kind.most_listed)
    least = kind.fewest_listed
    if not least <= limit <= most:
        raise BadRequest(f"Invalid 'limit': expected a whole number from {least} to {most}.", param="limit")
    order = asked.get("order", kind.usual_order)
    if order not in ("asc", "desc"):
        raise BadRequest("Invalid 'order': expected 'asc' or 'desc'.", param="order")
    where: dict[str, str | None] = {name: asked[name] for name in kind.filters if name in asked}
    if asked.get("metadata") == "null":
        where["metadata"] = None
    for name, value in asked.items():
        if name.startswith("metadata[") and name.endswith("]"):
            where[name] = value
    return Page(
        limit=limit,
        is_ascending=order == "asc",
        after=asked.get("after", ""),
        before=asked.get("before", ""),
        where=where,
    )


def _whole_number(text: str) -> int:
    """The number that a text says; -1 for any other text, and for more digits than Python reads."""
    try:
        return int(text) if text.isdecimal() else -1
    except ValueError:
        return -1


# What is told of every object that was read again for a list.
Seen = Callable[[Mapping[str, Any]], Awaitable[None]]


async def answer(
    records: Records, upstream: Upstream, user_id: int, kind: Kind, query: bytes, seen: Seen
) -> bytes:
    """A page of the caller's own objects, as OpenAI would answer it. Raises ApiError."""
    page = page_of(query, kind)
    turn = asyncio.Semaphore(READ_AT_ONCE)

    async def current(row: UpstreamObject) -> Mapping[str, Any] | None:
        if row.data and row.data.get("status") not in _UNSETTLED and not kind.changes_by_itself:
            return dict(row.data)
        async with turn:
            return await _read(records, upstream, row, kind, seen)

    if page.where:
        # By what an object is to be found must be known of it first.
        await asyncio.gather(*map(current, await records.unread(user_id, kind.name)))
    found, has_more = await records.page(user_id, kind.name, page)
    shown = [data for data in await asyncio.gather(*map(current, found)) if data is not None]
    ends = {"first_id": shown[0]["id"] if shown else None, "last_id": shown[-1]["id"] if shown else None}
    return orjson.dumps(
        {"object": "list", "data": shown, **(ends if kind.lists_tell_ends else {}), "has_more": has_more}
    )


async def pass_models(response: Response, reply: Reply, records: Records, user_id: int) -> int:
    """OpenAI's models, byte for byte unless tuned ones are among them that are neither own nor shared."""
    body = await read_answer(response)
    parsed = parse_answer(response, body)
    models = parsed.get("data")
    names = [m["id"] for m in models if _is_owned(m)] if isinstance(models, list) else []
    known = await records.find(names) if names else {}
    usable = {o.object_id for o in known.values() if o.owner_id == user_id or o.is_shared}
    if not usable.issuperset(names):
        parsed["data"] = [m for m in parsed["data"] if not _is_owned(m) or m["id"] in usable]
        body = orjson.dumps(parsed)
    await reply.whole(response.status, response_headers(response), body)
    return response.status


def _is_owned(model: Any) -> bool:
    return isinstance(model, dict) and isinstance(model.get("id"), str) and MODEL.may_be(model["id"])


async def _read(
    records: Records, upstream: Upstream, row: UpstreamObject, kind: Kind, seen: Seen
) -> Mapping[str, Any] | None:
    """The object as it is now; None if it is not there, and forgotten if OpenAI itself says so.

    If OpenAI fails, as it was last seen.
    """
    if not kind.path:
        return dict(row.data) or None
    try:
        response = await upstream.send("GET", kind.path.format(id=row.object_id), b"", kind.headers, b"")
        try:
            body = await read_answer(response)
            if response.status == 404:
                # Nothing would bring back whose it was: a proxy's 404 must not take it away.
                if is_missing(response, body):
                    await records.forget(row.object_id, row.kind)
                return None
            data = parse_answer(response, body) if response.status == 200 else dict(row.data)
        finally:
            response.close()
    except ApiError:
        return dict(row.data) or None
    await records.refresh(row.object_id, data)
    await seen(data)
    return data or None
