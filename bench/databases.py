"""Databases of a benchmark's own, made for it and dropped afterwards."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import psycopg2

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / ".ci"))
from with_postgresql import _binaries, _server

SKIPPED = "PostgreSQL is skipped: give --database-url, or install its binaries."


@contextmanager
def postgresql(given: str | None) -> Iterator[str | None]:
    """The address of an empty database: at the server of `given`, else in a cluster made from the binaries.

    Such a cluster has PostgreSQL's own settings: each commit reaches the disk before it is answered.
    None if there are neither.
    """
    if given:
        with _scratch(given) as url:
            yield url
        return
    binaries = _binaries()
    if binaries is None:
        yield None
        return
    with _server(binaries, is_durable=True) as url, _scratch(_at(url, "postgres")) as scratch:
        yield scratch


@contextmanager
def _scratch(server: str) -> Iterator[str]:
    name = f"tollgate_bench_{os.getpid()}"
    _execute(server, f'CREATE DATABASE "{name}"')
    try:
        yield _at(server, name)
    finally:
        _execute(server, f'DROP DATABASE "{name}" WITH (FORCE)')


def _at(url: str, name: str) -> str:
    return urlsplit(url)._replace(path=f"/{name}").geturl()


def _execute(url: str, statement: str) -> None:
    connection = psycopg2.connect(url)
    connection.autocommit = True
    try:
        connection.cursor().execute(statement)
    finally:
        connection.close()


def version(url: str) -> str:
    """Such as "PostgreSQL 15.20, fsync on, synchronous_commit on"."""
    connection = psycopg2.connect(url)
    try:
        cursor = connection.cursor()
        cursor.execute(
            "SELECT current_setting(n) FROM unnest(%s) AS n",
            [["server_version", "fsync", "synchronous_commit"]],
        )
        server, fsync, synchronous = (row[0] for row in cursor.fetchall())
    finally:
        connection.close()
    return f"PostgreSQL {server.split()[0]}, fsync {fsync}, synchronous_commit {synchronous}"
