"""`manage.py sweep`: ends the holds of processes that are gone, and deletes what is kept no longer."""

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from balances import leases
from openai_app.idempotency import rows
from users.sessions import SessionStore

# One transaction locks as many accounts: short enough that calls hardly wait for it.
BATCH = 500


class Command(BaseCommand):
    help = (
        "Ends the holds of calls whose process is gone: charges what had been counted, or nothing if nothing "
        "had. Deletes answers whose Idempotency-Key is more than a day old. The gateway does both itself "
        "while it runs. Deletes sessions that have expired, and the rows of processes of former days, which "
        "it does not. Safe to run at any time, also beside it."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--limit", type=int, help="end at most so many holds; all, if it is not given")

    def handle(self, *args: Any, **options: Any) -> None:
        limit: int | None = options["limit"]
        if limit is not None and limit < 1:
            raise CommandError(f"--limit: want a number above zero, got {limit}")
        ended = 0
        while limit is None or ended < limit:
            some = leases.sweep(BATCH if limit is None else min(BATCH, limit - ended))
            if some == 0:
                break
            ended += some
            if options["verbosity"] > 0:
                self.stdout.write(f"{ended:,} holds ended so far")
        forgotten = leases.forget_old_workers()
        SessionStore.clear_expired()
        deleted = 0
        while some := rows.purge():
            deleted += some
        self.stdout.write(
            f"{ended:,} holds ended, {forgotten:,} processes of former days forgotten,"
            f" {deleted:,} kept answers deleted."
        )
