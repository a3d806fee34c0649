"""What is thrown at the gateways and when: the same for the same seed."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

# Before the first fault, so that there is something to break, and between two of a track.
QUIET_S = 6.0
# A lease of a worker is 15 s: what lasts longer shows whether the living are taken for dead.
LONGER_THAN_A_LEASE_S = 20.0


@dataclass(frozen=True)
class Fault:
    """`at_s` after the start, for `lasts_s`; `where` is an instance's name, "postgresql" or "upstream"."""

    at_s: float
    kind: str
    where: str
    lasts_s: float = 0.0
    #: The simulator's directives, or the step of the clock in seconds.
    detail: str = ""

    def __str__(self) -> str:
        lasts = f" for {self.lasts_s:.1f} s" if self.lasts_s else ""
        return (
            f"{self.at_s:7.1f} s  {self.kind} ({self.where}){lasts}{' ' + self.detail if self.detail else ''}"
        )


@dataclass(frozen=True)
class Kind:
    """One kind of fault: for how long, at least and at most, and how long it is quiet afterwards."""

    name: str
    least_s: float = 0.0
    most_s: float = 0.0
    after_s: float = 4.0
    details: Sequence[str] = ("",)


KILL_WORKER = Kind("kill a worker")
KILL_MASTER = Kind("kill the master", after_s=10.0)
KILL_INSTANCE = Kind("kill the instance", after_s=9.0)
STOP = Kind("SIGTERM the instance", after_s=9.0)
# Longer than a lease, and than the others take to be sure.
PAUSE_WORKER = Kind("pause a worker", 32.0, 36.0)
DATABASE_FAST = Kind("database stopped fast", 2.0, 5.0)
DATABASE_IMMEDIATE = Kind("database stopped immediate", 2.0, 5.0)
DATABASE_LONG = Kind("database away for long", LONGER_THAN_A_LEASE_S, LONGER_THAN_A_LEASE_S + 4, 6.0)
CONNECTIONS_CUT = Kind("database connections cut")
DISK_FULL = Kind("disk full, database away", 3.0, 5.0)
KILL_WORKER_AWAY = Kind("kill a worker, database away", 3.0, 5.0)
KILL_INSTANCE_AWAY = Kind("kill the instance, database away", 5.0, 8.0, 7.0)
OWN_DISK_FULL = Kind("disk full", 3.0, 5.0)
CLOCK = Kind("clock steps", 6.0, 12.0, details=("+3600", "-3600", "+90", "-90"))

ON_POSTGRESQL = (
    KILL_WORKER,
    KILL_MASTER,
    KILL_INSTANCE,
    STOP,
    PAUSE_WORKER,
    DATABASE_FAST,
    DATABASE_IMMEDIATE,
    DATABASE_LONG,
    CONNECTIONS_CUT,
    DISK_FULL,
    KILL_WORKER_AWAY,
    KILL_INSTANCE_AWAY,
)
ON_SQLITE = (KILL_WORKER, KILL_MASTER, KILL_INSTANCE, STOP, PAUSE_WORKER, OWN_DISK_FULL, CLOCK, CLOCK)
ON_UPSTREAM = (
    Kind("upstream refuses connections", 2.0, 4.0),
    Kind("upstream resets", 2.0, 3.0, details=("reset", "reset_after=5", "reset_after=15")),
    Kind("upstream stalls", 3.0, 4.0, details=("stall=2", "stall=3 stall_after=5")),
    Kind("upstream answers 429", 1.5, 3.0, details=("status=429 retry_after=1", "status=429 quota")),
    Kind("upstream answers 500", 1.5, 3.0, details=("status=500", "status=503")),
    Kind("upstream sends garbage", 1.5, 3.0, details=("html", "malformed")),
    Kind("upstream closes in mid-event", 2.0, 3.0, details=("truncate_after=5", "truncate_after=15")),
    Kind("upstream closes between events", 1.5, 3.0, details=("close_after=5", "error_after=5")),
)
DATABASE_KINDS = frozenset(
    kind.name
    for kind in (
        DATABASE_FAST,
        DATABASE_IMMEDIATE,
        DATABASE_LONG,
        DISK_FULL,
        KILL_WORKER_AWAY,
        KILL_INSTANCE_AWAY,
        OWN_DISK_FULL,
    )
)
DISK_KINDS = frozenset((DISK_FULL.name, OWN_DISK_FULL.name))


def plan(seed: int, seconds: float, *, postgresql: Sequence[str], sqlite: Sequence[str]) -> list[Fault]:
    """The faults in the order of their times; `postgresql` and `sqlite` are the names of the instances."""
    chance = random.Random(seed)
    faults: list[Fault] = []
    if postgresql:
        faults += _track(chance, seconds, ON_POSTGRESQL, postgresql)
    if sqlite:
        faults += _track(chance, seconds, ON_SQLITE, sqlite)
    faults += _track(chance, seconds, ON_UPSTREAM, ["upstream"])
    return sorted(faults, key=lambda fault: fault.at_s)


def _track(
    chance: random.Random, seconds: float, kinds: Sequence[Kind], places: Sequence[str]
) -> Iterator[Fault]:
    """One fault after another, each kind once before any comes twice, until the time is over."""
    at_s = QUIET_S + chance.uniform(0.0, 3.0)
    while True:
        for kind in chance.sample(kinds, len(kinds)):
            lasts_s = round(chance.uniform(kind.least_s, kind.most_s), 1)
            where, detail = chance.choice(places), chance.choice(kind.details)
            pause_s = kind.after_s + chance.uniform(0.0, 2.0)
            if at_s + lasts_s > seconds:
                # A short run has no time for long ones.
                if seconds - at_s < QUIET_S:
                    return
                continue
            place = "postgresql" if kind.name in _OF_THE_DATABASE else where
            yield Fault(round(at_s, 1), kind.name, place, lasts_s, detail)
            at_s += lasts_s + pause_s


_OF_THE_DATABASE = frozenset(
    kind.name for kind in (DATABASE_FAST, DATABASE_IMMEDIATE, DATABASE_LONG, CONNECTIONS_CUT)
)
