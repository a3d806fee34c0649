"""/v1/completions and /v1/edits: the endpoints from before chat."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import orjson

from simulator import chat, embeddings, errors, model_list, tokens
from simulator.directives import Directives
from simulator.exchange import RATE_LIMIT_HEADERS, Exchange, new_id
from simulator.world import World

USUAL_TOKENS = 16


@dataclass(slots=True)
class Told:
    """What is answered: for each prompt `n` choices of the same text, of the best of `best_of`."""

    id: str
    model: str
    encoding: str
    answers: list[chat.Answer]
    prompts: list[str]
    n: int
    echo: bool
    usage: dict[str, Any]

    def head(self) -> dict[str, Any]:
        return {"id": self.id, "object": "text_completion", "created": int(time.time()), "model": self.model}

    def document(self) -> dict[str, Any]:
        choices = [
            {
                "text": (prompt if self.echo else "") + (answer.text or ""),
                "index": index * self.n + number,
                "logprobs": None,
                "finish_reason": answer.finish_reason,
            }
            for index, (prompt, answer) in enumerate(zip(self.prompts, self.answers, strict=True))
            for number in range(self.n)
        ]
        return self.head() | {"choices": choices, "usage": self.usage}

    def events(self, *, include_usage: bool) -> Iterator[tuple[bytes, int]]:
        head = self.head() | ({"usage": None} if include_usage else {})
        for index, (prompt, answer) in enumerate(zip(self.prompts, self.answers, strict=True)):
            for number in range(self.n):
                place = {"index": index * self.n + number, "logprobs": None}
                if self.echo:
                    yield _event(head, place | {"text": prompt, "finish_reason": None}), 0
                for piece in answer.pieces(self.encoding):
                    yield _event(head, place | {"text": piece, "finish_reason": None}), 1
                yield _event(head, place | {"text": "", "finish_reason": answer.finish_reason}), 0
        if include_usage:
            yield b"data: %s\n\n" % orjson.dumps(head | {"choices": [], "usage": self.usage}), 0


def _event(head: dict[str, Any], choice: dict[str, Any]) -> bytes:
    return b"data: %s\n\n" % orjson.dumps(head | {"choices": [choice]})


def tell(body: dict[str, Any], wish: Directives) -> Told:
    """Work out a completion.

    Raises:
        ApiError: as OpenAI words it.
    """
    model = body.get("model")
    if not model or not isinstance(model, str):
        raise errors.ApiError(400, "you must provide a model parameter")
    entries = embeddings.inputs_of(body.get("prompt") or "<|endoftext|>", "prompt")
    for name in ("n", "best_of", "max_tokens"):
        value = body.get(name)
        if value is not None and type(value) is not int:
            raise errors.invalid_type(name, "an integer", value)
    n = body.get("n") or 1
    best_of = body.get("best_of") or n
    if best_of < n:
        raise errors.ApiError(400, "best_of must be greater than n", param="best_of")
    if not model_list.exists(model):
        raise errors.unknown_model(model)
    encoding = tokens.encoding_name(model)
    limit = USUAL_TOKENS if body.get("max_tokens") is None else body["max_tokens"]
    read = sum(embeddings.length(encoding, entry) for entry in entries)
    read += tokens.count(encoding, body.get("suffix") or "") * len(entries)
    prompts = [entry if isinstance(entry, str) else tokens.decode(encoding, entry) for entry in entries]
    answers = [
        chat.compose({"messages": [{"role": "user", "content": prompt}]}, wish, encoding, limit)
        for prompt in prompts
    ]
    written = sum(answer.length for answer in answers) * best_of
    read = read if wish.prompt is None else wish.prompt
    usage = {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}
    return Told(f"cmpl-{new_id()[3:]}", model, encoding, answers, prompts, n, bool(body.get("echo")), usage)


async def whole(_: World, body: dict[str, Any], wish: Directives) -> tuple[dict[str, Any], dict[str, Any]]:
    """The answer of one line of a batch, and the usage."""
    told = tell(body, wish)
    return told.document(), told.usage


async def create(exchange: Exchange) -> None:
    """POST /v1/completions"""
    await answer(exchange, exchange.json_object())


async def answer(exchange: Exchange, body: dict[str, Any]) -> None:
    call, wish = exchange.call, exchange.directives
    told = tell(body, wish)
    call.model, call.object_id, call.usage = told.model, told.id, told.usage
    call.stream = bool(body.get("stream"))
    if call.stream:
        include = bool((body.get("stream_options") or {}).get("include_usage")) and not wish.no_usage
        await exchange.send_stream(told.events(include_usage=include))
        call.usage_reported = include
        return
    document = told.document()
    if wish.no_usage:
        del document["usage"]
    length = sum(one.length for one in told.answers) * told.n
    await exchange.send_json(200, orjson.dumps(document), headers=RATE_LIMIT_HEADERS, tokens=length)
    call.usage_reported = not wish.no_usage and not wish.malformed


async def edit(exchange: Exchange) -> None:
    """POST /v1/edits"""
    body = exchange.json_object()
    model, call = body.get("model"), exchange.call
    if not isinstance(body.get("instruction"), str):
        raise errors.missing("instruction")
    if not isinstance(model, str) or not model_list.exists(model):
        raise errors.unknown_model(str(model))
    encoding, n = tokens.encoding_name(model), body.get("n") or 1
    prompt = f"{body.get('input') or ''}\n{body['instruction']}"
    told = chat.compose(
        {"messages": [{"role": "user", "content": prompt}]}, exchange.directives, encoding, None
    )
    read, written = tokens.count(encoding, prompt), told.length * n
    call.model = model
    call.usage = {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}
    document: dict[str, Any] = {
        "object": "edit",
        "created": int(time.time()),
        "choices": [{"text": told.text, "index": index} for index in range(n)],
        "usage": call.usage,
    }
    await exchange.send_json(200, orjson.dumps(document), tokens=written)
    call.usage_reported = True


ROUTES = (("POST", "completions", create), ("POST", "edits", edit))
RESOURCES = ()
