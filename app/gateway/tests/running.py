"""A gateway as an operator runs it: `manage.py serve` in a process, with data of its own."""

import atexit
import os
import re
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import psycopg2
from django.conf import settings

MANAGE = settings.ROOT / "app" / "manage.py"
# No start takes as long on the slowest machine; it only keeps a failure from hanging the tests.
KILLED_AFTER_S = 120
_IS_FILE = settings.DATABASES["default"]["ENGINE"].endswith("sqlite3")
_PROVISION = "from gateway.provision import provision; provision()"


@dataclass
class Gateway:
    """A running one: its address, what it printed, and its process."""

    url: str
    printed: str
    process: subprocess.Popen[str]

    @property
    def commands(self) -> list[str]:
        """The commands that it offers to paste."""
        return [line for line in self.printed.splitlines() if "curl " in line]

    @property
    def workers(self) -> list[int]:
        """The process ids of its workers."""
        found = []
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        for child in children.split():
            # One may have ended in the meantime.
            with suppress(OSError):
                if "manage.py" in Path(f"/proc/{child}/cmdline").read_text():
                    found.append(int(child))
        return found

    def stop(self, by: signal.Signals = signal.SIGTERM) -> int:
        """Ends it and answers its exit code."""
        self.process.send_signal(by)
        return self.process.wait()


def environment(data_dir: Path, **variables: str) -> dict[str, str]:
    """The least environment, with nothing of the operator's; `variables` are added."""
    return {
        "PATH": os.environ["PATH"],
        "ENV_FILE": os.devnull,
        "DATA_DIR": str(data_dir),
        # A server that is killed leaves its counters' folder behind.
        "TMPDIR": str(data_dir.parent),
        "PORT": "0",
        "WEB_CONCURRENCY": "1",
        **variables,
    }


def log_of(data_dir: Path) -> Path:
    """Where a gateway with this folder writes what it logs."""
    return data_dir.with_name(data_dir.name + ".log")


@contextmanager
def running(data_dir: Path, *options: str, **variables: str) -> Iterator[Gateway]:
    """Starts a gateway and waits for what it prints when it is ready; stops it at the end.

    `variables` are environment variables. Without `options` it is started as `make run` does.
    """
    command = [sys.executable, str(MANAGE), "serve", *(options or ("--demo",))]
    with running_as(command, data_dir, variables) as gateway:
        yield gateway


@contextmanager
def running_as(command: list[str], data_dir: Path, variables: Mapping[str, str]) -> Iterator[Gateway]:
    """The same for a gateway that is started by a command of one's own."""
    log = log_of(data_dir)
    with (
        log.open("w") as stderr,
        subprocess.Popen(
            command,
            env=environment(data_dir, **variables),
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
        ) as process,
    ):
        deadline = threading.Timer(KILLED_AFTER_S, process.kill)
        deadline.start()
        try:
            assert process.stdout is not None
            printed = ""
            while "/v1/chat/completions" not in printed:
                line = process.stdout.readline()
                assert line, f"It ended before it was ready:\n{printed}\n{log.read_text()}"
                printed += line
            # From here on it lives as long as its tests, which may be long on a busy machine.
            deadline.cancel()
            found = re.search(r"serves at (http://\S+)", printed)
            assert found
            gateway = Gateway(found[1], printed, process)
            # Who has printed all this is a process of its own, and no worker.
            count = int(environment(data_dir, **variables)["WEB_CONCURRENCY"])
            give_up_at = time.monotonic() + KILLED_AFTER_S
            while len(gateway.workers) != count and time.monotonic() < give_up_at:
                time.sleep(0.01)
            yield gateway
        finally:
            process.terminate()
            process.wait()
            deadline.cancel()


@contextmanager
def database() -> Iterator[dict[str, str]]:
    """An empty database of the kind that is under test, as environment variables."""
    if _IS_FILE:
        yield {}
        return
    with _made("") as url:
        yield {"DATABASE_URL": url}


@contextmanager
def provisioned(file: Path) -> Iterator[dict[str, str]]:
    """The same with its tables and a superuser, which are copied faster than made; `file`, if it is one."""
    if _IS_FILE:
        file.parent.mkdir(parents=True, exist_ok=True)
        with closing(sqlite3.connect(_template())) as made, closing(sqlite3.connect(file)) as copy:
            made.backup(copy)
        file.chmod(0o600)
        yield {"DATABASE_URL": f"sqlite:///{file}"}
        return
    with _made(f"TEMPLATE {_template()}") as url:
        yield {"DATABASE_URL": url}


@cache
def _template() -> str:
    """A database that is provisioned and never used: its file or its name."""
    kept = ExitStack()
    atexit.register(kept.close)
    folder = Path(kept.enter_context(tempfile.TemporaryDirectory(prefix="tollgate-template-")))
    file = folder / "tollgate.sqlite3"
    url = f"sqlite:///{file}" if _IS_FILE else kept.enter_context(_made(""))
    variables = {"DATABASE_URL": url, "DJANGO_SUPERUSER_PASSWORD": "of no use here"}
    subprocess.run(
        [sys.executable, str(MANAGE), "shell", "--command", _PROVISION],
        env=environment(folder / "data", **variables),
        check=True,
        stdout=subprocess.DEVNULL,
    )
    return str(file) if _IS_FILE else url.partition("?")[0].rpartition("/")[2]


@contextmanager
def _made(how: str) -> Iterator[str]:
    """The address of a database of its own on the server under test, made so."""
    url, name = os.environ["DATABASE_URL"], f"tollgate_{uuid.uuid4().hex}"
    _execute(url, f"CREATE DATABASE {name} {how}")
    try:
        head, _, tail = url.partition("?")
        yield head.rpartition("/")[0] + "/" + name + (f"?{tail}" if tail else "")
    finally:
        _execute(url, f"DROP DATABASE {name} WITH (FORCE)")


def _execute(url: str, statement: str) -> None:
    with closing(psycopg2.connect(url, dbname="postgres")) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(statement)
