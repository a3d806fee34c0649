"""Embeddings, completions, edits, engines, stored chat completions."""

from __future__ import annotations

import math
from typing import Any

import httpx2
import openai
import pytest
from openai import OpenAI

from simulator.testing import SimulatorProcess


@pytest.fixture
def client(lenient: OpenAI) -> OpenAI:
    """The client's types refuse packed vectors, unfinished choices, and messages of users."""
    return lenient


HEADERS = {"Authorization": "Bearer sk-alice-0001"}


def post(simulator: SimulatorProcess, path: str, body: Any) -> Any:
    answer = httpx2.post(f"{simulator.base_url}/{path}", headers=HEADERS, json=body, timeout=60)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_embeddings_are_of_length_one_and_alike_in_either_encoding(
    client: OpenAI, simulator: SimulatorProcess
) -> None:
    model = "text-embedding-3-small"
    packed = client.embeddings.create(model=model, input=["Ruby", "Python"])
    plain = client.embeddings.create(model=model, input=["Ruby", "Python"], encoding_format="float")
    assert [len(one.embedding) for one in packed.data] == [1536, 1536]
    assert packed.data[0].embedding == pytest.approx(plain.data[0].embedding, abs=1e-6)
    assert math.hypot(*plain.data[0].embedding) == pytest.approx(1)
    assert (
        simulator.journal()[0]["usage"] == packed.usage.to_dict() == {"prompt_tokens": 2, "total_tokens": 2}
    )


@pytest.mark.parametrize(
    ("given", "length"), [("Ruby", 1), (["Ruby", "Python"], 2), ([1, 2, 3], 3), ([[1, 2], [3]], 3)]
)
def test_every_form_of_input_is_counted(client: OpenAI, given: Any, length: int) -> None:
    answer = client.embeddings.create(model="text-embedding-3-small", input=given, dimensions=8)
    assert answer.usage.prompt_tokens == length
    assert len(answer.data[0].embedding) == 8


def test_completions_are_paid_for_each_prompt_and_the_best_of_all(client: OpenAI) -> None:
    answer = client.completions.create(
        model="gpt-3.5-turbo-instruct", prompt=["a", "b"], n=2, best_of=3, max_tokens=5, echo=True
    )
    assert [choice.index for choice in answer.choices] == [0, 1, 2, 3]
    assert answer.choices[2].text.startswith("b")
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (2, 2 * 3 * 5)


def test_a_streamed_completion_is_the_same_text(client: OpenAI) -> None:
    asked: Any = {"model": "gpt-3.5-turbo-instruct", "prompt": "Hi", "max_tokens": 9, "suffix": "end"}
    whole = client.completions.create(**asked)
    chunks = list(client.completions.create(**asked, stream=True, stream_options={"include_usage": True}))
    assert "".join(c.choices[0].text for c in chunks if c.choices) == whole.choices[0].text
    assert chunks[-1].usage == whole.usage
    assert whole.usage is not None
    assert whole.usage.prompt_tokens == 2


def test_edits_report_usage(simulator: SimulatorProcess) -> None:
    body = {"model": "text-davinci-edit-001", "input": "thsi", "instruction": "fix it", "n": 2}
    answer = post(simulator, "edits", body)
    assert len(answer["choices"]) == 2
    assert simulator.journal()[0]["usage"] == answer["usage"]


def test_engines_complete_embed_and_search(simulator: SimulatorProcess) -> None:
    engines = httpx2.get(f"{simulator.base_url}/engines", headers=HEADERS, timeout=60).json()["data"]
    assert "davinci" in [engine["id"] for engine in engines]
    one = httpx2.get(f"{simulator.base_url}/engines/davinci", headers=HEADERS, timeout=60).json()
    assert (one["object"], one["ready"]) == ("engine", True)
    assert post(simulator, "engines/davinci/completions", {"prompt": "Hi"})["usage"]["prompt_tokens"] == 1
    embedded = post(simulator, "engines/text-embedding-ada-002/embeddings", {"input": "Hi"})
    assert len(embedded["data"][0]["embedding"]) == 1536
    documents = ["the white house", "a school"]
    found = post(simulator, "engines/ada/search", {"documents": documents, "query": "the president"})
    assert found["data"][0]["score"] > found["data"][1]["score"]
    assert simulator.journal()[-1]["usage"]["total_tokens"] > 5


def test_a_stored_chat_completion_is_found_listed_labelled_and_deleted(client: OpenAI) -> None:
    def ask(**more: Any) -> Any:
        return client.chat.completions.create(
            model="gpt-4o", messages=[{"role": "user", "content": "Hello!"}], **more
        )

    kept = ask(store=True, metadata={"who": "alice"})
    ask()
    streamed = ask(store=True, stream=True)
    ids = [kept.id, next(iter(streamed)).id]
    streamed.close()
    assert [one.id for one in client.chat.completions.list()] == ids
    assert [one.id for one in client.chat.completions.list(metadata={"who": "alice"})] == ids[:1]
    assert client.chat.completions.retrieve(kept.id).choices == kept.choices
    [message] = client.chat.completions.messages.list(kept.id)
    assert message.content == "Hello!"
    client.chat.completions.update(kept.id, metadata={"who": "bob"})
    assert [one.id for one in client.chat.completions.list(metadata={"who": "bob"})] == ids[:1]
    assert client.chat.completions.delete(kept.id).deleted
    with pytest.raises(openai.NotFoundError):
        client.chat.completions.retrieve(kept.id)


def test_a_wrong_method_and_an_unknown_path_are_told_apart(simulator: SimulatorProcess) -> None:
    file = f"{simulator.base_url}/files/file-1"
    assert httpx2.put(f"{file}/content", headers=HEADERS, timeout=60).status_code == 405
    assert httpx2.get(f"{file}/other", headers=HEADERS, timeout=60).status_code == 404
