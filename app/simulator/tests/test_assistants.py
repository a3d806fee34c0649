"""Assistants, threads, messages and runs, by the official client, and the files of version 1."""

from __future__ import annotations

from typing import Any

import httpx2
import openai
import pytest
from openai import OpenAI

from simulator.testing import SimulatorProcess

HEADERS = {"Authorization": "Bearer sk-alice-0001"}
WEATHER: Any = {"type": "function", "function": {"name": "get_weather", "parameters": {"type": "object"}}}


# The client says of each method that assistants are deprecated.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


def begun(client: OpenAI, text: str = "Hello!", **more: Any) -> Any:
    """A run that has just been created."""
    assistant = client.beta.assistants.create(model="gpt-4o", name="Ada", **more)
    thread = client.beta.threads.create(messages=[{"role": "user", "content": text}])
    return client.beta.threads.runs.create(thread.id, assistant_id=assistant.id, instructions="Be brief.")


def again(client: OpenAI, run: Any) -> Any:
    return client.beta.threads.runs.retrieve(run.id, thread_id=run.thread_id)


def test_assistants_are_made_changed_listed_and_deleted(client: OpenAI) -> None:
    made = [client.beta.assistants.create(model="gpt-4o", name=f"n{index}") for index in range(3)]
    assert [one.id for one in client.beta.assistants.list(limit=2)] == [one.id for one in made[::-1]]
    assert client.beta.assistants.update(made[0].id, name="other").name == "other"
    assert client.beta.assistants.delete(made[0].id).object == "assistant.deleted"
    with pytest.raises(openai.NotFoundError, match=f"No assistant found with id '{made[0].id}'."):
        client.beta.assistants.retrieve(made[0].id)


def test_messages_belong_to_their_thread(client: OpenAI) -> None:
    one, other = client.beta.threads.create(), client.beta.threads.create(metadata={"a": "b"})
    message: Any = client.beta.threads.messages.create(one.id, role="user", content="Hello!")
    assert message.content[0].text.value == "Hello!"
    assert [m.id for m in client.beta.threads.messages.list(one.id)] == [message.id]
    with pytest.raises(openai.NotFoundError):
        client.beta.threads.messages.retrieve(message.id, thread_id=other.id)
    assert client.beta.threads.delete(one.id).deleted
    with pytest.raises(openai.NotFoundError, match="No thread found"):
        client.beta.threads.messages.list(one.id)


def test_a_run_ends_when_it_is_told_to_and_only_then_shows_its_usage(
    client: OpenAI, simulator: SimulatorProcess
) -> None:
    run = begun(client)
    assert (run.status, run.usage) == ("queued", None)
    assert again(client, run).status == "in_progress"
    simulator.finish(run.id)
    ended = again(client, run)
    assert ended.status == "completed"
    answer, _ = client.beta.threads.messages.list(run.thread_id, run_id=run.id), None
    assert [message.role for message in answer] == ["assistant"]
    [step] = client.beta.threads.runs.steps.list(run.id, thread_id=run.thread_id)
    assert step.usage is not None
    assert step.usage.total_tokens == ended.usage.total_tokens
    work = next(call for call in simulator.journal() if call["kind"] == "thread.run")
    assert (work["object_id"], work["outcome"]) == (run.id, "completed")
    assert work["usage"]["total_tokens"] == ended.usage.total_tokens


def test_a_run_waits_for_the_outputs_of_its_tools(client: OpenAI, simulator: SimulatorProcess) -> None:
    assistant = client.beta.assistants.create(model="gpt-4o", tools=[WEATHER])
    thread: Any = {"messages": [{"role": "user", "content": "Weather?"}]}
    run: Any = client.beta.threads.create_and_run(
        assistant_id=assistant.id, thread=thread, tool_choice="required"
    )
    simulator.finish(run.id)
    waiting = again(client, run)
    assert (waiting.status, waiting.usage) == ("requires_action", None)
    [call] = waiting.required_action.submit_tool_outputs.tool_calls
    outputs: Any = [{"tool_call_id": call.id, "output": "rain"}]
    with pytest.raises(openai.BadRequestError, match="Expected tool outputs"):
        client.beta.threads.runs.submit_tool_outputs(run.id, thread_id=run.thread_id, tool_outputs=[])
    going: Any = client.beta.threads.runs.submit_tool_outputs(
        run.id, thread_id=run.thread_id, tool_outputs=outputs
    )
    assert going.status == "queued"
    simulator.finish(run.id)
    ended = again(client, run)
    assert ended.status == "completed"
    turns = [call["usage"]["total_tokens"] for call in simulator.journal() if call["kind"] == "thread.run"]
    assert len(turns) == 2
    assert sum(turns) == ended.usage.total_tokens
    with pytest.raises(openai.BadRequestError, match='Runs in status "completed" do not accept'):
        client.beta.threads.runs.submit_tool_outputs(run.id, thread_id=run.thread_id, tool_outputs=outputs)


