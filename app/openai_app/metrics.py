"""Counters for operators, read at /metrics by Prometheus. No label holds a name that callers choose."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

from prometheus_client import Counter, Gauge, Histogram

log = logging.getLogger(__name__)

CALLS = Counter("tollgate_calls", "Calls answered, by operation and status.", ("operation", "status"))
DURATION = Histogram(
    "tollgate_call_seconds",
    "From a call's first byte to the end of its answer.",
    ("operation",),
    buckets=(0.01, 0.05, 0.1, 0.5, 1, 5, 10, 30, 60, 300, 600),
)
USAGE_MISSING = Counter(
    "tollgate_usage_missing", "Finished calls without usage: the whole hold was charged.", ("operation",)
)
CUT = Counter("tollgate_cut_streams", "Streams that ended early and were charged as counted.", ("operation",))
REPLAYED = Counter(
    "tollgate_replayed_answers", "Calls answered again for their Idempotency-Key, uncharged.", ("operation",)
)
OWED = Gauge("tollgate_owed_charges", "Charges that wait for the database.", multiprocess_mode="livesum")
CIRCUIT_OPEN = Gauge(
    "tollgate_circuit_open",
    "Worker processes whose last calls could not reach OpenAI: new ones fail at once.",
    multiprocess_mode="livesum",
)


def count_call(operation: str, status: int, seconds: float) -> None:
    """Notes a call that was answered, or whose client had left (499)."""
    try:
        calls, duration = _series_of(operation, status)
        calls.inc()
        duration.observe(seconds)
    except Exception as error:
        # As `_forgiving`, but for every call: a context manager takes longer than all of this.
        _tell_once(type(error).__name__)


def count(counter: Counter, operation: str) -> None:
    """Adds one to a counter by operation."""
    with _forgiving():
        counter.labels(operation).inc()


def show(gauge: Gauge, value: float) -> None:
    """Sets a gauge."""
    with _forgiving():
        gauge.set(value)


@contextmanager
def _forgiving() -> Iterator[None]:
    """Workers share their counters in files. No call fails, or goes unpaid, because these cannot be kept."""
    try:
        yield
    except Exception as error:
        # The library fails in many ways over files that it could not make, or not whole.
        _tell_once(type(error).__name__)


@cache
def _tell_once(kind: str) -> None:
    log.error("this process's counters cannot be kept, and are wrong from now on (%s)", kind)


@cache
def _series_of(operation: str, status: int) -> tuple[Counter, Histogram]:
    # Looking a series up by its labels takes longer than counting; there are only so many of both.
    return CALLS.labels(operation, str(status)), DURATION.labels(operation)
