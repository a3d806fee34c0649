"""Lets a fuzzer loose on a gateway of two workers and its simulator; `run.py` starts it.

    python bench/fuzz/served.py MODULE:FUNCTION SECONDS SEED FOLDER

Ends with 1 when the function fails, the gateway has logged an exception, or its ledger does not add up.
"""

import sys
import tempfile
from pathlib import Path

import hypotheses


def main(name: str, seconds: str, seed: str, folder: str) -> None:
    fuzz = hypotheses.load(name, Path(folder))
    from gateway.tests.test_fuzz_served import unharmed

    with tempfile.TemporaryDirectory() as data, unharmed(Path(data)) as gateway:
        count = fuzz(gateway, float(seconds), int(seed), Path(folder))
        print(f"stat::number_of_executed_units: {count}", flush=True)


# The gateway's console is a process that imports this module anew.
if __name__ == "__main__":
    main(*sys.argv[1:])
