"""`manage.py simulate`: run the simulator."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand

from simulator import server


class Command(BaseCommand):
    help = "Run the simulator, a stand-in for OpenAI."
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        server.add_arguments(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        server.run(
            host=options["host"],
            port=options["port"],
            journal=options["journal"],
            no_journal=options["no_journal"],
            journal_size=options["journal_size"],
            finish_after=options["finish_after"],
            quit_with_parent=options["quit_with_parent"],
        )
