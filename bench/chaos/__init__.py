"""The truth harness: gateways under load while faults are thrown at them, and three books held together.

`python -m chaos --help` from the folder above; docs/chaos.md explains what is thrown and how it is judged.
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# The simulator, and the words by which the gateway says how a call ended, are the project's own.
sys.path[:0] = [str(ROOT / "app"), str(ROOT / ".ci")]
