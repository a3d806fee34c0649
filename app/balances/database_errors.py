"""What a database error says of the operations that met it: by PostgreSQL's codes, and SQLite's one."""

import select
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from django.db import InternalError, OperationalError, connection

_DEADLOCK, _SERIALIZATION, _LOCK_TIMEOUT = "40P01", "40001", "55P03"

# A server that a failover has left behind, or whose disk is full.
_READ_ONLY = "25006"

# A SQLite file that another program keeps locked counts as away after so long. The workers of a gateway are
# through in milliseconds, but under load there is always one of them before the others.
SQLITE_BUSY_S = 2.0
# SQLite looks for its turn after 1, 2, 5, 10, … ms, and then only every 100 ms, which starves who is unlucky:
# it is asked anew after so long.
_SQLITE_ATTEMPT_MS = 30


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


@contextmanager
def bounded_waiting() -> Iterator[None]:
    """Within it this thread waits for the writers of a SQLite file often and not for long; elsewhere it does
    nothing, for a server keeps its own bounds."""
    if connection.vendor != "sqlite":
        yield
        return
    if connection.connection is None:
        connection.ensure_connection()
        with connection.cursor() as cursor:
            cursor.execute(f"PRAGMA busy_timeout = {_SQLITE_ATTEMPT_MS}")
    with connection.execute_wrapper(_insist):
        yield


def _insist(execute: Callable[..., Any], sql: str, params: Any, many: bool, context: dict[str, Any]) -> Any:
    """Runs a statement; whoever waits for the file has none of it done yet."""
    until = time.monotonic() + SQLITE_BUSY_S
    while True:
        try:
            return execute(sql, params, many, context)
        except OperationalError as error:
            code = getattr(error.__cause__, "sqlite_errorcode", None)
            if code != sqlite3.SQLITE_BUSY or time.monotonic() > until:
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
