"""The load: many users whose clients retry as OpenAI's do, and some of whom leave before the end."""

import asyncio
import itertools
import json
import random
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from chaos.calls import BATCHES, CHAT, Attempt, Wish, draw, probe
from chaos.instances import Instance

# As OpenAI's SDKs do: two retries, half a second and then a second, or as Retry-After says.
RETRIES = 2
FIRST_RETRY_S = 0.5
# Theirs wait a minute; here the load must go on.
MOST_RETRY_S = 2.0
RETRIED = frozenset((408, 409, 429))
# Of the calls, this share is left by its client.
LEAVING = 0.2
# This share has an Idempotency-Key; a client of such a call that got no answer, or left, sends it again, and
# some do though they have it.
KEYED, SENT_AGAIN, KEYED_ATTEMPTS = 0.15, 0.3, 5
# Nobody waits longer; a client that gives up has left.
PATIENCE_S = 90.0
PROBE_EVERY_S, PROBE_PATIENCE_S = 0.25, 3.0
THINKS_S = 0.6
# An account with less than this gets as much again; with less than a call's need some are refused.
LOW_CREDITS, TOP_UP_CREDITS = 1_500, 3_000


@dataclass
class User:
    """`keys` are (id, secret), each used for one attempt only, so that a hold tells of which.

    The attempts at a call with an Idempotency-Key share one: it is the key's.
    """

    id: int
    keys: list[tuple[int, str]]


@dataclass
class Site:
    """The instances on one database, and the people who use them."""

    name: str
    instances: list[Instance]
    admin_key: str = ""
    users: list[User] = field(default_factory=list)


@dataclass
class Grant:
    """A top-up that was asked for; `status` 0 when nobody knows whether it happened."""

    site: str
    user_id: int
    amount: int
    reason: str
    status: int = 0


@dataclass
class Book:
    """What the clients know."""

    attempts: list[Attempt] = field(default_factory=list)
    grants: list[Grant] = field(default_factory=list)
    #: By site and user, the lowest balance that anybody was shown.
    lowest: dict[tuple[str, int], int] = field(default_factory=dict)


