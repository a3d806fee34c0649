"""Calls that cost nothing by mistake in other gateways, and must not here; see docs/lessons.md."""

import asyncio
import json
import threading
import uuid
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.db import connections
from django.utils import timezone

from balances.models import MICRO, Hold
from balances.operations import Defer
from balances.rates import Book
from balances.tests.acting import Person, done
from balances.tests.test_writer import until
from balances.units import UNITS
from balances.writer import Writer
from openai_app.catalogue import CATALOGUE, Operation
from openai_app.owned.records import THREADS, Records
from openai_app.settlement import charge, deferred
from openai_app.settlement.deferred import Settler
from openai_app.tests.harness import HELLO, PATIENCE_S, Caller, House
from openai_app.tests.raw_upstream import Connection, RawUpstream
from openai_app.upstream import Upstream

HELLO_TOKENS = 9
PLENTY = 100_000
MISSING = "tollgate_usage_missing_total"

# --- nothing passes unmetered ---------------------------------------------------------------------------

# What OpenAI does not charge a call for, or charges as part of another: each was looked up by hand.
FREE_IN_FAMILIES = (
    ("Getinputtokencounts", "createModeration", "validateGrader"),
    ("cancelResponse", "cancelBatch", "cancelRun", "cancelEvalRun", "cancelUpload", "cancelFineTune"),
    ("cancelFineTuningJob", "pauseFineTuningJob", "resumeFineTuningJob"),
    ("cancelVectorStoreFileBatch", "CancelChatSessionMethod"),
    ("createConversation", "updateConversation", "createConversationItems", "updateChatCompletion"),
    ("createVoiceConsent", "updateVoiceConsent"),
    ("createFile", "createUpload", "addUploadPart", "completeUpload", "CreateContainerFile"),
    ("createEval", "updateEval", "CreateSkill", "CreateSkillVersion", "UpdateSkillDefaultVersion"),
    ("createVectorStore", "modifyVectorStore", "createVectorStoreFile", "createVectorStoreFileBatch"),
    ("updateVectorStoreFileAttributes", "createAssistant", "modifyAssistant", "createAssistantFile"),
    ("createThread", "modifyThread", "createMessage", "modifyMessage", "modifyRun"),
    # Charged with the run's end.
    ("submitToolOuputsToRun",),
)
FREE = {name for family in FREE_IN_FAMILIES for name in family}


def test_no_operation_passes_unmetered_but_those_known_to_be_free() -> None:
    """A new row of the catalogue without a meter fails here, until someone has looked it up."""
    posts = [row for row in CATALOGUE if row.method == "POST" and not row.refused]
    unmetered = {row.name for row in posts if row.meter.estimate is None}
    assert unmetered == FREE
    assert all(row.method in ("GET", "DELETE", "POST") for row in CATALOGUE)


@pytest.mark.parametrize(
    "path",
    [
        "/v1/chat/completions/unknown",
        "/v1/engines/gpt-4o-mini/unknown",
        "/v1/passthrough/chat/completions",
        "/v1/openai/deployments/x/chat/completions",
        "/v1/organization/usage/completions",
        "/v1/proxy?url=https://api.openai.com/v1/chat/completions",
        "/v1/chat//completions",
        "/v1/chat/completions%2f..%2fmodels",
        "/api/openai/anything",
    ],
)
@pytest.mark.parametrize("method", ["POST", "GET", "PUT", "DELETE", "PATCH", "OPTIONS"])
def test_no_pass_through_route_skips_the_budget(alice: Caller, method: str, path: str) -> None:
    """What is not in the catalogue is refused; nothing reaches the upstream."""
    answer = alice.call(method, path, None if method == "GET" else b'{"model": "gpt-4o-mini"}')
    assert answer.status in (404, 405)
    assert alice.house.journal() == []


