"""What Linux says of processes: their descendants, processor time and memory."""

import os
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def tree(pid: int) -> list[int]:
    """A process and all its descendants."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()
    return [pid, *(each for child in children for each in tree(int(child)))]


def cpu_seconds(pids: Iterable[int]) -> float:
    """User and system time that the processes have had, all their threads together."""
    total = 0
    for pid in pids:
        # The name in the second field may hold spaces and brackets: proc(5) counts from after it.
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        total += int(fields[11]) + int(fields[12])
    return total / _TICKS_PER_S


def memory_mb(pids: Iterable[int]) -> float:
    """Proportional set size: memory that several of the processes share is counted once."""
    total_kb = 0
    for pid in pids:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines():
            if line.startswith("Pss:"):
                total_kb += int(line.split()[1])
    return total_kb / 1024


@dataclass(frozen=True)
class Footprint:
    """What a process takes up at one moment; memory in MB."""

    #: Resident memory, with what is shared with other processes.
    resident_mb: float
    #: Memory of its own and its share of the rest.
    proportional_mb: float
    #: Resident memory that is no file's: the heap, mostly.
    anonymous_mb: float
    descriptors: int
    sockets: int
    threads: int


def footprint(pid: int) -> Footprint:
    """Raises OSError if there is no such process."""
    status = _fields(Path(f"/proc/{pid}/status"))
    rollup = _fields(Path(f"/proc/{pid}/smaps_rollup"))
    targets = []
    for descriptor in os.listdir(f"/proc/{pid}/fd"):
        with suppress(FileNotFoundError):  # closed since
            targets.append(os.readlink(f"/proc/{pid}/fd/{descriptor}"))
    return Footprint(
        resident_mb=status["VmRSS"] / 1024,
        proportional_mb=rollup["Pss"] / 1024,
        anonymous_mb=status["RssAnon"] / 1024,
        descriptors=len(targets),
        sockets=sum(target.startswith("socket:") for target in targets),
        threads=status["Threads"],
    )


def _fields(path: Path) -> dict[str, int]:
    """The lines `Name: number …` of one of the files in /proc."""
    lines = (line.split() for line in path.read_text(encoding="utf-8").splitlines())
    return {words[0].rstrip(":"): int(words[1]) for words in lines if len(words) > 1 and words[1].isdigit()}
