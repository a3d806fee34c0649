"""Work that goes on after its call was answered: batches, background responses, runs, fine-tuning, videos.

It ends when it is told to (POST /simulator/finish), or after the time that `finish_after` gives it. What it
used is a line of its own in the journal, written when it ends.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from simulator.journal import Journal
from simulator.store import Thing

# Called with the final status and the share of the work that was done, from 0 to 1; returns what was used.
Finish = Callable[[str, float], Awaitable[dict[str, Any] | None]]

SHARES = {"completed": 1.0, "cancelled": 0.5, "expired": 0.5, "failed": 0.0}


@dataclass(slots=True, eq=False)
class Job:
    thing: Thing
    model: str
    finish: Finish


class Work:
    """The work under way.

    Attributes:
        finish_after_s: when work without a `finish_after` of its own ends; None: when it is told to.
    """

    def __init__(self, journal: Journal, finish_after_s: float | None) -> None:
        self.journal = journal
        self.finish_after_s = finish_after_s
        self._jobs: dict[str, Job] = {}
        self._tasks: set[asyncio.Task[bool]] = set()

    def begin(self, thing: Thing, finish: Finish, *, model: str, finish_after: float | None) -> None:
        """Take over a thing whose work has just been accepted; `finish_after` is in seconds."""
        thing.hidden["under_way"] = True
        self._jobs[thing.id] = Job(thing, model, finish)
        seconds = self.finish_after_s if finish_after is None else finish_after
        if seconds is not None:
            task = asyncio.get_running_loop().create_task(self._later(thing.id, seconds))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _later(self, id: str, seconds: float) -> bool:
        await asyncio.sleep(seconds)
        return await self.finish(id)

    def pending(self, id: str) -> bool:
        return id in self._jobs

    def ids(self) -> list[str]:
        return list(self._jobs)

    async def look(self, thing: Thing) -> None:
        """Somebody asks: work that waits, or is being cancelled, is taken one status further."""
        states = thing.kind.states
        status = thing.document.get("status")
        if status == "cancelling":
            await self.finish(thing.id, "cancelled")
        elif thing.id in self._jobs and status in states[:-1]:
            thing.document["status"] = states[states.index(status) + 1]

    async def finish(self, id: str, status: str = "completed", share: float | None = None) -> bool:
        """End work and write its line; whether there was any under this id."""
        job = self._jobs.pop(id, None)
        if job is None:
            return False
        job.thing.hidden["under_way"] = False
        done = SHARES.get(status, 0.0) if share is None else share
        usage = await job.finish(status, done)
        self.journal.add_work(
            kind=job.thing.kind.object,
            object_id=id,
            model=job.model,
            usage=usage,
            outcome=str(job.thing.document.get("status", status)),
        )
        return True

    def clear(self) -> None:
        self._jobs.clear()
        for task in self._tasks:
            task.cancel()