# --- missing usage, missing prices ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "usage",
    [
        None,
        {},
        [],
        "12",
        {"prompt_tokens": None, "completion_tokens": None},
        {"prompt_tokens": "nine", "completion_tokens": "four"},
        {"prompt_tokens": -9, "completion_tokens": -4},
        {"prompt_tokens": 9, "completion_tokens": None},
        {"prompt_tokens": True, "completion_tokens": True},
        {"total_tokens": 12},
    ],
    ids=["null", "empty", "list", "text", "nulls", "texts", "below zero", "one null", "true", "total alone"],
)
@pytest.mark.parametrize("stream", [False, True], ids=["json", "stream"])
def test_missing_usage_costs_the_hold_and_never_zero_and_raises_a_counter(
    gateway: House, alice: Caller, usage: Any, stream: bool
) -> None:
    before = gateway.metric(MISSING, operation="createChatCompletion")
    word = {"id": "x", "choices": [{"index": 0, "delta": {"content": "Hi"}, "message": {"content": "Hi"}}]}
    request: dict[str, Any] = {"model": "gpt-4o-mini", "messages": HELLO, "max_tokens": 40}
    body, kind = json.dumps({**word, "usage": usage}), "application/json"
    if stream:
        request["stream"] = True
        body, kind = f"data: {body}\n\ndata: [DONE]\n\n", "text/event-stream"
    gateway.simulator.record({"request": request, "body": body, "headers": {"content-type": kind}})
    answer = alice.call("POST", "/v1/chat/completions", json.dumps(request).encode())
    assert answer.status == 200
    (entry,) = alice.charges()
    assert (entry["amount"], entry["reason"]) == (-alice.hold_of(answer)["amount"], charge.NO_USAGE)
    assert alice.balance() == PLENTY - HELLO_TOKENS - 40
    assert gateway.metric(MISSING, operation="createChatCompletion") == before + 1


@pytest.mark.parametrize("model", ["gpt-of-next-year", "GPT-4O-MINI", "ft:gpt-9:x::y", "7", "мodel"])
def test_a_model_without_a_price_never_costs_0(gateway: House, alice: Caller, model: str) -> None:
    """A token of it costs a credit, as of any other."""
    request = {"model": model, "messages": HELLO, "max_tokens": 40}
    usage = {"prompt_tokens": 30, "completion_tokens": 12, "total_tokens": 42}
    gateway.simulator.record(
        {
            "request": request,
            "body": json.dumps({"id": "x", "choices": [], "usage": usage}),
            "headers": {"content-type": "application/json"},
        }
    )
    answer = alice.call("POST", "/v1/chat/completions", json.dumps(request).encode())
    # A fine-tuned model may be refused, for it has an owner; what is served is paid for.
    assert (answer.status == 200) or model.startswith("ft:")
    assert alice.balance() == (PLENTY - 42 if answer.status == 200 else PLENTY)


@pytest.mark.parametrize("unit", UNITS)
def test_a_unit_without_a_price_never_costs_0(unit: str) -> None:
    """Whatever is counted has a price before an operator has set one, and beside those that are set."""
    priced_in_part = Book([("a-model*", "input", 5 * MICRO), ("a-model*", "output", 0)])
    assert Book().price("a-model-of-next-year", {unit: 1}) >= 1
    # Reasoning is output as well, and was made free with it.
    if unit not in ("output", "reasoning"):
        assert priced_in_part.price("a-model-of-next-year", {unit: 1}) >= 1


# --- work that goes on ----------------------------------------------------------------------------------

FAILURES = 150


@pytest.fixture
def failing() -> Iterator[RawUpstream]:
    opened = RawUpstream()
    yield opened
    opened.close()


