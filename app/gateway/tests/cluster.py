"""A PostgreSQL server of a test's own, which may be stopped, and frozen: it then takes connections and says
nothing, as one does whose disk or host hangs."""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

NAME = "tollgate"


def binaries() -> Path | None:
    """The folder of `initdb` and `pg_ctl`: on the path, or where Debian keeps them."""
    on_path = shutil.which("initdb")
    found = [Path(on_path).resolve().parent] if on_path else []
    found += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return next((folder for folder in found if (folder / "pg_ctl").exists()), None)


class Cluster:
    """`url` is a DATABASE_URL of an empty database."""

    def __init__(self, programs: Path, folder: Path) -> None:
        self._programs = programs
        self._folder = folder
        self._data = folder / "data"
        # PostgreSQL refuses to run as root; Debian's package and the official image have this user.
        self._user = "postgres" if os.geteuid() == 0 else None
        with socket.create_server(("127.0.0.1", 0)) as free:
            self._port = free.getsockname()[1]
        self.url = f"postgresql://postgres@127.0.0.1:{self._port}/{NAME}"

    def make(self) -> None:
        if self._user:
            shutil.chown(self._folder, self._user)
        self._call("initdb", "-D", self._data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-sync")
        self.start()
        self._call("createdb", "-h", "127.0.0.1", "-p", str(self._port), "-U", "postgres", NAME)

    def start(self) -> None:
        options = f"-p {self._port} -c listen_addresses=127.0.0.1 -c unix_socket_directories="
        # What is not synced is lost only with the machine. Tests end processes, and lose nothing by that.
        options += " -c fsync=off -c full_page_writes=off -c autovacuum=off"
        log = self._folder / "log"
        self._call("pg_ctl", "-D", self._data, "-w", "-l", log, "-o", options, "start")

    def stop(self, how: str = "fast") -> None:
        self._call("pg_ctl", "-D", self._data, "-m", how, "stop")

    def freeze(self) -> None:
        """Halts the server and all of its processes where they are."""
        server = self._server()
        # The server first: once it stands still there are no new ones.
        os.kill(server, signal.SIGSTOP)
        for process in _children(server):
            # Some end by themselves meanwhile, such as one whose client has gone.
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGSTOP)

    def thaw(self) -> None:
        server = self._server()
        for process in (server, *_children(server)):
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGCONT)

    def _server(self) -> int:
        return int((self._data / "postmaster.pid").read_text().splitlines()[0])

    def _call(self, program: str, *arguments: str | Path) -> None:
        command = [self._programs / program, *arguments]
        subprocess.run(
            command, user=self._user, cwd=self._folder, check=True, stdout=subprocess.DEVNULL, timeout=120
        )


def _children(server: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{server}/task/{server}/children").read_text().split()]


@contextmanager
def cluster() -> Iterator[Cluster]:
    """A running one; `binaries` must be there."""
    programs = binaries()
    assert programs is not None
    folder = Path(tempfile.mkdtemp(prefix="tollgate-pg-"))
    made = Cluster(programs, folder)
    try:
        made.make()
        yield made
    finally:
        with suppress(OSError, subprocess.CalledProcessError):
            made.thaw()
            made.stop("immediate")
        shutil.rmtree(folder, ignore_errors=True)
