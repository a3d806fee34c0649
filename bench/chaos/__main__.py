"""Throws faults at gateways under load, and holds three books against each other afterwards.

The simulator's journal says what was served, the ledger what was charged, the clients what they got. The
end is a table, and 1 as exit status if there is a difference that the README's rules do not explain.
"""

import argparse
import asyncio
import json
import secrets
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import aiohttp
import psycopg2

from chaos import ROOT, cluster, schedule, table
from chaos.books import Findings, compare
from chaos.clients import Load, Site, User
from chaos.cluster import Cluster
from chaos.faults import Thrower
from chaos.instances import Instance, has_libfaketime
from chaos.leaks import find_leaks, process_titles
from chaos.table import say
from chaos.watch import NEVER_S, Watch, is_up, served_after
from simulator.testing import SimulatorProcess

USERS, CLIENTS = 30, 10
FIRST_CREDITS = 3_000
# Twice what the load has ever needed of one user's keys.
KEYS_A_SECOND = 4
STARTS_WITHIN_S = 120
SETTLES_WITHIN_S = 60.0
SAYS_EVERY_S = 10.0
OPERATORS_KEY = "sk-operator-" + secrets.token_hex(16)


class Run:
    """One run: what it starts, and what it finds."""

    def __init__(self, seed: int, seconds: float, databases: Sequence[str], folder: Path) -> None:
        self.seed = seed
        self.seconds = seconds
        self.folder = folder
        self.databases = databases
        self.secret_key = secrets.token_urlsafe(50)
        self.admin_password = secrets.token_urlsafe(15)
        self.sites: list[Site] = []
        self.cluster: Cluster | None = None
        self.titles: list[bytes] = []

    def serve(self, stack: ExitStack) -> SimulatorProcess:
        """Starts the simulator and the database, and makes the sites, whose instances do not run yet."""
        simulator = stack.enter_context(SimulatorProcess("--finish-after", "3", "--journal-size", "1000000"))
        common = {
            "OPENAI_API_KEY": OPERATORS_KEY,
            "OPENAI_BASE_URL": simulator.base_url,
            "SECRET_KEY": self.secret_key,
            "DJANGO_SUPERUSER_PASSWORD": self.admin_password,
        }
        if "postgresql" in self.databases:
            self.cluster = Cluster(self.folder / "postgresql")
            stack.callback(self.cluster.close)
            variables = {**common, "DATABASE_URL": self.cluster.url}
            instances = [Instance(name, "postgresql", self.folder / name, variables) for name in ("A", "B")]
            self.sites.append(Site("postgresql", instances))
        if "sqlite" in self.databases:
            variables = {**common, "DATABASE_URL": f"sqlite:///{self.folder}/C/data/tollgate.sqlite3"}
            instance = Instance("C", "sqlite", self.folder / "C", variables, has_own_clock=has_libfaketime())
            self.sites.append(Site("sqlite", [instance]))
        for instance in self.instances:
            stack.callback(instance.close)
        return simulator

    @property
    def instances(self) -> list[Instance]:
        return [instance for site in self.sites for instance in site.instances]

    async def go(self, simulator: SimulatorProcess) -> bool:
        """Runs it, prints what was found, and answers whether all was explained."""
        supervisors = [asyncio.ensure_future(instance.supervise()) for instance in self.instances]
        await self._wait_until_ready()
        for site in self.sites:
            await asyncio.to_thread(self._make_users, site)
        faults = schedule.plan(
            self.seed,
            self.seconds,
            postgresql=[i.name for i in self.instances if i.site == "postgresql"],
            sqlite=[i.name for i in self.instances if i.site == "sqlite"],
        )
        say(f"seed {self.seed}: the schedule")
        for fault in faults:
            say(str(fault))
        say()
        load, watch = Load(self.sites, self.seed), Watch()
        thrower = Thrower(self.seed, self.sites, self.cluster, simulator)
        began = time.time()
        watching = asyncio.ensure_future(watch.run(self.instances))
        loading = asyncio.ensure_future(load.run(CLIENTS))
        saying = asyncio.ensure_future(self._say_progress(load, began))
        await asyncio.gather(thrower.run(faults, began), asyncio.sleep(self.seconds))
        last_fault = max((thrown.ended for thrown in thrower.thrown), default=time.time())
        load.end()
        await self._wait_until_served(load, last_fault)
        load.end_probes()
        await loading
        settled_s = await self._settle(last_fault)
        self.titles = process_titles(pid for instance in self.instances for pid in instance.processes())
        watch.end()
        await watching
        saying.cancel()
        for supervisor in supervisors:
            supervisor.cancel()
        findings = await asyncio.to_thread(self._compare, load, thrower, simulator)
        if settled_s > SETTLES_WITHIN_S:
            findings.wrong.append(f"holds were open {settled_s:.0f} s after the last fault")
        return self._report(findings, load, thrower, watch, settled_s)

    async def _wait_until_ready(self) -> None:
        async with aiohttp.ClientSession() as session:
            async with asyncio.timeout(STARTS_WITHIN_S):
                while not all([await is_up(session, instance) for instance in self.instances]):
                    await asyncio.sleep(0.2)

    async def _wait_until_served(self, load: Load, since: float) -> None:
        """Until each instance has served a call again, or patience has ended."""
        while time.time() < since + SETTLES_WITHIN_S and not all(
            served_after(load.book.attempts, instance.name, since) < NEVER_S for instance in self.instances
        ):
            await asyncio.sleep(0.2)

    def _make_users(self, site: Site) -> None:
        keys = max(20, round(self.seconds * KEYS_A_SECOND))
        made = _script(site.instances[0], "make", str(USERS), str(keys), str(FIRST_CREDITS))
        site.admin_key = made["admin"]["key"]
        site.users = [User(user["id"], [tuple(key) for key in user["keys"]]) for user in made["users"]]
        self.keys = [*getattr(self, "keys", []), site.admin_key]
        self.keys += [secret for user in site.users for _, secret in user.keys]

    async def _say_progress(self, load: Load, began: float) -> None:
        while True:
            await asyncio.sleep(SAYS_EVERY_S)
            done = [a for a in load.book.attempts if a.ended]
            good = sum(a.is_complete for a in done)
            under_way = len(load.book.attempts) - len(done)
            say(
                f"{time.time() - began:7.1f} s  {len(done):,} attempts, {good:,} complete, "
                f"{under_way} under way"
            )

    async def _settle(self, since: float) -> float:
        """Seconds from `since` until nothing was on hold any more, or until patience has ended."""
        while await asyncio.to_thread(self._open_holds):
            if time.time() - since > SETTLES_WITHIN_S + 5:
                break
            await asyncio.sleep(0.25)
        return time.time() - since

    def _open_holds(self) -> int:
        question, count = "SELECT COUNT(*) FROM balances_hold WHERE state = 'open'", 0
        if self.cluster is not None:
            with closing(psycopg2.connect(self.cluster.url)) as connection, connection.cursor() as cursor:
                cursor.execute(question)
                count += (cursor.fetchone() or (0,))[0]
        if "sqlite" in self.databases:
            with closing(sqlite3.connect(f"{self.folder}/C/data/tollgate.sqlite3", timeout=20)) as file:
                count += file.execute(question).fetchone()[0]
        return count

    def _compare(self, load: Load, thrower: Thrower, simulator: SimulatorProcess) -> Findings:
        ledgers = {site.name: _script(site.instances[0], "copy") for site in self.sites}
        away = table.times_of(
            self.sites, thrower.thrown, schedule.DATABASE_KINDS | {schedule.CONNECTIONS_CUT.name}
        )
        full = table.times_of(self.sites, thrower.thrown, schedule.DISK_KINDS)
        journal = simulator.journal()
        attempts = [{**asdict(attempt), "secret": ""} for attempt in load.book.attempts]
        books = {"journal": journal, "ledgers": ledgers, "clients": attempts}
        (self.folder / "books.json").write_text(json.dumps(books))
        findings = compare(self.sites, load.book, ledgers, journal, away, full)
        for site in self.sites:
            audit = _manage(site.instances[0], "audit")
            if audit.returncode:
                findings.wrong.append(f"{site.name}: the audit: {audit.stdout}")
        for instance in self.instances:
            if count := instance.log.read_text(errors="replace").count("Traceback"):
                findings.wrong.append(f"{count} tracebacks in {instance.log}")
        return findings

    def _report(
        self, findings: Findings, load: Load, thrower: Thrower, watch: Watch, settled_s: float
    ) -> bool:
        findings.wrong += self._leaks()
        away = table.times_of(self.sites, thrower.thrown, schedule.DATABASE_KINDS)
        say()
        table.print_calls(self.sites, load.book, findings)
        table.print_rules(findings)
        table.print_recovery(self.sites, load.book, thrower.thrown, watch)
        slowest_s = table.slowest_503(self.sites, load.book.attempts, away)
        say(f"slowest 503 while the database was away: {slowest_s:.2f} s")
        say(f"holds left open: {findings.open_holds}; the last ended {settled_s:.1f} s after the last fault")
        table.print_wrong(findings.wrong)
        return not findings.wrong

    def _leaks(self) -> list[str]:
        """Secrets in anything that the run produced."""
        known: Mapping[str, Sequence[str]] = {
            "the upstream key": [OPERATORS_KEY],
            "a user's key": self.keys,
            "SECRET_KEY": [self.secret_key],
            "the superuser's password": [self.admin_password],
            "the database's password": [self.cluster.password] if self.cluster else [],
        }
        return find_leaks(self.folder.rglob("*"), self.titles, known)


