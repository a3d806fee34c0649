"""`manage.py audit`: does the ledger add up?"""

from typing import Any

from django.core.management.base import BaseCommand, CommandError

from balances import audit


class Command(BaseCommand):
    help = (
        "Proves that balances are the sums of their entries, that what is held is the sum of the open holds, "
        "and that each posted hold was charged once. Prints the rows for which this does not hold and exits "
        "with 1 if there are any. It reads one moment of the database; calls may go on meanwhile."
    )

    def handle(self, *args: Any, **options: Any) -> None:
        wrong = 0
        with audit.snapshot():
            for name, count in audit.totals():
                self.stdout.write(f"{count:>16,} {name}")
            for check in audit.CHECKS:
                before = wrong
                for row in audit.offences(check):
                    wrong += 1
                    facts = " ".join(f"{name}={value}" for name, value in row.items())
                    self.stdout.write(f"wrong: {check.claim}: {facts}")
                if wrong == before:
                    self.stdout.write(f"holds: {check.claim}")
        if wrong:
            raise CommandError(f"The ledger does not add up: {wrong} rows are wrong.")
