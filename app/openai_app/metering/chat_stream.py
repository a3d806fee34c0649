"""Chat completions on the wire: what is written into a request, and what a stream's events say.

Source: OpenAI's API reference, "Create chat completion" (`max_completion_tokens`, `stream_options`) and
"The chat completion chunk object".
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any


def cap(body: dict[str, Any], tokens: int) -> dict[str, Any]:
    """Lowers the caller's own limit where there is one; both may be given, and either binds."""
    limits = [field for field in ("max_tokens", "max_completion_tokens") if body.get(field) is not None]
    return dict.fromkeys(limits or ["max_completion_tokens"], tokens)


def ask_for_usage(body: dict[str, Any]) -> dict[str, Any]:
    if body.get("stream") is not True:
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
