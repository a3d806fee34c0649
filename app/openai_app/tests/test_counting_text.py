"""Counting plain chats and texts, against what OpenAI published."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from openai_app.metering import chat, tokens
from openai_app.metering.models import find

# OpenAI's cookbook, How to count tokens with tiktoken (MIT): these messages and the counts beside them.
COOKBOOK = [
    {
        "role": "system",
        "content": "You are a helpful, pattern-following assistant that translates corporate jargon into "
        "plain English.",
    },
    {"role": "system", "name": "example_user", "content": "New synergies will help drive top-line growth."},
    {
        "role": "system",
        "name": "example_assistant",
        "content": "Things working well together will increase revenue.",
    },
    {
        "role": "system",
        "name": "example_user",
        "content": "Let's circle back when we have more bandwidth to touch base on opportunities for "
        "increased leverage.",
    },
    {
        "role": "system",
        "name": "example_assistant",
        "content": "Let's talk later when we're less busy about how to do better.",
    },
    {
        "role": "user",
        "content": "This late pivot means we don't have time to boil the ocean for the client deliverable.",
    },
]

# File name and SHA-256.
VOCABULARIES = """
fb374d419588a4632f3f557e76b4b70aebbca790 446a9538cb6c348e3516120d7c08b09f57c36495e2acfffe59a5bf8b0cfb1a2d
9b5ad71b2ce5302211f9c61530b329a4922fc6a4 223921b76ee99bde995b7ff738513eef100fb51d18c93597a113bcffe865b2a7
ec7223a39ce59f226a68acc30dc1af2788490e15 94b5ca7dff4d00767bc256fdd1b27e5b17361d7b8a5f968547f9f23eb70d2069
0ea1e91bbb3a60f729a8dc8f777fd2fc07cd8df4 306cd27f03c1a714eca7108e03d66b7dc042abe8c258b44c199a7ed9838dd930
"""


def counted(**body: Any) -> int:
    return chat.estimate(body).units["input"]


@pytest.mark.parametrize(
    ("model", "reported"),
    [
        ("gpt-3.5-turbo-0125", 129),
        ("gpt-3.5-turbo-0301", 127),
        ("gpt-4-0613", 129),
        ("gpt-4", 129),
        ("gpt-4o-2024-08-06", 124),
        ("gpt-4o-mini", 124),
        ("ft:gpt-4o-mini-2024-07-18:acme::8x", 124),
        ("openai/gpt-4o", 124),
    ],
)
def test_the_cookbooks_messages_cost_what_openai_reported(model: str, reported: int) -> None:
    assert counted(model=model, messages=COOKBOOK) == reported


def test_an_earlier_answer_costs_two_more_with_gpt_5() -> None:
    asked = [{"role": "user", "content": "Hi"}]
    history = [*asked, {"role": "assistant", "content": "Hi"}]
    assert counted(model="gpt-5", messages=history) - counted(model="gpt-5", messages=asked) == 7
    assert counted(model="gpt-4o", messages=history) - counted(model="gpt-4o", messages=asked) == 5


def test_parts_of_text_run_on_without_anything_between_them() -> None:
    parts = [
        {"type": "text", "text": "You talk like a pirate."},
        {"type": "text", "text": "When asked, answer."},
    ]
    joined = "You talk like a pirate.When asked, answer."
    assert counted(model="gpt-4o", messages=[{"role": "user", "content": parts}]) == counted(
        model="gpt-4o", messages=[{"role": "user", "content": joined}]
    )


def test_a_special_token_in_a_text_is_ordinary_text() -> None:
    assert tokens.count("<|endoftext|>", "o200k_base") == 7


@pytest.mark.parametrize("content", [None, "", [], [{"type": "text", "text": None}]])
def test_an_empty_content_costs_only_its_framing(content: object) -> None:
    assert counted(model="gpt-4o", messages=[{"role": "user", "content": content}]) == 7


def test_the_shipped_vocabularies_are_the_published_ones() -> None:
    for name, digest in map(str.split, VOCABULARIES.strip().splitlines()):
        assert hashlib.sha256((tokens.VOCABULARIES / name).read_bytes()).hexdigest() == digest


def test_all_vocabularies_load_without_a_network() -> None:
    script = (
        "import socket\n"
        "def refuse(*args, **options): raise AssertionError('network')\n"
        "socket.socket.connect = refuse; socket.getaddrinfo = refuse\n"
        "from openai_app.metering import tokens; tokens.preload()\n"
        "print(tokens.count('tiktoken is great!', 'cl100k_base'))"
    )
    app = Path(tokens.__file__).parents[2]
    ran = subprocess.run(
        [sys.executable, "-c", script], cwd=app, capture_output=True, text=True, timeout=60, check=False
    )
    assert ran.stdout.strip() == "6", ran.stderr


def test_what_was_asked_for_is_the_newer_field_before_the_older() -> None:
    estimate = chat.estimate({"model": "gpt-4o", "max_tokens": 50, "max_completion_tokens": 7, "n": 3})
    assert (estimate.asked, estimate.choices, estimate.ceiling) == (7, 3, 16_384)
    assert chat.estimate({"model": "gpt-4o", "max_tokens": 50}).asked == 50
    assert chat.estimate({"model": "gpt-4o"}).asked is None


@pytest.mark.parametrize(
    ("name", "encoding", "ceiling"),
    [
        ("gpt-4o-2024-05-13", "o200k_base", 4_096),
        ("gpt-4.1-mini-2031-01-01", "o200k_base", 32_768),
        ("ft:gpt-3.5-turbo-0125:acme::abc", "cl100k_base", 4_096),
        ("gpt-4-0613", "cl100k_base", 8_192),
        ("openai/o3-mini", "o200k_base", 100_000),
        ("something-new", "o200k_base", 131_072),
        ("", "o200k_base", 131_072),
    ],
)
def test_a_models_name_tells_its_vocabulary_and_the_most_it_writes(
    name: str, encoding: str, ceiling: int
) -> None:
    model = find(name)
    assert (model.family.encoding, model.max_output) == (encoding, ceiling)


def test_the_text_of_a_cut_answer_is_counted_in_its_models_vocabulary() -> None:
    text = "お誕生日おめでとう"
    assert (chat.count_output("gpt-4o", text), chat.count_output("gpt-4", text)) == (8, 9)
