"""Assistants' runs: what an assistant reads and writes of a thread, over all steps of the run.

Source: OpenAI's API reference, "Runs" and "Assistants streaming" (deprecated, but still served).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from balances.units import CACHED_INPUT, INPUT, OUTPUT, REASONING
from balances.usage import Estimate, Usage

from . import chat
from .reading import above_zero, amount, items, mapping, string, totals, without_zeros

# OpenAI refuses less in max_completion_tokens of a run.
LEAST_CAP = 256


def estimate(request: dict[str, Any]) -> Estimate:
    """The messages that the request brings; what the thread holds already and the assistant are not in it."""
    thread = mapping(request.get("thread"))
    messages = [
        {"role": "system", "content": request.get(field)}
        for field in ("instructions", "additional_instructions")
        if request.get(field)
    ]
    messages += items(request.get("additional_messages")) + items(thread.get("messages"))
    body = {"model": request.get("model"), "messages": messages, "tools": request.get("tools")}
    asked = above_zero(request.get("max_completion_tokens"))
    return replace(chat.estimate(body), asked=asked, choices=1, least_cap=LEAST_CAP)


def usage(answer: Mapping[str, Any], _: dict[str, Any]) -> Usage | None:
    """The usage of a run that has ended; that of its steps is part of it."""
    if answer.get("object") != "thread.run":
        return None
    reported = mapping(answer.get("usage"))
    total = totals(reported, "prompt_tokens", "completion_tokens")
    if total is None:
        return None
    read, completion = total
    # The name differs from that in a chat completion by one letter.
    details = mapping(reported.get("prompt_token_details") or reported.get("prompt_tokens_details"))
    cached = min(amount(details.get("cached_tokens")), read)
    written = mapping(reported.get("completion_tokens_details"))
    reasoning = min(amount(written.get("reasoning_tokens")), completion)
    units = {
        INPUT: read - cached,
        CACHED_INPUT: cached,
        OUTPUT: completion - reasoning,
        REASONING: reasoning,
    }
    return Usage(without_zeros(units))


def usage_at_end(run: Mapping[str, Any]) -> Usage | None:
    """A run that failed, expired or was cancelled may have used nothing."""
    if not mapping(run.get("usage")) and run.get("status") != "completed":
        return Usage({})
    return usage(run, {})


def text(event: Mapping[str, Any]) -> Iterable[tuple[int, str]]:
    """What `thread.message.delta` and `thread.run.step.delta` add."""
    delta = mapping(event.get("delta"))
    for part in map(mapping, items(delta.get("content"))):
        yield 0, string(mapping(part.get("text")).get("value"))
    for call in map(mapping, items(mapping(delta.get("step_details")).get("tool_calls"))):
        function = mapping(call.get("function"))
        yield 0, string(function.get("name")) + string(function.get("arguments"))
        yield 0, string(mapping(call.get("code_interpreter")).get("input"))


def cap(_: dict[str, Any], tokens: int) -> dict[str, Any]:
    return {"max_completion_tokens": tokens}
