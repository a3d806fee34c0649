"""The application that gunicorn's workers serve: the relay beside Django, in one process.

/v1/…, /api/openai/…          the relay: pure ASGI, metered (and /modules/openai/…)
/healthz, /readyz, /metrics   for operators and load balancers
everything else               Django
"""

import asyncio
import os
import uuid
import warnings
from typing import cast

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "gateway.settings")
django.setup(set_prefix=False)
# Static files are read whole before they are sent, which is what they should be: they are small.
warnings.filterwarnings("ignore", "StreamingHttpResponse must consume synchronous iterators")

from django.conf import settings  # noqa: E402  (Django must be set up first)
from django.core.asgi import get_asgi_application  # noqa: E402
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest, multiprocess  # noqa: E402

from balances.operations import PlaceHold  # noqa: E402
from balances.writer import Writer  # noqa: E402
from common.asgi import JSON, Application, Receive, Scope, Send, respond, respond_error  # noqa: E402
from common.errors import ApiError, KeyRejected, Unavailable  # noqa: E402
from gateway.turns import Turns  # noqa: E402
from openai_app.metering import preload  # noqa: E402
from openai_app.relay import PREFIXES, Relay  # noqa: E402
from openai_app.upstream import Upstream  # noqa: E402


class Gateway:
    """One for each process. What needs an event loop is made when the server announces its lifespan."""

    def __init__(self) -> None:
        preload()
        self._django = cast(Application, get_asgi_application())
        self._relay: Relay | None = None
        self._writer: Writer | None = None
        self._control_plane: Turns | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            try:
                await self._serve(scope, receive, send)
            except asyncio.CancelledError:
                await self._stop_early(send)
        elif scope["type"] == "lifespan":
            await self._live(receive, send)
        elif scope["type"] == "websocket":
            assert self._relay is not None
            await self._relay(scope, receive, send)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        assert self._relay is not None
        assert self._control_plane is not None
        path: str = scope["path"]
        if f"{path}/".startswith(PREFIXES):
            await self._relay(scope, receive, send)
            return
        asked = path.rstrip("/")
        if asked == "/healthz":
            await respond(send, 200, [JSON], b'{"status": "ok"}')
        elif asked == "/readyz":
            await self._say_ready(send)
        elif asked == "/metrics":
            await respond(send, 200, [(b"content-type", CONTENT_TYPE_LATEST.encode())], metrics())
        else:
            await self._control_plane(scope, receive, send)

    async def _stop_early(self, send: Send) -> None:
        """The gateway stops, and the time that open calls had is over: tells whoever can still be told."""
        try:
            await respond_error(send, Unavailable("The gateway is being stopped; try again."))
        except RuntimeError:
            # The answer has begun. This error has the server break the connection off, so that nobody takes
            # what has come for the whole.
            raise asyncio.CancelledError from None

    async def _say_ready(self, send: Send) -> None:
        """Ready means that the writer reaches the database; asking for a key that cannot be tells it."""
        assert self._writer is not None
        question = PlaceHold("", digest="", operation="", model="", estimate=None, worker_id="")
        try:
            await self._writer.submit(question)
        except KeyRejected:
            await respond(send, 200, [JSON], b'{"status": "ready"}')
        except ApiError:
            await respond_error(send, Unavailable("The database does not answer."))

    async def _live(self, receive: Receive, send: Send) -> None:
        await receive()
        self._writer = writer = Writer(uuid.uuid4().hex, settings.DATA_DIR / "spool")
        self._writer.start()
        self._control_plane = Turns(self._django, is_stuck=lambda: writer.is_stuck)
        upstream = Upstream(
            settings.OPENAI_BASE_URL,
            api_key=settings.OPENAI_API_KEY,
            organization=settings.OPENAI_ORGANIZATION,
            project=settings.OPENAI_PROJECT,
        )
        self._relay = Relay(self._writer, upstream)
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await self._relay.close()
        await self._writer.stop()
        await send({"type": "lifespan.shutdown.complete"})


def metrics() -> bytes:
    """Prometheus' text; of all workers together where they share a folder for it."""
    if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
        return generate_latest()
    registry = CollectorRegistry()
    multiprocess.MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    return generate_latest(registry)


application = Gateway()