class Load:
    """Runs until `end` is called; `book` has everything that was tried."""

    def __init__(self, sites: list[Site], seed: int) -> None:
        self.sites = sites
        self.book = Book()
        self._chance = random.Random(seed)
        self._numbers = itertools.count(1)
        self._going = self._probing = True
        self._free = aiohttp.ClientTimeout(total=10)
        self._endless = aiohttp.ClientTimeout(total=None)

    def end(self) -> None:
        """No new calls but the probes'; those under way go on."""
        self._going = False

    def end_probes(self) -> None:
        self._probing = False

    async def run(self, clients: int) -> None:
        """`clients` at once on each site, the probes and the operator; returns when the last is done."""
        async with aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0), timeout=self._endless
        ) as session:
            tasks = [self._client(session, site) for site in self.sites for _ in range(clients)]
            tasks += [self._top_up(session, site) for site in self.sites]
            tasks += [self._probe(site, instance) for site in self.sites for instance in site.instances]
            await asyncio.gather(*tasks)

    # --- users --------------------------------------------------------------------------------------------

    async def _client(self, session: aiohttp.ClientSession, site: Site) -> None:
        chance = random.Random(self._chance.random())
        while self._going:
            await asyncio.sleep(chance.uniform(0.0, THINKS_S))
            tag = f"{site.name}-{next(self._numbers)}"
            await self._call(session, site, chance, draw(chance, tag), tag)

    async def _call(
        self, session: aiohttp.ClientSession, site: Site, chance: random.Random, wish: Wish, tag: str
    ) -> None:
        """One call with its retries."""
        user = chance.choice(site.users[1:])
        if chance.random() < KEYED and wish.path != BATCHES:
            await self._keyed_call(session, site, chance, user, wish, tag)
            return
        leaves_after_s = None
        if chance.random() < LEAVING:
            leaves_after_s = chance.uniform(0.0, 1.2 * wish.lasts_s + 0.02)
        for number in range(1 + RETRIES):
            instance = chance.choice(site.instances)
            attempt = self._attempt(site, instance, user, wish, f"{tag}.{number}")
            if attempt is None:
                return
            body = wish.body
            if wish.path == BATCHES:
                file_id = await self._upload(session, instance, attempt, wish.does)
                if not file_id:
                    attempt.broke = "the file could not be uploaded"
                    return
                body = {**body, "input_file_id": file_id}
            retry_after_s = await self._make(session, instance, attempt, body, number, leaves_after_s)
            if retry_after_s is None:
                return
            if not retry_after_s:
                retry_after_s = FIRST_RETRY_S * 2**number * (1 - 0.25 * chance.random())
            await asyncio.sleep(min(retry_after_s, MOST_RETRY_S))
            leaves_after_s = None

    async def _keyed_call(
        self,
        session: aiohttp.ClientSession,
        site: Site,
        chance: random.Random,
        user: User,
        wish: Wish,
        tag: str,
    ) -> None:
        """One call with an Idempotency-Key, sent until there is an answer, and now and then once more."""
        if not user.keys:
            return
        key = user.keys.pop()
        for number in range(KEYED_ATTEMPTS):
            instance = chance.choice(site.instances)
            attempt = self._attempt(site, instance, user, wish, f"{tag}.{number}", key)
            assert attempt is not None
            attempt.idempotency_key = tag
            leaves_after_s = None
            if chance.random() < LEAVING:
                leaves_after_s = chance.uniform(0.0, 1.2 * wish.lasts_s + 0.02)
            wait_s = await self._make(session, instance, attempt, wish.body, number, leaves_after_s)
            is_done = attempt.is_complete or (wait_s is None and not attempt.left and not attempt.broke)
            if is_done and chance.random() > SENT_AGAIN:
                return
            await asyncio.sleep(min(wait_s or FIRST_RETRY_S, MOST_RETRY_S))

    def _attempt(
        self,
        site: Site,
        instance: Instance,
        user: User,
        wish: Wish,
        tag: str,
        key: tuple[int, str] | None = None,
    ) -> Attempt | None:
        if key is None and not user.keys:
            return None
        key_id, secret = key or user.keys.pop()
        attempt = Attempt(
            tag, site.name, instance.name, user.id, key_id, secret, wish.path, wish.kind, wish.does,
            wish.is_stream, time.time(),
        )  # fmt: skip
        self.book.attempts.append(attempt)
        return attempt

    async def _make(
        self,
        session: aiohttp.ClientSession,
        instance: Instance,
        attempt: Attempt,
        body: dict[str, Any],
        retry: int,
        leaves_after_s: float | None,
    ) -> float | None:
        """Makes one attempt; answers how long to wait for the next (0: as one likes), None: no more."""
        headers = _headers(attempt, retry)
        try:
            async with asyncio.timeout(PATIENCE_S if leaves_after_s is None else leaves_after_s):
                async with session.post(
                    instance.url + attempt.path, data=json.dumps(body), headers=headers
                ) as answer:
                    await _read(answer, attempt)
        except TimeoutError:
            attempt.left = time.time()
            return None
        except (aiohttp.ClientError, OSError) as error:
            attempt.broke = f"{type(error).__name__}: {error}"
            # What has begun to be answered is not asked for again.
            return None if attempt.status else 0.0
        finally:
            attempt.ended = time.time()
        if attempt.status in RETRIED or attempt.status >= 500:
            return float(answer.headers.get("retry-after") or 0)
        return None

    async def _upload(
        self, session: aiohttp.ClientSession, instance: Instance, attempt: Attempt, content: str
    ) -> str:
        """The id of a batch's file, empty when it cannot be had now."""
        form = aiohttp.FormData()
        form.add_field("purpose", "batch")
        form.add_field("file", content.encode(), filename="batch.jsonl")
        headers = {**_headers(attempt, 0), "x-client-request-id": f"{attempt.id}.free"}
        del headers["content-type"]
        try:
            async with session.post(
                f"{instance.url}/v1/files", data=form, headers=headers, timeout=self._free
            ) as answer:
                return str((await answer.json())["id"]) if answer.status == 200 else ""
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError):
            return ""

    # --- the operator -------------------------------------------------------------------------------------

    async def _top_up(self, session: aiohttp.ClientSession, site: Site) -> None:
        """Looks at one balance after another, and gives to who has little."""
        chance = random.Random(self._chance.random())
        headers = {"authorization": f"Bearer {site.admin_key}"}
        users = itertools.cycle(site.users[1:])
        while self._going:
            await asyncio.sleep(0.05)
            user, url = next(users), chance.choice(site.instances).url
            try:
                async with session.get(
                    f"{url}/api/balance/{user.id}", headers=headers, timeout=self._free
                ) as answer:
                    if answer.status != 200:
                        continue
                    shown = await answer.json()
            except (aiohttp.ClientError, OSError, TimeoutError, ValueError):
                continue
            known = self.book.lowest.get((site.name, user.id), shown["balance"])
            self.book.lowest[site.name, user.id] = min(known, shown["balance"])
            if shown["available"] < LOW_CREDITS and chance.random() < 0.3:
                grant = Grant(site.name, user.id, TOP_UP_CREDITS, f"Top-up {uuid.uuid4().hex}")
                self.book.grants.append(grant)
                await self._grant(session, f"{url}/api/balance/{user.id}/grant", headers, grant)

    async def _grant(
        self, session: aiohttp.ClientSession, url: str, headers: dict[str, str], grant: Grant
    ) -> None:
        asked = {"amount": grant.amount, "reason": grant.reason}
        try:
            async with session.post(url, json=asked, headers=headers, timeout=self._free) as answer:
                grant.status = answer.status
        except (aiohttp.ClientError, OSError, TimeoutError):
            grant.status = 0

    # --- probes -------------------------------------------------------------------------------------------

    async def _probe(self, site: Site, instance: Instance) -> None:
        """Small metered calls, each on a connection of its own, by which recovery is timed."""
        connector = aiohttp.TCPConnector(limit=0, force_close=True)
        async with aiohttp.ClientSession(connector=connector, timeout=self._endless) as session:
            while self._probing:
                tag = f"{site.name}-probe-{next(self._numbers)}"
                attempt = self._attempt(site, instance, site.users[0], wish := probe(tag), f"{tag}.0")
                if attempt is not None:
                    await self._make(session, instance, attempt, wish.body, 0, PROBE_PATIENCE_S)
                await asyncio.sleep(PROBE_EVERY_S)


