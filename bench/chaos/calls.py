"""What is asked, and the clients' own book: what each attempt at a call came to."""

import json
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

MODEL = "gpt-4o-mini"
EMBEDDING_MODEL = "text-embedding-3-small"
TOOL = {
    "name": "look_up",
    "parameters": {"type": "object", "properties": {"q": {"type": "string"}}},
}
CHAT, RESPONSES, EMBEDDINGS, BATCHES = (
    "/v1/chat/completions",
    "/v1/responses",
    "/v1/embeddings",
    "/v1/batches",
)


@dataclass
class Attempt:
    """One request of a client's and what came of it; times are the machine's."""

    id: str
    site: str
    instance: str
    user_id: int
    key_id: int
    secret: str = field(repr=False)
    path: str
    kind: str
    does: str
    is_stream: bool
    began: float
    #: Its Idempotency-Key, that of all attempts at the call; they share their API key then.
    idempotency_key: str = ""
    ended: float = 0.0
    status: int = 0
    request_id: str = ""
    #: The whole answer came, and said so itself.
    is_complete: bool = False
    #: The client closed the connection at this time, before the end.
    left: float | None = None
    #: How the connection or the answer broke, if it did.
    broke: str = ""
    #: When each piece of output came.
    pieces: list[float] = field(default_factory=list)
    usage: Mapping[str, Any] | None = None
    #: What `x-balance-charged` said.
    told_charge: int | None = None
    has_retry_after: bool = False
    #: The id of the first call, whose answer this is once more.
    replayed: str = ""
    error_code: str = ""
    #: The object that the answer told of.
    object_id: str = ""


@dataclass(frozen=True)
class Wish:
    """One call before it is made; `lasts_s` is how long its answer takes when nothing goes wrong."""

    kind: str
    path: str
    body: dict[str, Any]
    does: str
    is_stream: bool
    lasts_s: float


def total(usage: Mapping[str, Any] | None) -> int:
    """All tokens of a usage object, in the words of either generation of endpoints."""
    return int((usage or {}).get("total_tokens", 0))


def _said(tag: str, does: str) -> str:
    return f"Call {tag}: say something. [[simulate: {does}]]"


def _chat(chance: random.Random, tag: str, *, stream: bool, tools: bool = False) -> Wish:
    tokens = chance.randint(5, 120) if stream else chance.randint(3, 60)
    pause_s = round(chance.uniform(0.01, 0.06), 3) if stream else 0.0
    delay_s = 0.0 if stream else round(chance.choice((0.0, 0.05, 0.3, 1.0)) * chance.random(), 3)
    does = f"tools={chance.randint(1, 3)}" if tools else f"tokens={tokens}"
    does += f" chunk_delay={pause_s}" if stream else f" delay={delay_s}"
    extra: dict[str, Any] = {}
    if chance.random() < 0.1 and not tools:
        does += " reasoning=10"
    if chance.random() < 0.02 and not tools:
        does += " no_usage"
    if stream and chance.random() < 0.4:
        extra["stream_options"] = {"include_usage": True}
    if tools:
        extra["tools"] = [{"type": "function", "function": TOOL}]
    if chance.random() < 0.85:
        extra["max_completion_tokens"] = tokens + chance.randint(-2, 60) if tokens > 10 else 200
    body = {"model": MODEL, "messages": [{"role": "user", "content": _said(tag, does)}], **extra}
    name = ("tools" if tools else "chat") + (", stream" if stream else "")
    return Wish(name, CHAT, {**body, "stream": stream}, does, stream, tokens * pause_s + delay_s)


def _long_stream(chance: random.Random, tag: str) -> Wish:
    """Still under way when whatever comes comes, and longer than a gateway that is stopped waits for it."""
    does = f"tokens=160 chunk_delay={chance.choice((0.05, 0.1, 0.25))}"
    body = {"model": MODEL, "messages": [{"role": "user", "content": _said(tag, does)}], "stream": True}
    return Wish("chat, long stream", CHAT, {**body, "max_tokens": 200}, does, True, 16.0)


def _response(chance: random.Random, tag: str, *, stream: bool) -> Wish:
    tokens = chance.randint(16, 60)
    pause_s = round(chance.uniform(0.01, 0.05), 3) if stream else 0.0
    does = f"tokens={tokens}" + (f" chunk_delay={pause_s}" if stream else "")
    body = {"model": MODEL, "input": _said(tag, does), "max_output_tokens": tokens + 20, "stream": stream}
    name = "response" + (", stream" if stream else "")
    return Wish(name, RESPONSES, body, does, stream, tokens * pause_s)


def _background(chance: random.Random, tag: str) -> Wish:
    does = f"tokens={chance.randint(16, 40)} finish_after={chance.choice((0, 1, 4, 8))}"
    body = {"model": MODEL, "input": _said(tag, does), "background": True, "max_output_tokens": 60}
    return Wish("response, background", RESPONSES, body, does, False, 0.0)


def _embeddings(chance: random.Random, tag: str) -> Wish:
    body = {"model": EMBEDDING_MODEL, "input": f"Call {tag} " + "and on " * chance.randint(0, 20)}
    return Wish("embeddings", EMBEDDINGS, body, "", False, 0.0)


def _batch(chance: random.Random, tag: str) -> Wish:
    """`body` lacks the file, which is uploaded first; `does` is its content."""
    lines = [
        {
            "custom_id": f"{tag}-{number}",
            "method": "POST",
            "url": CHAT,
            "body": {
                "model": MODEL,
                "messages": [{"role": "user", "content": f"Line {number} of {tag}."}],
                "max_tokens": chance.randint(5, 20),
            },
        }
        for number in range(chance.randint(1, 5))
    ]
    content = "".join(json.dumps(line) + "\n" for line in lines)
    body = {"endpoint": CHAT, "completion_window": "24h"}
    return Wish("batch", BATCHES, body, content, False, 0.0)


_KINDS: tuple[tuple[float, Callable[[random.Random, str], Wish]], ...] = (
    (22, lambda chance, tag: _chat(chance, tag, stream=False)),
    (34, lambda chance, tag: _chat(chance, tag, stream=True)),
    (5, lambda chance, tag: _chat(chance, tag, stream=False, tools=True)),
    (5, lambda chance, tag: _chat(chance, tag, stream=True, tools=True)),
    (4, _long_stream),
    (6, lambda chance, tag: _response(chance, tag, stream=False)),
    (8, lambda chance, tag: _response(chance, tag, stream=True)),
    (4, _background),
    (10, _embeddings),
    (2, _batch),
)


def draw(chance: random.Random, tag: str) -> Wish:
    """A call of a random kind; `tag` makes its text unique."""
    (_, make), *_ = chance.choices(_KINDS, [weight for weight, _ in _KINDS])
    return make(chance, tag)


def probe(tag: str) -> Wish:
    """The smallest metered call."""
    return Wish("probe", EMBEDDINGS, {"model": EMBEDDING_MODEL, "input": f"Call {tag}"}, "", False, 0.0)
