"""What a soak's samples say: two tables, and whether each measure stayed flat.

Under load the numbers follow the number of calls under way, which follows whatever else the machine does. So
descriptors, sockets, threads and connections are judged at rest: load stopped, callers gone. A leak stays.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median

from processes import Footprint

# The first minutes fill caches, pools and the allocator's arenas.
WARM_UP_S = 300.0
# A shorter run ends in the middle of that, and its memory is told but not judged.
LEAST_JUDGED_S = 900.0
# "After the warm-up" and "end" are the medians of so much of the run: one sample is an accident.
SPAN_S = 60.0
MOST_MEMORY_GROWTH = 0.05
# At rest: pools of threads and of connections may stand at another number than before.
MOST_GROWTH_AT_REST = 4
# The last third's median against the first third's, beyond what calls past the gateway grew by.
MOST_LATENCY_GROWTH = 1.5
LATENCY_NOISE_MS = 3.0
# If calls past the gateway take so many times as long, the machine is busy with something else, and latency
# tells of that alone. Then the processor time of a call is judged, which a queue does not lengthen.
BUSY_MACHINE = 1.5
MOST_PROCESSOR_GROWTH = 1.3


@dataclass(frozen=True)
class Sample:
    """One moment of the run; latencies and processor time are those of the window before it, in ms."""

    at_s: float
    #: By process: "server", "worker 1", "worker 2".
    processes: Mapping[str, Footprint]
    database_connections: int
    under_way: int = 0
    calls: int = 0
    p50_ms: float = 0.0
    p99_ms: float = 0.0
    direct_p50_ms: float = 0.0
    #: Of all the gateway's processes, for each call.
    processor_ms: float = 0.0


@dataclass(frozen=True)
class Line:
    """One measure over the run: medians of its spans, and its slope by the hour after the warm-up."""

    name: str
    numbers: Sequence[float]
    verdict: str = ""

    @property
    def is_bad(self) -> bool:
        return self.verdict.startswith("GREW")


Measure = Callable[[Sample], float]


def warm_up_s(run_s: float) -> float:
    """Five minutes; of a short run a sixth, so that it shows the same table."""
    return min(WARM_UP_S, run_s / 6)


# --- under load -------------------------------------------------------------------------------------------


def under_load(samples: Sequence[Sample], run_s: float) -> list[Line]:
    """Start, after the warm-up, middle, end, slope."""
    told = []
    for name in samples[0].processes:
        memory = _line(f"{name}: resident MB", samples, _of(name, "resident_mb"), run_s)
        _, warm, _, end, _ = memory.numbers
        if name != "server" and run_s >= LEAST_JUDGED_S:
            share = end / warm - 1
            words = "flat" if share <= MOST_MEMORY_GROWTH else "GREW"
            memory = replace(memory, verdict=f"{words}: {100 * share:+.1f}%")
        told.append(memory)
        for attribute in ("anonymous_mb", "proportional_mb", "descriptors", "threads"):
            words = attribute.replace("_mb", " MB")
            told.append(_line(f"{name}: {words}", samples, _of(name, attribute), run_s))
    told.append(_line("connections to the database", samples, lambda s: s.database_connections, run_s))
    told.append(_line("calls under way", samples, lambda s: s.under_way, run_s))
    told.append(_latency(samples, run_s))
    told.append(_line("p99 ms", samples, lambda s: s.p99_ms, run_s))
    told.append(_line("p50 ms past the gateway", samples, lambda s: s.direct_p50_ms, run_s))
    told.append(_line("processor ms a call", samples, lambda s: s.processor_ms, run_s))
    return told


def _of(process: str, attribute: str) -> Measure:
    return lambda sample: float(getattr(sample.processes[process], attribute))


def _line(name: str, samples: Sequence[Sample], measure: Measure, run_s: float) -> Line:
    span = min(SPAN_S, run_s / 10)
    warm = warm_up_s(run_s)

    def of(begin: float) -> float:
        found = [measure(s) for s in samples if begin <= s.at_s <= begin + span]
        return median(found) if found else measure(min(samples, key=lambda s: abs(s.at_s - begin)))

    later = [(s.at_s, measure(s)) for s in samples if s.at_s >= warm]
    return Line(name, (of(0), of(warm), of(run_s / 2), of(run_s - span), 3600 * _slope(later)))


def _slope(points: Sequence[tuple[float, float]]) -> float:
    """By least squares."""
    if len(points) < 2:
        return 0.0
    mean_x, mean_y = (sum(p[i] for p in points) / len(points) for i in (0, 1))
    across = sum((x - mean_x) ** 2 for x, _ in points)
    return sum((x - mean_x) * (y - mean_y) for x, y in points) / across if across else 0.0


def _latency(samples: Sequence[Sample], run_s: float) -> Line:
    """Compared by thirds, because it is noisy."""
    warm = warm_up_s(run_s)
    third = (run_s - warm) / 3

    def thirds(of: Measure) -> tuple[float, float]:
        first = median([of(s) for s in samples if warm <= s.at_s <= warm + third] or [of(samples[0])])
        last = median([of(s) for s in samples if s.at_s >= run_s - third] or [of(samples[-1])])
        return first, last

    line = _line("p50 ms", samples, lambda s: s.p50_ms, run_s)
    first, last = thirds(lambda s: s.p50_ms)
    direct_first, direct_last = thirds(lambda s: s.direct_p50_ms)
    words = f"by thirds {first:.1f} → {last:.1f}, past the gateway {direct_first:.1f} → {direct_last:.1f}"
    slower = direct_last / direct_first if direct_first else 1.0
    if last <= first * max(1.0, slower) * MOST_LATENCY_GROWTH + LATENCY_NOISE_MS:
        return replace(line, verdict=f"flat: {words}")
    if slower <= BUSY_MACHINE:
        return replace(line, verdict=f"GREW: {words}")
    before, after = thirds(lambda s: s.processor_ms)
    is_flat = after <= before * MOST_PROCESSOR_GROWTH
    words += f"; the machine became busy, judged by processor time: {before:.2f} → {after:.2f} ms a call"
    return replace(line, verdict=f"{'flat' if is_flat else 'GREW'}: {words}")


# --- at rest ----------------------------------------------------------------------------------------------


def at_rest(samples: Sequence[Sample]) -> list[Line]:
    """Before the load, after the warm-up, and at the end."""
    told = []
    for name in samples[0].processes:
        told.append(Line(f"{name}: resident MB", _numbers(samples, _of(name, "resident_mb"))))
        for attribute in ("descriptors", "sockets", "threads"):
            told.append(_judged(f"{name}: {attribute}", _numbers(samples, _of(name, attribute))))
    connections = _numbers(samples, lambda s: s.database_connections)
    return [*told, _judged("connections to the database", connections)]


def _numbers(samples: Sequence[Sample], measure: Measure) -> list[float]:
    return [measure(sample) for sample in samples]


def _judged(name: str, numbers: Sequence[float]) -> Line:
    _, warm, end = numbers
    return Line(name, numbers, "flat" if end - warm <= MOST_GROWTH_AT_REST else f"GREW by {end - warm:.0f}")


def table(title: str, columns: Sequence[str], told: Sequence[Line]) -> str:
    rows = [f"{title:32}" + "".join(f"{column:>12}" for column in columns)]
    for each in told:
        numbers = "".join(f"{number:>12,.1f}" for number in each.numbers)
        rows.append(f"{each.name:32}{numbers}  {each.verdict}".rstrip())
    return "\n".join(rows)
