"""The simulator as the upstream: a process beside the gateway that ends with it."""

import select
import subprocess
import sys
from typing import Final

from django.conf import settings
from django.core.management.base import CommandError

STARTS_WITHIN_S: Final = 30
LISTENING: Final = "simulator listening on "

# Its standard input stays open for as long as this process or one of its workers lives: at its end the
# simulator quits, but not before the last stream.
Simulator = subprocess.Popen[str]


def start() -> Simulator:
    """Starts the simulator on a free port; `upstream_of` waits until it listens."""
    # The command is our own.
    return subprocess.Popen(  # nosec B603
        [sys.executable, "-m", "simulator", "--host", "127.0.0.1", "--port", "0", "--quit-with-parent"],
        cwd=settings.ROOT / "app",
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        # A Ctrl-C in the terminal is for the gateway, whose open streams need the simulator until they end.
        start_new_session=True,
    )


def upstream_of(simulator: Simulator) -> str:
    """The address it printed, ending in /v1. Raises CommandError if it does not say one."""
    assert simulator.stdout is not None
    readable, _, _ = select.select([simulator.stdout], [], [], STARTS_WITHIN_S)
    line = simulator.stdout.readline().strip() if readable else ""
    if not line.startswith(LISTENING):
        raise CommandError("The simulator did not start; its own message stands above.")
    return line.removeprefix(LISTENING)
