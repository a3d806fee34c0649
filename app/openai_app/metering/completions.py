"""Completions of plain prompts, the older endpoint, and edits of a text.

Source: OpenAI's API reference, "Create completion" (legacy), and "Create edit" (deprecated, 2023).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from balances.units import INPUT
from balances.usage import Estimate

from .models import find
from .prompts import count_texts
from .reading import above_zero, items, mapping, string, whole

# max_tokens of the reference when a request does not say.
DEFAULT_OUTPUT = 16
# A prompt that is left out is the token that starts a document.
DEFAULT_PROMPT = 1
_MOST_CHOICES = 128
# The context of the models that edited texts (OpenAI's model list of 2022): there is no field to bound one.
_EDIT_CONTEXT = 3_000
# What surrounds the two texts of an edit; measured.
_EDIT_FRAME = 12


def estimate(request: dict[str, Any]) -> Estimate:
    """The prompts, and for each of them the completions that are generated, whether shown or not."""
    model = string(request.get("model"))
    prompt = request.get("prompt")
    tokens, prompts = (DEFAULT_PROMPT, 1) if prompt is None else count_texts(prompt, model)
    if request.get("suffix"):
        tokens += count_texts(request["suffix"], model)[0]
    asked = whole(request.get("max_tokens"))
    # The best of several are chosen from texts that are all paid for.
    generated = max(above_zero(request.get("n")) or 1, above_zero(request.get("best_of")) or 1)
    return Estimate(
        {INPUT: tokens},
        asked=DEFAULT_OUTPUT if asked is None else max(asked, 0),
        ceiling=find(model).max_output,
        choices=prompts * min(generated, _MOST_CHOICES),
    )


def estimate_edit(request: dict[str, Any]) -> Estimate:
    """An edit writes its input anew: at most what the context leaves."""
    model = string(request.get("model"))
    tokens = _EDIT_FRAME + sum(
        count_texts(request.get(field), model)[0] for field in ("input", "instruction")
    )
    choices = min(above_zero(request.get("n")) or 1, _MOST_CHOICES)
    return Estimate({INPUT: tokens}, asked=_EDIT_CONTEXT, ceiling=_EDIT_CONTEXT, choices=choices)


def text(event: Mapping[str, Any]) -> Iterable[tuple[int, str]]:
    """What a chunk adds to each choice. An echoed prompt comes as such text, though it is input."""
    for choice in map(mapping, items(event.get("choices"))):
        yield whole(choice.get("index")) or 0, string(choice.get("text"))


def cap(_: dict[str, Any], tokens: int) -> dict[str, Any]:
    return {"max_tokens": tokens}
