"""Runs a command with DATABASE_URL naming a PostgreSQL server; says so and succeeds if there is none.

    python .ci/with_postgresql.py COMMAND ARGUMENT…

The server is the one at TEST_DATABASE_URL; else one on this machine that lets user `postgres` in without a
password; else one that is started from PostgreSQL's binaries in a folder of its own and stopped at the end.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg2

LOCAL = "postgresql://postgres@127.0.0.1:5432/"
# Django makes `test_…` of it for the tests; two runs at once must not share one.
NAME = f"tollgate_{os.getpid()}"


def main(command: list[str]) -> int:
    given = os.environ.get("TEST_DATABASE_URL")
    if given:
        return _run(command, given)
    if _answers(LOCAL + "postgres"):
        return _run(command, LOCAL + NAME)
    binaries = _binaries()
    if binaries is None:
        print("Tests on PostgreSQL skipped: no TEST_DATABASE_URL, no local server, no binaries.")
        return 0
    with _server(binaries) as url:
        return _run(command, url)


def _run(command: list[str], url: str) -> int:
    print("Once more, on PostgreSQL.", flush=True)
    return subprocess.run(command, env={**os.environ, "DATABASE_URL": url}, check=False).returncode


def _answers(url: str) -> bool:
    try:
        psycopg2.connect(url, connect_timeout=2).close()
        return True
    except psycopg2.OperationalError:
        return False


def _binaries() -> Path | None:
    """The folder of `initdb` and `pg_ctl`: on the path, or where Debian keeps them."""
    on_path = shutil.which("initdb")
    found = [Path(on_path).resolve().parent] if on_path else []
    found += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return next((folder for folder in found if (folder / "pg_ctl").exists()), None)


@contextmanager
def _server(binaries: Path, *, is_durable: bool = False) -> Iterator[str]:
    """A throw-away server that listens on a socket in its own folder only.

    `is_durable`: commits are synced to disk, as in service. What is not synced is lost only with the machine:
    tests end processes, and lose nothing by that.
    """
    folder = Path(tempfile.mkdtemp(prefix="tollgate-pg-"))
    # PostgreSQL refuses to run as root; Debian's package and the official image have this user.
    user = "postgres" if os.geteuid() == 0 else None
    if user:
        shutil.chown(folder, user)
    data = folder / "data"

    def call(*arguments: str | Path) -> None:
        subprocess.run(arguments, user=user, cwd=folder, check=True, stdout=subprocess.DEVNULL)

    try:
        call(binaries / "initdb", "-D", data, "-U", "postgres", "-A", "trust", "-E", "UTF8")
        options = f"-c listen_addresses= -c unix_socket_directories={folder} -c max_connections=1000"
        if not is_durable:
            options += " -c fsync=off -c full_page_writes=off"
        call(binaries / "pg_ctl", "-D", data, "-w", "-l", folder / "log", "-o", options, "start")
        try:
            yield f"postgresql://postgres@/{NAME}?host={folder}"
        finally:
            call(binaries / "pg_ctl", "-D", data, "-m", "immediate", "stop")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
