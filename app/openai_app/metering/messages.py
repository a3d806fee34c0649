"""The messages of a chat as the model reads them.

A message costs a few tokens of framing, its role or the name it speaks under, and its content. Sources:
OpenAI's cookbook (How to count tokens with tiktoken) for messages and names; what it leaves open, calls of
functions and their results above all, was fitted to recorded calls.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from . import audio, parts
from .models import Family
from .parts import Parts, as_json, joined, text_of
from .tokens import count

_ONE_TOKEN_ROLES = frozenset(("system", "user", "assistant", "developer", "tool", "function"))
# Several calls at once reach the model as one call of this tool, and their results as its one result.
_PARALLEL = "multi_tool_use.parallel"


def measure(messages: Sequence[object], tools: str, family: Family) -> Parts:
    """All messages; ``tools`` is the text of functions and of a response format, "" if there is none.

    It stands behind the first message's content when that is the system's, else in a message of its own.
    """
    total = Parts()
    names: dict[str, str] = {}
    position = 0
    if tools and not (messages and _role(messages[0]) in ("system", "developer")):
        total.text += family.system + count(tools, family.encoding)
        tools = ""
    while position < len(messages):
        message = messages[position]
        position += 1
        if not isinstance(message, dict):
            total.text += count(text_of(message), family.encoding)
            continue
        total.add(_message(message, names, f"\n\n{tools}" if tools and position == 1 else "", family))
        calls = _calls(message)
        if not calls:
            continue
        names.update((identity, name) for identity, name, _ in calls)
        if len(calls) > 1:
            results = []
            while position < len(messages) and _role(messages[position]) == "tool":
                results.append(joined(_content(messages[position])))
                position += 1
            total.text += _parallel(calls, results, family)
        else:
            _, name, arguments = calls[0]
            total.text += _call(name, arguments, family)
        if message.get("content"):
            total.text += family.message + 1
    return total


def replies(messages: Sequence[object]) -> int:
    """How many of the messages are answers of the model other than calls."""
    return sum(
        isinstance(message, dict) and message.get("role") == "assistant" and not _calls(message)
        for message in messages
    )


def _message(message: Mapping[str, Any], names: Mapping[str, str], tail: str, family: Family) -> Parts:
    """One message without its calls; ``tail`` is the text that the upstream puts behind its content."""
    role = message.get("role")
    measured = parts.measure(message.get("content"), family, tail)
    measured.text += family.message + 1
    if role == "assistant":
        measured.text += family.assistant
    elif not isinstance(role, str) or role not in _ONE_TOKEN_ROLES:
        measured.text += count(text_of(role), family.encoding)
    name = names.get(text_of(message.get("tool_call_id"))) if role == "tool" else None
    if name is None and message.get("name") is not None:
        name = text_of(message["name"])
    if name is not None:
        measured.text += family.name + count(name, family.encoding)
    if role == "assistant" and isinstance(message.get("audio"), dict):
        measured.audio += audio.UNKNOWN
    if refusal := message.get("refusal"):
        measured.text += count(text_of(refusal), family.encoding)
    return measured


def _role(message: object) -> object:
    return message.get("role") if isinstance(message, dict) else None


def _content(message: object) -> object:
    return message.get("content") if isinstance(message, dict) else None


def _calls(message: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """The calls in an assistant's message: id, name and arguments of each."""
    found = []
    listed = message.get("tool_calls")
    for call in listed if isinstance(listed, list) else []:
        if not isinstance(call, dict):
            continue
        function = call.get("function") or call.get("custom")
        if isinstance(function, dict):
            arguments = text_of(function.get("arguments", function.get("input")))
            found.append((text_of(call.get("id")), text_of(function.get("name")), arguments))
    function = message.get("function_call")
    if isinstance(function, dict):
        found.append(("", text_of(function.get("name")), text_of(function.get("arguments"))))
    return found


def _call(name: str, arguments: str, family: Family) -> int:
    parsed = _parsed(arguments)
    written = arguments if isinstance(parsed, str) else as_json(parsed, compact=True)
    return family.call + count(f"functions.{name}", family.encoding) + count(written, family.encoding)


def _parallel(calls: Sequence[tuple[str, str, str]], results: Sequence[str], family: Family) -> int:
    uses = [{"recipient_name": f"functions.{name}", "parameters": _parsed(args)} for _, name, args in calls]
    written = as_json({"tool_uses": uses}, compact=True)
    total = family.call + 1 + count(_PARALLEL, family.encoding) + count(written, family.encoding)
    if results:
        # Escaped to ASCII, which some recordings are and some are not: the dearer of the two.
        answered = as_json([_parsed(result) for result in results], escaped=True)
        total += family.message + 1 + count(_PARALLEL, family.encoding) + count(answered, family.encoding)
    return total


def _parsed(text: str) -> object:
    """The JSON value that a text holds, else the text itself."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text
