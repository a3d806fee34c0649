"""Runs one of the suite's Hypothesis tests, or state machines, with new examples; `run.py` starts it.

    python bench/fuzz/hypotheses.py MODULE:NAME SECONDS SEED FOLDER

Goes on, round after round, until the time is up; ends with 1 and the smallest failing example when the test
fails. With 0 for SECONDS it only tries again what has failed before, as FOLDER remembers it.
"""

import functools
import importlib
import os
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hypothesis
from hypothesis import HealthCheck, Phase, settings
from hypothesis.database import DirectoryBasedExampleDatabase
from hypothesis.stateful import run_state_machine_as_test

APP = Path(__file__).resolve().parents[2] / "app"
# Small enough to end in time, large enough to spread over what there is.
EXAMPLES_A_ROUND = 1_000
# Those of a machine have so many steps at most, each of which may be a transaction.
MACHINES_A_ROUND = 50
STEPS = 50
SAYS_EVERY_S = 30


def load(test: str, folder: Path) -> Any:
    """The test `module:name`, set to keep the examples that break it in `folder`."""
    sys.path.insert(0, str(APP))
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "gateway.settings_test")
    if Path("/dev/shm").is_dir():
        # Databases that reach no disk: waiting for one is most of the time otherwise.
        os.environ.setdefault("TMPDIR", "/dev/shm")
    settings.register_profile(
        "fuzz",
        database=DirectoryBasedExampleDatabase(folder / "examples"),
        deadline=None,
        max_examples=EXAMPLES_A_ROUND,
        print_blob=True,
        suppress_health_check=list(HealthCheck),
    )
    settings.load_profile("fuzz")
    import django

    django.setup()
    module, _, name = test.partition(":")
    return getattr(importlib.import_module(module), name)


def main(test: str, seconds: str, seed: str, folder: str) -> int:
    found = load(test, Path(folder))
    if not float(seconds):
        return _fails(settings(found, phases=[Phase.reuse, Phase.shrink]))
    if isinstance(found, type):
        return _with_database(
            lambda: _rounds(_machine(found), lambda: found.tried, float(seconds), int(seed))
        )
    return _rounds(_test(found), _count(found), float(seconds), int(seed))


def _rounds(run: Callable[[int], int], count: Callable[[], int], seconds: float, seed: int) -> int:
    """Runs with one seed after the other until the time is up or it fails."""
    began = said = time.monotonic()
    failed = 0
    while not failed and time.monotonic() < began + seconds:
        failed = run(seed)
        seed += 1
        now = time.monotonic()
        if now - said > SAYS_EVERY_S:
            said = now
            print(f"#{count()} examples, {count() / (now - began):.0f} a second", flush=True)
    print(f"stat::number_of_executed_units: {count()}", flush=True)
    return failed


def _test(function: Any) -> Callable[[int], int]:
    return lambda seed: _fails(hypothesis.seed(seed)(function))


def _machine(machine: Any) -> Callable[[int], int]:
    """A state machine's class, which counts its runs as `tried`."""
    of_a_round = settings(max_examples=MACHINES_A_ROUND, stateful_step_count=STEPS)

    def run(seed: int) -> int:
        return _fails(lambda: run_state_machine_as_test(hypothesis.seed(seed)(machine), settings=of_a_round))

    return run


def _with_database(run: Callable[[], int]) -> int:
    """Runs with an empty database of the tests' kind, made for it."""
    from django.test.utils import setup_databases, teardown_databases

    made = setup_databases(verbosity=0, interactive=False)
    try:
        return run()
    finally:
        teardown_databases(made, verbosity=0)


def _count(function: Any) -> Callable[[], int]:
    """Counts how often the body of a test is run."""
    count = 0
    inner = function.hypothesis.inner_test

    @functools.wraps(inner)
    def counted(*args: Any, **kwargs: Any) -> Any:
        nonlocal count
        count += 1
        return inner(*args, **kwargs)

    function.hypothesis.inner_test = counted
    return lambda: count


def _fails(run: Callable[[], object]) -> int:
    try:
        run()
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
