"""gunicorn, run in this process on a socket that is already bound."""

import os
import shutil
import socket
import sys
import tempfile
from typing import Any, Final, NoReturn

from gunicorn.app.base import BaseApplication
from gunicorn.arbiter import Arbiter
from gunicorn.workers.base import Worker as AnyWorker

from gateway.worker import STREAMS_FINISH_S

# How long workers have after a SIGTERM before they are killed: the streams' own time, then the time to
# settle what was cancelled and to close the database.
GRACEFUL_TIMEOUT_S: Final = STREAMS_FINISH_S + 10
# A worker whose event loop has not turned for this long is replaced.
STUCK_WORKER_S: Final = 60
# Longer than the idle time of the usual proxies, which would otherwise reuse a connection just closed.
KEEP_ALIVE_S: Final = 75
BACKLOG: Final = 2048
# Linux keeps it in memory; the file that is made there is anonymous.
SHARED_MEMORY: Final = "/dev/shm"  # noqa: S108  # nosec B108
METRICS_DIR_VARIABLE: Final = "PROMETHEUS_MULTIPROC_DIR"


class _Arbiter(Arbiter):
    """Ctrl-C stops as gracefully as SIGTERM does; a second one is impatient."""

    def handle_int(self) -> None:
        self.handle_term()


class _Gunicorn(BaseApplication):
    def __init__(self, options: dict[str, Any]) -> None:
        self._options = options
        super().__init__()

    def load_config(self) -> None:
        for name, value in self._options.items():
            self.cfg.set(name, value)

    def load(self) -> Any:
        from gateway.asgi import application

        return application

    def run(self) -> None:
        _Arbiter(self).run()


def share_metrics() -> None:
    """Gives the workers' counters an empty folder in common; before anything imports prometheus_client."""
    if "prometheus_client" in sys.modules:
        raise RuntimeError("prometheus_client was imported too early to share its counters between workers")
    os.environ[METRICS_DIR_VARIABLE] = tempfile.mkdtemp(prefix="tollgate-metrics-")


def serve(listener: socket.socket, *, workers: int) -> NoReturn:
    """Serves on `listener` until a signal ends the process; never returns.

    The application is imported here, once, before the workers are forked from this process: they share its
    memory. It must therefore start no thread at import.
    """
    options: dict[str, Any] = {
        "bind": f"fd://{listener.detach()}",
        "workers": workers,
        "worker_class": "gateway.worker.Worker",
        "preload_app": True,
        "graceful_timeout": GRACEFUL_TIMEOUT_S,
        "timeout": STUCK_WORKER_S,
        "keepalive": KEEP_ALIVE_S,
        "backlog": BACKLOG,
        # The heartbeat's file: never on a disk that may stall.
        **({"worker_tmp_dir": SHARED_MEMORY} if os.access(SHARED_MEMORY, os.W_OK) else {}),
        "proc_name": "tollgate",
        "control_socket_disable": True,
        "loglevel": "warning",
        "child_exit": _forget_worker,
        "on_exit": _remove_metrics,
    }
    _Gunicorn(options).run()
    raise SystemExit(0)


def _forget_worker(_: Arbiter, worker: AnyWorker) -> None:
    from prometheus_client.multiprocess import mark_process_dead

    mark_process_dead(worker.pid)  # type: ignore[no-untyped-call]


def _remove_metrics(_: Arbiter) -> None:
    shutil.rmtree(os.environ[METRICS_DIR_VARIABLE], ignore_errors=True)
