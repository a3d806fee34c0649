"""Calls of the tools that OpenAI runs itself, which it charges by the call, beside the tokens.

Source: OpenAI's pricing page, "Built-in tools"; guide "Web search": searches cost, opening a page does not.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from balances.units import CODE_INTERPRETER, FILE_SEARCH, WEB_SEARCH

from .reading import above_zero, amount, items, mapping, string, without_zeros

# What a caller asks for in max_tool_calls is believed up to here.
_MOST_CALLS = 128


def foreseen(request: Mapping[str, Any]) -> dict[str, int]:
    """What the tools that a request brings may need: as many calls as it allows, or one of each kind."""
    calls = min(above_zero(request.get("max_tool_calls")) or 1, _MOST_CALLS)
    found: dict[str, int] = {}
    for tool in map(mapping, items(request.get("tools"))):
        kind = string(tool.get("type"))
        if kind.startswith("web_search"):
            found[WEB_SEARCH] = calls
        elif kind == "file_search":
            found[FILE_SEARCH] = calls
        elif kind == "code_interpreter" and not _is_named(tool):
            found[CODE_INTERPRETER] = 1
    return found


def used(response: Mapping[str, Any]) -> dict[str, int]:
    """What the tools of a finished response did.

    A container is a session of the code interpreter, once a response; one that the caller had made, and
    names, was paid for when it was made.
    """
    output = [mapping(item) for item in items(response.get("output"))]
    searches = sum(item.get("type") == "web_search_call" and _is_search(item) for item in output)
    reported = mapping(mapping(response.get("tool_usage")).get("web_search"))
    sessions = {
        string(item.get("container_id")) for item in output if item.get("type") == "code_interpreter_call"
    }
    own = any(_is_named(mapping(tool)) for tool in items(response.get("tools")))
    return without_zeros(
        {
            WEB_SEARCH: amount(reported.get("num_requests")) if "num_requests" in reported else searches,
            FILE_SEARCH: sum(item.get("type") == "file_search_call" for item in output),
            CODE_INTERPRETER: 0 if own else len(sessions),
        }
    )


def searches(request: Mapping[str, Any]) -> dict[str, int]:
    """A chat completion by a model that searches the web, which it does once for each answer."""
    model = string(request.get("model"))
    asked = isinstance(request.get("web_search_options"), Mapping)
    return {WEB_SEARCH: 1} if asked or "-search-" in model else {}


def _is_named(tool: Mapping[str, Any]) -> bool:
    """Whether a code interpreter works in a container that its caller names."""
    return tool.get("type") == "code_interpreter" and isinstance(tool.get("container"), str)


def _is_search(call: Mapping[str, Any]) -> bool:
    return string(mapping(call.get("action")).get("type")) in ("", "search")
