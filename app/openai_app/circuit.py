"""A circuit before the upstream: while it cannot be reached, calls fail at once instead of waiting for it.

    closed ──so many failures in a row──► open ──a call let through, which got an answer──► closed

While it is open one call at a time is let through, after a pause, to find out; the others are refused. A call
that never ends, or is cancelled, keeps it open for no longer than connecting may take.

Only what says that nobody is there counts as a failure. That there is no connection is no caller's fault, and
opens the circuit for all; it closes as soon as a connection stands. That a connection ended before a byte of
an answer may be the fault of the request on it: it counts for its caller alone, whose own circuit opens, and
closes with an answer to them. So no caller can open the circuit for others, or keep it open. An upstream that
answers 500 or 429 is there, and what it answers is for the caller.
"""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager

from common.errors import UpstreamFailed
from openai_app import metrics

log = logging.getLogger(__name__)

# One failed connection is an accident; so many without one in between are an outage.
MOST_FAILURES = 5
# It takes more of those that were lost: some upstreams close them just as they are used again.
MOST_LOST = 20
# How long until a call is let through to find out: at first, and at most, for it doubles each time. So long
# the upstream may be back before that is noticed.
FIRST_PAUSE_S, MOST_PAUSE_S = 0.25, 1.0
# So long one call alone finds out, where the upstream swallows what is sent to it: all attempts to connect.
CONNECTED_WITHIN_S = 25.0


class _Breaker:
    """Opens after so many failures in a row."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._failures = 0
        self._pause_s = FIRST_PAUSE_S
        #: When the next call may find out; None while it is closed.
        self._next_at: float | None = None

    @property
    def is_open(self) -> bool:
        return self._next_at is not None

    def check(self) -> None:
        """Raises UpstreamFailed for a call that would be refused now."""
        if self._next_at is not None and time.monotonic() < self._next_at:
            raise UpstreamFailed("OpenAI cannot be reached at the moment. Try again in a second.")

    def find_out(self, within_s: float) -> None:
        """A call is let through: for so long, or until it has ended, no other is."""
        self._next_at = time.monotonic() + within_s

    def pause(self) -> None:
        """What was let through has found out nothing, or that nobody is there: the next one waits."""
        self._pause_s = min(2 * self._pause_s, MOST_PAUSE_S)
        self._next_at = time.monotonic() + self._pause_s

    def failed(self) -> bool:
        """One more failure; whether it has opened the breaker."""
        self._failures += 1
        if self._failures < self._most or self.is_open:
            return False
        self._pause_s = FIRST_PAUSE_S
        self._next_at = time.monotonic() + FIRST_PAUSE_S
        return True

    def close(self) -> None:
        self._failures = 0
        self._next_at = None


class Circuit:
    """One for each serving process; closed at first.

    `caller` is the digest of a caller's key; None for the gateway's own requests, which open no circuit when
    they are lost.
    """

    def __init__(self) -> None:
        self._of_all = _Breaker(MOST_FAILURES)
        #: Of those whose last calls were lost.
        self._of_each: dict[str, _Breaker] = {}

    def check(self, caller: str | None) -> None:
        """Raises UpstreamFailed for a call that would be refused now: before anything is done for it."""
        self._of_all.check()
        if caller in self._of_each:
            self._of_each[caller].check()

    @contextmanager
    def admit(self, caller: str | None) -> Iterator[None]:
        """Around a call until its answer begins. Raises UpstreamFailed while the circuit is open and another
        call finds out."""
        self.check(caller)
        own = self._of_each.get(caller) if caller is not None else None
        if own is not None and own.is_open:
            # An answer may take long; nobody else has to wait for it.
            own.pause()
        if not self._of_all.is_open:
            yield
            return
        self._of_all.find_out(CONNECTED_WITHIN_S)
        try:
            yield
        finally:
            if self._of_all.is_open:
                self._of_all.pause()

    def connected(self) -> None:
        """A connection stands."""
        if self._of_all.is_open:
            metrics.show(metrics.CIRCUIT_OPEN, 0)
            log.warning("the upstream takes connections again")
        self._of_all.close()

    def answered(self, caller: str | None) -> None:
        """The head of an answer has come, whatever it says."""
        self.connected()
        if caller is not None:
            self._of_each.pop(caller, None)

    def not_connected(self) -> None:
        """There was no connection."""
        if self._of_all.failed():
            metrics.show(metrics.CIRCUIT_OPEN, 1)
            log.error("the upstream cannot be reached: calls fail at once until it takes connections again")

    def lost(self, caller: str | None) -> None:
        """A connection ended before a byte of an answer came."""
        if caller is not None and self._of_each.setdefault(caller, _Breaker(MOST_LOST)).failed():
            log.error("the upstream drops all calls of a caller: theirs fail at once until one is answered")
