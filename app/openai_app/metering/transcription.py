"""Transcription and translation of recordings.

whisper-1 is paid for by the second, the later models by tokens: ten for a second of audio, and the text
that they write. Sources: OpenAI's API reference, "Create transcription"; how much text a second can have was
measured on recorded calls.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from balances.units import AUDIO_INPUT, INPUT, OUTPUT, SECOND
from balances.usage import Estimate, Usage

from . import duration
from .form import FormFile
from .prompts import count_texts
from .reading import amount, mapping, string, told, totals, without_zeros

_AUDIO_TOKENS_PER_SECOND = 10
# Fast speech in a language of many tokens; who speaks when is told in many more.
_TEXT_TOKENS_PER_SECOND = 15
_SPEAKER_TOKENS_PER_SECOND = 60
_SHORTEST_TEXT = 50
# Models that report tokens; all others report, or are counted by, their seconds.
_BY_TOKENS = ("gpt-4o-transcribe", "gpt-4o-mini-transcribe")
# No recording that OpenAI takes (25 MB) is as long as this many seconds.
_LONGEST = 7 * 24 * 3600


def estimate(request: dict[str, Any]) -> Estimate:
    model, seconds = string(request.get("model")), _seconds(request)
    if not model.startswith(_BY_TOKENS):
        return Estimate({SECOND: math.ceil(seconds)}, ceiling=0)
    prompt = string(request.get("prompt"))
    units = {
        AUDIO_INPUT: math.ceil(seconds * _AUDIO_TOKENS_PER_SECOND),
        INPUT: count_texts(prompt, model)[0] if prompt else 0,
    }
    per_second = _SPEAKER_TOKENS_PER_SECOND if "diarize" in model else _TEXT_TOKENS_PER_SECOND
    output = _SHORTEST_TEXT + math.ceil(seconds * per_second)
    # No field bounds the text, so a balance must cover all of it.
    return Estimate(without_zeros(units), asked=output, ceiling=output, least_cap=output)


def usage(answer: Mapping[str, Any], request: dict[str, Any]) -> Usage | None:
    """What an answer or a stream's last event reports, tokens or seconds; else the seconds that were heard.

    An answer in plain text or subtitles reports nothing and is given as an empty object.
    """
    reported = mapping(answer.get("usage"))
    if "seconds" in reported:
        return _of_seconds(reported["seconds"])
    if "input_tokens" in reported or "output_tokens" in reported:
        return _of_tokens(reported)
    if "duration" in answer:
        return _of_seconds(answer["duration"])
    model = string(request.get("model"))
    heard = math.ceil(_seconds(request))
    # A stream's events have a type, and only the last of them reports.
    if model.startswith(_BY_TOKENS) or "type" in answer or not heard:
        return None
    return Usage({SECOND: heard})


def text(event: Mapping[str, Any]) -> Iterable[tuple[int, str]]:
    if event.get("type") == "transcript.text.delta":
        yield 0, string(event.get("delta"))


def ends(event: Mapping[str, Any]) -> bool:
    return event.get("type") == "transcript.text.done"


def _of_seconds(lasted: object) -> Usage | None:
    seconds = told(lasted)
    return None if seconds is None else Usage({SECOND: seconds})


def _of_tokens(reported: Mapping[str, Any]) -> Usage | None:
    total = totals(reported, "input_tokens", "output_tokens")
    if total is None:
        return None
    read, written = total
    audio = min(amount(mapping(reported.get("input_token_details")).get("audio_tokens", read)), read)
    return Usage(without_zeros({INPUT: read - audio, AUDIO_INPUT: audio, OUTPUT: written}))


def _seconds(request: Mapping[str, Any]) -> float:
    file = request.get("file")
    if isinstance(file, str):
        # Sent without a file's name; whoever reads it all the same hears as much.
        head = file.encode("utf-8", "replace")
        file = FormFile("", "", len(head), head)
    if not isinstance(file, FormFile):
        return 0
    known = file.seconds if file.seconds is not None else duration.seconds(file.head, file.size)
    return min(known, _LONGEST) if known > 0 else 0
