"""A server that answers by OpenAI's description alone, and says of each request whether the description
allows it: Steady, `@stdy/cli` of npm. Tests that need it are skipped where it is not on the PATH."""

import json
import queue
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from openai_app.tests import description
from openai_app.tests.harness import PATIENCE_S

COMMAND = shutil.which("steady")
REASON = "OpenAI's description is not beside the project, or `steady` of npm's @stdy/cli is not on the PATH"
IS_AT_HAND = COMMAND is not None and description.FILE.exists()


class Mock:
    """A running one. `url` is an OPENAI_BASE_URL; its paths are those of the description, without `/v1`."""

    def __init__(self, process: subprocess.Popen[str], url: str) -> None:
        self.url = url
        self._log: queue.Queue[dict[str, Any]] = queue.Queue()
        self._process = process
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith("{"):
                self._log.put(json.loads(line))

    def next(self, mark: str) -> dict[str, Any]:
        """The next request that it was sent with this `X-Client-Request-Id`, and what was wrong with it.

        Those of the gateway itself, which asks after deferred work, are passed over.
        """
        while True:
            told = self._log.get(timeout=PATIENCE_S)
            if told["type"] == "request" and told["request"]["headers"].get("x-client-request-id") == mark:
                return told

    def stop(self) -> None:
        self._process.terminate()
        self._reader.join()

    def wait_until_it_serves(self) -> None:
        while self._log.get(timeout=PATIENCE_S)["type"] != "startup":
            pass


@contextmanager
def running() -> Iterator[Mock]:
    assert COMMAND is not None
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    options = [
        "--host=127.0.0.1",
        f"--port={port}",
        "--log-format=json",
        "--log-level=full",
        "--stream-interval=1",
    ]
    command = [COMMAND, *options, str(description.FILE)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        mock = Mock(process, f"http://127.0.0.1:{port}")
        try:
            mock.wait_until_it_serves()
            yield mock
        finally:
            mock.stop()
