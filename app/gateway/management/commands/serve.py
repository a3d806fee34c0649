"""`manage.py serve`: from an empty folder or database to a gateway that answers."""

import logging
import os
import socket
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import InterfaceError, OperationalError, connections
from django.db.migrations.exceptions import MigrationSchemaMissing

from gateway import server, simulated, welcome
from gateway.env import SECRET_KEY_CHARACTERS, is_weak
from gateway.provision import Superuser, provision

log = logging.getLogger(__name__)

UPSTREAM_WANTED = (
    "No upstream is set: give OPENAI_API_KEY (or OPENAI_BASE_URL) in the environment or in .env, "
    "or start with --demo to use the simulator."
)


class Command(BaseCommand):
    help = "Migrates the database, makes a superuser if there is none, and serves until a signal ends it."
    # They import the addresses, which takes longer than all the rest; the tests run them.
    requires_system_checks = ()

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--demo", action="store_true", help="start the simulator as the upstream if none is set"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        # What is written from here on, the database in a file above all, is nobody else's to read.
        os.umask(0o077)
        listener = _listen(settings.HOST, settings.PORT)
        is_demo = not settings.UPSTREAM_IS_CONFIGURED
        if is_demo and not options["demo"]:
            raise CommandError(UPSTREAM_WANTED)
        if is_weak(settings.SECRET_KEY):
            log.warning("SECRET_KEY is weak: want %s random characters or more", SECRET_KEY_CHARACTERS)
        simulator = simulated.start() if is_demo else None
        try:
            superuser = _provision()
        except CommandError:
            if simulator:
                simulator.kill()
            raise
        if simulator:
            settings.OPENAI_BASE_URL = simulated.upstream_of(simulator)
            # OpenAI refuses a call without a key, and so does the simulator; any will do there.
            settings.OPENAI_API_KEY = "simulated"
        address = welcome.Address.of_listener(listener.getsockname())
        upstream = settings.OPENAI_BASE_URL
        if simulator:
            upstream += ", the simulator: no OPENAI_API_KEY and no OPENAI_BASE_URL is set"
        welcome.print_when_ready(address, welcome.text(address, superuser, upstream=upstream))
        server.share_metrics()
        server.serve(listener, workers=settings.WEB_CONCURRENCY)


def _listen(host: str, port: int) -> socket.socket:
    """A bound socket, taken before anything is changed. Raises CommandError if it cannot be had."""
    try:
        family, _, _, _, name = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, socket.SOCK_STREAM)
        # Without it a restart has to wait for the last connections to be forgotten.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(name)
        # From here on the address is taken; who connects early waits for the workers.
        listener.listen(server.BACKLOG)
        return listener
    except OSError as error:
        raise CommandError(
            f"Cannot listen on HOST {host!r}, PORT {port}: {error.strerror}. "
            "Set HOST or PORT, or stop what listens there."
        ) from None


def _provision() -> Superuser | None:
    try:
        superuser = provision()
    except (OperationalError, InterfaceError, MigrationSchemaMissing) as error:
        raise CommandError(f"The database does not answer: {_in_one_line(error)}") from None
    # Connections do not survive the forks that follow.
    connections.close_all()
    return superuser


def _in_one_line(error: Exception) -> str:
    return " ".join(str(error).split())
