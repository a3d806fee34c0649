"""An upstream of WebSockets that does what a test tells it, and the client at the other end."""

import json
import queue
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response
from websockets.sync.client import connect
from websockets.sync.connection import Connection
from websockets.sync.server import Server, ServerConnection, serve
from websockets.typing import Subprotocol

from openai_app.tests.harness import PATIENCE_S, Caller, House

MAX_BYTES = 32 * 1024 * 1024
REALTIME = "/v1/realtime?model=gpt-realtime"
RESPONSES = "/v1/responses"


class End:
    """One end of a connection: events in and out, as objects."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection

    def send(self, kind: str, **fields: Any) -> None:
        self.connection.send(json.dumps({"type": kind, **fields}))

    def frame(self) -> str | bytes:
        """The next frame as it came."""
        return self.connection.recv(timeout=PATIENCE_S)

    def event(self, kind: str | None = None) -> dict[str, Any]:
        """The next event, which must be of this kind if one is named."""
        event: dict[str, Any] = json.loads(self.frame())
        assert kind in (None, event["type"]), event
        return event

    def send_in_vain(self, text: str) -> None:
        """Sends what the other end may refuse before it has read all of it."""
        with suppress(ConnectionClosed):
            self.connection.send(text)

    def break_off(self) -> None:
        """Closes the connection without a word, unless the other end was quicker."""
        with suppress(OSError):
            self.connection.socket.shutdown(socket.SHUT_RDWR)

    def closed(self) -> tuple[int, str]:
        """Code and reason of the other end's close frame, with nothing before it."""
        with pytest.raises(ConnectionClosed) as closed:
            self.frame()
        frame = closed.value.rcvd
        assert frame is not None, "it broke off without a close frame"
        return frame.code, frame.reason


class SocketUpstream:
    """Accepts every connection and hands it to the test, unless it is told to refuse."""

    def __init__(self) -> None:
        self._accepted: queue.Queue[ServerConnection] = queue.Queue()
        self._over = threading.Event()
        self.refuse_with: Response | None = None
        self._server: Server = serve(
            self._serve,
            "127.0.0.1",
            0,
            process_request=self._answer_handshake,
            select_subprotocol=_select,
            compression=None,
            max_size=MAX_BYTES,
            ping_interval=None,
        )
        self.base_url = f"http://127.0.0.1:{self._server.socket.getsockname()[1]}/v1"
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()

    def accept(self) -> End:
        return End(self._accepted.get(timeout=PATIENCE_S))

    @property
    def is_untouched(self) -> bool:
        """Whether nobody has connected since the last `accept`."""
        return self._accepted.empty()

    def close(self) -> None:
        self._over.set()
        self._server.shutdown()
        self._thread.join()

    def _serve(self, connection: ServerConnection) -> None:
        self._accepted.put(connection)
        # The connection ends with this function.
        while not self._over.wait(0.1) and connection.close_code is None:
            pass

    def _answer_handshake(self, _: ServerConnection, __: Request) -> Response | None:
        return self.refuse_with


def _select(_: ServerConnection, offered: Any) -> Subprotocol | None:
    return Subprotocol("realtime") if "realtime" in offered else None


@contextmanager
def dialled(
    house: House, path: str, headers: Mapping[str, str], protocols: tuple[str, ...] = ()
) -> Iterator[End]:
    """A client's end."""
    with connect(
        house.url.replace("http", "ws", 1) + path,
        additional_headers=dict(headers),
        subprotocols=[Subprotocol(name) for name in protocols] or None,
        compression=None,
        max_size=MAX_BYTES,
        ping_interval=None,
        open_timeout=PATIENCE_S,
        close_timeout=PATIENCE_S,
    ) as connection:
        yield End(connection)


@contextmanager
def connected(caller: Caller, upstream: SocketUpstream, path: str = REALTIME) -> Iterator[tuple[End, End]]:
    """Both ends of a connection through the gateway: the caller's and OpenAI's."""
    with dialled(caller.house, path, {"Authorization": f"Bearer {caller.key}"}) as client:
        yield client, upstream.accept()


def begin(openai: End, response_id: str = "resp_1", **fields: Any) -> None:
    openai.send("response.created", response={"id": response_id, "conversation_id": "conv_1", **fields})


def done(openai: End, response_id: str = "resp_1", *, text: int = 0, spoken: int = 0, **fields: Any) -> None:
    """Ends a realtime response that read ten tokens; without `text` and `spoken` nothing is reported."""
    usage = None
    if text or spoken:
        usage = {
            "input_tokens": 10,
            "output_tokens": text + spoken,
            "input_token_details": {"text_tokens": 10},
            "output_token_details": {"text_tokens": text, "audio_tokens": spoken},
        }
    response = {
        "id": response_id,
        "conversation_id": "conv_1",
        "status": "completed",
        "usage": usage,
        **fields,
    }
    openai.send("response.done", response=response)
