"""Responses: counted as the chat that the model reads, metered by the usage of the response.

A response is charged by the tokens that OpenAI reports for it, which include what a tool's results added to
the input, and by the calls of OpenAI's own tools that it charges by the call (`hosted`); the others are
recorded in the details by their number. Images that a response generates are charged in tokens as well.

Source: OpenAI's API reference, "Create a model response" and "Streaming events".
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from balances.units import CACHED_INPUT, INPUT, OUTPUT, REASONING
from balances.usage import Estimate, Usage

from . import hosted
from .formats import schema_text
from .messages import measure
from .models import Family, find
from .reading import above_zero, amount, items, mapping, string, totals, without_zeros
from .response_items import as_chat, calls_framing, reasoning_tokens, tool_tokens
from .tokens import count
from .tools import definitions, namespace

# OpenAI refuses a smaller max_output_tokens.
LEAST_CAP = 16
_ENDS = frozenset(("response.completed", "response.incomplete", "response.failed"))
# What function tools add besides their definitions, without and with reasoning; measured.
_TOOLS = -3
_TOOLS_REASONING = 3
# In these events the `delta` is text that the model wrote; audio and images come in others.
_WRITTEN = frozenset(
    f"response.{kind}.delta"
    for kind in (
        "output_text",
        "refusal",
        "function_call_arguments",
        "custom_tool_call_input",
        "mcp_call_arguments",
        "code_interpreter_call_code",
        "reasoning_text",
        "reasoning_summary_text",
        "audio.transcript",
    )
)


def estimate(request: dict[str, Any]) -> Estimate:
    """What a response will cost at least, without what earlier responses or a conversation add to it."""
    name = request.get("model")
    model = find(name if isinstance(name, str) else "")
    return Estimate(
        _input(request, model.family),
        asked=above_zero(request.get("max_output_tokens")),
        ceiling=model.max_output,
        least_cap=LEAST_CAP,
        besides=hosted.foreseen(request),
    )


def estimate_compaction(request: dict[str, Any]) -> Estimate:
    """A compaction writes a summary of its input: hardly more than that, and no field bounds it."""
    counted = estimate(request)
    output = max(sum(counted.units.values()), LEAST_CAP)
    return replace(counted, asked=output, least_cap=output)


def _input(request: Mapping[str, Any], family: Family) -> dict[str, int]:
    """As for a chat, with the framing of tools and formats that recorded responses show."""
    reasons = family.tools > 0
    # What is put into a system message of the upstream's own costs no framing here.
    family = replace(family, system=0)
    body = as_chat(request)
    total = family.reply + calls_framing(request, reasons=reasons) + _choice(request, family)
    total += reasoning_tokens(request) + tool_tokens(request)
    appended = []
    if tools := namespace(definitions(body), old=family.old_tools):
        appended.append(tools)
        total += _TOOLS_REASONING if reasons else _TOOLS
    _, schema = schema_text(body.get("response_format"))
    if schema:
        appended.append(schema)
        total += 0 if reasons or tools else 1
    measured = measure(body["messages"], "\n\n".join(appended), family)
    total += measured.text + measured.image
    return without_zeros({"input": total, "audio_input": measured.audio})


def _choice(request: Mapping[str, Any], family: Family) -> int:
    """What forcing one function adds."""
    choice = mapping(request.get("tool_choice"))
    if choice.get("type") != "function" or not family.choice:
        return 0
    return family.choice + count(f"functions.{string(choice.get('name'))}", family.encoding)


def usage(answer: Mapping[str, Any], _: dict[str, Any]) -> Usage | None:
    """The usage of a response, of a compaction, or of the event that ends a stream.

    A response that failed or was cancelled, and reports nothing, has used nothing.
    """
    response = mapping(answer["response"]) if "response" in answer else answer
    reported = mapping(response.get("usage"))
    if not reported and response.get("status") in ("failed", "cancelled"):
        return Usage({})
    total = totals(reported, "input_tokens", "output_tokens")
    if total is None:
        return None
    read, written = total
    read_details = mapping(reported.get("input_tokens_details"))
    cached = min(amount(read_details.get("cached_tokens")), read)
    units = Counter(hosted.used(response))
    reasoning = amount(mapping(reported.get("output_tokens_details")).get("reasoning_tokens"))
    reasoning = min(reasoning, written)
    tokens = {INPUT: read - cached, CACHED_INPUT: cached, OUTPUT: written - reasoning, REASONING: reasoning}
    units.update(without_zeros(tokens))
    details = {
        "cache_write": amount(read_details.get("cache_write_tokens")),
        **tool_calls(response),
    }
    return Usage(dict(units), without_zeros(details))


def tool_calls(response: Mapping[str, Any]) -> dict[str, int]:
    """How often OpenAI's own tools were called, by the type of the call."""
    calls: dict[str, int] = {}
    for item in items(response.get("output")):
        kind = string(mapping(item).get("type"))
        if kind.endswith("_call") and kind not in ("function_call", "custom_tool_call"):
            calls[kind] = calls.get(kind, 0) + 1
    return calls


def text(event: Mapping[str, Any]) -> Iterable[tuple[int, str]]:
    """What an event adds to the output. The name of a called function comes with its item."""
    kind = string(event.get("type"))
    if kind in _WRITTEN:
        yield 0, string(event.get("delta"))
    elif kind == "response.output_item.added":
        yield 0, string(mapping(event.get("item")).get("name"))


def ends(event: Mapping[str, Any]) -> bool:
    """Whether the event is the one with which the response is over; `[DONE]` never comes."""
    return string(event.get("type")) in _ENDS


def cap(_: dict[str, Any], tokens: int) -> dict[str, Any]:
    return {"max_output_tokens": tokens}