def _script(instance: Instance, *arguments: str) -> Any:
    """What ledger.py prints in the instance's environment."""
    command = [sys.executable, str(Path(__file__).with_name("ledger.py")), *arguments]
    done = subprocess.run(command, env=instance.environment, check=True, stdout=subprocess.PIPE)
    return json.loads(done.stdout)


def _manage(instance: Instance, command: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, str(ROOT / "app" / "manage.py"), command],
        env=instance.environment,
        check=False,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="make chaos ARGS=…", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument(
        "--seed", type=int, help="what the schedule and the load are drawn from; made up if absent"
    )
    parser.add_argument("--seconds", type=float, default=180.0, help="how long faults are thrown (180)")
    parser.add_argument(
        "--database",
        choices=("postgresql", "sqlite", "both"),
        default="both",
        help="on which gateways run (both)",
    )
    parser.add_argument("--folder", type=Path, help="where everything is kept; else only what went wrong is")
    options = parser.parse_args()
    databases = ["postgresql", "sqlite"] if options.database == "both" else [options.database]
    if "postgresql" in databases and not cluster.are_binaries_there():
        databases.remove("postgresql")
        say("PostgreSQL's binaries (initdb, pg_ctl) are not found: SQLite only.")
        if not databases:
            sys.exit(0)
    seed = options.seed if options.seed is not None else secrets.randbelow(1_000_000)
    folder = options.folder or Path(tempfile.mkdtemp(prefix="tollgate-chaos-"))
    folder.mkdir(parents=True, exist_ok=True)
    # PostgreSQL runs as a user of its own when this is root.
    folder.chmod(0o755)
    # Whoever is told to end ends what it has started.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    run = Run(seed, options.seconds, databases, folder.resolve())
    with ExitStack() as stack:
        is_clean = asyncio.run(run.go(run.serve(stack)))
    if is_clean and not options.folder:
        with suppress(OSError):
            shutil.rmtree(folder)
    else:
        say(f"Logs and books are in {folder}")
    sys.exit(0 if is_clean else 1)


if __name__ == "__main__":
    main()
