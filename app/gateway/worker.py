"""The worker process: uvicorn under gunicorn, tuned for many small requests and long streams."""

import asyncio
import gc
import os
import signal
from typing import Any, Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn_worker import UvicornWorker

# After a SIGTERM, open streams have this long before they are cancelled (and then settled).
STREAMS_FINISH_S: Final = 25
# A worker says that it lives, and looks whether the process that started it still does, each time that the
# server asks whether it is due: every second. The server goes by the time of day, which may step back.
HEARTBEAT_IS_DUE_AFTER_S: Final = float("-inf")
# A request line and headers that are larger get 400: neither parser nor server sets a bound of its own.
MAX_HEAD_BYTES: Final = 64 * 1024
# A connection that has not sent a request's head by then is closed: a client that sends a byte now and then,
# or none, would keep it for nothing. The server bounds only the time between requests.
HEAD_WITHIN_S: Final = 20
# The largest message on a WebSocket; of the client's the server holds one at a time.
MAX_FRAME_BYTES: Final = 16 * 1024 * 1024
# After the freeze only what requests left behind is looked at, so collections may be rare: with Python's
# own 700 they are the tail of the latency.
GC_THRESHOLDS: Final = (50_000, 20, 20)
# After so many heartbeats old objects are looked at as well: a few milliseconds.
COLLECT_ALL_BEATS: Final = 60


class BoundedProtocol(HttpToolsProtocol):
    """HTTP/1.1 with bounds on what one request may send before its body, and on the time that may take.

    A request that comes while the one before it is being answered is not: the connection ends with that
    answer, as the client must expect (RFC 9112, section 9.3.2). The server would stop reading, and not notice
    when the client leaves a call that costs money.
    """

    _head_bytes: int | None = None
    _head_timer: asyncio.TimerHandle | None = None
    _is_upgraded = False
    _reads_no_more = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as the server's
        super().connection_made(transport)
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        super().connection_lost(exc)

    def handle_websocket_upgrade(self) -> None:
        if self._reads_no_more:
            return
        self._is_upgraded = True
        super().handle_websocket_upgrade()

    def on_message_begin(self) -> None:
        if self._is_answering:
            self._reads_no_more = True
            self.cycle.keep_alive = False
        else:
            self._head_bytes = 0
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        if self._reads_no_more:
            return
        self._head_bytes = None
        self._stop_waiting()
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        if not self._reads_no_more:
            super().on_body(body)

    def on_message_complete(self) -> None:
        if not self._reads_no_more:
            super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        if not self._is_answering or (self.cycle.more_body and not self.cycle.response_started):
            super().send_400_response(msg)
        elif self.cycle.more_body:
            # It would stand amid the answer.
            self.transport.close()
        else:
            self._reads_no_more = True
            self.cycle.keep_alive = False

    def data_received(self, data: bytes) -> None:
        if self._reads_no_more:
            return
        super().data_received(data)
        if self._head_bytes is not None:
            self._head_bytes += len(data)
            if self._head_bytes > MAX_HEAD_BYTES and not self.transport.is_closing():
                self.send_400_response("Request line and headers are too large.")
        if self._head_bytes is not None or (not self._is_answering and not self._is_upgraded):
            # Part of a head, or what comes before one, or behind a body that was refused.
            self._await_head()

    @property
    def _is_answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _await_head(self) -> None:
        if self._head_timer is None:
            self._head_timer = self.loop.call_later(HEAD_WITHIN_S, self._head_is_late)

    def _stop_waiting(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _head_is_late(self) -> None:
        self._head_timer = None
        self.transport.close()


class Worker(UvicornWorker):  # type: ignore[misc]  # the package has no types
    """Freezes what start-up made once it is over, so that garbage collections do not walk it again."""

    CONFIG_KWARGS: Final[dict[str, Any]] = {
        "loop": "uvloop",
        "http": BoundedProtocol,
        "ws": "websockets-sansio",
        "ws_max_size": MAX_FRAME_BYTES,
        # Speech in base64 hardly shrinks, and each connection would keep a compressor's memory.
        "ws_per_message_deflate": False,
        "lifespan": "on",
        "timeout_graceful_shutdown": STREAMS_FINISH_S,
        "timeout_notify": HEARTBEAT_IS_DUE_AFTER_S,
        # Forwarding headers are read by Django, and only behind a proxy (`BEHIND_TLS_PROXY`).
        "proxy_headers": False,
        "server_header": False,
        "access_log": False,
    }
    _is_frozen = False
    _heartbeats = 0

    async def callback_notify(self) -> None:
        """The heartbeat; the first one comes when the application's start-up is complete."""
        self.notify()
        if os.getppid() != self.ppid:
            # Nobody is left to replace or stop this worker, and it would keep the port.
            os.kill(os.getpid(), signal.SIGTERM)
        self._heartbeats += 1
        if self._is_frozen:
            # By their number alone it could take minutes until it is the young objects' turn, and until then
            # Django's circles, each with a request of its own, would be kept.
            gc.collect(2 if self._heartbeats % COLLECT_ALL_BEATS == 0 else 0)
        else:
            gc.collect()
            gc.freeze()
            gc.set_threshold(*GC_THRESHOLDS)
            self._is_frozen = True
