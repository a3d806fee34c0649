"""Images: generated, edited and varied.

The gpt-image models are paid for by tokens, which their answers report; dall-e by the image, at a rate that
depends on size and quality. Sources: OpenAI's guide, Image generation (the table of output tokens, partial
images, input fidelity); how texts and images of a request are framed was measured on recorded calls.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from balances.units import IMAGE, IMAGE_INPUT, IMAGE_OUTPUT, INPUT, OUTPUT
from balances.usage import Estimate, Usage

from .form import FormFile
from .prompts import count_texts
from .reading import above_zero, amount, items, mapping, string, totals, without_zeros

# The models of each operation when a request names none, by the API reference.
DEFAULT_MODEL = "dall-e-2"
DEFAULT_EDIT_MODEL = "gpt-image-1.5"
_BY_TOKENS = ("gpt-image", "chatgpt-image")
_MOST_IMAGES = 10

# Tokens of one image by quality; square, portrait or landscape. "auto" may become the best.
_OUTPUT = {"low": (272, 408), "medium": (1_056, 1_584), "high": (4_160, 6_240)}
_SQUARE_PIXELS = 1024 * 1024
_LARGEST_PIXELS = 3840 * 2160
_PARTIAL_IMAGE = 100
# The newer models think before they draw, in text: up to 308 tokens were seen.
_THOUGHT = 500
_WITHOUT_THOUGHT = ("gpt-image-1-mini",)
# The prompt of each image is framed by 6 tokens, and each image given with it by 16.
_PROMPT_FRAME = 6
_GIVEN_IMAGE_FRAME = 16
# A given image is made 512 pixels on its shorter side, and is at most three times as long as that.
_GIVEN_IMAGE = 65 + 3 * 129
_HIGH_FIDELITY = 6_240

_ENDS = frozenset(("image_generation.completed", "image_edit.completed"))
_SIZES_2 = ("256x256", "512x512", "1024x1024")
_SIZES_3 = ("1024x1024", "1024x1792", "1792x1024")


def estimate(request: dict[str, Any]) -> Estimate:
    """Images made from a prompt."""
    return _estimate(request, _model(request, DEFAULT_MODEL))


def estimate_edit(request: dict[str, Any]) -> Estimate:
    return _estimate(request, _model(request, DEFAULT_EDIT_MODEL))


def rated_as(request: dict[str, Any]) -> str:
    """The model; for dall-e with size and quality: "dall-e-3/1024x1792/hd", "dall-e-2/512x512"."""
    return _rated_as(request, _model(request, DEFAULT_MODEL))


def rated_as_edit(request: dict[str, Any]) -> str:
    return _rated_as(request, _model(request, DEFAULT_EDIT_MODEL))


def usage(answer: Mapping[str, Any], request: dict[str, Any]) -> Usage | None:
    """The tokens reported by an answer or by the event that ends a stream, else dall-e's images counted."""
    return _usage(answer, _model(request, DEFAULT_MODEL))


def usage_of_edit(answer: Mapping[str, Any], request: dict[str, Any]) -> Usage | None:
    return _usage(answer, _model(request, DEFAULT_EDIT_MODEL))


def token_units(reported: Mapping[str, Any]) -> dict[str, int] | None:
    """The usage of a gpt-image model by class; None where none is told that can be billed.

    Output that is not divided into classes is of images.
    """
    total = totals(reported, "input_tokens", "output_tokens")
    if total is None:
        return None
    read, written = total
    read_images = min(amount(mapping(reported.get("input_tokens_details")).get("image_tokens")), read)
    details = mapping(reported.get("output_tokens_details"))
    written_text = min(amount(details.get("text_tokens")), written)
    return without_zeros(
        {
            INPUT: read - read_images,
            IMAGE_INPUT: read_images,
            OUTPUT: written_text,
            IMAGE_OUTPUT: written - written_text,
        }
    )


def output_tokens(settings: Mapping[str, Any]) -> int:
    """The most that one image of this `size` and `quality` can have."""
    square, long = _OUTPUT.get(string(settings.get("quality")), _OUTPUT["high"])
    width, _, height = string(settings.get("size")).partition("x")
    pixels = amount(width) * amount(height)
    if not pixels:
        tokens = long
    elif pixels <= _SQUARE_PIXELS:
        tokens = square
    else:
        tokens = math.ceil(long * max(min(pixels, _LARGEST_PIXELS) / (1.5 * _SQUARE_PIXELS), 1))
    return tokens + _PARTIAL_IMAGE * min(amount(settings.get("partial_images")), 3)


def ends(event: Mapping[str, Any]) -> bool:
    return string(event.get("type")) in _ENDS


def _usage(answer: Mapping[str, Any], model: str) -> Usage | None:
    units = token_units(mapping(answer.get("usage")))
    if units is not None:
        return Usage(units)
    made = len(items(answer.get("data")))
    return Usage({IMAGE: made}) if made and not model.startswith(_BY_TOKENS) else None


def _estimate(request: Mapping[str, Any], model: str) -> Estimate:
    """Nothing can bound the output of a call for images, so all of it is needed before."""
    images = min(above_zero(request.get("n")) or 1, _MOST_IMAGES)
    if not model.startswith(_BY_TOKENS):
        return Estimate({IMAGE: images}, ceiling=0)
    given = _given_images(request)
    prompt, _ = count_texts(request.get("prompt"), model)
    fidelity = _HIGH_FIDELITY if request.get("input_fidelity") == "high" else 0
    units = {
        INPUT: prompt + _PROMPT_FRAME + given * _GIVEN_IMAGE_FRAME,
        IMAGE_INPUT: given * (_GIVEN_IMAGE + fidelity),
        OUTPUT: 0 if model == "gpt-image-1" or model.startswith(_WITHOUT_THOUGHT) else _THOUGHT,
        IMAGE_OUTPUT: output_tokens(request),
    }
    return Estimate(without_zeros({unit: count * images for unit, count in units.items()}), ceiling=0)


def _given_images(request: Mapping[str, Any]) -> int:
    """Images to edit: files of a form named `image`, `image[]` or `image[0]`, or JSON's list `images`."""
    given = 0
    for name, value in request.items():
        if name == "images" or name == "image" or name.startswith("image["):
            given += len(value) if isinstance(value, list) else isinstance(value, FormFile | str | dict)
    return given


def _model(request: Mapping[str, Any], default: str) -> str:
    return string(request.get("model")) or default


def _rated_as(request: Mapping[str, Any], model: str) -> str:
    size, quality = request.get("size"), request.get("quality")
    if model.startswith("dall-e-3"):
        return (
            f"dall-e-3/{size if size in _SIZES_3 else _SIZES_3[0]}/{'hd' if quality == 'hd' else 'standard'}"
        )
    if model.startswith("dall-e-2"):
        return f"dall-e-2/{size if size in _SIZES_2 else _SIZES_2[-1]}"
    return model
