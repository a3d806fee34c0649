"""Fine-tuning jobs, paid for by the tokens trained on, and runs of graders.

Source: OpenAI's API reference, "Fine-tuning"; the job's `trained_tokens` are the billable tokens.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from balances.units import INPUT, TRAINING
from balances.usage import Estimate, Usage

from . import chat
from .prompts import count_texts
from .reading import above_zero, mapping, string, told, totals, without_zeros

# What OpenAI chose for "auto" in the recorded jobs.
_EPOCHS = 3
# A job whose file is not known is taken for the smallest that OpenAI accepts: ten short examples.
_LEAST_TOKENS = 10 * 100


def estimate(request: dict[str, Any]) -> Estimate:
    """The least that a job costs; `estimate_lines` tells more once the training file's lines are at hand."""
    return Estimate({TRAINING: _LEAST_TOKENS * _epochs(request)}, ceiling=0, is_paced=False)


def estimate_lines(lines: Iterable[bytes], request: Mapping[str, Any]) -> Estimate:
    """What training on the lines of a file costs: each token of each example, once an epoch."""
    model = string(request.get("model"))
    tokens = 0
    for line in lines:
        try:
            example = mapping(json.loads(line))
        except (ValueError, RecursionError):
            continue
        if "messages" in example:
            tokens += sum(chat.estimate({**example, "model": model}).units.values())
        else:
            tokens += sum(count_texts(text, model)[0] for text in example.values())
    return Estimate({TRAINING: max(tokens, 1) * _epochs(request)}, ceiling=0, is_paced=False)


def usage_at_end(job: Mapping[str, Any]) -> Usage | None:
    """The trained tokens, reported for a job that was cancelled on the way too."""
    trained = told(job.get("trained_tokens"))
    if trained is None:
        return None if job.get("status") == "succeeded" else Usage({})
    return Usage({TRAINING: trained})


def estimate_grader(request: dict[str, Any]) -> Estimate:
    """Of a grader's run: what is given to it, read by a model once."""
    tokens, _ = count_texts(request, "")
    return Estimate({INPUT: tokens}, ceiling=0)


def usage_of_grader(answer: Mapping[str, Any], _: dict[str, Any]) -> Usage | None:
    """The tokens of the models that graded; none are needed where code or a comparison did."""
    if "reward" not in answer:
        return None
    total = 0
    for each in map(mapping, mapping(answer.get("model_grader_token_usage_per_model")).values()):
        found = totals(each, "prompt_tokens", "completion_tokens")
        if found is None:
            return None
        total += sum(found)
    besides = mapping(answer.get("metadata")).get("token_usage")
    if not total and besides is not None:
        read = told(besides)
        return None if read is None else Usage(without_zeros({INPUT: read}))
    return Usage(without_zeros({INPUT: total}))


def _epochs(request: Mapping[str, Any]) -> int:
    method = mapping(request.get("method"))
    chosen = mapping(mapping(method.get(string(method.get("type")))).get("hyperparameters"))
    given = mapping(request.get("hyperparameters")).get("n_epochs") or chosen.get("n_epochs")
    return min(above_zero(given) or above_zero(request.get("n_epochs")) or _EPOCHS, 50)
