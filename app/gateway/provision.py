"""What must be there before the gateway serves: tables, a superuser. Done by one process at a time."""

import fcntl
import logging
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from django.conf import settings
from django.contrib.auth import password_validation
from django.core.exceptions import ValidationError
from django.core.management import call_command
from django.db import DatabaseError, InterfaceError, connection, transaction
from django.db.migrations.executor import MigrationExecutor

from balances import ledger
from users.models import User

log = logging.getLogger(__name__)

# PostgreSQL's advisory locks are numbers that all users of a database share; this one is ours.
ADVISORY_LOCK: Final = 7_046_551
DEFAULT_SUPERUSER_EMAIL: Final = "admin@example.com"
# Enough to try things: so many tokens, as long as no model is priced otherwise.
START_CREDITS: Final = 100_000


@dataclass(frozen=True)
class Superuser:
    """The superuser in whose name the printed commands speak."""

    email: str
    # Set only if it was made up just now: it is shown once and stored nowhere.
    made_up_password: str = ""
    email_was_made_up: bool = False


def provision() -> Superuser | None:
    """Brings the tables up to date and makes sure that there is a superuser; changes nothing if all is there.

    Answers the superuser, or None if the existing one cannot log in (inactive).
    """
    with _alone():
        _migrate()
        # Django's own tables of a database cache are outside the migrations; does nothing if it is there.
        call_command("createcachetable", verbosity=0)
        if not User.objects.filter(is_superuser=True).exists():
            return _create_superuser()
    known = User.objects.filter(is_superuser=True, is_active=True)
    user = known.filter(email=settings.DJANGO_SUPERUSER_EMAIL.lower()).first() or known.order_by("id").first()
    return Superuser(email=user.email) if user else None


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


def _create_superuser() -> Superuser:
    email = settings.DJANGO_SUPERUSER_EMAIL or DEFAULT_SUPERUSER_EMAIL
    made_up = "" if settings.DJANGO_SUPERUSER_PASSWORD else secrets.token_urlsafe(12)
    with transaction.atomic():
        user = User.objects.create_superuser(email, settings.DJANGO_SUPERUSER_PASSWORD or made_up)
        ledger.set_balance(
            user_id=user.id,
            to_credits=START_CREDITS,
            by_id=user.id,
            reason="The first superuser's start balance",
        )
    if not made_up:
        _warn_of_weak_password(user)
    return Superuser(
        email=user.email,
        made_up_password=made_up,
        email_was_made_up=not settings.DJANGO_SUPERUSER_EMAIL,
    )


def _warn_of_weak_password(user: User) -> None:
    """A password that the API would refuse is the operator's choice; the log says what is wrong with it."""
    try:
        password_validation.validate_password(settings.DJANGO_SUPERUSER_PASSWORD, user)
    except ValidationError as error:
        log.warning("DJANGO_SUPERUSER_PASSWORD is taken, but weak: %s", " ".join(error.messages))
