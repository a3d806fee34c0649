"""Speech from text, paid for by the character, or by the tokens that a stream of events reports.

An answer in audio reports nothing: it is charged by the characters of its text, whatever the model.
Source: OpenAI's API reference, "Create speech".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from balances.units import AUDIO_OUTPUT, CHARACTER, INPUT
from balances.usage import Estimate, Usage

from .prompts import count_texts
from .reading import mapping, string, totals, without_zeros


def estimate(request: dict[str, Any]) -> Estimate:
    """The text's characters, and the tokens of the instructions on how to speak it."""
    return Estimate(_counted(request), ceiling=0)


def usage(answer: Mapping[str, Any], request: dict[str, Any]) -> Usage | None:
    """Of the event that ends a stream; of an answer in audio, which is given as an empty object."""
    if not answer:
        return Usage(_counted(request))
    reported = mapping(answer.get("usage"))
    total = totals(reported, "input_tokens", "output_tokens")
    if total is None:
        return None
    read, spoken = total
    return Usage(without_zeros({INPUT: read, AUDIO_OUTPUT: spoken}))


def ends(event: Mapping[str, Any]) -> bool:
    return event.get("type") == "speech.audio.done"


def _counted(request: Mapping[str, Any]) -> dict[str, int]:
    instructions, model = string(request.get("instructions")), string(request.get("model"))
    tokens = count_texts(instructions, model)[0] if instructions else 0
    return without_zeros({CHARACTER: len(string(request.get("input"))), INPUT: tokens})
