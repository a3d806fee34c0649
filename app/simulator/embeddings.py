"""/v1/embeddings: vectors made from a hash of the text."""

from __future__ import annotations

import base64
import hashlib
import math
import struct
from typing import Any

import orjson

from simulator import errors, model_list, tokens
from simulator.directives import Directives
from simulator.exchange import RATE_LIMIT_HEADERS, Exchange
from simulator.world import World

DIMENSIONS = {"text-embedding-3-large": 3072}
USUAL_DIMENSIONS = 1536
MOST_INPUTS = 2048


def inputs_of(given: object, parameter: str) -> list[str | list[int]]:
    """Texts or token ids, one entry for each input.

    Raises:
        ApiError: it is neither.
    """
    if given is None:
        raise errors.missing(parameter)
    if isinstance(given, str):
        return [given]
    if not isinstance(given, list):
        raise errors.invalid_type(parameter, "a string or an array", given)
    if not given:
        raise errors.empty_array(parameter)
    if all(type(entry) is int for entry in given):
        return [given]
    for index, entry in enumerate(given):
        if not isinstance(entry, (str, list)):
            raise errors.invalid_type(f"{parameter}[{index}]", "a string or an array of integers", entry)
    return given


def length(encoding: str, entry: str | list[int]) -> int:
    return tokens.count(encoding, entry) if isinstance(entry, str) else len(entry)


def vector(entry: str | list[int], dimensions: int) -> list[float]:
    """A vector of length one."""
    seed = entry.encode("utf-8", "surrogatepass") if isinstance(entry, str) else orjson.dumps(entry)
    numbers = [
        n / 2**15 for n in struct.unpack(f"{dimensions}h", hashlib.shake_128(seed).digest(2 * dimensions))
    ]
    norm = math.hypot(*numbers) or 1.0
    return [number / norm for number in numbers]


async def whole(_: World, body: dict[str, Any], wish: Directives) -> tuple[dict[str, Any], dict[str, Any]]:
    """The answer to a request, and its usage.

    Raises:
        ApiError: as OpenAI words it.
    """
    model = body.get("model")
    if not model or not isinstance(model, str):
        raise errors.ApiError(400, "you must provide a model parameter")
    entries = inputs_of(body.get("input"), "input")
    if len(entries) > MOST_INPUTS:
        raise errors.above_maximum("input", MOST_INPUTS, len(entries))
    if not model_list.exists(model):
        raise errors.unknown_model(model)
    dimensions = body.get("dimensions") or DIMENSIONS.get(model, USUAL_DIMENSIONS)
    encoding = tokens.encoding_name(model)
    total = sum(length(encoding, entry) for entry in entries) if wish.prompt is None else wish.prompt
    data = []
    for index, entry in enumerate(entries):
        numbers = vector(entry, dimensions)
        packed: object = numbers
        if body.get("encoding_format") == "base64":
            packed = base64.b64encode(struct.pack(f"<{dimensions}f", *numbers)).decode()
        data.append({"object": "embedding", "index": index, "embedding": packed})
    usage = {"prompt_tokens": total, "total_tokens": total}
    return {"object": "list", "data": data, "model": model, "usage": usage}, usage


async def create(exchange: Exchange) -> None:
    """POST /v1/embeddings"""
    await answer(exchange, exchange.json_object())


async def answer(exchange: Exchange, body: dict[str, Any]) -> None:
    call, wish = exchange.call, exchange.directives
    document, call.usage = await whole(exchange.world, body, wish)
    call.model = document["model"]
    if wish.no_usage:
        del document["usage"]
    await exchange.send_json(200, orjson.dumps(document), headers=RATE_LIMIT_HEADERS)
    call.usage_reported = not wish.no_usage and not wish.malformed


ROUTES = (("POST", "embeddings", create),)
RESOURCES = ()
