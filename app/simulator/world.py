"""What a simulator's calls share: the account's things, the work under way, and the journal."""

from __future__ import annotations

from dataclasses import dataclass

from simulator.journal import Journal
from simulator.store import Store
from simulator.work import Work


@dataclass(slots=True, frozen=True, eq=False)
class World:
    journal: Journal
    store: Store
    work: Work

    def clear(self) -> None:
        """Forget all things and the work on them."""
        self.work.clear()
        self.store.clear()