@pytest.mark.django_db(transaction=True)
async def test_deferred_work_is_never_dropped_however_often_and_long_it_cannot_be_settled(
    failing: RawUpstream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A batch begun a month ago, after 150 failures of all kinds, is paid for once its end is told."""
    for name in ("LEAST_PAUSE_S", "MOST_PAUSE_S", "TICK_S"):
        monkeypatch.setattr(deferred, name, 0.001)
    ann = await sync_to_async(begun_a_month_ago)()
    batch = {
        "id": "batch_1",
        "object": "batch",
        "status": "completed",
        "usage": {"input_tokens": 10, "output_tokens": 7, "total_tokens": 17},
    }
    asked = 0

    def serve(connection: Connection) -> None:
        nonlocal asked
        answers = failures()
        for number in range(FAILURES):
            connection.send(answers[number % len(answers)])
            connection.close()
            asked += 1
            connection = failing.accept()
        connection.send(answer_of(200, json.dumps(batch).encode()))
        connection.close()

    writer = Writer(uuid.uuid4().hex, tmp_path)
    writer.start()
    records, upstream = Records(lambda: writer.is_stuck), Upstream(failing.base_url, api_key="sk-x")
    with failing.serving(serve):
        settler = Settler(writer, upstream, records)
        going = asyncio.ensure_future(settler.run())
        await until(lambda: ann.account()[1] == 0)
        going.cancel()
        await asyncio.gather(going, return_exceptions=True)
    assert asked == FAILURES
    assert await sync_to_async(ann.charges)() == [("charge", -17, 983)]
    await upstream.close()
    await writer.stop()
    both = threading.Barrier(THREADS)
    # Each thread's own: none takes a second task before the other has one.
    await asyncio.gather(*[records.run(lambda: closed_at(both)) for _ in range(THREADS)])
    records.close()
    await sync_to_async(connections.close_all)()


def closed_at(barrier: threading.Barrier) -> None:
    """Closes a thread's connection to the database, and meets the others who do."""
    connections.close_all()
    barrier.wait(PATIENCE_S)


def begun_a_month_ago() -> Person:
    """Somebody with 1,000 credits and a batch."""
    ann = Person("ann", 1000)
    hold = ann.hold(10, 20)
    done(hold)
    done(Defer(hold.hold_id, ann.id, "batch /batches/batch_1"))
    Hold.objects.filter(id=hold.hold_id).update(created_at=timezone.now() - timedelta(days=30))
    return ann


def answer_of(status: int, body: bytes, kind: str = "application/json") -> bytes:
    head = f"HTTP/1.1 {status} X\r\ncontent-type: {kind}\r\ncontent-length: {len(body)}\r\n"
    return head.encode() + b"connection: close\r\n\r\n" + body


def failures() -> list[bytes]:
    """Answers of OpenAI that tell nothing of the end of the work."""
    return [
        answer_of(500, b'{"error": {"message": "x"}}'),
        answer_of(429, b'{"error": {"message": "x"}}'),
        answer_of(401, b'{"error": {"message": "x"}}'),
        answer_of(502, b"<html>", "text/html"),
        answer_of(200, b"<html>", "text/html"),
        answer_of(200, b"{"),
        answer_of(200, b"[]"),
        b"",
        b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{",
        answer_of(200, b'{"id": "batch_1", "object": "batch", "status": "in_progress"}'),
    ]


# --- credentials that lead past the gateway -------------------------------------------------------------

EPHEMERAL = (
    "/realtime/client_secrets",
    "/realtime/translations/client_secrets",
    "/realtime/sessions",
    "/realtime/transcription_sessions",
    "/realtime/calls",
    "/chatkit/sessions",
)


@pytest.mark.parametrize("path", EPHEMERAL)
@pytest.mark.parametrize("prefix", ["/v1", "/api/openai"])
@pytest.mark.parametrize("is_superuser", [False, True], ids=["user", "superuser"])
def test_ephemeral_keys_that_lead_past_the_gateway_are_refused(
    gateway: House, path: str, prefix: str, is_superuser: bool
) -> None:
    caller = gateway.caller(is_superuser=is_superuser)
    for at in (path, f"{path}/"):
        answer = caller.call("POST", f"{prefix}{at}", b'{"session": {"type": "realtime"}}')
        assert (answer.status, answer.error["code"]) == (403, "operation_not_offered")
        assert "past the gateway" in answer.error["message"]
    assert gateway.journal() == []


def hands_out_credentials(row: Operation) -> bool:
    return any(word in row.path for word in ("client_secret", "session", "realtime/calls"))


def test_every_operation_that_hands_out_credentials_is_among_the_refused() -> None:
    """By its path, so that one that OpenAI adds is noticed when its row is."""
    found = [row for row in CATALOGUE if row.method == "POST" and hands_out_credentials(row)]
    offered = {row.path for row in found if not row.refused}
    assert offered <= {"/chatkit/sessions/{chatkit_session_id}/cancel"}
    assert {row.path for row in found if "{" not in row.path} == set(EPHEMERAL)
