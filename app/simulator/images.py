"""/v1/images: every image is the same pixel; what differs is what it costs."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import orjson

from simulator import errors, model_list, tokens
from simulator.exchange import Exchange

PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAAC0lEQVQYV2NgAAIAAAUAAarVyFEAAAAASUVORK5CYII="
PIXEL_ADDRESS = "https://images.example/simulator.png"
# Output tokens of an image, as OpenAI publishes them for gpt-image-1; square and not.
OUTPUT_TOKENS = {"low": (272, 408), "medium": (1056, 1584), "high": (4160, 6240)}
INPUT_IMAGE_TOKENS = 194  # of a square image at low fidelity
PARTIAL_IMAGE_TOKENS = 100
USUAL_MODEL = {"generations": "dall-e-2", "edits": "gpt-image-1", "variations": "dall-e-2"}
MOST_IMAGES = 10


def number(value: object, parameter: str, usual: int) -> int:
    """An integer of a form or a JSON body.

    Raises:
        ApiError: it is none.
    """
    if value is None:
        return usual
    try:
        return int(str(value))
    except ValueError:
        raise errors.invalid_type(parameter, "an integer", value) from None


async def generate(exchange: Exchange) -> None:
    """POST /v1/images/generations"""
    await make(exchange, "generations")


async def edit(exchange: Exchange) -> None:
    """POST /v1/images/edits"""
    await make(exchange, "edits")


async def vary(exchange: Exchange) -> None:
    """POST /v1/images/variations"""
    await make(exchange, "variations")


async def make(exchange: Exchange, what: str) -> None:
    body, call = exchange.fields(), exchange.call
    model = str(body.get("model") or USUAL_MODEL[what])
    if what != "variations" and not body.get("prompt"):
        raise errors.missing("prompt")
    if not model_list.exists(model):
        raise errors.ApiError(
            400, f"The model '{model}' does not exist.", param="model", code="invalid_value"
        )
    n = number(body.get("n"), "n", 1)
    if n < 1:
        raise errors.below_minimum("n", 1, n)
    if n > MOST_IMAGES:
        raise errors.above_maximum("n", MOST_IMAGES, n)
    given = len(exchange.form.files.get("image", ())) if exchange.form else len(body.get("images") or ())
    if what != "generations" and not given:
        raise errors.missing("image")
    size, quality = str(body.get("size") or "1024x1024"), str(body.get("quality") or "medium")
    call.model, call.stream = model, body.get("stream") in (True, "true")
    created = int(time.time())
    if model.startswith("dall-e"):
        call.usage = {"images": n, "size": size, "quality": body.get("quality") or "standard"}
        if body.get("response_format") == "b64_json":
            data: list[dict[str, str]] = [{"b64_json": PIXEL}] * n
        else:
            data = [{"url": PIXEL_ADDRESS}] * n
        await exchange.send_object({"created": created, "data": data})
        return
    partial = number(body.get("partial_images"), "partial_images", 0) if call.stream else 0
    text = tokens.count("o200k_base", str(body.get("prompt") or ""))
    usage = usage_of(text, given, n, size, quality, partial)
    call.usage = usage
    shape = {
        "background": body.get("background") or "opaque",
        "output_format": body.get("output_format") or "png",
        "size": "1024x1024" if size == "auto" else size,
        "quality": quality if quality in OUTPUT_TOKENS else "medium",
    }
    reported: dict[str, Any] = {} if exchange.directives.no_usage else {"usage": usage}
    if call.stream:
        name = "image_edit" if what == "edits" else "image_generation"
        head = {"b64_json": PIXEL, "created_at": created, **shape}
        await exchange.send_stream(events(name, head, partial, reported), done=b"", named=True)
    else:
        await exchange.send_object(
            {"created": created, **shape, "data": [{"b64_json": PIXEL}] * n, **reported}
        )
    call.usage_reported = bool(reported) and not exchange.directives.malformed


def usage_of(text: int, given: int, n: int, size: str, quality: str, partial: int) -> dict[str, Any]:
    square, oblong = OUTPUT_TOKENS.get(quality, OUTPUT_TOKENS["medium"])
    width, _, height = size.partition("x")
    output = n * (square if width == height or size == "auto" else oblong) + partial * PARTIAL_IMAGE_TOKENS
    images = given * INPUT_IMAGE_TOKENS
    return {
        "input_tokens": text + images,
        "input_tokens_details": {"image_tokens": images, "text_tokens": text},
        "output_tokens": output,
        "output_tokens_details": {"image_tokens": output, "text_tokens": 0},
        "total_tokens": text + images + output,
    }


def events(
    name: str, head: dict[str, Any], partial: int, reported: dict[str, Any]
) -> Iterator[tuple[bytes, int]]:
    documents = [
        {"type": f"{name}.partial_image", **head, "partial_image_index": index} for index in range(partial)
    ]
    documents.append({"type": f"{name}.completed", **head, **reported})
    for document in documents:
        yield b"event: %s\ndata: %s\n\n" % (document["type"].encode(), orjson.dumps(document)), 0


ROUTES = (
    ("POST", "images/generations", generate),
    ("POST", "images/edits", edit),
    ("POST", "images/variations", vary),
)
RESOURCES = ()
