"""The gateways that are measured, each started as a process of its own on the core given to it."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from processes import tree

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
STARTS_WITHIN_S = 60
STOPS_WITHIN_S = 60


@dataclass
class Gateway:
    """One that serves: its processes are `pids`, the server's own and its worker."""

    name: str
    host: str
    pids: Sequence[int]
    keys: Path
    #: The environment of its database's commands; None where it has no database.
    environment: dict[str, str] | None = None


@contextlib.contextmanager
def upstream() -> Iterator[str]:
    """The HOST:PORT of the stand-in for OpenAI."""
    process = subprocess.Popen([sys.executable, str(HERE / "upstream.py")], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield f"127.0.0.1:{process.stdout.readline().strip()}"
    finally:
        process.kill()
        process.wait()


@contextlib.contextmanager
def simulator() -> Iterator[str]:
    """The HOST:PORT of the simulator, without its journal, which would grow with each call."""
    command = [sys.executable, "-m", "simulator", "--port", "0", "--no-journal"]
    process = subprocess.Popen(command, cwd=ROOT / "app", stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield process.stdout.readline().strip().partition("http://")[2].removesuffix("/v1")
    finally:
        process.kill()
        process.wait()


@contextlib.contextmanager
def bare(upstream_host: str, cores: set[int], keys: Path) -> Iterator[Gateway]:
    """The yardstick; it takes any key."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        descriptor = listener.fileno()
        host = f"127.0.0.1:{listener.getsockname()[1]}"
        command = [sys.executable, str(HERE / "bare.py"), f"http://{upstream_host}/v1", str(descriptor)]
        process = subprocess.Popen(command, pass_fds=[descriptor])
    with _stopped_at_the_end(process, cores):
        _wait_until_answers(f"http://{host}/v1/models")
        yield Gateway("bare relay", host, _settled_tree(process.pid), keys)


@contextlib.contextmanager
def tollgate(
    name: str,
    database_url: str,
    upstream_host: str,
    cores: set[int],
    folder: Path,
    accounts: int,
    workers: int = 1,
) -> Iterator[Gateway]:
    """Tollgate as `make run` serves it, with users who have credits and keys."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    environment = {
        # Of the caller's environment only what a program needs: settings of a gateway must not leak in.
        **{name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ},
        "ENV_FILE": str(folder / "none"),
        "DATA_DIR": str(folder),
        "DATABASE_URL": database_url,
        "OPENAI_API_KEY": "the-operators-key",
        "OPENAI_BASE_URL": f"http://{upstream_host}/v1",
        "HOST": "127.0.0.1",
        "PORT": str(port),
        "WEB_CONCURRENCY": str(workers),
    }
    folder.mkdir()
    command = [sys.executable, str(ROOT / "app" / "manage.py"), "serve"]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
    with _stopped_at_the_end(process, cores):
        host = f"127.0.0.1:{port}"
        _wait_until_answers(f"http://{host}/readyz")
        keys = folder / "keys"
        keys.write_text(run_script(environment, HERE / "accounts.py", "make", str(accounts)))
        yield Gateway(name, host, _settled_tree(process.pid), keys, environment)


def run_script(environment: dict[str, str], *arguments: str | Path) -> str:
    """The standard output of a Python script. Raises CalledProcessError when it fails."""
    command = [sys.executable, *arguments]
    return subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True).stdout


@contextlib.contextmanager
def _stopped_at_the_end(process: subprocess.Popen[bytes], cores: set[int]) -> Iterator[None]:
    # Before it has started a thread or a worker, which get what it has.
    os.sched_setaffinity(process.pid, cores)
    try:
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(STOPS_WITHIN_S)


def _wait_until_answers(url: str) -> None:
    give_up_at = time.monotonic() + STARTS_WITHIN_S
    while True:
        try:
            urllib.request.urlopen(url, timeout=5).close()
            return
        except urllib.error.HTTPError:
            return
        except OSError:
            if time.monotonic() > give_up_at:
                raise
            time.sleep(0.1)


def _settled_tree(pid: int) -> list[int]:
    """The processes that stay, once what only helps at the start has ended and the worker has settled."""
    time.sleep(2)
    return tree(pid)
