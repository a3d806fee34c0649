"""The rows of calls with an `Idempotency-Key`, as a database thread reads and writes them.

Times are the database's, so that hosts whose clocks differ agree.
"""

from dataclasses import dataclass
from datetime import timedelta

from django.db import transaction
from django.db.models import DateTimeField, Exists, ExpressionWrapper, OuterRef, QuerySet, Subquery
from django.db.models.functions import Now

from balances import leases, statements
from balances.models import Worker
from balances.operations import Defer, Progress
from common.asgi import Headers
from openai_app.models import IdempotentCall

KEPT_FOR = timedelta(hours=24)
# Rows deleted in one transaction: each may hold an answer of some megabytes.
PURGED_AT_ONCE = 200
# Each attempt to claim loses to another call only if that one has just begun or ended.
ATTEMPTS = 3


@dataclass(frozen=True, slots=True)
class Asked:
    """One call with the header: the row it claims, what it asks for, and who serves it."""

    row_id: str
    digest: str
    request_id: str
    worker_id: str


@dataclass(frozen=True, slots=True)
class Kept:
    """What the first call with the header came to; `body` is None where it was too large to be kept."""

    request_id: str
    status: int
    headers: Headers
    body: bytes | None


@dataclass(frozen=True, slots=True)
class UnderWay:
    """The first call with the header is still being served, since so many seconds; or its process has died,
    which is not sure yet."""

    age_s: float
    has_lease: bool = True


@dataclass(frozen=True, slots=True)
class Other:
    """The first call with the header was another one."""


def claim(asked: Asked, suspects: leases.Suspects) -> Kept | UnderWay | Other | None:
    """Makes the row this call's and answers None, or else what there is already.

    A call whose process has lost its lease is under way until that is dead for sure, as the ledger's sweep or
    `suspects` have found it: it may live, and owe the answer.
    """
    for _ in range(ATTEMPTS):
        IdempotentCall.objects.bulk_create([_row(asked)], ignore_conflicts=True)
        lease_until = Worker.objects.filter(id=OuterRef("worker_id")).values("lease_until")
        looked_at = ExpressionWrapper(Now(), output_field=DateTimeField())
        found = IdempotentCall.objects.filter(id=asked.row_id)
        row = found.annotate(
            is_served=Exists(leases.living()), lease_until=Subquery(lease_until), looked_at=looked_at
        ).first()
        if row is None:
            # It was released just now.
            continue
        if row.request_id.hex == asked.request_id:
            return None
        age = row.looked_at - row.created_at
        is_abandoned = (
            row.status is None and not row.is_served and suspects.is_dead(row.worker_id, row.lease_until)
        )
        if age < KEPT_FOR and not is_abandoned:
            return _told_by(row, asked, age, has_lease=row.is_served)
        if _take_over(row, asked):
            return None
    return UnderWay(0.0)


def finish(
    asked: Asked, status: int, headers: Headers, body: bytes | None, told: Progress | Defer | None
) -> bool:
    """Keeps an answer, and notes on the call's hold how it will end; False if the row is another call's."""
    kept = [[name.decode("latin-1"), value.decode("latin-1")] for name, value in headers]
    with transaction.atomic():
        count = _mine(asked).update(status=status, headers=kept, body=body)
        with statements.transaction() as part:
            match told:
                case Progress():
                    statements.save_progress(part, {told.hold_id: told.units})
                case Defer():
                    statements.defer_holds(part, {told.hold_id: told.awaits})
    return count > 0


def release(asked: Asked) -> None:
    """Gives the claim up, so that the next call with the header runs; a finished one stays as it is."""
    _mine(asked).filter(status=None).delete()


def purge() -> int:
    """Deletes up to `PURGED_AT_ONCE` rows whose time is over, and answers how many there were."""
    end = ExpressionWrapper(Now() - KEPT_FOR, output_field=DateTimeField())
    old = IdempotentCall.objects.filter(created_at__lte=end)
    some = list(old.order_by("created_at").values_list("id", flat=True)[:PURGED_AT_ONCE])
    # Asked again: a call may have taken one of them over in the meantime.
    old.filter(id__in=some).delete()
    return len(some)


def _row(asked: Asked) -> IdempotentCall:
    return IdempotentCall(
        id=asked.row_id, asked=asked.digest, request_id=asked.request_id, worker_id=asked.worker_id
    )


def _mine(asked: Asked) -> "QuerySet[IdempotentCall]":
    return IdempotentCall.objects.filter(id=asked.row_id, request_id=asked.request_id)


def _take_over(row: IdempotentCall, asked: Asked) -> bool:
    """Puts the call in the place of one whose time is over, or whose process is gone; once for each row."""
    as_seen = IdempotentCall.objects.filter(
        id=row.id, request_id=row.request_id, status__isnull=row.status is None
    )
    return (
        as_seen.update(
            asked=asked.digest,
            request_id=asked.request_id,
            worker_id=asked.worker_id,
            status=None,
            headers=[],
            body=None,
            created_at=Now(),
        )
        == 1
    )


def _told_by(
    row: IdempotentCall, asked: Asked, age: timedelta, *, has_lease: bool
) -> Kept | UnderWay | Other:
    if row.asked != asked.digest:
        return Other()
    if row.status is None:
        return UnderWay(age.total_seconds(), has_lease)
    headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in row.headers]
    return Kept(row.request_id.hex, row.status, headers, None if row.body is None else bytes(row.body))
