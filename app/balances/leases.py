"""A serving process's claim on its holds, and what becomes of the holds of one that died.

Times are the database's, so that hosts whose clocks differ agree.
"""

import logging
import time
import uuid
from collections.abc import Collection, Sequence
from datetime import UTC, datetime, timedelta

from django.db import InterfaceError, OperationalError
from django.db.models import DateTimeField, Exists, ExpressionWrapper, OuterRef, Q, QuerySet
from django.db.models.functions import Now

from balances import ledger
from balances.models import Hold, Worker
from balances.operations import Operation, Post, Void
from balances.usage import Usage

log = logging.getLogger(__name__)

# Renewed every few seconds; long enough that a pause of the process or the database does not lose it.
LEASE = timedelta(seconds=15)
RENEW_EVERY_S = 5.0
# Time to renew twice.
SURELY_DEAD_S = 2 * RENEW_EVERY_S
# The end of the lease of a process that one of the living has found dead: no other needs to look on as well.
# Should it live after all, it renews its lease.
DEAD = datetime(1970, 1, 1, tzinfo=UTC)

DIED = ledger.DIED
DIED_UNCOUNTED = ledger.DIED_UNCOUNTED

_LEASE_END = ExpressionWrapper(Now() + LEASE, output_field=DateTimeField())
_HAS_LEASE = Q(lease_until__gt=Now(), lease_until__lte=_LEASE_END)


def take(worker_id: str) -> None:
    """Registers a serving process, or renews its claim."""
    if not Worker.objects.filter(id=worker_id).update(lease_until=_LEASE_END):
        Worker.objects.create(id=worker_id, lease_until=_LEASE_END)


def release(worker_id: str) -> None:
    """Gives the claim up: whatever is still open may be swept."""
    Worker.objects.filter(id=worker_id).update(lease_until=Now())


def living() -> QuerySet[Worker]:
    """The process that an outer row names as its `worker_id`, if it has a lease.

    A lease that ends later than any is taken for was taken before the database's clock stepped back.
    """
    return Worker.objects.filter(_HAS_LEASE, id=OuterRef("worker_id"))


class Suspects:
    """Processes that were seen without a lease, by one of the living.

    To have no lease is not enough to be dead: after the database was away, and when its clock steps, all
    leases have run out until each process has renewed its own. Who is dead does not renew it while this one
    looks on.
    """

    def __init__(self) -> None:
        #: The end of each one's lease, and since when it was seen so, by a clock that never steps. As many as
        #: have died beside this process: too few to be cleared away.
        self._seen: dict[uuid.UUID | None, tuple[datetime | None, float]] = {}

    def is_dead(self, worker_id: uuid.UUID | None, lease_until: datetime | None) -> bool:
        """Whether a process that has no lease now is dead for sure; None is the end of a lease unheard of."""
        if lease_until == DEAD:
            return True
        now = time.monotonic()
        seen = self._seen.get(worker_id)
        if seen is None or seen[0] != lease_until:
            seen = self._seen[worker_id] = (lease_until, now)
        return now - seen[1] >= SURELY_DEAD_S

    def forget(self) -> None:
        """The database was away: nobody could renew anything."""
        self._seen.clear()


class Sweeper:
    """Ends what dead processes left."""

    def __init__(self) -> None:
        self._suspects = Suspects()

    def sweep(self) -> int:
        """Looks, marks those who are dead for sure, and ends their holds. Answers how many."""
        gone = Worker.objects.filter(~_HAS_LEASE).exclude(lease_until=DEAD)
        lapsed = gone.values_list("id", "lease_until")
        dead = {worker_id for worker_id, until in lapsed if self._suspects.is_dead(worker_id, until)}
        if dead:
            # Asked again: one may have renewed its lease just now.
            Worker.objects.filter(~_HAS_LEASE, id__in=dead).update(lease_until=DEAD)
        seen = set(_orphans().order_by().values_list("worker_id", "worker__lease_until").distinct())
        owning = {worker_id for worker_id, until in seen if self._suspects.is_dead(worker_id, until)}
        return sweep(of=owning) if owning else 0

    def forget(self) -> None:
        """The database was away."""
        self._suspects.forget()


def sweep(limit: int = 500, *, of: Collection[uuid.UUID | None] | None = None) -> int:
    """Ends up to `limit` holds whose process is gone: posts what was counted. Answers how many it ended.

    `of` narrows it down to the holds of these processes. Holds that await the end of later work are nobody's;
    they are left alone. Safe to run anywhere at any time: a hold that its process ends meanwhile is ended
    once all the same, and what the process says then is entered as a correction.
    """
    orphans = [hold for hold in _orphans()[:limit] if of is None or hold.worker_id in of]
    endings: Sequence[Operation] = [_ending(hold) for hold in orphans]
    return _end(endings) if endings else 0


def _end(endings: Sequence[Operation]) -> int:
    try:
        ledger.apply(endings)
    except (OperationalError, InterfaceError):
        raise
    except Exception:
        if len(endings) > 1:
            # One that cannot be ended must not keep the others.
            return sum(_end([ending]) for ending in endings)
        log.exception("cannot be swept: %s", endings[0])
        return 0
    return len(endings)


def _orphans() -> QuerySet[Hold]:
    """Open holds whose process has no lease, the oldest first."""
    return Hold.objects.filter(~Exists(living()), state=Hold.State.OPEN, awaits="").order_by("created_at")


def forget_old_workers(older_than: timedelta = timedelta(days=1)) -> int:
    """Deletes the rows of processes that are long gone, or were found dead, and own no open hold."""
    owning = Hold.objects.filter(worker_id=OuterRef("id"), state=Hold.State.OPEN)
    gone = Worker.objects.filter(~Exists(owning), lease_until__lt=Now() - older_than)
    return gone._raw_delete(gone.db)


def _ending(hold: Hold) -> Operation:
    if not hold.counted:
        return Void(hold.id.hex, hold.account_id, DIED_UNCOUNTED)
    return Post(
        hold_id=hold.id.hex,
        user_id=hold.account_id,
        key_id=hold.key_id,
        operation=hold.operation,
        model=hold.model,
        usage=Usage(units=hold.counted),
        reason=DIED,
    )
