"""Whether the database answers: seen from the event loop while the writer's thread waits for it.

A server that is gone says so, and the thread learns it. One that hangs says nothing, nor does a file that
another program keeps locked: the thread waits in the middle of a transaction, and a bound that the server
itself would have to keep helps nobody.
"""

import logging
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from django.db import connection

log = logging.getLogger(__name__)

# A transaction takes a few milliseconds. After so long the database counts as away, and who waits is told so:
# within a second, the time that it takes to tell included.
STUCK_S = 0.8
# A database that hangs may go on where it stopped, and then nothing was lost. After so long its connection is
# given up, so that what must be written is at least on disk.
GIVE_UP_S = 10.0


class Watch:
    """On the transactions of one thread."""

    def __init__(self) -> None:
        self._since: float | None = None
        self._line: socket.socket | None = None
        self.give_up_s = GIVE_UP_S

    # --- on the thread ------------------------------------------------------------------------------------

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Around whatever waits for the database."""
        self._since = time.monotonic()
        try:
            yield
        finally:
            self._since = None

    def connected(self) -> None:
        """Notes the thread's new connection to a server."""
        self.closed()
        # One's own handle on it: the number of the connection's may by then be that of something else.
        self._line = socket.socket(fileno=os.dup(connection.connection.fileno()))

    def closed(self) -> None:
        """The thread's connection is closed."""
        line, self._line = self._line, None
        if line is not None:
            line.close()

    # --- on the loop --------------------------------------------------------------------------------------

    @property
    def is_busy(self) -> bool:
        """Whether the thread waits for the database now."""
        return self._since is not None

    @property
    def is_stuck(self) -> bool:
        """Whether it has waited for so long that the database counts as away."""
        return self._waited_s() > STUCK_S

    def give_up(self) -> None:
        """Ends the connection if the thread has waited on it too long: the thread finds it broken."""
        line = self._line
        if line is not None and self._waited_s() > self.give_up_s:
            log.error("the database does not answer: its connection is given up")
            self._line = None
            with suppress(OSError):
                line.shutdown(socket.SHUT_RDWR)
            line.close()

    def _waited_s(self) -> float:
        since = self._since
        return 0.0 if since is None else time.monotonic() - since
