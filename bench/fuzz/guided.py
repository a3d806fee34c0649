"""Drives one test by atheris until the time is up or it fails; `run.py` starts it.

    python bench/fuzz/guided.py MODULE:FUNCTION SECONDS SEED FOLDER

The input that breaks the test is left in FOLDER, for libFuzzer and as an example for Hypothesis.
"""

import sys
from pathlib import Path

import atheris
import hypotheses

# What is looked at for new lines reached.
PACKAGES = ["openai_app", "balances", "common", "python_multipart"]
# Nothing takes so long on the slowest machine: what does is a finding.
HANGS_AFTER_S = 60
MEMORY_MB = 2048
MAX_BYTES = 8192


def main(test: str, seconds: str, seed: str, folder: str) -> None:
    with atheris.instrument_imports(include=PACKAGES):
        function = hypotheses.load(test, Path(folder))
    atheris.Setup(
        [
            sys.argv[0],
            f"-max_total_time={seconds}",
            f"-seed={seed}",
            f"-timeout={HANGS_AFTER_S}",
            f"-rss_limit_mb={MEMORY_MB}",
            f"-max_len={MAX_BYTES}",
            f"-artifact_prefix={folder}/",
            "-print_final_stats=1",
        ],
        function.hypothesis.fuzz_one_input,
    )
    atheris.Fuzz()


if __name__ == "__main__":
    main(*sys.argv[1:])
