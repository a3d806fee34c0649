"""A socket whose client takes nothing any more: the relay itself, with a short patience.

A quarter of an hour, what the gateway really waits, is too long for a test; so here it runs in this process.
"""

import asyncio
import json
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from asgiref.sync import sync_to_async
from django.db import connections
from websockets.exceptions import ConnectionClosed

from balances import ledger
from balances.models import Entry
from balances.writer import Writer
from common.asgi import Message
from openai_app.relay import Relay
from openai_app.settlement import charge
from openai_app.sockets import socket
from openai_app.tests.harness import PATIENCE_S, wait_for
from openai_app.tests.sockets.upstream import SocketUpstream
from openai_app.upstream import Upstream
from users.models import ApiKey, User

pytestmark = pytest.mark.django_db(transaction=True)


class StuckClient:
    """A server's side of a client that says one thing, and takes nothing after the handshake."""

    def __init__(self, frame: str) -> None:
        self._said: list[Message] = [
            {"type": "websocket.connect"},
            {"type": "websocket.receive", "text": frame},
        ]
        self.transport = self
        self.is_broken_off = asyncio.Event()

    async def receive(self) -> Message:
        if not self._said:
            await self.is_broken_off.wait()
            return {"type": "websocket.disconnect", "code": 1005}
        return self._said.pop(0)

    async def send(self, message: Message) -> None:
        if message["type"] != "websocket.accept":
            await self.is_broken_off.wait()

    def abort(self) -> None:
        self.is_broken_off.set()

    def get_extra_info(self, _: str) -> None:
        """It has no socket."""

    def get_write_buffer_size(self) -> int:
        return 100_000


@pytest.fixture
def key(db: None) -> str:
    """A key of a user who has 10,000 credits."""
    user = User.objects.create_user("alice@example.org")
    ledger.set_balance(user_id=user.pk, to_credits=10_000, by_id=None, reason="For a test")
    return ApiKey.issue(user=user, name="Test")[1]


@pytest.fixture
async def relay(socket_upstream: SocketUpstream, db: None, tmp_path: Path) -> AsyncIterator[Relay]:
    writer = Writer(uuid.uuid4().hex, tmp_path)
    writer.start()
    relay = Relay(writer, Upstream(socket_upstream.base_url, api_key="sk-x"))
    yield relay
    await relay.close()
    await writer.stop()
    # Those of the thread on which asynchronous tests reach the database.
    await sync_to_async(connections.close_all)()


def dialled(relay: Relay, key: str, client: StuckClient) -> "asyncio.Future[None]":
    scope = {
        "type": "websocket",
        "path": "/v1/realtime",
        "query_string": b"model=gpt-realtime",
        "subprotocols": [],
        "headers": [(b"authorization", f"Bearer {key}".encode())],
    }
    return asyncio.ensure_future(relay(scope, client.receive, client.send))


async def test_a_client_that_is_stuck_when_its_socket_is_given_up_keeps_nothing(
    relay: Relay, socket_upstream: SocketUpstream, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket, "IDLE_S", 2)
    monkeypatch.setattr(socket, "LEAVE_S", PATIENCE_S)
    client = StuckClient(json.dumps({"type": "response.create"}))
    call = dialled(relay, key, client)
    openai = await asyncio.to_thread(socket_upstream.accept)
    await asyncio.to_thread(openai.event, "response.create")
    openai.send("response.created", response={"id": "resp_1"})
    # OpenAI's connection ends while the client's end is still waited for …
    with pytest.raises(ConnectionClosed):
        await asyncio.to_thread(openai.frame)
    assert not client.is_broken_off.is_set()
    client.abort()
    await call
    await sync_to_async(wait_for)(Entry.objects.filter(kind=Entry.Kind.CHARGE, reason=charge.LEFT).exists)


async def test_a_client_that_does_not_read_the_end_is_broken_off(
    relay: Relay, socket_upstream: SocketUpstream, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket, "LEAVE_S", 0.3)
    client = StuckClient(json.dumps({"type": "input_audio_buffer.clear"}))
    call = dialled(relay, key, client)
    openai = await asyncio.to_thread(socket_upstream.accept)
    await asyncio.to_thread(openai.connection.close)
    await asyncio.wait_for(call, PATIENCE_S)
    assert client.is_broken_off.is_set()
