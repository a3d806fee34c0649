"""The soak: half an hour of mixed load on a gateway with two workers, to see that nothing grows.

The gateway serves from PostgreSQL (SQLite if there is none), with the simulator as its upstream. Calls of all
kinds come at a fixed rate: JSON, streams, streams left midway, tools, embeddings, responses, files, speech,
lists, refusals, wrong keys, the control plane, WebSockets, a slow reader. Every ten seconds memory, file
descriptors, threads and connections to the database are sampled, and once more when the load rests.
Afterwards the books are held against what the callers were answered.

Ends with 1 unless memory is flat within 5% after the first five minutes, descriptors and connections are
flat, latency does not grow, no call got an answer that it should not have, and every answered call is
charged.
"""

import argparse
import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import psycopg2
import uvloop

import databases
import gateways
import processes
import soak_report
from gateways import Gateway
from soak_calls import KINDS
from soak_load import SOCKET_KEYS, Load, Tally
from soak_report import Sample

ACCOUNTS = 200
SAMPLE_EVERY_S = 10.0
TELL_EVERY_S = 60.0
# By then streams that were left are settled, and work that went on after its answer; connections to the
# upstream that nobody uses are closed.
RESTS_S = 25.0
# Of a thousand calls so many may be told to come back later.
MOST_BUSY = 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30.0, help="2 is enough to see that it works")
    parser.add_argument("--rate", type=float, default=150.0, help="calls a second, of all kinds together")
    parser.add_argument("--database", choices=("postgresql", "sqlite"), default="postgresql")
    parser.add_argument("--database-url", help="a PostgreSQL server to make the database on")
    options = parser.parse_args()
    # As Ctrl-C: whatever was started is stopped, and the database dropped.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        is_good = soak(options)
    except KeyboardInterrupt:
        sys.exit("The soak was stopped.")
    sys.exit(0 if is_good else 1)


def say(line: str = "") -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def soak(options: argparse.Namespace) -> bool:
    run_s = 60 * options.minutes
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tollgate-soak-")))
        postgresql_url = None
        if options.database == "postgresql":
            postgresql_url = stack.enter_context(databases.postgresql(options.database_url))
        if postgresql_url:
            say(databases.version(postgresql_url))
        else:
            say("SQLite." if options.database == "sqlite" else f"{databases.SKIPPED} SQLite serves.")
        upstream = stack.enter_context(gateways.simulator())
        url = postgresql_url or f"sqlite:///{folder}/soak.sqlite3"
        cores = os.sched_getaffinity(0)
        with gateways.tollgate("soak", url, upstream, cores, folder / "data", ACCOUNTS, workers=2) as gateway:
            assert gateway.environment is not None
            operator = gateways.run_script(gateway.environment, gateways.HERE / "accounts.py", "operator")
            say(f"{options.rate:g} calls a second for {options.minutes:g} minutes, {len(cores)} cores.")
            with (folder / "record").open("w", encoding="ascii") as record:
                keys = gateway.keys.read_text(encoding="ascii").split()
                load = Load(KINDS, gateway.host, upstream, keys, operator.strip(), record)
                run = Run(gateway, load, postgresql_url)
                uvloop.run(run.lead(options.rate, run_s))
            complaints = _tables(run, run_s)
            alive = set(processes.tree(gateway.pids[0]))
            complaints += [] if set(gateway.pids) <= alive else ["a worker was replaced"]
        # The gateway has ended: what its streams still owed is written.
        complaints += _books(gateway, load.tally, folder / "record")
    say()
    for complaint in complaints:
        say(f"NOT GOOD: {complaint}")
    say(f"The soak {'found something' if complaints else 'is clean'}.")
    return not complaints


class Run:
    """The load, and the samples taken while it runs and when it rests."""

    def __init__(self, gateway: Gateway, load: Load, postgresql_url: str | None) -> None:
        self._gateway = gateway
        self._load = load
        self._postgresql_url = postgresql_url
        self._names = ["server", *(f"worker {n + 1}" for n in range(len(gateway.pids) - 1))]
        self.samples: list[Sample] = []
        self.at_rest: list[Sample] = []
        self._told_at = 0.0

    async def lead(self, rate: float, run_s: float) -> None:
        """Warms up, and goes on; before, between and after the load rests."""
        warm_up_s = soak_report.warm_up_s(run_s)
        self.at_rest.append(await self._look(0.0))
        for seconds, since_s in ((warm_up_s, 0.0), (run_s - warm_up_s, warm_up_s)):
            sampling = asyncio.create_task(self._sample(since_s))
            loading = asyncio.create_task(self._load.run(rate, seconds))
            try:
                # Sampling ends by itself only when it fails, as when a worker is gone.
                await asyncio.wait({sampling, loading}, return_when=asyncio.FIRST_COMPLETED)
                if sampling.done():
                    await sampling
                await loading
            finally:
                sampling.cancel()
                loading.cancel()
                await asyncio.gather(sampling, loading, return_exceptions=True)
            await asyncio.sleep(RESTS_S)
            self.at_rest.append(await self._look(since_s + seconds))

    async def _sample(self, since_s: float) -> None:
        """Samples until it is cancelled; tells how it goes."""
        began, tally = time.monotonic(), self._load.tally
        calls, processor_s = tally.calls, processes.cpu_seconds(self._gateway.pids)
        for number in count(1):
            await asyncio.sleep(began + SAMPLE_EVERY_S * number - time.monotonic())
            p50, p99 = _percentiles_ms(tally.latencies_s)
            direct, _ = _percentiles_ms(tally.direct_s)
            calls_before, calls = calls, tally.calls
            before_s, processor_s = processor_s, processes.cpu_seconds(self._gateway.pids)
            sample = replace(
                await self._look(since_s + time.monotonic() - began),
                calls=calls - calls_before,
                p50_ms=p50,
                p99_ms=p99,
                direct_p50_ms=direct,
                processor_ms=1_000 * (processor_s - before_s) / max(1, calls - calls_before),
            )
            self.samples.append(sample)
            if sample.at_s >= self._told_at + TELL_EVERY_S:
                self._told_at += TELL_EVERY_S
                _tell(sample, tally)

    async def _look(self, at_s: float) -> Sample:
        prints, connections = await asyncio.to_thread(_look, self._gateway.pids, self._postgresql_url)
        under_way = self._load.under_way
        return Sample(at_s, dict(zip(self._names, prints, strict=True)), connections, under_way)


