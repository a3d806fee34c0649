"""Asks OSV, by pip-audit, for known vulnerabilities of all that is pinned; says so and succeeds if it cannot.

Ends with 1 if there are any, and prints them.
"""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# It takes seconds where the data can be reached; nothing is to wait for a network that is not there.
TIMEOUT_S = 120
# `--no-deps`: the requirements name everything that is installed. Nothing is downloaded or built.
COMMAND = (
    sys.executable,
    *("-m", "pip_audit", "--requirement", "requirements-dev.txt", "--no-deps", "--disable-pip"),
    *("--vulnerability-service", "osv", "--timeout", "10", "--format", "json", "--progress-spinner", "off"),
)


def main() -> int:
    try:
        done = subprocess.run(
            COMMAND, cwd=ROOT, capture_output=True, text=True, check=False, timeout=TIMEOUT_S
        )
        found = json.loads(done.stdout)["dependencies"]
    except subprocess.TimeoutExpired:
        return _skipped(f"no answer within {TIMEOUT_S} s")
    except (ValueError, KeyError):
        return _skipped(done.stderr.strip().splitlines()[-1][:300] if done.stderr.strip() else "no answer")
    vulnerable = [each for each in found if each.get("vulns")]
    for each in vulnerable:
        for flaw in each["vulns"]:
            fixed = ", ".join(flaw["fix_versions"]) or "no version"
            print(f"{each['name']} {each['version']}: {flaw['id']}, fixed in {fixed}")
    unknown = [each["name"] for each in found if "skip_reason" in each]
    if len(unknown) == len(found):
        return _skipped("it knows none of the requirements")
    print(f"{len(found) - len(unknown)} requirements looked up, {len(vulnerable)} of them vulnerable.")
    if unknown:
        print(f"Not known to it: {', '.join(unknown)}.")
    return 1 if vulnerable else 0


def _skipped(why: str) -> int:
    print(f"Known vulnerabilities of the requirements: skipped, the data cannot be reached ({why}).")
    return 0


if __name__ == "__main__":
    sys.exit(main())
