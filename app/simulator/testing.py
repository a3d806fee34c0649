"""The simulator as a subprocess, for tests: start it, ask its journal, set its faults, give it recordings."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.request import Request, urlopen

import orjson

APP_FOLDER = Path(__file__).parent.parent
SETTLE_WITHIN_S = 60


class SimulatorProcess:
    """Runs while the `with` block does.

    Attributes:
        base_url: what an OpenAI client takes, `http://127.0.0.1:PORT/v1`.
    """

    def __init__(self, *options: str) -> None:
        command = [sys.executable, "-m", "simulator", "--port", "0", "--quit-with-parent", *options]
        self.process = subprocess.Popen(  # noqa: S603 the command is our own
            command, cwd=APP_FOLDER, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert self.process.stdout is not None
        announcement = self.process.stdout.readline().decode().split()
        if not announcement:
            self.stop()
            raise RuntimeError("the simulator did not start; its standard error says why")
        self.base_url = announcement[-1]
        self.root = self.base_url.removesuffix("/v1")

    def __enter__(self) -> SimulatorProcess:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> int:
        """Stop it and return its exit status."""
        self.process.terminate()
        status = self.process.wait(timeout=SETTLE_WITHIN_S)
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()
        return status

    def control(self, method: str, name: str, document: object = None) -> dict[str, Any]:
        """Call a control endpoint.

        Raises:
            urllib.error.HTTPError: it refuses.
        """
        data = None if document is None else orjson.dumps(document)
        request = Request(f"{self.root}/simulator/{name}", data=data, method=method)  # noqa: S310 loopback
        with urlopen(request, timeout=SETTLE_WITHIN_S) as answer:  # noqa: S310
            result: dict[str, Any] = orjson.loads(answer.read())
            return result

    def fault(self, action: str, *, times: int | None = 1, **match: str) -> None:
        """Set a fault for calls that match `method`, `path`, `model`, `contains`.

        A gateway's poller asks after open work at any moment: what it asks for must be named by its path.
        """
        if "path" not in match:
            match["except_agent"] = "tollgate-poller"
        self.control("POST", "faults", {"match": match, "action": action, "times": times})

    def release(self) -> None:
        """Let all calls go on that wait because a fault says so."""
        self.control("POST", "release")

    def record(self, *recordings: dict[str, Any]) -> list[str]:
        """Give answers beforehand; return the keys of their requests."""
        keys: list[str] = self.control("POST", "recordings", list(recordings))["keys"]
        return keys

    def finish(self, *ids: str, status: str = "completed", share: float | None = None) -> list[str]:
        """End the work on these objects, or on all; return the ids of those that were under way."""
        wanted = {"ids": ids} if ids else {}
        finished: list[str] = self.control("POST", "finish", {**wanted, "status": status, "share": share})[
            "finished"
        ]
        return finished

    def journal(self) -> list[dict[str, Any]]:
        """All calls in the journal, once none is open any more."""
        deadline = time.monotonic() + SETTLE_WITHIN_S
        while time.monotonic() < deadline:
            page = self.control("GET", "journal?limit=1000000")
            if page["open"] == 0:
                calls: list[dict[str, Any]] = page["calls"]
                return calls
            time.sleep(0.01)
        raise TimeoutError(f"{page['open']} calls are still open")

    def clear(self) -> None:
        """Forget the journal, the faults, the recordings, and all that was made."""
        for name in ("objects", "journal", "faults", "recordings"):
            self.control("DELETE", name)
