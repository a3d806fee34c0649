"""The benchmarks: Tollgate beside the least that a relay in Python can do, on this machine, in one run.

Each gateway serves with one worker that is bound to one core; load, upstream and database share the others.
The gateways are measured in turn, round after round, and the medians are shown, because other work on the
machine disturbs requests per second. Requests per second of the gateway's own processor time are disturbed
much less: compare these.

Afterwards the databases are audited: each answered call must have been charged, once.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

import databases
import gateways
import processes
from gateways import Gateway

ACCOUNTS = 1_000
PACKAGES = ("uvicorn", "uvloop", "httptools", "aiohttp", "django", "psycopg2-binary", "orjson", "tiktoken")
YARDSTICK = "bare relay"
DIRECT = "no gateway"


@dataclass(frozen=True)
class Exercise:
    """One kind of load; `seconds` is the length of its window."""

    name: str
    connections: int
    seconds: float
    is_stream: bool = False


ALONE = Exercise("JSON, 1 connection", 1, 1.0)
EXERCISES = (
    Exercise("JSON, 32 connections", 32, 3.0),
    Exercise("JSON, 128 connections", 128, 3.0),
    Exercise("streams of 68 events, 32 connections", 32, 2.0, is_stream=True),
    ALONE,
)
Measured = dict[tuple[str, str], list[dict[str, Any]]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one short round: to see that it works")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of which the medians are shown")
    parser.add_argument("--database-url", help="a PostgreSQL server to make the database on")
    options = parser.parse_args()
    cores = sorted(os.sched_getaffinity(0))
    # This process and all that it starts but the gateways.
    os.sched_setaffinity(0, set(cores[1:] or cores))
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tollgate-bench-")))
        postgresql_url = stack.enter_context(databases.postgresql(options.database_url))
        _describe(cores, postgresql_url)
        upstream = stack.enter_context(gateways.upstream())
        urls = {"Tollgate, SQLite": f"sqlite:///{folder}/bench.sqlite3"}
        if postgresql_url:
            urls = {"Tollgate, PostgreSQL": postgresql_url, **urls}
        with ExitStack() as serving:
            own = {cores[0]}
            started = [
                serving.enter_context(
                    gateways.tollgate(name, url, upstream, own, folder / f"data-{number}", ACCOUNTS)
                )
                for number, (name, url) in enumerate(urls.items())
            ]
            started.append(serving.enter_context(gateways.bare(upstream, own, started[0].keys)))
            direct = Gateway(DIRECT, upstream, [], started[0].keys)
            idle_mb = {each.name: processes.memory_mb(each.pids) for each in started}
            rounds, scale = (1, 0.15) if options.quick else (options.rounds, 1.0)
            measured = _measure(started, direct, rounds=rounds, scale=scale)
            after_mb = {each.name: processes.memory_mb(each.pids) for each in started}
        _print_tables(started, measured, idle_mb, after_mb)
        audits = [_audit(each, measured) for each in started if each.environment]
    sys.exit(0 if all(audits) else 1)


def say(line: str = "") -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _describe(cores: Sequence[int], postgresql_url: str | None) -> None:
    told = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    names = [line.partition(":")[2].strip() for line in told if line.startswith("model name")]
    # Not all processors have a name there: those by ARM have none.
    cpu = names[0] if names else platform.machine()
    say(f"{cpu}, {len(cores)} cores; Linux {platform.release()}; Python {platform.python_version()}")
    say(", ".join(f"{package} {version(package)}" for package in PACKAGES))
    say(databases.version(postgresql_url) if postgresql_url else databases.SKIPPED)
    if len(cores) == 1:
        say("There is only one core: the gateway shares it with load, upstream and database.")
    else:
        say(f"Gateway on core {cores[0]}; load, upstream and database on {len(cores) - 1} other.")
    say()


def _measure(started: Sequence[Gateway], direct: Gateway, *, rounds: int, scale: float) -> Measured:
    measured: Measured = {}
    for number in range(rounds):
        say(f"Round {number + 1} of {rounds} …")
        for exercise in EXERCISES:
            for gateway in [*started, direct] if exercise is ALONE else started:
                result = _load(gateway, exercise, exercise.seconds * scale)
                measured.setdefault((gateway.name, exercise.name), []).append(result)
    say()
    return measured


def _load(gateway: Gateway, exercise: Exercise, seconds: float) -> dict[str, Any]:
    command = [sys.executable, str(gateways.HERE / "load.py"), gateway.host, "--keys", str(gateway.keys)]
    command += ["--connections", str(exercise.connections), "--seconds", str(seconds)]
    command += ["--stream"] if exercise.is_stream else []
    for pid in gateway.pids:
        command += ["--watch", str(pid)]
    finished = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    result: dict[str, Any] = json.loads(finished.stdout)
    if not result["answers"]:
        sys.exit(f"{gateway.name} answered nothing: {exercise.name}, {result['errors']} errors")
    return result


def _median(results: Sequence[dict[str, Any]]) -> tuple[float, float, float, float]:
    """Answers per second, answers per second of processor time, p50 and p99 in ms."""
    return (
        median(r["answers"] / r["seconds"] for r in results),
        median(r["answers"] / r["cpu_s"] if r["cpu_s"] else 0 for r in results),
        median(r["p50_ms"] for r in results),
        median(r["p99_ms"] for r in results),
    )


def _print_tables(
    started: Sequence[Gateway], measured: Measured, idle_mb: dict[str, float], after_mb: dict[str, float]
) -> None:
    for exercise in EXERCISES:
        say(exercise.name)
        head = f"  {'':24}{'per s':>9}{'per CPU-s':>11}{'of bare':>9}{'p50 ms':>9}{'p99 ms':>9}"
        say(head + (f"{'added p50':>11}" if exercise is ALONE else ""))
        _, yardstick, _, _ = _median(measured[YARDSTICK, exercise.name])
        for gateway in started:
            per_s, per_cpu_s, p50, p99 = _median(measured[gateway.name, exercise.name])
            line = f"  {gateway.name:24}{per_s:>9,.0f}{per_cpu_s:>11,.0f}{per_cpu_s / yardstick:>9.2f}"
            line += f"{p50:>9.2f}{p99:>9.2f}"
            if exercise is ALONE:
                line += f"{p50 - _median(measured[DIRECT, exercise.name])[2]:>11.2f}"
            say(line)
    say("Memory in MB, server and worker: idle, after")
    for gateway in started:
        say(f"  {gateway.name:24}{idle_mb[gateway.name]:>9,.0f}{after_mb[gateway.name]:>11,.0f}")
    say()


def _audit(gateway: Gateway, measured: Measured) -> bool:
    """Whether the books are right: the audit's own checks, and as many charges as answers."""
    assert gateway.environment is not None
    manage = gateways.ROOT / "app" / "manage.py"
    audit = subprocess.run(
        [sys.executable, manage, "audit"],
        env=gateway.environment,
        check=False,
        stdout=subprocess.PIPE,
        text=True,
    )
    if audit.returncode:
        say(audit.stdout)
    results = [r for (name, _), some in measured.items() if name == gateway.name for r in some]
    answers, errors = sum(r["all_answers"] for r in results), sum(r["errors"] for r in results)
    charges = int(gateways.run_script(gateway.environment, gateways.HERE / "accounts.py", "charges"))
    is_clean = audit.returncode == 0 and charges == answers and not errors
    say(
        f"{gateway.name}: {answers:,} calls answered, {errors} failed, {charges:,} charged; "
        f"the audit {'is clean' if audit.returncode == 0 else 'found differences'}."
    )
    return is_clean


if __name__ == "__main__":
    main()
