"""A PostgreSQL cluster that may be stopped, killed and started again; its commits reach the disk."""

import asyncio
import os
import secrets
import shutil
import socket
import subprocess
from pathlib import Path

import psycopg2
from with_postgresql import _binaries

NAME = "tollgate"
STARTS_WITHIN_S = 60


def are_binaries_there() -> bool:
    """Whether PostgreSQL's programs are on the path, or where Debian keeps them."""
    return _binaries() is not None


class Cluster:
    """Made and started in `folder`; `close` ends it."""

    def __init__(self, folder: Path) -> None:
        binaries = _binaries()
        assert binaries is not None
        self._binaries = binaries
        self._folder = folder
        # PostgreSQL refuses to run as root; Debian's package and the official image have this user.
        self._user = "postgres" if os.geteuid() == 0 else None
        self.log = folder / "postgresql.log"
        self.password = secrets.token_urlsafe(18)
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self._port = listener.getsockname()[1]
        self.url = self._url(NAME)
        self._make()

    def _url(self, name: str) -> str:
        return f"postgresql://postgres:{self.password}@127.0.0.1:{self._port}/{name}"

    def _make(self) -> None:
        self._folder.mkdir(parents=True)
        if self._user:
            shutil.chown(self._folder, self._user)
        password_file = self._folder / "password"
        password_file.write_text(self.password)
        password_file.chmod(0o644)
        self._call("initdb", "-U", "postgres", "-A", "scram-sha-256", "--pwfile", password_file, "-E", "UTF8")
        password_file.unlink()
        self._start()
        with _connected(self._url("postgres")) as connection:
            connection.cursor().execute(f"CREATE DATABASE {NAME}")

    def _call(self, program: str, *arguments: str | Path) -> None:
        command = [self._binaries / program, "-D", self._folder / "data", *arguments]
        subprocess.run(command, user=self._user, cwd=self._folder, check=True, stdout=subprocess.DEVNULL)

    def _start(self) -> None:
        options = f"-c port={self._port} -c listen_addresses=127.0.0.1 -c unix_socket_directories="
        self._call("pg_ctl", "-w", "-t", str(STARTS_WITHIN_S), "-l", self.log, "-o", options, "start")

    async def stop(self, mode: str) -> None:
        """`mode` is fast, which ends sessions and writes all out, or immediate, which is a crash."""
        await asyncio.to_thread(self._call, "pg_ctl", "-m", mode, "stop")

    async def start(self) -> None:
        """Returns when it takes connections, after whatever recovery it needs."""
        await asyncio.to_thread(self._start)

    async def cut(self) -> int:
        """Ends all sessions on the server's side, and answers how many."""
        return await asyncio.to_thread(self._cut)

    def _cut(self) -> int:
        with _connected(self._url("postgres")) as connection:
            cursor = connection.cursor()
            cursor.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [NAME]
            )
            return len(cursor.fetchall())

    def close(self) -> None:
        try:
            self._call("pg_ctl", "-m", "immediate", "stop")
        except subprocess.CalledProcessError:
            print("PostgreSQL was not running any more.")


class _connected:
    """A connection without transactions, closed at the end."""

    def __init__(self, url: str) -> None:
        self._connection = psycopg2.connect(url)
        self._connection.autocommit = True

    def __enter__(self) -> "psycopg2.extensions.connection":
        return self._connection

    def __exit__(self, *_: object) -> None:
        self._connection.close()
