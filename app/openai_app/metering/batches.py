"""Batches: files of requests that OpenAI works off within a day, paid for by what their answers used.

Source: OpenAI's API reference, "Batch": the lines of the input file are {custom_id, method, url, body}, those
of the output file {custom_id, response: {status_code, body}, error}.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from balances.units import INPUT
from balances.usage import Estimate, Usage

from . import chat, completions, embeddings, image_calls, responses, videos
from .meter import FREE, Answer, Meter, Request
from .reading import mapping, model_name, string, whole, without_zeros


def _usage_of_tokens(answer: Answer, _: Request) -> Usage | None:
    return chat.usage(answer)


def _usage_of_video(answer: Answer, _: Request) -> Usage | None:
    return videos.usage_at_end(answer)


# The operations a batch may consist of, with OpenAI's paths.
_METERS: Mapping[str, Meter] = {
    "/v1/chat/completions": Meter(estimate=chat.estimate, usage=chat.usage_with_searches),
    "/v1/completions": Meter(estimate=completions.estimate, usage=_usage_of_tokens),
    "/v1/responses": Meter(estimate=responses.estimate, usage=responses.usage),
    "/v1/embeddings": Meter(estimate=embeddings.estimate, usage=_usage_of_tokens),
    "/v1/images/generations": Meter(
        estimate=image_calls.estimate, usage=image_calls.usage, rated_as=image_calls.rated_as
    ),
    "/v1/images/edits": Meter(
        estimate=image_calls.estimate_edit,
        usage=image_calls.usage_of_edit,
        rated_as=image_calls.rated_as_edit,
    ),
    "/v1/videos": Meter(estimate=videos.estimate, usage=_usage_of_video, rated_as=videos.rated_as),
    "/v1/moderations": FREE,
}
# Of these the batch's own sum does not tell all: calls of tools, images by class, seconds, and what was made.
_TOLD_BY_LINES = ("/v1/responses", "/v1/images/generations", "/v1/images/edits", "/v1/videos")
# Nothing bounds the output of a line that sets no limit: so much is held for it, and more is charged if used.
_USUAL_OUTPUT = 1_000
# A batch whose file is not known.
_LEAST_INPUT = 1_000
# The statuses from here on are of requests that were not served.
_REFUSED = 400


def estimate(_: dict[str, Any]) -> Estimate:
    """The least that is held; `estimate_lines` tells more once the input file's lines are at hand."""
    return Estimate({INPUT: _LEAST_INPUT}, ceiling=0, is_paced=False)


def estimate_lines(lines: Iterable[bytes], request: Mapping[str, Any]) -> Estimate:
    """What the requests of an input file need, their output included, and what they are rated as."""
    units: Counter[str] = Counter()
    names: set[str] = set()
    endpoint = string(request.get("endpoint"))
    for line in map(_parsed, lines):
        meter = _METERS.get(string(line.get("url"))) or _METERS.get(endpoint)
        if meter is None or meter.estimate is None:
            continue
        body = dict(mapping(line.get("body")))
        names.add(model_name(meter.rated_as(body)))
        estimated = meter.estimate(body)
        units.update(estimated.units)
        units.update(estimated.besides)
        bounds = (estimated.asked, estimated.ceiling)
        output = min((bound for bound in bounds if bound is not None), default=_USUAL_OUTPUT)
        if estimated.asked is None:
            output = min(output, _USUAL_OUTPUT)
        units[estimated.output_unit] += output * estimated.choices
    # A line without a model is refused by OpenAI.
    return Estimate(without_zeros(units), ceiling=0, is_paced=False, rated_as=frozenset(filter(None, names)))


def usage_at_end(batch: Mapping[str, Any]) -> Usage | None:
    """The batch's own usage; None when it is in the output file: recorded batches report zeros instead."""
    reported = responses.usage(batch, {})
    if reported is not None and any(reported.units.values()):
        return reported
    return None if string(batch.get("output_file_id")) else Usage({})


def is_told_by_lines(batch: Mapping[str, Any]) -> bool:
    """Whether the lines of the output file tell more than the batch itself does."""
    return string(batch.get("endpoint")) in _TOLD_BY_LINES


class Output:
    """What the lines of a batch's output file tell, taken in some at a time."""

    def __init__(self, batch: Mapping[str, Any], model: str) -> None:
        """`model` is what the batch was rated as when it was made; empty where nobody knows."""
        self._meter = _METERS.get(string(batch.get("endpoint")))
        self._units: Counter[str] = Counter()
        self._details: Counter[str] = Counter()
        self._lines = 0
        self._is_counted = True
        #: What the first answer names.
        self.model = model

    def add(self, lines: Iterable[bytes]) -> list[Mapping[str, Any]]:
        """Takes in lines, and gives the answers that are in them."""
        bodies = []
        for line in lines:
            if not line.strip():
                continue
            self._lines += 1
            parsed = _parsed(line)
            response = mapping(parsed.get("response"))
            if parsed.get("error") or (whole(response.get("status_code")) or 0) >= _REFUSED:
                continue
            body = mapping(response.get("body"))
            bodies.append(body)
            self._count(body)
        return bodies

    def usage(self) -> Usage | None:
        """The sum of all answers; None if there is no line, or an answer that cannot be counted."""
        if not self._lines or not self._is_counted:
            return None
        return Usage(dict(self._units), dict(self._details))

    def give_up(self) -> None:
        """The rest of the file cannot be read."""
        self._is_counted = False

    def _count(self, body: Mapping[str, Any]) -> None:
        self.model = self.model or model_name(body.get("model"))
        if self._meter is FREE:
            return
        used = _usage(body) if self._meter is None else self._meter.usage(body, {"model": self.model})
        if used is None:
            self._is_counted = False
        else:
            self._units.update(used.units)
            self._details.update(used.details)


def _usage(body: Mapping[str, Any]) -> Usage | None:
    """Of an answer by an endpoint that is not known, told apart by the names in its usage."""
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
