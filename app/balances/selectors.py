"""What is read of the ledger, computed by the database."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from django.db.models import BigIntegerField, Count, Expression, F, Q, QuerySet, Sum, Value
from django.db.models.fields.json import KT
from django.db.models.functions import Cast, Coalesce, TruncDate
from django.utils import timezone

from balances import units
from balances.models import Entry

ALL_USERS = "all"
# A period that nobody named is this long: sums over all time read the whole history.
USUAL_PERIOD = timedelta(days=30)
# Python knows no time before it.
FIRST_TIME = datetime.min.replace(tzinfo=UTC)
# What usage can be added up by, and where an entry has it.
USAGE_BY: Mapping[str, Expression | F] = {
    "day": TruncDate("created_at"),
    "model": F("model"),
    "key": F("key_id"),
    "operation": F("operation"),
    "user": F("account_id"),
}
# OpenAI's usage objects call the sum of the first `prompt_tokens`, that of the second `completion_tokens`.
INPUT_TOKENS = (units.INPUT, units.CACHED_INPUT, units.AUDIO_INPUT, units.IMAGE_INPUT)
OUTPUT_TOKENS = (units.OUTPUT, units.REASONING, units.AUDIO_OUTPUT, units.IMAGE_OUTPUT)


def entries(
    *, user_id: int | None, since: datetime | None = None, until: datetime | None = None, kind: str = ""
) -> QuerySet[Entry]:
    """A user's entries, or everybody's for None, in [since, until)."""
    found = Entry.objects.all()
    if user_id is not None:
        found = found.filter(account=user_id)
    if since is not None:
        found = found.filter(created_at__gte=since)
    if until is not None:
        found = found.filter(created_at__lt=until)
    return found.filter(kind=kind) if kind else found


def usage(
    *,
    user_id: int | None,
    by: Sequence[str],
    since: datetime | None = None,
    until: datetime | None = None,
) -> QuerySet[Entry, dict[str, Any]]:
    """Calls, credits and tokens of a period for each combination of `by` (names of USAGE_BY).

    Tokens are those of the charges: a correction repeats what its charge had counted.
    """
    if since is None:
        end = until or timezone.now()
        since = end - min(USUAL_PERIOD, end - FIRST_TIME)
    of_calls = entries(user_id=user_id, since=since, until=until).filter(hold__isnull=False)
    charged = Q(kind=Entry.Kind.CHARGE)
    # The names are not those of the model's own fields, which an annotation may not take.
    groups = {f"by_{name}": USAGE_BY[name] for name in by}
    newest_first = [f"-{group}" if group == "by_day" else group for group in groups]
    sums: QuerySet[Entry, dict[str, Any]] = (
        of_calls.annotate(**groups)
        .values(*groups)
        .annotate(
            calls=Count("id", filter=charged),
            credits=Sum(-F("amount")),
            input_tokens=Sum(_tokens(INPUT_TOKENS), filter=charged, default=0),
            output_tokens=Sum(_tokens(OUTPUT_TOKENS), filter=charged, default=0),
        )
        .order_by(*newest_first)
    )
    return sums


def _tokens(classes: Sequence[str]) -> Any:
    """An entry's tokens of these classes, read from its JSON."""
    total: Any = Value(0, BigIntegerField())
    for name in classes:
        total += Coalesce(Cast(KT(f"units__{name}"), BigIntegerField()), 0)
    return total