def test_a_streamed_run_tells_everything_in_order(client: OpenAI, simulator: SimulatorProcess) -> None:
    assistant = client.beta.assistants.create(model="gpt-4o")
    thread = client.beta.threads.create(messages=[{"role": "user", "content": "Hello!"}])
    with client.beta.threads.runs.stream(thread_id=thread.id, assistant_id=assistant.id) as stream:
        names = [event.event for event in stream]
        [message] = stream.get_final_messages()
        run = stream.get_final_run()
    assert list(dict.fromkeys(names)) == [
        "thread.run.created",
        "thread.run.queued",
        "thread.run.in_progress",
        "thread.run.step.created",
        "thread.run.step.in_progress",
        "thread.message.created",
        "thread.message.in_progress",
        "thread.message.delta",
        "thread.message.completed",
        "thread.run.step.completed",
        "thread.run.completed",
    ]
    assert message.content
    work = [call for call in simulator.journal() if call["kind"] == "thread.run"]
    assert run.usage is not None
    assert [call["usage"]["total_tokens"] for call in work] == [run.usage.total_tokens]
    assert len(list(client.beta.threads.messages.list(thread.id))) == 2


def test_a_run_whose_reader_left_goes_on_without_a_second_message(
    client: OpenAI, simulator: SimulatorProcess
) -> None:
    assistant = client.beta.assistants.create(model="gpt-4o")
    thread: Any = {
        "messages": [{"role": "user", "content": "[[simulate: tokens=90 stall=600 stall_after=9]]"}]
    }
    stream = client.beta.threads.create_and_run(assistant_id=assistant.id, thread=thread, stream=True)
    run: Any = next(event.data for event in stream if event.event == "thread.run.created")
    stream.close()
    simulator.finish(run.id)
    assert again(client, run).usage.completion_tokens == 90
    assert len(list(client.beta.threads.messages.list(run.thread_id))) == 2


def test_runs_are_cancelled_limited_and_fail(client: OpenAI, simulator: SimulatorProcess) -> None:
    run = begun(client)
    assert client.beta.threads.runs.cancel(run.id, thread_id=run.thread_id).status == "cancelling"
    assert again(client, run).status == "cancelled"
    failed = begun(client)
    simulator.finish(failed.id, status="failed")
    assert (again(client, failed).status, again(client, failed).usage) == ("failed", None)
    limited = begun(client)
    thread, assistant = limited.thread_id, limited.assistant_id
    with pytest.raises(openai.BadRequestError, match="already has an active run"):
        client.beta.threads.runs.create(thread, assistant_id=assistant)
    simulator.finish(limited.id)
    short = client.beta.threads.runs.create(thread, assistant_id=assistant, max_completion_tokens=3)
    simulator.finish(short.id)
    assert again(client, short).status == "incomplete"


def test_the_files_of_version_one_are_there(client: OpenAI, simulator: SimulatorProcess) -> None:
    def call(method: str, path: str, body: Any = None) -> Any:
        return httpx2.request(method, f"{simulator.base_url}/{path}", headers=HEADERS, json=body, timeout=60)

    file = client.files.create(file=b"x", purpose="assistants")
    assistant = call("POST", "assistants", {"model": "gpt-4", "file_ids": [file.id]}).json()
    path = f"assistants/{assistant['id']}/files"
    assert [one["id"] for one in call("GET", path).json()["data"]] == [file.id]
    assert call("GET", f"{path}/{file.id}").json()["object"] == "assistant.file"
    assert call("DELETE", f"{path}/{file.id}").json()["deleted"]
    assert call("POST", path, {"file_id": file.id}).json()["assistant_id"] == assistant["id"]
    assert call("POST", path, {"file_id": "file-none"}).status_code == 404
    thread = call("POST", "threads", {}).json()
    message = call(
        "POST",
        f"threads/{thread['id']}/messages",
        {"role": "user", "content": "x", "file_ids": [file.id]},
    ).json()
    path = f"threads/{thread['id']}/messages/{message['id']}/files"
    assert [one["id"] for one in call("GET", path).json()["data"]] == [file.id]
    assert call("GET", f"{path}/{file.id}").status_code == 200
    assert [one["id"] for one in call("GET", "threads").json()["data"]] == [thread["id"]]
