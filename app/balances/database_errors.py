"""What a database error says of the operations that met it, by PostgreSQL's codes; SQLite has none."""

import select
from collections.abc import Iterator
from contextlib import contextmanager

from django.db import InternalError, OperationalError, connection

_DEADLOCK, _SERIALIZATION, _LOCK_TIMEOUT = "40P01", "40001", "55P03"

# A server that a failover has left behind, or whose disk is full.
_READ_ONLY = "25006"


@contextmanager
def read_only_is_away() -> Iterator[None]:
    """A server that only reads is no server: raises OperationalError for it, as for one that is gone.

    PostgreSQL's error is an InternalError, which otherwise tells of one operation.
    """
    try:
        yield
    except InternalError as error:
        if _code(error) == _READ_ONLY:
            raise OperationalError(str(error)) from None
        raise


def leave_broken_connection() -> None:
    """Closes this thread's connection if the server has ended it: the next statement connects anew.

    Between statements a PostgreSQL server says nothing but goodbye, or that a setting has changed, which is
    so rare that a new connection is no loss. Outside of transactions only.
    """
    line = connection.connection
    if line is None or connection.vendor != "postgresql":
        return
    waiting = select.poll()
    if not line.closed:
        waiting.register(line.fileno(), select.POLLIN)
    if line.closed or waiting.poll(0):
        connection.close()


def is_locked(error: BaseException) -> bool:
    """Whether someone else has kept a row locked for too long: no reason to give up the connection."""
    return _code(error) == _LOCK_TIMEOUT


def lost_a_race(error: BaseException) -> bool:
    """Whether the very same may go through the next time."""
    return _code(error) in (_DEADLOCK, _SERIALIZATION)


def _code(error: BaseException) -> str | None:
    return getattr(error.__cause__, "pgcode", None)
