"""Runs of evals: a model answers a list of items and graders, often models too, judge the answers.

Source: OpenAI's API reference, "Evals".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from balances.units import INPUT, OUTPUT
from balances.usage import Estimate, Usage

from .prompts import count_texts
from .reading import above_zero, amount, items, mapping, string, totals, without_zeros

# Of an answer to one item, where the request sets no limit.
_USUAL_OUTPUT = 500
# A source of which only a file or a filter is known.
_USUAL_ITEMS = 20
_USUAL_ITEM = 200


def estimate(request: dict[str, Any]) -> Estimate:
    """Each item with the messages it is put into, and an answer to it. Nothing bounds the run as a whole."""
    source = mapping(request.get("data_source"))
    model = string(source.get("model"))
    content = items(mapping(source.get("source")).get("content"))
    number = len(content) or _USUAL_ITEMS
    given = count_texts(content, model)[0] if content else number * _USUAL_ITEM
    units = {INPUT: given}
    if model:
        units[INPUT] += number * count_texts(source.get("input_messages"), model)[0]
        limit = above_zero(mapping(source.get("sampling_params")).get("max_completion_tokens"))
        units[OUTPUT] = number * (limit or _USUAL_OUTPUT)
    return Estimate(units, ceiling=0, is_paced=False)


def rated_as(request: Mapping[str, Any]) -> str:
    return string(mapping(request.get("data_source")).get("model"))


def usage_at_end(run: Mapping[str, Any]) -> Usage | None:
    """The sum over all models, the graders' included; what a run that failed has used, it reports too."""
    reported = run.get("per_model_usage")
    if not isinstance(reported, list):
        return None if run.get("status") == "completed" else Usage({})
    read = cached = written = 0
    for each in map(mapping, reported):
        total = totals(each, "prompt_tokens", "completion_tokens")
        if total is None:
            return None
        read += total[0]
        cached += min(amount(each.get("cached_tokens")), total[0])
        written += total[1]
    return Usage(without_zeros({INPUT: read - cached, "cached_input": cached, OUTPUT: written}))
