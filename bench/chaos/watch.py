"""How each instance looks from outside: /readyz, and how long it takes to serve again after a fault."""

import asyncio
import time
from collections.abc import Iterable
from dataclasses import dataclass, field

import aiohttp

from chaos.calls import Attempt
from chaos.instances import Instance

LOOK_EVERY_S = 0.1
LOOK_PATIENCE_S = 1.5
# Stands for what has not happened.
NEVER_S = 999.0


@dataclass(eq=False)
class Thrown:
    """A fault as it was carried out; times are the machine's."""

    kind: str
    where: str
    began: float
    ended: float = 0.0
    words: str = ""


@dataclass
class Watch:
    """When each instance was seen ready, or not; only changes are kept."""

    changes: dict[str, list[tuple[float, bool]]] = field(default_factory=dict)
    _going: bool = True

    def end(self) -> None:
        self._going = False

    async def run(self, instances: Iterable[Instance]) -> None:
        connector = aiohttp.TCPConnector(limit=0, force_close=True)
        timeout = aiohttp.ClientTimeout(total=LOOK_PATIENCE_S)
        async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
            await asyncio.gather(*[self._look(session, instance) for instance in instances])

    async def _look(self, session: aiohttp.ClientSession, instance: Instance) -> None:
        seen = self.changes.setdefault(instance.name, [])
        while self._going:
            is_ready = await is_up(session, instance)
            if not seen or seen[-1][1] != is_ready:
                seen.append((time.time(), is_ready))
            await asyncio.sleep(LOOK_EVERY_S)

    def red_after(self, name: str, since: float, until: float) -> float | None:
        """Seconds from `since` until /readyz was red; None if it was not before `until`."""
        return next(
            (when - since for when, ready in self.changes[name] if since <= when <= until and not ready), None
        )

    def green_after(self, name: str, since: float) -> float:
        """Seconds from `since` until /readyz was green for good, as far as the next fault lets it: the
        first green after; 0 if it was green all along."""
        before = [ready for when, ready in self.changes[name] if when <= since]
        if before and before[-1]:
            return 0.0
        return next((when - since for when, ready in self.changes[name] if when > since and ready), NEVER_S)


async def is_up(session: aiohttp.ClientSession, instance: Instance) -> bool:
    """Whether the instance says that it is ready."""
    try:
        async with session.get(f"{instance.url}/readyz") as answer:
            return answer.status == 200
    except (aiohttp.ClientError, OSError, TimeoutError):
        return False


def served_after(attempts: Iterable[Attempt], name: str, since: float) -> float:
    """Seconds from `since` to the end of the first probe that was begun afterwards and served by `name`."""
    ends = [
        a.ended - since
        for a in attempts
        if a.kind == "probe" and a.instance == name and a.began >= since and a.is_complete
    ]
    return min(ends, default=NEVER_S)
