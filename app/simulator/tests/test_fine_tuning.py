"""Fine-tuning jobs, by the official client, and fine-tunes as they were."""

from __future__ import annotations

import json
import threading
from typing import Any

import httpx2
import openai
import pytest
from openai import OpenAI

from simulator.testing import SimulatorProcess

HEADERS = {"Authorization": "Bearer sk-alice-0001"}
MODEL = "gpt-4o-mini-2024-07-18"


def training_file(client: OpenAI) -> str:
    line = json.dumps(
        {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}]}
    )
    return client.files.create(file=("train.jsonl", f"{line}\n".encode() * 10), purpose="fine-tune").id


def job(client: OpenAI, **more: Any) -> Any:
    return client.fine_tuning.jobs.create(model=MODEL, training_file=training_file(client), **more)


def test_a_job_ends_with_a_model_and_the_tokens_it_was_trained_on(
    client: OpenAI, simulator: SimulatorProcess
) -> None:
    made = job(client, suffix="mine", hyperparameters={"n_epochs": 2})
    assert made.status == "validating_files"
    seen = [client.fine_tuning.jobs.retrieve(made.id).status for _ in range(3)]
    assert seen == ["queued", "running", "running"]
    simulator.finish(made.id)
    ended = client.fine_tuning.jobs.retrieve(made.id)
    assert (ended.status, ended.finished_at is not None) == ("succeeded", True)
    assert ended.trained_tokens
    assert ended.trained_tokens % 20 == 0
    work = next(call for call in simulator.journal() if call["kind"] == "fine_tuning.job")
    assert work["usage"] == {"trained_tokens": ended.trained_tokens}
    assert work["outcome"] == "succeeded"
    messages = [event.message for event in client.fine_tuning.jobs.list_events(made.id, limit=1)]
    assert messages[0] == "The job has successfully completed"
    assert len(list(client.fine_tuning.jobs.checkpoints.list(made.id))) == 3
    assert client.files.content(ended.result_files[0]).read()
    model = str(ended.fine_tuned_model)
    assert model.startswith(f"ft:{MODEL}:tollgate:mine:")
    assert model in [one.id for one in client.models.list()]
    assert client.chat.completions.create(model=model, messages=[{"role": "user", "content": "Hi"}]).usage
    assert client.models.delete(model).deleted


def test_jobs_are_paused_resumed_cancelled_and_listed(client: OpenAI) -> None:
    first, second = job(client), job(client)
    paused: Any = client.post(f"/fine_tuning/jobs/{first.id}/pause", cast_to=object)
    assert paused["status"] == "paused"  # which the client's own type doesn't know
    assert client.fine_tuning.jobs.resume(first.id).status == "queued"
    assert client.fine_tuning.jobs.cancel(first.id).status == "cancelled"
    with pytest.raises(openai.BadRequestError, match='already has status "cancelled"'):
        client.fine_tuning.jobs.cancel(first.id)
    assert [one.id for one in client.fine_tuning.jobs.list(limit=1)] == [second.id, first.id]
    with pytest.raises(openai.NotFoundError, match="Could not find fine tune: 123"):
        client.fine_tuning.jobs.retrieve("123")


def test_half_a_job_is_half_the_tokens(client: OpenAI, simulator: SimulatorProcess) -> None:
    whole, half = job(client), job(client)
    simulator.finish(whole.id)
    simulator.finish(half.id, status="cancelled")
    tokens = [client.fine_tuning.jobs.retrieve(one.id).trained_tokens or 0 for one in (whole, half)]
    assert tokens[0] == 2 * tokens[1] > 0


def test_a_job_needs_its_file_and_model(client: OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="invalid training_file"):
        client.fine_tuning.jobs.create(model=MODEL, training_file="file-none")
    with pytest.raises(openai.BadRequestError, match="not available for fine-tuning"):
        client.fine_tuning.jobs.create(model="none", training_file=training_file(client))


def test_permissions_and_graders(client: OpenAI) -> None:
    permissions = client.fine_tuning.checkpoints.permissions
    made = list(permissions.create("ft:x", project_ids=["proj_1", "proj_2"]))
    assert permissions.delete(made[0].id, fine_tuned_model_checkpoint="ft:x").deleted
    grader: Any = {"type": "string_check", "name": "g", "input": "a", "operation": "eq", "reference": "yes"}
    assert client.fine_tuning.alpha.graders.run(grader=grader, model_sample="yes").reward == 1


def test_fine_tunes_as_they_were(client: OpenAI, simulator: SimulatorProcess) -> None:
    def call(method: str, path: str, body: Any = None) -> Any:
        return httpx2.request(method, f"{simulator.base_url}/{path}", headers=HEADERS, json=body, timeout=60)

    made = call("POST", "fine-tunes", {"training_file": training_file(client), "model": "ada"}).json()
    assert (made["object"], made["status"]) == ("fine-tune", "pending")
    assert call("GET", f"fine-tunes/{made['id']}").json()["status"] == "running"
    assert len(call("GET", f"fine-tunes/{made['id']}/events").json()["data"]) == 1
    later = threading.Timer(0.2, simulator.finish, [made["id"]])
    later.start()
    streamed = call("GET", f"fine-tunes/{made['id']}/events?stream=true")
    later.join()
    assert streamed.headers["content-type"].startswith("text/event-stream")
    assert streamed.text.count("data: {") == 3
    assert streamed.text.endswith("data: [DONE]\n\n")
    ended = call("GET", f"fine-tunes/{made['id']}").json()
    assert ended["fine_tuned_model"].startswith("ada:ft-")
    assert call("POST", f"fine-tunes/{made['id']}/cancel", {}).status_code == 400
    other = call("POST", "fine-tunes", {"training_file": training_file(client)}).json()
    assert call("POST", f"fine-tunes/{other['id']}/cancel").json()["status"] == "cancelled"
    assert [one["id"] for one in call("GET", "fine-tunes").json()["data"]] == [made["id"], other["id"]]
    assert call("DELETE", f"models/{ended['fine_tuned_model']}").json()["deleted"]
