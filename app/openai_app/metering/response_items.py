"""The items of a response's input as the messages of a chat: both reach the model in the same shape."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .parts import text_of
from .reading import items, mapping, string

# Tokens of the instructions for OpenAI's own tools, by their type; measured.
_OWN_TOOLS = {
    "web_search": 294,
    "web_search_preview": 294,
    "file_search": 1_100,
    "code_interpreter": 380,
    "image_generation": 3_150,
    "computer_use_preview": 484,
    "apply_patch": 623,
    "mcp": 114,
}
# Items that stand for what is elsewhere, or are counted by their length.
_NOT_READ = ("reasoning", "compaction", "item_reference")
_NOT_SHOWN = ("id", "call_id", "type", "status", "encrypted_content")


def as_chat(request: Mapping[str, Any]) -> dict[str, Any]:
    """A request for a response, as the request for a chat completion that costs as much."""
    messages: list[Any] = []
    if request.get("instructions"):
        messages.append({"role": "system", "content": request["instructions"]})
    if variables := mapping(request.get("prompt")).get("variables"):
        messages.append({"role": "system", "content": text_of(variables)})
    given = request.get("input")
    for item in given if isinstance(given, list) else [given] if given is not None else []:
        _add(messages, item)
    body: dict[str, Any] = {
        "model": request.get("model"),
        "messages": messages,
        "tools": _functions(request.get("tools")),
        "tool_choice": request.get("tool_choice"),
    }
    form = mapping(mapping(request.get("text")).get("format"))
    if form.get("type") == "json_schema":
        body["response_format"] = {"type": "json_schema", "json_schema": form}
    return body


def calls_framing(request: Mapping[str, Any], *, reasons: bool) -> int:
    """Tokens that calls cost beyond those of a chat; one without an id of its own costs less. Measured."""
    given = map(mapping, items(request.get("input")))
    calls = [item for item in given if item.get("type") == "function_call"]
    return sum(1 if reasons or item.get("id") else -2 for item in calls)


def reasoning_tokens(request: Mapping[str, Any]) -> int:
    """Tokens of the reasoning that the model reads again: what it thought since the user last spoke.

    It comes encrypted, as does what a compaction left, and is told by its length; fitted to recorded calls.
    """
    given = list(map(mapping, items(request.get("input"))))
    spoken = max((at for at, item in enumerate(given) if item.get("role") == "user"), default=-1)
    thoughts = [
        item
        for at, item in enumerate(given)
        if (item.get("type") == "reasoning" and at > spoken) or item.get("type") == "compaction"
    ]
    return sum(max(len(string(item.get("encrypted_content"))) - 700, 0) // 6 for item in thoughts)


def tool_tokens(request: Mapping[str, Any]) -> int:
    """The least that OpenAI's own tools were seen to add; what they find comes on top of it."""
    tools = map(mapping, items(request.get("tools")))
    return sum(_OWN_TOOLS.get(string(tool.get("type")), 0) for tool in tools)


def _functions(tools: object) -> list[Mapping[str, Any]]:
    """The caller's own tools in the shape of a chat's, those within a namespace too."""
    found: list[Mapping[str, Any]] = []
    left = [tools]
    while left:
        for tool in map(mapping, items(left.pop())):
            match tool.get("type"):
                case "function":
                    found.append({"type": "function", "function": tool})
                case "custom":
                    found.append({"type": "custom", "custom": tool})
                case "namespace":
                    left.append(tool.get("tools"))
    return found


def _add(messages: list[Any], item: object) -> None:
    if not isinstance(item, dict):
        messages.append({"role": "user", "content": item})
        return
    kind = item.get("type", "message")
    if kind == "message":
        messages.append({"role": item.get("role", "user"), "content": _content(item.get("content"))})
    elif isinstance(kind, str) and kind.endswith("_call_output"):
        messages.append(
            {
                "role": "tool",
                "tool_call_id": item.get("call_id"),
                "content": _content(item.get("output")),
            }
        )
    elif kind in ("function_call", "custom_tool_call"):
        call = {
            "id": item.get("call_id"),
            "function": {"name": item.get("name"), "arguments": item.get("arguments", item.get("input"))},
        }
        # Calls at once are not gathered into one, as they are in a chat.
        messages.append({"role": "assistant", "tool_calls": [call]})
    elif kind not in _NOT_READ:
        shown = {field: value for field, value in item.items() if field not in _NOT_SHOWN}
        messages.append({"role": "assistant", "content": text_of(shown)})


def _content(content: object) -> object:
    return [_part(part) for part in content] if isinstance(content, list) else content


def _part(part: object) -> object:
    if not isinstance(part, dict):
        return part
    match part.get("type"):
        case "input_image":
            image = {"url": part.get("image_url"), "detail": part.get("detail")}
            return {"type": "image_url", "image_url": image}
        case "input_file":
            return {"type": "file", "file": {"file_data": part.get("file_data")}}
        case "input_audio":
            return part
        case _:
            return {"type": "text", "text": string(part.get("text") or part.get("refusal"))}
