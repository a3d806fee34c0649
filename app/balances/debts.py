"""What a process owes the ledger: the ends of calls that the database did not take when they came.

They are written when it is back, by this process or, if that has ended, by another one of its folder, which
finds them in its spool. All of this runs on the writer's thread.
"""

import logging
import math
import time
from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager
from itertools import islice
from pathlib import Path
from typing import TypeVar

from django.db import InterfaceError, OperationalError

from balances.database_errors import is_locked
from balances.models import Hold
from balances.operations import Posted, Progress, Result, Void
from balances.spool import Doubt, Owed, Spool, orphans
from common.errors import ApiError, Unavailable

log = logging.getLogger(__name__)

# Written in one transaction.
AT_ONCE = 256
# A charge of an account that someone else keeps locked is tried again after so long.
LOCKED_RETRY_S = 1.0
# Where so many accounts are locked, what is left does not wait for its turn as well.
MOST_LOCKED = 2
# The server may go on with a commit whose connection has ended: so long, and so often, it is looked for.
DOUBT_S, DOUBT_EVERY_S = 60.0, 2.0

DOUBTED = "The database went away before the hold was known to stand."

K = TypeVar("K", bound=Owed | Progress)


class Debts:
    """One for each serving process."""

    def __init__(
        self,
        folder: Path,
        worker_id: str,
        write: Callable[[Sequence[Owed | Progress]], Sequence[Result | ApiError]],
        connected: Callable[[], AbstractContextManager[None]],
    ) -> None:
        """`write` applies operations in one transaction; within `connected` the database can be asked."""
        self._folder = folder
        self._spool = Spool(folder, worker_id)
        self._write = write
        self._connected = connected
        self._owed: deque[Owed] = deque()
        #: Holds whose commit may or may not have happened, and until when that is asked.
        self._in_doubt: dict[str, float] = {}
        self._ask_at = 0.0
        #: When what waits for a locked account is tried again.
        self.pay_at = 0.0

    def __len__(self) -> int:
        return len(self._owed)

    @property
    def are_open(self) -> bool:
        """Whether anything is owed, or in doubt."""
        return bool(self._owed or self._in_doubt)

    @property
    def must_be_paid(self) -> bool:
        """The same for a process that ends: holds in doubt are asked for once more."""
        return bool(self._owed) or bool(self._in_doubt and not self._ask_at)

    def add(self, operations: Sequence[object]) -> None:
        """Owes what of these ends a hold.

        The progress of open calls is told anew all the time; only a process that ends has told it last.
        """
        self._owed.extend(operation for operation in operations if isinstance(operation, Owed))
        kept = [operation for operation in operations if isinstance(operation, Owed | Progress)]
        if kept:
            self._spool.keep(kept)

    def doubt(self, hold_ids: Sequence[str]) -> None:
        """Notes holds after whose commit the connection may have broken."""
        until = time.monotonic() + DOUBT_S
        self._in_doubt.update(dict.fromkeys(hold_ids, until))
        self._ask_at = 0.0
        if hold_ids:
            self._spool.keep([Doubt(hold_id) for hold_id in hold_ids])

    def pay(self) -> None:
        """Writes what is owed. Raises OperationalError or InterfaceError when the database is away."""
        now = time.monotonic()
        if self._in_doubt and now >= self._ask_at:
            self._release_doubted(now)
        while self._owed and now >= self.pay_at:
            some = list(islice(self._owed, AT_ONCE))
            locked = self._pay(some)
            for _ in some:
                self._owed.popleft()
            if locked:
                self._owed.extend(locked)
                self.pay_at = time.monotonic() + LOCKED_RETRY_S
                break
        if not self.are_open:
            self._spool.clear()

    def close(self) -> None:
        """What is still owed or in doubt is left to the next process of this folder."""
        self._spool.close()

    def adopt_orphans(self) -> Iterator[None]:
        """Writes what processes of this host owed when they ended; stops after each part of it."""
        for orphan in orphans(self._folder):
            with orphan:
                try:
                    operations = orphan.operations()
                    is_left = False
                    while some := list(islice(operations, AT_ONCE)):
                        log.info("writing %d charges that an ended process owed", len(some))
                        doubted = [one.hold_id for one in some if isinstance(one, Doubt)]
                        notes = [one for one in some if isinstance(one, Progress)]
                        owed = [one for one in some if isinstance(one, Owed)]
                        is_left |= bool(self._pay([*owed, *self._standing(doubted), *self._still_new(notes)]))
                        yield
                    if not is_left:
                        orphan.done()
                except OSError as error:
                    log.error("what an ended process owed cannot be read or removed: %s", error)

    def _release_doubted(self, now: float) -> None:
        found = self._standing(self._in_doubt)
        self._owed.extend(found)
        decided = {void.hold_id for void in found}
        self._in_doubt = {
            hold_id: until
            for hold_id, until in self._in_doubt.items()
            if until > now and hold_id not in decided
        }
        self._ask_at = now + DOUBT_EVERY_S

    def _standing(self, hold_ids: Collection[str]) -> list[Void]:
        """The ends of those holds in doubt that do stand."""
        if not hold_ids:
            return []
        with self._connected():
            found = list(Hold.objects.filter(id__in=list(hold_ids), state=Hold.State.OPEN))
        return [Void(hold.id.hex, hold.account_id, DOUBTED) for hold in found]

    def _still_new(self, notes: Sequence[Progress]) -> list[Progress]:
        """Those of the notes that say more than the ledger knows: it may have heard of later ones since."""
        if not notes:
            return []
        with self._connected():
            found = Hold.objects.filter(id__in=[note.hold_id for note in notes], state=Hold.State.OPEN)
            known = {hold.id.hex: (sum(hold.counted.values()), hold.awaits) for hold in found}
        still_new = []
        for note in notes:
            used, awaits = known.get(note.hold_id, (math.inf, ""))
            if sum(note.units.values()) > used or (note.awaits and not awaits and used < math.inf):
                still_new.append(note)
        return still_new

    def _pay(self, some: Sequence[K]) -> list[K]:
        """Answers those whose account stays locked. What cannot be written goes to the log."""
        if not some:
            return []
        try:
            results = self._write(some)
        except (OperationalError, InterfaceError) as error:
            if is_locked(error):
                return list(some)
            raise
        except Exception as error:
            if len(some) > 1:
                return self._pay_each(some)
            results = [Unavailable(str(error))]
        for operation, result in zip(some, results, strict=True):
            if not isinstance(result, Posted):
                log.critical("owed, but cannot be written: %s: %s", operation, result)
        return []

    def _pay_each(self, some: Sequence[K]) -> list[K]:
        locked: list[K] = []
        for operation in some:
            users = {one.user_id for one in locked}
            if operation.user_id in users or len(users) >= MOST_LOCKED:
                locked.append(operation)
            else:
                locked += self._pay([operation])
        return locked
