"""The content of a message: text, or a list of parts of text, image, audio and file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from . import audio, files, images
from .models import Family
from .tokens import count


@dataclass(slots=True)
class Parts:
    """Tokens of text, images and audio."""

    text: int = 0
    image: int = 0
    audio: int = 0

    def add(self, other: Parts) -> None:
        self.text += other.text
        self.image += other.image
        self.audio += other.audio


def measure(content: object, family: Family, tail: str = "") -> Parts:
    """Tokens of a content with ``tail`` behind it; parts of text run on with nothing between them."""
    total = Parts()
    if isinstance(content, str):
        total.text = count(content + tail, family.encoding)
        return total
    run: list[str] = []
    for part in content if isinstance(content, list) else [content]:
        if isinstance(part, dict) and isinstance(kind := part.get("type"), str) and kind in _MEDIA:
            total.text += count("".join(run), family.encoding)
            run.clear()
            _MEDIA[kind](part, family, total)
        else:
            run.append(_text(part))
    total.text += count("".join(run) + tail, family.encoding)
    return total


def joined(content: object) -> str:
    """The text of a content, without any images or audio in it."""
    return "".join(map(_text, content)) if isinstance(content, list) else text_of(content)


def _text(part: object) -> str:
    return text_of(part.get("text", part.get("refusal")) if isinstance(part, dict) else part)


def _image(part: Mapping[str, Any], family: Family, total: Parts) -> None:
    image = part.get("image_url")
    url, detail = (image.get("url"), image.get("detail")) if isinstance(image, dict) else (image, None)
    total.image += images.tokens(url, detail, family.image)


def _audio(part: Mapping[str, Any], family: Family, total: Parts) -> None:
    recording = part.get("input_audio")
    total.audio += audio.tokens(recording.get("data") if isinstance(recording, dict) else None)
    total.text += audio.FRAME


def _file(part: Mapping[str, Any], family: Family, total: Parts) -> None:
    file = part.get("file")
    total.image += files.tokens(file.get("file_data") if isinstance(file, dict) else None)


# Media by the type of the part that holds them.
_MEDIA = {"image_url": _image, "input_audio": _audio, "file": _file}


def text_of(value: object) -> str:
    """Any JSON value as text; a string as it is, null as nothing."""
    if value is None:
        return ""
    return value if isinstance(value, str) else as_json(value)


def as_json(value: object, *, escaped: bool = False, compact: bool = False) -> str:
    """A value as JSON; "" if it nests deeper than can be written, which the upstream refuses too."""
    try:
        return json.dumps(value, ensure_ascii=escaped, separators=(",", ":") if compact else None)
    except (RecursionError, TypeError, ValueError):
        return ""
