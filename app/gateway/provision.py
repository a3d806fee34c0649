"""What must be there before the gateway serves: tables, a superuser. Done by one process at a time."""

import fcntl
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from django.conf import settings
from django.core.management import call_command
from django.db import DatabaseError, InterfaceError, connection, transaction
from django.db.migrations.executor import MigrationExecutor

from balances import ledger
from users.models import User

# PostgreSQL's advisory locks are numbers that all users of a database share; this one is ours.
ADVISORY_LOCK: Final = 7_046_551
DEFAULT_SUPERUSER_EMAIL: Final = "admin@example.com"
# Enough to try things with the simulator, where tokens cost nothing.
DEMO_CREDITS: Final = 100_000


@dataclass(frozen=True)
class Superuser:
    """The superuser in whose name the printed commands speak."""

    id: int
    email: str
    # Set only if it was made up just now: it is shown once and stored nowhere.
    made_up_password: str = ""
    email_was_made_up: bool = False


def provision(*, is_demo: bool) -> Superuser | None:
    """Brings the tables up to date and makes sure that there is a superuser; changes nothing if all is there.

    Answers the superuser, or None if the existing one cannot log in (inactive).
    """
    with _alone():
        _migrate()
        # Django's own tables of a database cache are outside the migrations; does nothing if it is there.
        call_command("createcachetable", verbosity=0)
        if not User.objects.filter(is_superuser=True).exists():
            return _create_superuser(is_demo=is_demo)
    known = User.objects.filter(is_superuser=True, is_active=True)
    user = known.filter(email=settings.DJANGO_SUPERUSER_EMAIL.lower()).first() or known.order_by("id").first()
    return Superuser(id=user.id, email=user.email) if user else None


@contextmanager
def _alone() -> Iterator[None]:
    """One process of all that start at once; the others wait for it."""
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_lock(%s)", [ADVISORY_LOCK])
        try:
            yield
        finally:
            # A connection that has broken has given the lock up; why it broke is the error to tell of.
            with suppress(DatabaseError, InterfaceError), connection.cursor() as cursor:
                cursor.execute("SELECT pg_advisory_unlock(%s)", [ADVISORY_LOCK])
    else:
        path = Path(settings.DATABASES["default"]["NAME"])
        with path.with_name(path.name + ".lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def _migrate() -> None:
    # The command takes most of a second even when nothing is to be done.
    executor = MigrationExecutor(connection)
    if executor.migration_plan(executor.loader.graph.leaf_nodes()):
        call_command("migrate", interactive=False, verbosity=0)


def _create_superuser(*, is_demo: bool) -> Superuser:
    email = settings.DJANGO_SUPERUSER_EMAIL or DEFAULT_SUPERUSER_EMAIL
    made_up = "" if settings.DJANGO_SUPERUSER_PASSWORD else secrets.token_urlsafe(12)
    with transaction.atomic():
        user = User.objects.create_superuser(email, settings.DJANGO_SUPERUSER_PASSWORD or made_up)
        if is_demo:
            ledger.set_balance(
                user_id=user.id,
                to_credits=DEMO_CREDITS,
                by_id=user.id,
                reason="a start with the simulator",
            )
    return Superuser(
        id=user.id,
        email=user.email,
        made_up_password=made_up,
        email_was_made_up=not settings.DJANGO_SUPERUSER_EMAIL,
    )
