"""Calls with an `Idempotency-Key`, and a look at what is kept of them."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPResponse
from typing import Any

from openai_app.tests.harness import JSON, Answer, Caller, chat_body, wait_for

REPLAYED = "idempotent-replayed"


def keyed(key: str) -> dict[str, str]:
    """The headers of a JSON call."""
    return {**JSON, "Idempotency-Key": key}


def chat(caller: Caller, key: str, does: str = "", /, **fields: Any) -> Answer:
    """A chat completion; `does` are directives for the simulator."""
    return caller.call("POST", "/v1/chat/completions", chat_body(does, **fields), keyed(key))


@contextmanager
def chat_stream(caller: Caller, key: str, does: str = "", /, **fields: Any) -> Iterator[HTTPResponse]:
    body = chat_body(does, stream=True, **fields)
    with caller.open("POST", "/v1/chat/completions", body, keyed(key)) as response:
        yield response


def post(caller: Caller, key: str, path: str, /, **fields: Any) -> Answer:
    headers = {**keyed(key), "OpenAI-Beta": "assistants=v2"}
    return caller.call("POST", f"/v1{path}", json.dumps(fields).encode(), headers)


def raw(caller: Caller, key: str, path: str, body: bytes) -> bytes:
    """A call as the bytes that go over a connection."""
    return (
        f"POST {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {caller.key}\r\nidempotency-key: {key}\r\n"
        f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    ).encode() + body


def until_ended(caller: Caller, key: str, path: str, body: bytes) -> Answer:
    """The answer to a repeated call once the first one is no longer under way."""
    answers: list[Answer] = []

    def has_ended() -> bool:
        answers.append(caller.call("POST", path, body, keyed(key)))
        return answers[-1].status != 409

    wait_for(has_ended)
    return answers[-1]


def assert_replayed(again: Answer, first: Answer) -> None:
    """It is the same answer, and says so."""
    assert (again.status, again.body) == (first.status, first.body)
    assert again.headers["content-type"] == first.headers["content-type"]
    assert REPLAYED not in first.headers
    assert again.headers[REPLAYED] == "true"
    assert again.request_id != first.request_id
    assert again.headers["x-original-request-id"] == first.request_id
    assert again.headers["x-balance-charged"] == "0"


# --- for the console ----------------------------------------------------------------------------------------


def kept_rows() -> list[dict[str, Any]]:
    """What is kept, less the bodies; oldest first."""
    from openai_app.models import IdempotentCall

    found = IdempotentCall.objects.order_by("created_at").values("request_id", "status", "headers")
    return [{**row, "request_id": row["request_id"].hex} for row in found]


def grow_older(hours: float) -> None:
    """Has all that is kept be so much older."""
    from datetime import timedelta

    from django.db.models import DateTimeField, ExpressionWrapper, F

    from openai_app.models import IdempotentCall

    earlier = ExpressionWrapper(F("created_at") - timedelta(hours=hours), output_field=DateTimeField())
    IdempotentCall.objects.update(created_at=earlier)


def finish_without_a_charge(request_id: str, body: bytes, units: dict[str, int]) -> None:
    """Keeps an answer as the process does that serves it, which dies before it posts the charge."""
    from balances.models import Hold
    from balances.operations import Progress
    from openai_app.idempotency import rows
    from openai_app.models import IdempotentCall

    row = IdempotentCall.objects.get(request_id=request_id)
    asked = rows.Asked(row.id, row.asked, request_id, row.worker_id.hex)
    told = Progress(request_id, Hold.objects.get(id=request_id).account_id, units)
    assert rows.finish(asked, 200, [(b"content-type", b"application/json")], body, told)
