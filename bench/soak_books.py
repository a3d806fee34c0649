"""Holds the books against what the callers of a soak were answered; prints one JSON object.

soak_books.py RECORD SOCKET_USERS

RECORD has a line `x-request-id total_tokens` for each metered call that was answered, tokens being -1 where
the answer told none; the first SOCKET_USERS users' calls went over WebSockets and are counted instead.
"""

import json
import os
import sys
import uuid
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import django

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "app"))
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "gateway.settings")
django.setup()

from balances.models import Entry, Hold  # noqa: E402  (Django must be set up first)

# A statement takes only so many parameters.
AT_ONCE = 500


def main() -> None:
    record, socket_users = Path(sys.argv[1]), int(sys.argv[2])
    with record.open(encoding="ascii") as lines:
        answered, uncharged, otherwise = compare(line.split() for line in lines)
    emails = [f"bench-{n}@example.com" for n in range(socket_users)]
    charges = Entry.objects.filter(kind=Entry.Kind.CHARGE)
    over_sockets = charges.filter(account__user__email__in=emails).count()
    found = {
        "answered": answered,
        "uncharged": uncharged,
        "charged_otherwise": otherwise,
        "charges": charges.count() - over_sockets,
        "charges_over_sockets": over_sockets,
        "open_holds": Hold.objects.filter(state=Hold.State.OPEN).count(),
    }
    sys.stdout.write(json.dumps(found) + "\n")


def compare(lines: Iterator[list[str]]) -> tuple[int, Counter[str], int]:
    """How many calls were answered, what became of those without a charge, and how many were charged other
    tokens than they told."""
    answered = otherwise = 0
    uncharged: Counter[str] = Counter()
    while some := {uuid.UUID(id): int(tokens) for id, tokens in islice(lines, AT_ONCE)}:
        charges = dict(
            Entry.objects.filter(kind=Entry.Kind.CHARGE, hold_id__in=some).values_list("hold_id", "amount")
        )
        answered += len(some)
        otherwise += sum(some[id] >= 0 and some[id] != -amount for id, amount in charges.items())
        missing = some.keys() - charges.keys()
        holds = {hold.id: hold for hold in Hold.objects.filter(id__in=missing)}
        for id in missing:
            hold = holds.get(id)
            uncharged[f"{hold.operation}: {hold.state}: {hold.reason}" if hold else f"no hold {id}"] += 1
    return answered, uncharged, otherwise


if __name__ == "__main__":
    main()
