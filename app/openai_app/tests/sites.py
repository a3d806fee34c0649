"""A simulator and a database that outlive the gateways before them: gateways end, die, and come again."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from gateway.tests.console import Console
from gateway.tests.running import environment, provisioned, running
from openai_app.tests.harness import OPERATORS_KEY, Caller, House
from simulator.testing import SimulatorProcess


@dataclass
class Site:
    """Where gateways are started, one after another or several at once."""

    folder: Path
    simulator: SimulatorProcess
    console: Console
    variables: dict[str, str]

    @contextmanager
    def gateway(self, host: str = "data", *, workers: int = 2) -> Iterator[House]:
        """A gateway on the site's database; each `host` has a folder of its own."""
        given = {**self.variables, "WEB_CONCURRENCY": str(workers)}
        with running(self.folder / host, **given) as gateway:
            yield House(gateway, self.simulator, self.console)


@contextmanager
def site(folder: Path) -> Iterator[Site]:
    """Starts all but a gateway."""
    with (
        SimulatorProcess() as simulator,
        provisioned(folder / "data" / "tollgate.sqlite3") as database_variables,
    ):
        variables = {
            "OPENAI_BASE_URL": simulator.base_url,
            "OPENAI_API_KEY": OPERATORS_KEY,
            "DJANGO_SUPERUSER_PASSWORD": "of no use here",
            "SECRET_KEY": "the same on all hosts, as it must be " * 2,
            **database_variables,
        }
        with Console(environment(folder / "data", **variables)) as console:
            yield Site(folder, simulator, console, variables)


def at(house: House, caller: Caller) -> Caller:
    """The same user at another gateway."""
    return replace(caller, house=house)


def peak_bytes(house: House) -> int:
    """The most that any worker has ever had resident, what it shares with the others included."""
    found = []
    for worker in house.gateway.workers:
        status = Path(f"/proc/{worker}/status").read_text()
        found.append(int(status.partition("VmHWM:")[2].split()[0]) * 1024)
    return max(found)


def kill(house: House) -> None:
    """Ends all processes of a gateway without a word, as a power cut does."""
    workers = house.gateway.workers
    house.gateway.process.kill()
    for worker in workers:
        os.kill(worker, signal.SIGKILL)
    house.gateway.process.wait()


def end_turn_to_poll() -> None:
    """Has the process that asks after open work count as dead, as it would seconds later; for the console."""
    from django.utils import timezone

    from openai_app.models import Lease

    Lease.objects.update(until=timezone.now())
