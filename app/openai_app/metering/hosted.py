"""Calls of the tools that OpenAI runs itself, which it charges by the call, beside the model's tokens.

Source: OpenAI's pricing page, "Built-in tools"; guide "Web search": searches cost, opening a page does not.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from balances.units import CODE_INTERPRETER, FILE_SEARCH, IMAGE_OUTPUT, WEB_SEARCH

from . import image_calls
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
        elif kind == "image_generation":
            found[IMAGE_OUTPUT] = calls * image_calls.output_tokens(tool)
        elif _makes_container(tool):
            found[CODE_INTERPRETER] = found.get(CODE_INTERPRETER, 0) + 1
    return found


def used(response: Mapping[str, Any]) -> dict[str, int]:
    """What the tools of a finished response did.

    A container is a session of the code interpreter or of the shell, once a response; one that the caller
    had made, and names, was paid for when it was made.
    """
    output = [mapping(item) for item in items(response.get("output"))]
    searches = sum(item.get("type") == "web_search_call" and _is_search(item) for item in output)
    reported = mapping(mapping(response.get("tool_usage")).get("web_search"))
    containers = {found for item in output if (found := _container_of(item)) is not None}
    named = {_named(mapping(tool)) for tool in items(response.get("tools"))} - {""}
    if named:
        # A call that does not say where it ran did so in the caller's.
        containers -= {*named, ""}
    return without_zeros(
        {
            **_images(response, [item for item in output if item.get("type") == "image_generation_call"]),
            WEB_SEARCH: amount(reported.get("num_requests")) if "num_requests" in reported else searches,
            FILE_SEARCH: sum(item.get("type") == "file_search_call" for item in output),
            CODE_INTERPRETER: len(containers),
        }
    )


def searches(request: Mapping[str, Any]) -> dict[str, int]:
    """A chat completion by a model that searches the web, which it does once for each answer."""
    model = string(request.get("model"))
    asked = isinstance(request.get("web_search_options"), Mapping)
    return {WEB_SEARCH: 1} if asked or "-search-" in model else {}


def _images(response: Mapping[str, Any], calls: list[Mapping[str, Any]]) -> dict[str, int]:
    """The tokens of the images that were made; counted by the image, as they are when one is asked for by
    itself, where they are not reported: older responses do not."""
    reported = image_calls.token_units(mapping(mapping(response.get("tool_usage")).get("image_gen")))
    if reported:
        return reported
    tools = map(mapping, items(response.get("tools")))
    asked = next((tool for tool in tools if tool.get("type") == "image_generation"), {})
    made = [call for call in calls if call.get("status") != "failed"]
    told = [{name: value for name, value in call.items() if value is not None} for call in made]
    return {IMAGE_OUTPUT: sum(image_calls.output_tokens({**asked, **call}) for call in told)}


def _makes_container(tool: Mapping[str, Any]) -> bool:
    """Whether a tool works in a container that is made for the response."""
    if tool.get("type") == "shell":
        return mapping(tool.get("environment")).get("type") == "container_auto"
    return tool.get("type") == "code_interpreter" and not _named(tool)


def _named(tool: Mapping[str, Any]) -> str:
    """The container that a tool's caller names for it; empty if there is none."""
    if tool.get("type") == "shell":
        return string(mapping(tool.get("environment")).get("container_id"))
    return string(tool.get("container")) if tool.get("type") == "code_interpreter" else ""


def _container_of(item: Mapping[str, Any]) -> str | None:
    """The container in which a call ran, empty if it does not say; None for one that ran in none."""
    if item.get("type") == "code_interpreter_call":
        return string(item.get("container_id"))
    if item.get("type") == "shell_call":
        # The shell may be the caller's own computer.
        return string(mapping(item.get("environment")).get("container_id")) or None
    return None


def _is_search(call: Mapping[str, Any]) -> bool:
    return string(mapping(call.get("action")).get("type")) in ("", "search")
