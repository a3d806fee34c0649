"""Videos, paid for by the second at a rate for the model and the size.

Source: OpenAI's API reference, "Videos": a job that is created, remixed, edited or extended, and then ends.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from balances.units import SECOND
from balances.usage import Estimate, Usage

from .reading import above_zero, amount, string

DEFAULT_MODEL = "sora-2"
DEFAULT_SIZE = "720x1280"
DEFAULT_SECONDS = 4
# A remix or an edit is as long as the video it is made from, which may be as long as this.
LONGEST_SECONDS = 20
_SIZES = ("720x1280", "1280x720", "1024x1792", "1792x1024", "1080x1920", "1920x1080")


def estimate(request: dict[str, Any]) -> Estimate:
    return Estimate({SECOND: above_zero(request.get("seconds")) or DEFAULT_SECONDS}, ceiling=0)


def estimate_remix(request: dict[str, Any]) -> Estimate:
    """Of a video made from another: its length is not said, except when it is an extension."""
    return Estimate({SECOND: above_zero(request.get("seconds")) or LONGEST_SECONDS}, ceiling=0)


def rated_as(request: Mapping[str, Any]) -> str:
    """The model and the size, of a request or of a video: "sora-2/1280x720"."""
    model = string(request.get("model")) or DEFAULT_MODEL
    size = request.get("size")
    if not model.startswith("sora-2"):
        return model
    name = "sora-2-pro" if model.startswith("sora-2-pro") else "sora-2"
    return f"{name}/{size if size in _SIZES else DEFAULT_SIZE}"


def rated_as_remix(_: dict[str, Any]) -> str:
    """The dearest: the video it is made from is OpenAI's to look up."""
    return f"sora-2-pro/{_SIZES[-1]}"


def usage_at_end(video: Mapping[str, Any]) -> Usage | None:
    """The seconds of a video that is made; nothing for one that failed."""
    if video.get("status") == "failed":
        return Usage({})
    seconds = amount(video.get("seconds"))
    return Usage({SECOND: seconds}) if seconds else None
