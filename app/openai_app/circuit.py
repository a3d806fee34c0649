"""A circuit before the upstream: while it cannot be reached, calls fail at once instead of waiting for it.

    closed ──so many failures in a row──► open ──a call let through, which got an answer──► closed

While it is open one call after each pause is let through, to find out; the others are refused. There is no
state "being tried": a call that never ends, or is cancelled, can therefore not keep the circuit open.

Only what says that nobody is there counts as a failure: no connection, or one that ended before a byte of an
answer. An upstream that answers 500 or 429 is there, and what it answers is for the caller.
"""

import logging
import time

from common.errors import UpstreamFailed
from openai_app import metrics

log = logging.getLogger(__name__)

# One lost connection is an accident; so many without an answer in between are an outage.
MOST_FAILURES = 5
# A connection that is lost may be the fault of the one request on it: that takes more of them.
MOST_LOST = 20
# How long until a call is let through to find out: at first, and at most, for it doubles each time. So long
# the upstream may be back before that is noticed.
FIRST_PAUSE_S, MOST_PAUSE_S = 0.25, 1.0


class Circuit:
    """One for each serving process; closed at first."""

    def __init__(self) -> None:
        self._failures = 0
        self._was_connected = False
        self._pause_s = FIRST_PAUSE_S
        #: When the next call may find out; None while the circuit is closed.
        self._next_at: float | None = None

    def check(self) -> None:
        """Raises UpstreamFailed for a call that would be refused now: before anything is done for it."""
        if self._next_at is not None and time.monotonic() < self._next_at:
            raise UpstreamFailed("OpenAI cannot be reached at the moment. Try again in a second.")

    def admit(self) -> None:
        """Lets a call through. Raises UpstreamFailed while the circuit is open and another call finds out."""
        self.check()
        if self._next_at is not None:
            self._pause_s = min(2 * self._pause_s, MOST_PAUSE_S)
            self._next_at = time.monotonic() + self._pause_s

    def connected(self) -> None:
        """A connection stands: enough, unless connections had been made and lost. An answer may take long."""
        if not self._was_connected:
            self.answered()

    def answered(self) -> None:
        """The head of an answer has come, whatever it says."""
        self._failures = 0
        if self._next_at is not None:
            self._next_at = None
            metrics.show(metrics.CIRCUIT_OPEN, 0)
            log.warning("the upstream answers again")

    def failed(self, *, was_connected: bool) -> None:
        """There was no connection, or it ended before a byte of an answer came."""
        self._was_connected = was_connected
        self._failures += 1
        most = MOST_LOST if was_connected else MOST_FAILURES
        if self._failures >= most and self._next_at is None:
            self._pause_s = FIRST_PAUSE_S
            self._next_at = time.monotonic() + FIRST_PAUSE_S
            metrics.show(metrics.CIRCUIT_OPEN, 1)
            log.error("the upstream cannot be reached: calls fail at once until it answers again")
