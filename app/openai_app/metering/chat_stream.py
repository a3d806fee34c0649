"""Chat completions on the wire: what is written into a request, and what a stream's events say.

Source: OpenAI's API reference, "Create chat completion" (`max_completion_tokens`, `stream_options`) and
"The chat completion chunk object".
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from openai_app.metering.reading import above_zero, asks_for_stream

# Today's field, and the older one.
LIMITS = ("max_completion_tokens", "max_tokens")


def cap(body: dict[str, Any], tokens: int) -> dict[str, Any]:
    """Lowers the caller's own limits where there are any; both may be given, and either binds.

    One that is no limit stays as it came: OpenAI refuses it, and the call is not paid for.
    """
    limits = {field: limit_in(body, field) for field in LIMITS}
    lowered = {field: min(limit, tokens) for field, limit in limits.items() if limit is not None}
    if lowered:
        return lowered
    free = next((field for field in LIMITS if body.get(field) is None), LIMITS[0])
    return {free: tokens}


def limit_in(body: Mapping[str, Any], field: str) -> int | None:
    """The output tokens that a field asks for; None for what is no limit, such as digits in a text."""
    value = body.get(field)
    return None if isinstance(value, str) else above_zero(value)


def ask_for_usage(body: dict[str, Any]) -> dict[str, Any]:
    if not asks_for_stream(body):
        return {}
    options = body.get("stream_options")
    if options is None:
        return {"stream_options": {"include_usage": True}}
    if not isinstance(options, dict) or options.get("include_usage") is True:
        return {}
    return {"stream_options": {**options, "include_usage": True}}


def text(event: Mapping[str, Any]) -> Iterable[tuple[int, str]]:
    """What a chunk adds to each choice's output, tool calls and refusals included."""
    choices = event.get("choices")
    for choice in choices if isinstance(choices, list) else ():
        if not isinstance(choice, dict):
            continue
        index, delta = choice.get("index"), choice.get("delta")
        if isinstance(delta, dict):
            for added in _strings(delta):
                yield (index if isinstance(index, int) else 0), added


def _strings(delta: Mapping[str, Any]) -> Iterable[str]:
    for field in ("content", "refusal", "reasoning_content"):
        if isinstance(delta.get(field), str):
            yield delta[field]
    calls = delta.get("tool_calls")
    functions = [c.get("function") for c in calls if isinstance(c, dict)] if isinstance(calls, list) else []
    for function in (*functions, delta.get("function_call")):
        if isinstance(function, dict):
            yield from (function[f] for f in ("name", "arguments") if isinstance(function.get(f), str))
    audio = delta.get("audio")
    if isinstance(audio, dict) and isinstance(audio.get("transcript"), str):
        yield audio["transcript"]
