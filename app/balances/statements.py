# ruff: noqa: S608 (see the docstring)
"""The ledger's statements: few, each over many rows, alike on PostgreSQL and SQLite.

The data plane goes past the ORM because a batch is a handful of multi-row statements whatever its size;
the ORM would make it a statement or two a row. Statements are put together from constants and marks only;
every value is a parameter.
"""

import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from typing import Any, NamedTuple

import orjson
from django.db import DatabaseError, InterfaceError, connection
from django.db.backends.utils import CursorWrapper

from balances.models import Hold

Row = Mapping[str, Any]
# A UUID column's value as 32 hex digits, as SQLite keeps it and PostgreSQL takes it.
_HEX = "REPLACE(CAST({} AS text), '-', '')"
_LIMITS = "{0}.requests_per_minute, {0}.tokens_per_minute, {0}.parallel_calls"
# What a level's owner begins with.
USER, KEY = "user:", "key:"


HOLD_COLUMNS = (
    "id",
    "account_id",
    "key_id",
    "worker_id",
    "state",
    "operation",
    "model",
    "amount",
    "counted",
    "awaits",
    "reason",
    "created_at",
    "tokens",
    "tokens_until",
)
ENTRY_COLUMNS = (
    "account_id",
    "kind",
    "amount",
    "balance_after",
    "hold_id",
    "key_id",
    "by_id",
    "operation",
    "model",
    "units",
    "details",
    "rate",
    "reason",
    "created_at",
)


