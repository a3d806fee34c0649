"""Proves the ledger's sums. The database does the adding; only rows that are wrong are read."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from django.db import connection, transaction


@dataclass(frozen=True, slots=True)
class Check:
    """What must hold, and a query for the rows for which it does not, with what to print of each."""

    claim: str
    columns: tuple[str, ...]
    sql: str


CHECKS = (
    Check(
        "every user has an account",
        ("user",),
        "SELECT u.id FROM users_user u LEFT JOIN balances_account a ON a.user_id = u.id"
        " WHERE a.user_id IS NULL ORDER BY u.id",
    ),
    Check(
        "a balance is the sum of its entries",
        ("user", "balance", "sum_of_entries"),
        "SELECT a.user_id, a.balance, COALESCE(s.total, 0) FROM balances_account a"
        " LEFT JOIN (SELECT account_id, SUM(amount) AS total FROM balances_entry GROUP BY account_id) s"
        " ON s.account_id = a.user_id WHERE a.balance <> COALESCE(s.total, 0) ORDER BY a.user_id",
    ),
    Check(
        "what is held is the sum of the open holds",
        ("user", "held", "sum_of_open_holds"),
        "SELECT a.user_id, a.held, COALESCE(s.total, 0) FROM balances_account a"
        " LEFT JOIN (SELECT account_id, SUM(amount) AS total FROM balances_hold WHERE state = 'open'"
        " GROUP BY account_id) s ON s.account_id = a.user_id"
        " WHERE a.held <> COALESCE(s.total, 0) ORDER BY a.user_id",
    ),
    Check(
        "the balance after an entry is the one before it and its amount",
        ("entry", "user", "balance_before", "amount", "balance_after"),
        "SELECT id, account_id, before, amount, balance_after FROM"
        " (SELECT id, account_id, amount, balance_after,"
        " LAG(balance_after, 1, CAST(0 AS bigint)) OVER (PARTITION BY account_id ORDER BY id) AS before"
        " FROM balances_entry) chain WHERE before + amount <> balance_after ORDER BY id",
    ),
    Check(
        "a posted hold has one charge",
        ("hold", "user", "charges"),
        "SELECT h.id, h.account_id, COUNT(e.id) FROM balances_hold h"
        " LEFT JOIN balances_entry e ON e.hold_id = h.id AND e.kind = 'charge'"
        " WHERE h.state = 'posted' GROUP BY h.id, h.account_id HAVING COUNT(e.id) <> 1 ORDER BY h.id",
    ),
    Check(
        "a charge is of a posted hold of its own account",
        ("entry", "user", "hold", "state", "user_of_hold"),
        "SELECT e.id, e.account_id, e.hold_id, h.state, h.account_id FROM balances_entry e"
        " LEFT JOIN balances_hold h ON h.id = e.hold_id WHERE e.kind = 'charge'"
        " AND (h.id IS NULL OR h.state <> 'posted' OR h.account_id <> e.account_id) ORDER BY e.id",
    ),
    Check(
        "a hold has an end when it is not open",
        ("hold", "user", "state", "ended_at"),
        "SELECT id, account_id, state, ended_at FROM balances_hold"
        " WHERE (state = 'open') <> (ended_at IS NULL) ORDER BY id",
    ),
)
TOTALS = (
    ("users", "SELECT COUNT(*) FROM users_user"),
    ("accounts", "SELECT COUNT(*) FROM balances_account"),
    ("entries", "SELECT COUNT(*) FROM balances_entry"),
    ("holds", "SELECT COUNT(*) FROM balances_hold"),
    ("open holds", "SELECT COUNT(*) FROM balances_hold WHERE state = 'open'"),
    ("credits in balances", "SELECT COALESCE(SUM(balance), 0) FROM balances_account"),
    ("credits held", "SELECT COALESCE(SUM(held), 0) FROM balances_account"),
)


@contextmanager
def snapshot() -> Iterator[None]:
    """One moment of the database for all queries inside, while calls go on beside it.

    Inside a transaction that is already open, that one serves.
    """
    if connection.in_atomic_block:
        yield
    elif connection.vendor == "postgresql":
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
            yield
    else:
        # Django's own transactions begin IMMEDIATE here and would keep every writer waiting.
        with connection.cursor() as cursor:
            cursor.execute("BEGIN DEFERRED")
            try:
                yield
            finally:
                cursor.execute("ROLLBACK")


def totals() -> Iterator[tuple[str, int]]:
    """What there is, by name."""
    with connection.cursor() as cursor:
        for name, sql in TOTALS:
            cursor.execute(sql)
            yield name, int(cursor.fetchone()[0])


def offences(check: Check) -> Iterator[dict[str, object]]:
    """The rows for which `check` does not hold, as the database finds them."""
    # A server-side cursor on PostgreSQL: a ledger that is wrong throughout must not fill the memory.
    with connection.chunked_cursor() as cursor:
        cursor.execute(check.sql)
        for row in cursor:
            yield dict(zip(check.columns, row, strict=True))