def _headers(attempt: Attempt, retry: int) -> dict[str, str]:
    keyed = {"idempotency-key": attempt.idempotency_key} if attempt.idempotency_key else {}
    return {
        "authorization": f"Bearer {attempt.secret}",
        "content-type": "application/json",
        "x-client-request-id": attempt.id,
        "x-stainless-retry-count": str(retry),
        **keyed,
    }


async def _read(answer: aiohttp.ClientResponse, attempt: Attempt) -> None:
    attempt.status = answer.status
    attempt.request_id = answer.headers.get("x-request-id", "")
    attempt.has_retry_after = "retry-after" in answer.headers
    if "idempotent-replayed" in answer.headers:
        attempt.replayed = answer.headers["x-original-request-id"]
    charged = answer.headers.get("x-balance-charged")
    attempt.told_charge = int(charged) if charged else None
    if answer.status == 200 and answer.content_type == "text/event-stream":
        await _read_stream(answer, attempt)
        return
    body = await answer.read()
    try:
        parsed = json.loads(body)
    except ValueError:
        attempt.broke = f"no JSON: {body[:80]!r}"
        return
    if answer.status == 200:
        attempt.is_complete = True
        attempt.usage = parsed.get("usage")
        attempt.object_id = str(parsed.get("id", ""))
    else:
        error = parsed.get("error")
        attempt.error_code = str(error.get("code")) if isinstance(error, dict) else "(no error object)"


async def _read_stream(answer: aiohttp.ClientResponse, attempt: Attempt) -> None:
    rest = b""
    async for data in answer.content.iter_any():
        *events, rest = (rest + data).split(b"\n\n")
        now = time.time()
        for event in events:
            _take(event, attempt, now)
    if not attempt.is_complete and not attempt.broke:
        attempt.broke = "the stream ended without its last event"


def _take(event: bytes, attempt: Attempt, now: float) -> None:
    payload = event.partition(b"data: ")[2]
    if payload == b"[DONE]":
        attempt.is_complete = not attempt.broke
        return
    try:
        parsed = json.loads(payload)
    except ValueError:
        attempt.broke = f"no JSON in an event: {payload[:80]!r}"
        return
    if isinstance(parsed.get("error"), dict):
        attempt.broke = f"error event: {parsed['error'].get('code')}"
        return
    if attempt.path == CHAT:
        attempt.pieces += [now for _ in _written(parsed)]
        attempt.usage = parsed.get("usage") or attempt.usage
    else:
        if str(parsed.get("type")).endswith(("output_text.delta", "arguments.delta")):
            attempt.pieces.append(now)
        if parsed.get("type") in ("response.completed", "response.incomplete"):
            attempt.is_complete = True
            attempt.usage = parsed["response"].get("usage")


def _written(event: dict[str, Any]) -> Iterator[str]:
    """The pieces of output in a chunk of a chat, each a token or more."""
    for choice in event.get("choices") or ():
        delta = choice.get("delta") or {}
        if delta.get("content"):
            yield delta["content"]
        for call in delta.get("tool_calls") or ():
            if call.get("function", {}).get("arguments"):
                yield call["function"]["arguments"]