def _look(pids: Sequence[int], postgresql_url: str | None) -> tuple[list[processes.Footprint], int]:
    prints = [processes.footprint(pid) for pid in pids]
    if postgresql_url is None:
        return prints, 0
    connection = psycopg2.connect(postgresql_url)
    try:
        cursor = connection.cursor()
        cursor.execute(
            "SELECT count(*) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid() "
            "AND backend_type = 'client backend'"
        )
        (found,) = cursor.fetchone() or (0,)
    finally:
        connection.close()
    return prints, int(found)


def _tables(run: Run, run_s: float) -> list[str]:
    """Prints what was sampled, and answers what is wrong with it."""
    warm_up = f"at {soak_report.warm_up_s(run_s) / 60:.3g} min"
    under_load, at_rest = soak_report.under_load(run.samples, run_s), soak_report.at_rest(run.at_rest)
    say()
    columns = ("start", warm_up, "middle", "end", "an hour")
    say(soak_report.table("Under load", columns, under_load))
    say()
    say(soak_report.table("At rest", ("before", warm_up, "end"), at_rest))
    return [f"{line.name} {line.verdict}" for line in [*under_load, *at_rest] if line.is_bad]


def _percentiles_ms(window: list[float]) -> tuple[float, float]:
    """p50 and p99 of the seconds in a window, which is emptied."""
    ordered = sorted(1_000 * seconds for seconds in window) or [0.0]
    window.clear()
    return ordered[len(ordered) // 2], ordered[len(ordered) * 99 // 100]


def _tell(sample: Sample, tally: Tally) -> None:
    workers = [print_ for name, print_ in sample.processes.items() if name != "server"]
    memory = " + ".join(f"{print_.resident_mb:.1f}" for print_ in workers)
    descriptors = " + ".join(str(print_.descriptors) for print_ in workers)
    say(
        f"{sample.at_s / 60:5.1f} min: {tally.calls:,} calls ({sample.calls / SAMPLE_EVERY_S:.0f}/s), "
        f"{tally.failures.total()} failed, {tally.late_s:.0f} s late; {memory} MB, "
        f"{descriptors} descriptors, {sample.database_connections} to the database; "
        f"p50 {sample.p50_ms:.1f}, p99 {sample.p99_ms:.1f} ms"
    )


def _books(gateway: Gateway, tally: Tally, record: Path) -> list[str]:
    """What is wrong in the books."""
    assert gateway.environment is not None
    books: dict[str, Any] = json.loads(
        gateways.run_script(gateway.environment, gateways.HERE / "soak_books.py", record, str(SOCKET_KEYS))
    )
    manage = gateways.ROOT / "app" / "manage.py"
    command = [sys.executable, str(manage), "audit"]
    audit = subprocess.run(command, env=gateway.environment, check=False, stdout=subprocess.PIPE, text=True)
    uncharged = sum(books["uncharged"].values())
    say()
    say(
        f"{tally.calls:,} calls and {tally.turns:,} turns over WebSockets, {tally.late_s:.0f} s late: "
        f"{books['answered']:,} metered calls answered, {uncharged} of them uncharged, "
        f"{books['charged_otherwise']} charged otherwise; {tally.left:,} left by their clients, "
        f"{tally.replays:,} replayed, {tally.busy} told to come back later; "
        f"{books['charges']:,} charges, {books['charges_over_sockets']:,} over WebSockets, "
        f"{books['open_holds']} holds open; "
        f"the audit {'found differences' if audit.returncode else 'is clean'}."
    )
    for words, times in tally.failures.most_common():
        say(f"{times:>7} × {words}")
    wrong = [
        f"{name} is {books[name]}" for name in ("uncharged", "charged_otherwise", "open_holds") if books[name]
    ]
    if audit.returncode:
        wrong.append(f"audit: {audit.stdout}")
    if tally.failures:
        wrong.append(f"{tally.failures.total()} answers should not have been")
    if tally.busy > MOST_BUSY * tally.calls / 1_000:
        wrong.append(f"{tally.busy} calls were told to come back later")
    if books["charges"] > books["answered"] + tally.left:
        wrong.append(
            f"{books['charges']} charges for {books['answered']} answered and {tally.left} left calls"
        )
    if not tally.turns <= books["charges_over_sockets"] <= tally.turns + tally.turns_left:
        wrong.append(f"{books['charges_over_sockets']} charges for {tally.turns} turns over WebSockets")
    return wrong


if __name__ == "__main__":
    main()
