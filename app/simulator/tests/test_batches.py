"""Batches, by the official client."""

from __future__ import annotations

import json
from typing import Any

import openai
import pytest
from openai import OpenAI

from simulator.testing import SimulatorProcess

CHAT = {"model": "gpt-4o", "messages": [{"role": "user", "content": "Hello!"}]}


def batch(client: OpenAI, endpoint: str, bodies: list[Any], **more: Any) -> Any:
    lines = [
        json.dumps({"custom_id": f"line-{index}", "method": "POST", "url": endpoint, "body": body})
        for index, body in enumerate(bodies)
    ]
    file = client.files.create(file=("in.jsonl", "\n".join(lines).encode()), purpose="batch")
    made: Any = {"input_file_id": file.id, "endpoint": endpoint, "completion_window": "24h", **more}
    return client.batches.create(**made)


def lines_of(client: OpenAI, file_id: str | None) -> list[Any]:
    assert file_id is not None
    return [json.loads(line) for line in client.files.content(file_id).text.splitlines()]


def test_a_batch_is_answered_line_by_line_when_it_ends(client: OpenAI, simulator: SimulatorProcess) -> None:
    bad = {**CHAT, "model": "none"}
    failing = {**CHAT, "messages": [{"role": "user", "content": "[[simulate: status=500]]"}]}
    made = batch(client, "/v1/chat/completions", [CHAT, bad, CHAT, failing])
    assert made.status == "validating"
    assert client.batches.retrieve(made.id).status == "in_progress"
    simulator.finish(made.id)
    ended = client.batches.retrieve(made.id)
    assert (ended.status, ended.completed_at is not None) == ("completed", True)
    assert ended.request_counts is not None
    assert ended.request_counts.to_dict() == {"total": 4, "completed": 2, "failed": 2}
    answered = lines_of(client, ended.output_file_id)
    assert [line["custom_id"] for line in answered] == ["line-0", "line-2"]
    total = sum(line["response"]["body"]["usage"]["total_tokens"] for line in answered)
    assert ended.usage is not None
    assert ended.usage.total_tokens == total
    errors = lines_of(client, ended.error_file_id)
    assert [line["response"]["status_code"] for line in errors] == [404, 500]
    work = next(call for call in simulator.journal() if call["kind"] == "batch")
    assert (work["object_id"], work["outcome"]) == (made.id, "completed")
    assert work["usage"] == ended.usage.to_dict()


@pytest.mark.parametrize(
    ("endpoint", "body"),
    [
        ("/v1/embeddings", {"model": "text-embedding-3-small", "input": "Hello!"}),
        ("/v1/responses", {"model": "gpt-4o", "input": "Hello!"}),
        ("/v1/completions", {"model": "gpt-3.5-turbo-instruct", "prompt": "Hello!"}),
        ("/v1/chat/completions", CHAT),
    ],
)
def test_each_endpoint_answers_in_a_batch_as_it_does_alone(
    client: OpenAI, simulator: SimulatorProcess, endpoint: str, body: Any
) -> None:
    alone: Any = client.post(endpoint.removeprefix("/v1"), body=body, cast_to=object)
    made = batch(client, endpoint, [body])
    simulator.finish(made.id)
    [line] = lines_of(client, client.batches.retrieve(made.id).output_file_id)
    assert line["response"]["body"]["usage"] == alone["usage"]


def test_a_cancelled_batch_is_paid_for_as_far_as_it_got(client: OpenAI, simulator: SimulatorProcess) -> None:
    made = batch(client, "/v1/chat/completions", [CHAT] * 4)
    assert client.batches.cancel(made.id).status == "cancelling"
    ended = client.batches.retrieve(made.id)
    assert ended.status == "cancelled"
    assert len(lines_of(client, ended.output_file_id)) == 2
    with pytest.raises(openai.ConflictError):
        client.batches.cancel(made.id)


def test_a_batch_ends_by_itself_when_told_beforehand(client: OpenAI) -> None:
    made = batch(
        client, "/v1/chat/completions", [CHAT], metadata={"simulate": "[[simulate: finish_after=0]]"}
    )
    while client.batches.retrieve(made.id).status != "completed":
        pass


def test_work_ends_by_itself_when_the_simulator_was_started_so() -> None:
    with (
        SimulatorProcess("--finish-after", "0") as simulator,
        OpenAI(base_url=simulator.base_url, api_key="sk-alice-0001") as client,
    ):
        made = batch(client, "/v1/chat/completions", [CHAT])
        while client.batches.retrieve(made.id).status != "completed":
            pass


def test_a_failed_batch_costs_nothing(client: OpenAI, simulator: SimulatorProcess) -> None:
    made = batch(client, "/v1/chat/completions", [CHAT])
    simulator.finish(made.id, status="failed")
    ended = client.batches.retrieve(made.id)
    assert (ended.status, ended.output_file_id) == ("failed", None)
    assert ended.usage is not None
    assert ended.usage.total_tokens == 0


def test_a_batch_needs_a_file_of_its_purpose(client: OpenAI) -> None:
    file = client.files.create(file=b"{}", purpose="user_data")
    for id in (file.id, "file-none"):
        with pytest.raises(openai.BadRequestError, match="input_file_id"):
            client.batches.create(input_file_id=id, endpoint="/v1/chat/completions", completion_window="24h")


def test_batches_are_listed(client: OpenAI) -> None:
    ids = [batch(client, "/v1/chat/completions", [CHAT]).id for _ in range(3)]
    assert [one.id for one in client.batches.list(limit=2)] == ids[::-1]
