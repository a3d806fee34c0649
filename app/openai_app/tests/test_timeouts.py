"""An upstream that says nothing: the relay itself, with a short patience, before an upstream of bare sockets.

Ten minutes, what the gateway really waits, are too long for a test; so here it runs in this process.
"""

import asyncio
import threading
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.db import connections

from balances import ledger
from balances.models import Account, Entry, Hold
from balances.writer import Writer
from openai_app import upstream
from openai_app.relay import Relay
from openai_app.settlement import charge
from openai_app.tests.harness import PATIENCE_S, chat_body, events_of
from openai_app.tests.raw_upstream import STREAM_HEAD, Connection, RawUpstream, chunk
from openai_app.upstream import Upstream
from users.models import ApiKey, User

pytestmark = pytest.mark.django_db(transaction=True)
WORD = b'data: {"choices":[{"index":0,"delta":{"content":"Hello there"}}]}\n\n'


@pytest.fixture
def silent() -> Iterator[RawUpstream]:
    opened = RawUpstream()
    yield opened
    opened.close()


@pytest.fixture
def key(db: None) -> str:
    """A key of a user who has 1,000 credits."""
    user = User.objects.create_user("alice@example.org")
    ledger.set_balance(user_id=user.pk, to_credits=1000, by_id=None, reason="For a test")
    return ApiKey.issue(user=user, name="Test")[1]


@pytest.fixture
async def relay(
    silent: RawUpstream, monkeypatch: pytest.MonkeyPatch, db: None, tmp_path: Path
) -> AsyncIterator[Relay]:
    monkeypatch.setattr(upstream, "READ_TIMEOUT_S", 1.5)
    writer = Writer(uuid.uuid4().hex, tmp_path)
    writer.start()
    relay = Relay(writer, Upstream(silent.base_url, api_key="sk-x"))
    yield relay
    await relay.close()
    await writer.stop()
    # Those of the thread on which asynchronous tests reach the database.
    await sync_to_async(connections.close_all)()


@asynccontextmanager
async def saying_nothing_after(data: bytes, silent: RawUpstream) -> AsyncIterator[None]:
    """The upstream sends `data` and then nothing for as long as the block runs."""
    is_over = threading.Event()

    def serve(connection: Connection) -> None:
        connection.send(data)
        is_over.wait(PATIENCE_S)

    with silent.serving(serve):
        try:
            yield
        finally:
            is_over.set()


async def call(relay: Relay, key: str, body: bytes) -> tuple[int, dict[bytes, bytes], bytes]:
    """A call through the relay, by a client that stays: status, headers and body of its answer."""
    sent: list[dict[str, Any]] = []
    requests = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> Any:
        if requests:
            return requests.pop()
        await asyncio.sleep(PATIENCE_S)
        raise AssertionError("it went on for too long")

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": "POST",
        "path": "/v1/chat/completions",
        "query_string": b"",
        "headers": [(b"authorization", f"Bearer {key}".encode()), (b"content-type", b"application/json")],
    }
    await relay(scope, receive, send)
    return sent[0]["status"], dict(sent[0]["headers"]), b"".join(each.get("body", b"") for each in sent[1:])


@pytest.mark.parametrize("stream", [False, True], ids=["json", "stream"])
async def test_an_upstream_that_never_answers_becomes_a_504_that_costs_nothing(
    relay: Relay, silent: RawUpstream, key: str, stream: bool
) -> None:
    async with saying_nothing_after(b"", silent):
        status, headers, body = await call(relay, key, chat_body(stream=stream))
    assert status == 504
    assert headers[b"retry-after"] == b"1"
    assert b'"upstream_timeout"' in body
    hold = await Hold.objects.aget()
    assert (hold.state, hold.reason) == (Hold.State.VOIDED, charge.FAILED)
    account = await Account.objects.aget(user_id=hold.account_id)
    assert (account.balance, account.held) == (1000, 0)


async def test_half_an_answer_that_never_goes_on_becomes_a_504_that_costs_nothing(
    relay: Relay, silent: RawUpstream, key: str
) -> None:
    half = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{"
    async with saying_nothing_after(half, silent):
        status, _, body = await call(relay, key, chat_body())
    assert (status, b'"upstream_timeout"' in body) == (504, True)
    assert (await Hold.objects.aget()).state == Hold.State.VOIDED


async def test_a_stream_that_never_goes_on_ends_with_an_error_and_costs_what_had_come(
    relay: Relay, silent: RawUpstream, key: str
) -> None:
    async with saying_nothing_after(STREAM_HEAD + chunk(WORD), silent):
        status, _, body = await call(relay, key, chat_body(stream=True))
    assert status == 200
    word, error = events_of(body)
    assert word["choices"][0]["delta"]["content"] == "Hello there"
    assert error["error"]["code"] == "upstream_timeout"
    entry = await Entry.objects.aget(kind=Entry.Kind.CHARGE)
    assert (entry.units, entry.reason) == ({"input": 9, "output": 2}, charge.BROKEN)
