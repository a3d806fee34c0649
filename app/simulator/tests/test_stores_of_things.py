"""Vector stores, containers, skills and evals, by the official client."""

from __future__ import annotations

import io
import zipfile
from typing import Any

import openai
import pytest
from openai import OpenAI

from simulator.testing import SimulatorProcess


def file_of(client: OpenAI, text: bytes = b"the cat sat") -> str:
    return client.files.create(file=("notes.txt", text), purpose="assistants").id


def test_a_vector_store_holds_files_and_finds_them(client: OpenAI, simulator: SimulatorProcess) -> None:
    cat, dog = file_of(client), file_of(client, b"the dog ran")
    store = client.vector_stores.create(name="notes", file_ids=[cat])
    assert store.file_counts.completed == 1
    added = client.vector_stores.files.create_and_poll(dog, vector_store_id=store.id, attributes={"a": "b"})
    assert added.status == "completed"
    found = list(client.vector_stores.search(store.id, query="dog ran"))
    assert [one.file_id for one in found] == [dog, cat]
    assert simulator.journal()[-1]["usage"] == {"searches": 1}
    assert next(iter(client.vector_stores.files.content(dog, vector_store_id=store.id))).text == "the dog ran"
    listed = client.vector_stores.files.list(store.id, filter="completed", order="asc", limit=1)
    assert [one.id for one in listed] == [cat, dog]
    client.vector_stores.files.update(cat, vector_store_id=store.id, attributes={"c": "d"})
    assert client.vector_stores.files.delete(cat, vector_store_id=store.id).deleted
    assert client.files.retrieve(cat).id == cat
    assert client.vector_stores.retrieve(store.id).file_counts.total == 1
    assert client.vector_stores.update(store.id, name="other").name == "other"
    assert client.vector_stores.delete(store.id).deleted
    with pytest.raises(openai.NotFoundError, match="No vector store found"):
        client.vector_stores.files.list(store.id)


def test_a_batch_of_files_belongs_to_its_vector_store(client: OpenAI) -> None:
    one, other = client.vector_stores.create(name="one"), client.vector_stores.create(name="other")
    batch = client.vector_stores.file_batches.create_and_poll(
        one.id, file_ids=[file_of(client), file_of(client)]
    )
    assert batch.file_counts.completed == 2
    assert len(list(client.vector_stores.file_batches.list_files(batch.id, vector_store_id=one.id))) == 2
    assert client.vector_stores.file_batches.cancel(batch.id, vector_store_id=one.id).status == "completed"
    with pytest.raises(openai.NotFoundError):
        client.vector_stores.file_batches.retrieve(batch.id, vector_store_id=other.id)
    with pytest.raises(openai.NotFoundError):
        client.vector_stores.file_batches.create(one.id, file_ids=["file-none"])


def test_a_container_holds_files(client: OpenAI, simulator: SimulatorProcess) -> None:
    container = client.containers.create(name="box", file_ids=[file_of(client)])
    assert simulator.journal()[-1]["usage"] == {"sessions": 1, "memory_limit": "1g"}
    made = client.containers.files.create(container.id, file=("a.txt", b"abc"))
    assert (made.path, made.source, made.bytes) == ("/mnt/data/a.txt", "user", 3)
    assert client.containers.files.content.retrieve(made.id, container_id=container.id).read() == b"abc"
    assert len(list(client.containers.files.list(container.id))) == 2
    client.containers.files.delete(made.id, container_id=container.id)
    with pytest.raises(openai.NotFoundError):
        client.containers.files.retrieve(made.id, container_id=container.id)
    client.containers.delete(container.id)
    with pytest.raises(openai.NotFoundError):
        client.containers.retrieve(container.id)


def test_a_skill_has_versions_and_comes_back_as_a_zip(client: OpenAI) -> None:
    text = b"---\nname: sums\ndescription: Add numbers.\n---\n\nAdd."
    skill = client.skills.create(files=[("sums/SKILL.md", text)])
    assert (skill.name, skill.description, skill.latest_version) == ("sums", "Add numbers.", "1")
    version = client.skills.versions.create(skill.id, files=[("sums/SKILL.md", text)], default=True)
    assert version.version == "2"
    assert client.skills.retrieve(skill.id).default_version == "2"
    assert client.skills.update(skill.id, default_version="1").default_version == "1"
    with zipfile.ZipFile(io.BytesIO(client.skills.content.retrieve(skill.id).read())) as archive:
        assert archive.read("sums/SKILL.md") == text
    listed = client.skills.versions.list(skill.id, limit=1)
    assert [one.version for one in listed] == ["2", "1"]
    assert client.skills.versions.delete("2", skill_id=skill.id).deleted
    assert client.skills.delete(skill.id).deleted


def test_an_eval_samples_each_item_when_its_run_ends(lenient: OpenAI, simulator: SimulatorProcess) -> None:
    client = lenient  # its type of a run wants an error where there is none
    config: Any = {"type": "custom", "item_schema": {"type": "object"}}
    criterion: Any = {
        "type": "string_check",
        "name": "same",
        "input": "a",
        "operation": "eq",
        "reference": "a",
    }
    made = client.evals.create(name="e", data_source_config=config, testing_criteria=[criterion])
    source: Any = {
        "type": "completions",
        "model": "gpt-4o",
        "source": {"type": "file_content", "content": [{"item": {"q": "1"}}, {"item": {"q": "2"}}]},
        "input_messages": {"type": "template", "template": [{"role": "user", "content": "{{item.q}}"}]},
    }
    run = client.evals.runs.create(made.id, data_source=source)
    assert run.status == "queued"
    simulator.finish(run.id)
    ended = client.evals.runs.retrieve(run.id, eval_id=made.id)
    assert (ended.status, ended.result_counts.passed) == ("completed", 2)
    [usage] = ended.per_model_usage
    work = next(call for call in simulator.journal() if call["kind"] == "eval.run")
    assert work["usage"]["total_tokens"] == usage.total_tokens > 20
    items = list(client.evals.runs.output_items.list(run.id, eval_id=made.id, limit=1))
    assert sum(item.sample.usage.total_tokens for item in items) == usage.total_tokens
    other = client.evals.runs.create(made.id, data_source=source)
    assert client.evals.runs.cancel(other.id, eval_id=made.id).status == "canceled"
    assert client.evals.runs.delete(other.id, eval_id=made.id).deleted
    assert client.evals.delete(made.id).deleted
    with pytest.raises(openai.NotFoundError):
        client.evals.runs.retrieve(run.id, eval_id=made.id)
