"""Counting, independently of the gateway: OpenAI's published rule for chat messages, and tiktoken for text.

The rule is the one of the cookbook (How to count tokens with tiktoken): 3 tokens a message, 1 for a name,
3 for the reply. What OpenAI doesn't publish is counted by a rule of our own, deterministic and stated here.
"""

from __future__ import annotations

import codecs
import os
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import orjson

# tiktoken reads the variable when it first loads a vocabulary, which must never ask the network.
VOCABULARIES = Path(__file__).parent.parent / "openai_app" / "metering" / "vocabularies"
os.environ.setdefault("TIKTOKEN_CACHE_DIR", str(VOCABULARIES))

import tiktoken  # noqa: E402

MESSAGE_TOKENS = 3
NAME_TOKENS = 1
REPLY_TOKENS = 3
TOOLS_TOKENS = 12  # ours: once for any tools, then the tokens of each tool's JSON
IMAGE_LOW_TOKENS = 85  # ours: flat, whatever the size
IMAGE_TOKENS = 765
AUDIO_TOKENS = 50
FILE_TOKENS = 100

# Each word is one token in every vocabulary, with a space before it and, for the first, without.
FILLER_WORDS = (" one", " two", " three", " four", " five", " six", " seven", " eight", " nine", " ten")
FILLER_BLOCK = "".join(FILLER_WORDS)

CACHED_TEXT_CHARACTERS = 4096  # longer texts are rarely repeated and would fill the cache's memory
# Above this, counting is left to a thread: a megabyte takes tiktoken tenths of a second.
COUNT_INLINE_BYTES = 100_000
SLICE_CHARACTERS = 50_000  # tiktoken gives up on a run of a million spaces; slices of this size are safe


def load_vocabularies() -> None:
    """Read the vocabularies of today's models now, and not during the first call."""
    for encoding in ("o200k_base", "cl100k_base"):
        tiktoken.get_encoding(encoding)


@lru_cache(maxsize=1024)
def encoding_name(model: str) -> str:
    """The vocabulary of a model; o200k_base for models that tiktoken doesn't know."""
    try:
        return tiktoken.encoding_name_for_model(model)
    except KeyError:
        return "o200k_base"


def encode(encoding: str, text: str) -> list[int]:
    """Token ids of a text; special tokens in it count as the ordinary text that they are."""
    vocabulary = tiktoken.get_encoding(encoding)
    try:
        return vocabulary.encode_ordinary(text)
    except BaseException as error:  # a panic of tiktoken's Rust code is no Exception
        if isinstance(error, (KeyboardInterrupt, SystemExit)):
            raise
        slices = (text[i : i + SLICE_CHARACTERS] for i in range(0, len(text), SLICE_CHARACTERS))
        return [token for part in slices for token in vocabulary.encode_ordinary(part)]


def decode(encoding: str, ids: list[int]) -> str:
    """The text of token ids; those that the vocabulary hasn't are left out."""
    vocabulary = tiktoken.get_encoding(encoding)
    return vocabulary.decode([id for id in ids if 0 <= id < vocabulary.n_vocab], errors="replace")


@lru_cache(maxsize=8192)
def _count_cached(encoding: str, text: str) -> int:
    return len(encode(encoding, text))


def count(encoding: str, text: str) -> int:
    if len(text) <= CACHED_TEXT_CHARACTERS:
        return _count_cached(encoding, text)
    return len(encode(encoding, text))


@lru_cache(maxsize=2048)
def pieces(encoding: str, text: str) -> tuple[str, ...]:
    """The text token by token; a token that doesn't complete a character gives the empty string."""
    vocabulary = tiktoken.get_encoding(encoding)
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    ids = encode(encoding, text)
    return tuple(decoder.decode(vocabulary.decode_single_token_bytes(token)) for token in ids)


def filler(length: int) -> str:
    """A text of exactly `length` tokens in every vocabulary."""
    whole, rest = divmod(length, len(FILLER_WORDS))
    return (FILLER_BLOCK * whole + "".join(FILLER_WORDS[:rest]))[1:]


def filler_pieces(length: int) -> Iterator[str]:
    """`filler(length)` token by token, without holding it in memory."""
    for index in range(length):
        word = FILLER_WORDS[index % len(FILLER_WORDS)]
        yield word if index else word[1:]


def text_of(content: object) -> str:
    """The text of a message's content, a string or a list of parts."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return ""
    texts = (part.get("text") for part in content if isinstance(part, dict))
    return "".join(text for text in texts if isinstance(text, str))


def prompt_tokens(model: str, body: dict[str, Any]) -> int:
    """Prompt tokens of a chat completion's request body."""
    encoding = encoding_name(model)
    total = REPLY_TOKENS
    for message in body["messages"]:
        total += MESSAGE_TOKENS
        for key, value in message.items():
            if type(value) is str:
                total += count(encoding, value)
                if key == "name":
                    total += NAME_TOKENS
            elif value is not None:
                total += _structure_tokens(encoding, key, value)
    for key in ("tools", "functions"):
        if body.get(key):
            total += TOOLS_TOKENS + sum(count(encoding, _json(tool)) for tool in body[key])
    response_format = body.get("response_format")
    if isinstance(response_format, dict) and "json_schema" in response_format:
        total += count(encoding, _json(response_format["json_schema"]))
    return total


def _structure_tokens(encoding: str, key: str, value: object) -> int:
    if key == "content" and isinstance(value, list):
        return sum(_part_tokens(encoding, part) for part in value)
    return count(encoding, _json(value))


def _part_tokens(encoding: str, part: object) -> int:
    if not isinstance(part, dict):
        return 0
    match part.get("type"):
        case "image_url" | "input_image" | "image_file":
            image = part.get(part["type"])
            low = (image if isinstance(image, dict) else part).get("detail") == "low"
            return IMAGE_LOW_TOKENS if low else IMAGE_TOKENS
        case "input_audio":
            return AUDIO_TOKENS
        case "file" | "input_file":
            return FILE_TOKENS
        case _:
            text = part.get("text") or part.get("refusal") or ""
            return count(encoding, text) if isinstance(text, str) else 0


def _json(value: object) -> str:
    return orjson.dumps(value).decode()
