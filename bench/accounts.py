"""Users with credits and keys for a benchmark, and the count of what was charged to them.

accounts.py make COUNT     makes the users and prints a key for each
accounts.py operator       makes a superuser without credits and prints a key
accounts.py charges        prints how many calls were charged
"""

import os
import sys
from pathlib import Path

import django

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "app"))
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "gateway.settings")
django.setup()

from balances import ledger  # noqa: E402  (Django must be set up first)
from balances.models import Account, Entry  # noqa: E402
from balances.operations import SetBalance  # noqa: E402
from users.models import ApiKey, User  # noqa: E402

CREDITS = 1_000_000_000


def make(count: int) -> list[str]:
    """The secrets of `count` new users' keys."""
    users = User.objects.bulk_create(User(email=f"bench-{n}@example.com", password="!") for n in range(count))
    Account.objects.bulk_create(Account(user=user) for user in users)
    keys = [ApiKey(user=user, name="bench") for user in users]
    secrets = [key.renew_secret() for key in keys]
    ApiKey.objects.bulk_create(keys)
    ledger.apply([SetBalance(user.id, CREDITS, None, "for a benchmark") for user in users])
    return secrets


def operator() -> str:
    """The secret of a new superuser's key, as logging in makes it."""
    user = User.objects.create(email="bench-operator@example.com", password="!", is_superuser=True)
    key = ApiKey(user=user, name="bench", kind=ApiKey.Kind.LOGIN)
    secret = key.renew_secret()
    key.save()
    return secret


if __name__ == "__main__":
    if sys.argv[1] == "make":
        sys.stdout.write("\n".join(make(int(sys.argv[2]))) + "\n")
    elif sys.argv[1] == "operator":
        sys.stdout.write(f"{operator()}\n")
    else:
        sys.stdout.write(f"{Entry.objects.filter(kind=Entry.Kind.CHARGE).count()}\n")
