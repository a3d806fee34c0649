"""A script that runs in a gateway's environment: makes users with keys, and copies the ledger out.

ledger.py make USERS KEYS CREDITS   prints {"admin": {...}, "users": [{"id", "keys": [[id, secret], …]}]}
ledger.py copy                      prints {"accounts": …, "holds": …, "entries": …}
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

import django

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "app"))
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "gateway.settings")
django.setup()

from balances import ledger  # noqa: E402  (Django must be set up first)
from balances.models import Account, Entry, Hold  # noqa: E402
from balances.operations import SetBalance  # noqa: E402
from users.models import ApiKey, User  # noqa: E402

# Whose probes must never want for anything.
RICH = 1_000_000_000
# The first user calls so many times as often as the others.
PROBES = 12


def make(count: int, keys_each: int, credits: int) -> dict[str, Any]:
    """Users with `credits` and keys; the first, who probes, is rich; the operator has a login key."""
    admin = User.objects.create_superuser("chaos-admin@example.com", None)
    _, admin_secret = ApiKey.issue(user=admin, name="chaos", kind=ApiKey.Kind.LOGIN)
    users = User.objects.bulk_create(User(email=f"chaos-{n}@example.com", password="!") for n in range(count))
    Account.objects.bulk_create(Account(user=user) for user in users)
    made = []
    for number, user in enumerate(users):
        keys = [ApiKey(user=user, name="chaos") for _ in range(keys_each if number else PROBES * keys_each)]
        secrets = [key.renew_secret() for key in keys]
        ids = [key.pk for key in ApiKey.objects.bulk_create(keys)]
        made.append({"id": user.pk, "keys": list(zip(ids, secrets, strict=True))})
    for number, user in enumerate(users):
        ledger.apply([SetBalance(user.pk, credits if number else RICH, None, "for a run")])
    return {"admin": {"id": admin.pk, "key": admin_secret}, "users": made}


def copy() -> dict[str, Any]:
    """All accounts, holds and entries; ids of holds as hex digits, times as Unix time."""

    def plain(row: dict[str, Any]) -> dict[str, Any]:
        for name, value in row.items():
            if hasattr(value, "timestamp"):
                row[name] = value.timestamp()
            elif hasattr(value, "hex") and not isinstance(value, float):
                row[name] = value.hex
        return row

    return {
        "accounts": list(Account.objects.values("user_id", "balance", "held", "relaxed")),
        "holds": [plain(dict(row)) for row in Hold.objects.order_by("created_at").values()],
        "entries": [plain(dict(row)) for row in Entry.objects.order_by("id").values()],
    }


if __name__ == "__main__":
    if sys.argv[1] == "make":
        result = make(*map(int, sys.argv[2:]))
    else:
        result = copy()
    json.dump(result, sys.stdout)
