"""Gateway instances, each a master with its workers, and the supervisor that starts them again."""

import asyncio
import os
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

from chaos import ROOT
from processes import tree

WORKERS = 2
# As systemd's RestartSec: a gateway that ends is started again after so long.
RESTART_AFTER_S = 0.5
STARTS_WITHIN_S, SETTLED_AFTER_S = 20.0, 0.5
# What a file may grow to while its disk is full.
FULL_DISK_BYTES = 512


@dataclass
class Instance:
    """One gateway. `site` is the name of the database that it shares with others."""

    name: str
    site: str
    folder: Path
    variables: Mapping[str, str]
    has_own_clock: bool = False
    port: int = 0
    process: subprocess.Popen[bytes] | None = None
    #: When processes of it were killed, told to end, or stopped from running; host's time.
    kills: list[float] = field(default_factory=list)
    #: When one of its workers was halted: it may be taken for dead then.
    halts: list[float] = field(default_factory=list)
    stops: list[float] = field(default_factory=list)
    starts: int = 0
    _groups: set[int] = field(default_factory=set)
    _going: bool = True

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True)
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self.port = listener.getsockname()[1]
        self.log = self.folder / "log"
        self.clock = self.folder / "clock"
        self.set_clock(0)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def environment(self) -> dict[str, str]:
        """The least that it needs, so that no setting of the caller's leaks in."""
        return {
            **{name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ},
            "ENV_FILE": os.devnull,
            "DATA_DIR": str(self.folder / "data"),
            # A gateway that is killed leaves its counters' folder behind.
            "TMPDIR": str(self.folder),
            "HOST": "127.0.0.1",
            "PORT": str(self.port),
            "WEB_CONCURRENCY": str(WORKERS),
            **self.variables,
        }

    def start(self) -> None:
        environment = self.environment
        if self.has_own_clock:
            environment |= {
                "LD_PRELOAD": str(_libfaketime()),
                "FAKETIME_TIMESTAMP_FILE": str(self.clock),
                "FAKETIME_NO_CACHE": "1",
                # Only the time of day steps; what measures spans does not, on any machine.
                "FAKETIME_DONT_FAKE_MONOTONIC": "1",
                "NO_FAKE_STAT": "1",
            }
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, str(ROOT / "app" / "manage.py"), "serve"],
                env=environment,
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        self._groups.add(self.process.pid)
        self.starts += 1

    async def supervise(self) -> None:
        """Starts it, and again whenever it has ended, until `close`."""
        while self._going:
            self.start()
            assert self.process is not None
            while self.process.poll() is None:
                await asyncio.sleep(0.05)
            await asyncio.sleep(RESTART_AFTER_S)

    def processes(self) -> list[int]:
        """The process ids of the master and all that it has started; none while it does not run."""
        if self.process is None or self.process.poll() is not None:
            return []
        try:
            return tree(self.process.pid)
        except FileNotFoundError:
            return []

    def workers(self) -> list[int]:
        """The process ids of the workers, none while it starts."""
        return self.processes()[1:]

    async def wait_for_workers(self) -> None:
        """Until there is something to throw a fault at, but not for ever."""
        give_up_at = time.monotonic() + STARTS_WITHIN_S
        seen: list[int] = []
        while time.monotonic() < give_up_at:
            # While it starts, there is a process more, which says when it is ready.
            before, seen = seen, self.workers()
            if seen == before and len(seen) == WORKERS:
                return
            await asyncio.sleep(SETTLED_AFTER_S)

    def signal_worker(self, number: int, choice: int) -> int | None:
        """Sends a signal to one of the workers, and answers which; None if there is none."""
        pids = self.workers()
        if not pids:
            return None
        pid = pids[choice % len(pids)]
        self._note(number)
        if number == signal.SIGSTOP:
            self.halts.append(time.time())
        os.kill(pid, number)
        return pid

    def resume(self, pid: int) -> None:
        """Lets a process go on that SIGSTOP had halted."""
        os.kill(pid, signal.SIGCONT)
        self.kills.append(time.time())

    def signal_master(self, number: int) -> None:
        self._note(number)
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(number)

    def kill_all(self) -> None:
        """All its processes at once, as a power cut does."""
        self._note(signal.SIGKILL)
        for group in tuple(self._groups):
            try:
                os.killpg(group, signal.SIGKILL)
            except ProcessLookupError:
                # Its number may become somebody else's.
                self._groups.discard(group)

    def _note(self, number: int) -> None:
        (self.stops if number == signal.SIGTERM else self.kills).append(time.time())

    def fill_disk(self, *, full: bool) -> None:
        """While its disk is full, no file of its processes may grow."""
        wanted = FULL_DISK_BYTES if full else resource.RLIM_INFINITY
        for pid in self.workers():
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (wanted, resource.RLIM_INFINITY))

    def set_clock(self, step_s: int) -> None:
        """Its time of day from now on, as the difference to the machine's."""
        draft = self.clock.with_suffix(".draft")
        draft.write_text(f"{step_s:+d}\n")
        draft.replace(self.clock)

    def close(self) -> None:
        self._going = False
        self.kill_all()
        if self.process is not None:
            self.process.wait()


def _libfaketime() -> Path:
    found = find_spec("libfaketime")
    assert found is not None
    assert found.origin is not None
    return Path(found.origin).parent / "vendor" / "libfaketime" / "src" / "libfaketime.so.1"


def has_libfaketime() -> bool:
    """Whether the clock of a process can be stepped here."""
    return find_spec("libfaketime") is not None and _libfaketime().exists()
