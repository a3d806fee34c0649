"""Batches: files of requests that OpenAI works off within a day, paid for by what their answers used.

Source: OpenAI's API reference, "Batch": the lines of the input file are {custom_id, method, url, body}, those
of the output file {custom_id, response: {status_code, body}, error}.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from balances.units import INPUT
from balances.usage import Estimate, Usage

from . import chat, completions, embeddings, image_calls, responses
from .reading import mapping, string

# The operations a batch may consist of, with OpenAI's paths; moderations are free.
_ESTIMATES: Mapping[str, Callable[[dict[str, Any]], Estimate]] = {
    "/v1/chat/completions": chat.estimate,
    "/v1/completions": completions.estimate,
    "/v1/responses": responses.estimate,
    "/v1/embeddings": embeddings.estimate,
    "/v1/images/generations": image_calls.estimate,
    "/v1/images/edits": image_calls.estimate_edit,
}
# Nothing bounds the output of a line that sets no limit: so much is held for it, and more is charged if used.
_USUAL_OUTPUT = 1_000
# A batch whose file is not known.
_LEAST_INPUT = 1_000


def estimate(_: dict[str, Any]) -> Estimate:
    """The least that is held; `estimate_lines` tells more once the input file's lines are at hand."""
    return Estimate({INPUT: _LEAST_INPUT}, ceiling=0, is_paced=False)


def estimate_lines(lines: Iterable[bytes], _: Mapping[str, Any]) -> Estimate:
    """What the requests of an input file need, their output included."""
    units: Counter[str] = Counter()
    for line in map(_parsed, lines):
        counted = _ESTIMATES.get(string(line.get("url")))
        if counted is None:
            continue
        estimated = counted(dict(mapping(line.get("body"))))
        units.update(estimated.units)
        bounds = (estimated.asked, estimated.ceiling)
        output = min((bound for bound in bounds if bound is not None), default=_USUAL_OUTPUT)
        if estimated.asked is None:
            output = min(output, _USUAL_OUTPUT)
        units[estimated.output_unit] += output * estimated.choices
    return Estimate(dict(units), ceiling=0, is_paced=False)


def usage_at_end(batch: Mapping[str, Any]) -> Usage | None:
    """The batch's own usage; None when it is in the output file: recorded batches report zeros instead."""
    reported = responses.usage(batch, {})
    if reported is not None and any(reported.units.values()):
        return reported
    return None if string(batch.get("output_file_id")) else Usage({})


def usage_of_lines(lines: Iterable[bytes]) -> Usage:
    """The sum of the usage of the answers in an output file."""
    units: Counter[str] = Counter()
    details: Counter[str] = Counter()
    for line in lines:
        body = mapping(mapping(_parsed(line).get("response")).get("body"))
        used = _usage(body)
        if used is not None:
            units.update(used.units)
            details.update(used.details)
    return Usage(dict(units), dict(details))


def _usage(body: Mapping[str, Any]) -> Usage | None:
    """Of one answer, which is told apart by the names in its usage."""
    reported = mapping(body.get("usage"))
    if "image_tokens" in mapping(reported.get("input_tokens_details")):
        return image_calls.usage(body, {})
    if "input_tokens" in reported:
        return responses.usage(body, {})
    return chat.usage_with_searches(body, body)


def _parsed(line: bytes) -> Mapping[str, Any]:
    try:
        return mapping(json.loads(line))
    except (ValueError, RecursionError):
        return {}