class Transaction:
    """Statements that stand or fall together; see `transaction`."""

    def __init__(self, cursor: CursorWrapper) -> None:
        self._cursor = cursor
        self._waiting: list[tuple[str, Sequence[Any]]] = []
        self._joins = connection.vendor == "postgresql"

    def put_off(self, statement: str, parameters: Sequence[Any] = ()) -> None:
        """Sends a statement whose rows nobody wants, together with the next that somebody waits for.

        On PostgreSQL a round trip costs as much time as the work of several calls.
        """
        self._waiting.append((statement, parameters))

    def ask(self, statement: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """The rows of a statement, after those that were put off."""
        self.put_off(statement, parameters)
        self.send()
        rows: list[tuple[Any, ...]] = self._cursor.fetchall()
        return rows

    def send(self) -> None:
        """Sends what was put off."""
        waiting, self._waiting = self._waiting, []
        if self._joins:
            together = "; ".join([statement for statement, _ in waiting])
            self._cursor.execute(together, [value for _, parameters in waiting for value in parameters])
        else:
            for statement, parameters in waiting:
                self._cursor.execute(statement, parameters)


@contextmanager
def transaction() -> Iterator[Transaction]:
    """A transaction, or a part of the one that is open, which an error undoes.

    Its beginning and its end travel with its first and its last statements, which Django's would not.
    """
    if connection.in_atomic_block:
        begin, commit, undo = "SAVEPOINT ledger", "RELEASE SAVEPOINT ledger", "ROLLBACK TO SAVEPOINT ledger"
    else:
        begin, commit, undo = "BEGIN", "COMMIT", "ROLLBACK"
        if connection.vendor == "sqlite":
            # A transaction that turned into a writer later would fail when another one wrote meanwhile.
            begin = "BEGIN IMMEDIATE"
    with connection.cursor() as cursor:
        opened = Transaction(cursor)
        opened.put_off(begin)
        try:
            yield opened
            opened.put_off(commit)
            opened.send()
        except BaseException:
            # A connection that broke has undone everything by itself.
            with suppress(DatabaseError, InterfaceError):
                cursor.execute(undo)
            raise


class KeyRow(NamedTuple):
    """A key and the user it belongs to, as the data plane needs them."""

    digest: str
    key_id: int
    user_id: int
    is_revoked: bool
    has_expired: bool
    use_is_old: bool
    allowed_models: list[str]
    is_active: bool
    is_superuser: bool
    is_limited: bool


class HoldRow(NamedTuple):
    """A hold that was open until this transaction closed it."""

    hold_id: str
    user_id: int
    amount: int
    key_id: int | None
    tokens: int | None
    tokens_until: int | None


class LevelRow(NamedTuple):
    """The limits of a user or a key, and how full its buckets were at a time, in microseconds."""

    owner: str
    requests_per_minute: int | None
    tokens_per_minute: int | None
    parallel_calls: int | None
    requests: int
    tokens: int
    at: int
    now_us: int


class SweptRow(NamedTuple):
    """A hold that a sweep ended, and the call that it was for; named as the columns."""

    id: str
    key_id: int | None
    worker_id: str | None
    operation: str
    model: str
    amount: int
    counted: dict[str, int]


def find_keys(
    transaction: Transaction, digests: Collection[str], *, now: datetime, used_before: datetime
) -> list[KeyRow]:
    """The keys with these digests. Times are compared here: to read one takes longer than all the rest."""
    if not digests:
        return []
    rows = transaction.ask(
        "SELECT k.digest, k.id, k.user_id, k.revoked_at IS NOT NULL, COALESCE(k.expires_at <= %s, false),"
        " COALESCE(k.last_used_at < %s, true), k.allowed_models, u.is_active, u.is_superuser,"
        f" COALESCE({_LIMITS.format('k')}, {_LIMITS.format('u')}) IS NOT NULL"
        f" FROM users_apikey k JOIN users_user u ON u.id = k.user_id WHERE {_is_among('k.digest')}",
        [adapt_time(now), adapt_time(used_before), _list(digests)],
    )
    return [
        KeyRow(
            *(digest, key, user, bool(revoked), bool(expired), bool(old)),
            *(_parsed(models), bool(on), bool(su), bool(limited)),
        )
        for digest, key, user, revoked, expired, old, models, on, su, limited in rows
    ]


def lock_accounts(transaction: Transaction, user_ids: Collection[int]) -> list[tuple[int, int, int, bool]]:
    """(user id, balance, held, relaxed) of each, locked until the transaction ends, always in id order.

    SQLite needs no row locks: its transactions here begin IMMEDIATE, one writer at a time.
    """
    if not user_ids:
        return []
    lock = " FOR UPDATE" if connection.features.has_select_for_update else ""
    rows = transaction.ask(
        "SELECT user_id, balance, held, relaxed FROM balances_account"
        f" WHERE {_is_among('user_id')} ORDER BY user_id{lock}",
        [_list(user_ids)],
    )
    return [(user, balance, held, bool(relaxed)) for user, balance, held, relaxed in rows]


def close_holds(
    transaction: Transaction, hold_ids: Sequence[str], state: Hold.State, reason: str, now: datetime
) -> list[HoldRow]:
    """Ends those of the holds that are still open, and answers only these: a hold ends once.

    `state = 'open'` would lead PostgreSQL to the indexes of the open holds, where it reads past all that were
    closed since the last vacuum.
    """
    if not hold_ids:
        return []
    rows = transaction.ask(
        "UPDATE balances_hold SET state = %s, reason = %s, ended_at = %s"
        f" WHERE {_is_among('id')} AND state NOT IN ('posted', 'voided')"
        f" RETURNING {_HEX.format('id')}, account_id, amount, key_id, tokens, tokens_until",
        [state.value, reason, adapt_time(now), _list(hold_ids)],
    )
    return [HoldRow(*row) for row in rows]


def read_levels(
    transaction: Transaction, user_ids: Collection[int], key_ids: Collection[int]
) -> list[LevelRow]:
    """The limits and levels of users and keys, those without a level as empty. Their accounts are locked."""
    now, parameters = clock()
    parts = [
        f"SELECT '{kind}' || o.id, {_LIMITS.format('o')},"
        f" COALESCE(l.requests, 0), COALESCE(l.tokens, 0), COALESCE(l.at, 0), {now} FROM {table} o"
        f" LEFT JOIN balances_level l ON l.owner = '{kind}' || o.id WHERE {_is_among('o.id')}"
        for kind, table in ((USER, "users_user"), (KEY, "users_apikey"))
    ]
    rows = transaction.ask(
        " UNION ALL ".join(parts), [*parameters, _list(user_ids), *parameters, _list(key_ids)]
    )
    return [LevelRow(*row) for row in rows]


def clock() -> tuple[str, list[Any]]:
    """Microseconds since 1970, as an expression and its parameters; the server's, if there is a server."""
    if connection.vendor == "postgresql":
        return "CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000000 AS bigint)", []
    return "%s", [time.time_ns() // 1000]


def count_running(transaction: Transaction, user_ids: Collection[int]) -> list[tuple[int, int | None, int]]:
    """(user id, key id, count) of the open holds of each user, less those that wait for later work."""
    if not user_ids:
        return []
    return [
        (user_id, key_id, count)
        for user_id, key_id, count in transaction.ask(
            f"SELECT account_id, key_id, COUNT(*) FROM balances_hold WHERE {_is_among('account_id')}"
            " AND state = 'open' AND awaits = '' GROUP BY account_id, key_id",
            [_list(user_ids)],
        )
    ]


def charged_so_far(transaction: Transaction, hold_ids: Collection[str]) -> dict[str, int]:
    """Credits charged on each of the holds, 0 without an entry; a hold that does not exist is left out."""
    if not hold_ids:
        return {}
    rows = transaction.ask(
        f"SELECT {_HEX.format('h.id')}, COALESCE(SUM(-e.amount), 0) FROM balances_hold h"
        " LEFT JOIN balances_entry e ON e.hold_id = h.id"
        f" WHERE {_is_among('h.id')} GROUP BY h.id",
        [_list(hold_ids)],
    )
    return {hold: int(charged) for hold, charged in rows}


def ended_for(
    transaction: Transaction, hold_ids: Collection[str], reasons: Sequence[str]
) -> dict[str, SweptRow]:
    """Those of the holds that have ended for one of these reasons, by id."""
    if not hold_ids:
        return {}
    marks = ", ".join(["%s"] * len(reasons))
    rows = transaction.ask(
        f"SELECT {_HEX.format('id')}, key_id, {_HEX.format('worker_id')}, operation, model, amount, counted"
        f" FROM balances_hold WHERE {_is_among('id')} AND state <> 'open' AND reason IN ({marks})",
        [_list(hold_ids), *reasons],
    )
    return {id_: SweptRow._make((id_, *call, _parsed(counted))) for id_, *call, counted in rows}


def say_why(transaction: Transaction, reasons: Mapping[str, str]) -> None:
    """Corrects why holds have ended: {hold id: reason}."""
    for hold_id, reason in reasons.items():
        transaction.put_off("UPDATE balances_hold SET reason = %s WHERE id = %s", [reason, hold_id])


def insert(transaction: Transaction, table: str, columns: Sequence[str], rows: Sequence[Row]) -> None:
    if rows:
        names = ", ".join(columns)
        transaction.put_off(
            f"INSERT INTO {table} ({names}) SELECT {names} FROM {_table_of(table, columns)}", [_json(rows)]
        )


def save_accounts(transaction: Transaction, rows: Sequence[Row]) -> None:
    """Writes `balance` and `held` of each `user_id`."""
    if rows:
        transaction.put_off(
            "UPDATE balances_account SET balance = v.balance, held = v.held"
            f" FROM {_table_of('balances_account', ('user_id', 'balance', 'held'))}"
            " WHERE balances_account.user_id = v.user_id",
            [_json(rows)],
        )


def save_levels(transaction: Transaction, rows: Sequence[Row]) -> None:
    if rows:
        columns = ("owner", "requests", "tokens", "at")
        names = ", ".join(columns)
        transaction.put_off(
            f"INSERT INTO balances_level ({names}) SELECT {names} FROM {_table_of('balances_level', columns)}"
            " WHERE true ON CONFLICT (owner) DO UPDATE"
            " SET requests = excluded.requests, tokens = excluded.tokens, at = excluded.at",
            [_json(rows)],
        )


def save_progress(transaction: Transaction, counted: Mapping[str, Mapping[str, int]]) -> None:
    """Notes on open holds what they are known to have used."""
    if counted:
        transaction.put_off(
            "UPDATE balances_hold SET counted = v.counted"
            f" FROM {_table_of('balances_hold', ('id', 'counted'))}"
            " WHERE balances_hold.id = v.id AND balances_hold.state = 'open'",
            [_json([{"id": hold_id, "counted": units} for hold_id, units in counted.items()])],
        )


def defer_holds(transaction: Transaction, awaits: Mapping[str, str]) -> None:
    """Takes holds out of their process's care: {hold id: what it awaits}."""
    for hold_id, object_id in awaits.items():
        transaction.put_off(
            "UPDATE balances_hold SET awaits = %s WHERE id = %s AND state = 'open'", [object_id, hold_id]
        )


def touch_keys(transaction: Transaction, key_ids: Collection[int], now: datetime) -> None:
    if not key_ids:
        return
    transaction.put_off(
        f"UPDATE users_apikey SET last_used_at = %s WHERE {_is_among('id')}",
        [adapt_time(now), _list(key_ids)],
    )


def adapt_time(moment: datetime) -> str:
    """A time as the database's columns take it."""
    return str(connection.ops.adapt_datetimefield_value(moment))


def _parsed(value: Any) -> Any:
    return orjson.loads(value) if isinstance(value, str) else value


def _json(rows: Sequence[Row]) -> str:
    return orjson.dumps(rows).decode()


def _is_among(column: str) -> str:
    """A condition on a column; its parameter is a `_list`."""
    if connection.vendor == "postgresql":
        return f"{column} = ANY(%s)"
    return f"{column} IN (SELECT value FROM json_each(%s))"


def _list(values: Collection[str | int]) -> str:
    """Numbers or hex digits as one parameter, for the reason that `_table_of` gives.

    In quotes, because an array of PostgreSQL's takes no empty value without them, and the digest of nobody's
    key is empty.
    """
    if connection.vendor == "postgresql":
        return "{" + ",".join([f'"{value}"' for value in values]) + "}"
    return orjson.dumps(list(values)).decode()


def _table_of(table: str, columns: Sequence[str]) -> str:
    """A table `v` of the rows in a JSON parameter, its columns of the types that `table` gives them.

    One parameter for all rows, because each one costs more than all the other work on its value.
    """
    if connection.vendor == "postgresql":
        return f"json_populate_recordset(NULL::{table}, %s) AS v"
    values = ", ".join(f"json_extract(value, '$.{column}') AS {column}" for column in columns)
    return f"(SELECT {values} FROM json_each(%s)) AS v"
