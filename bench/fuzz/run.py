"""Fuzzers: inputs that nobody would write, by the hundred thousand, against what must hold for all of them.

What must hold is said by the suite's own tests (`test_fuzz_…`), which try a few inputs of each kind in every
run; here they go on for as long as is wished, with new inputs. Ends with 1 when one of them fails; what broke
it is kept in the folder that is named.
"""

import argparse
import os
import random
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from targets import TARGETS, Target

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import databases

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
SAYS_EVERY_S = 60.0
# The last lines of what a fuzzer prints that are shown when it fails.
SHOWN_LINES = 60
_COUNT = re.compile(r"#(\d+)")
_TOTAL = re.compile(r"stat::number_of_executed_units:\s*(\d+)")


@dataclass
class Result:
    """How one fuzzer ended: seconds, inputs tried, and the tests that failed."""

    name: str
    seconds: float
    tried: int
    failed: list[str]


def main() -> None:
    options = _options()
    names = options.only or list(TARGETS)
    folder = options.folder or ROOT / "data" / "fuzz" / time.strftime("%Y%m%d-%H%M%S")
    seed = options.seed if options.seed is not None else random.randrange(1, 2**31)
    say(f"seed {seed}; findings are kept in {folder}")
    if find_spec("atheris") is None:
        say("atheris is not installed: without it inputs are made up, not guided by what they reach.")
    results = []
    with ExitStack() as stack:
        url = None
        if any(TARGETS[name].on_postgresql for name in names):
            url = stack.enter_context(databases.postgresql(options.database_url))
            say("on PostgreSQL where a database is needed" if url else f"{databases.SKIPPED} SQLite it is.")
        for name in names:
            results.append(_fuzz(name, TARGETS[name], options.minutes * 60, seed, folder, url))
    _print_table(results)
    sys.exit(1 if any(result.failed for result in results) else 0)


def _options() -> argparse.Namespace:
    listed = "\n".join(f"  {name:10} {target.about}" for name, target in TARGETS.items())
    parser = argparse.ArgumentParser(
        prog='make fuzz ARGS="…"',
        description=f"{__doc__}\nThe fuzzers:\n{listed}",
        formatter_class=argparse.RawTextHelpFormatter,
    )
    parser.add_argument("--minutes", type=float, default=1.0, help="how long each fuzzer goes on (1)")
    parser.add_argument(
        "--only", action="append", choices=TARGETS, metavar="NAME", help="one fuzzer, or several"
    )
    parser.add_argument("--seed", type=int, help="what the inputs are made from, as printed by another run")
    parser.add_argument("--folder", type=Path, help="where findings are kept (a new one in data/fuzz)")
    parser.add_argument("--database-url", help="a PostgreSQL server to make a database on")
    options = parser.parse_args()
    return options


def _fuzz(name: str, target: Target, seconds: float, seed: int, folder: Path, url: str | None) -> Result:
    began = time.monotonic()
    result = Result(name, 0.0, 0, [])
    for test in target.tests:
        own = (folder / name / test.partition(":")[2]).resolve()
        own.mkdir(parents=True, exist_ok=True)
        say(f"{name}: {test.partition(':')[2].replace('_', ' ')}")
        is_guided = target.by == "atheris" and find_spec("atheris") is not None
        script = "guided.py" if is_guided else "served.py" if target.by == "gateway" else "hypotheses.py"
        arguments = [test, str(round(seconds / len(target.tests))), str(seed), str(own)]
        environment = {**os.environ, "HYPOTHESIS_STORAGE_DIRECTORY": str(own / "hypothesis")}
        if url and target.on_postgresql:
            environment["DATABASE_URL"] = url
            # Waiting for the disk would be most of the time, and no machine fails here.
            environment["PGOPTIONS"] = "-c synchronous_commit=off"
        code, tried, last = _watch([script, *arguments], own, environment)
        result.tried += tried
        if code:
            result.failed.append(test)
            say("\n".join(last))
            if is_guided:
                # The same input again, made as small as it will go.
                _watch(["hypotheses.py", test, "0", str(seed), str(own)], own, environment, shows_all=True)
            say(f"{name}: FAILED; its inputs and all that it printed are in {own}")
    result.seconds = time.monotonic() - began
    return result


def _watch(
    command: Sequence[str], folder: Path, environment: dict[str, str], *, shows_all: bool = False
) -> tuple[int, int, list[str]]:
    """Runs one of the scripts here; answers its code, how many inputs it tried, and its last lines."""
    tried, said, last = 0, time.monotonic(), []
    with (
        (folder / "output.txt").open("a") as log,
        subprocess.Popen(
            [sys.executable, str(HERE / command[0]), *command[1:]],
            cwd=folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        ) as process,
    ):
        assert process.stdout is not None
        for line in process.stdout:
            log.write(line)
            last = [*last[1 - SHOWN_LINES :], line.rstrip()]
            found = _TOTAL.search(line) or _COUNT.match(line)
            if found:
                tried = max(tried, int(found[1]))
            if shows_all:
                say(line.rstrip())
            elif found and time.monotonic() - said > SAYS_EVERY_S:
                said = time.monotonic()
                say(f"  {tried:,} inputs")
    return process.returncode, tried, last


def _print_table(results: Sequence[Result]) -> None:
    say()
    say("| fuzzer | minutes | inputs | failed |")
    say("|---|---|---|---|")
    for result in results:
        failed = ", ".join(test.partition(":")[2] for test in result.failed) or "–"
        say(f"| {result.name} | {result.seconds / 60:.1f} | {result.tried:,} | {failed} |")


def say(line: str = "") -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
