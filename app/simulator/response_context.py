"""What a response reads: its own input, and what was said before it."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson

from simulator import errors, tokens
from simulator.kinds import CONVERSATION, ITEM, RESPONSE
from simulator.store import Store

Item = dict[str, Any]
NOT_READ = frozenset({"id", "type", "status", "role", "name", "arguments", "call_id"})


def items_of(given: object) -> list[Item]:
    """The `input` of a request as a list of items.

    Raises:
        ApiError: an item is none.
    """
    if isinstance(given, str):
        return [{"role": "user", "content": given}]
    items = given if isinstance(given, list) else []
    for index, item in enumerate(items):
        if not isinstance(item, dict):
            raise errors.invalid_type(f"input[{index}]", "an object", item)
    return items


def kept_item(item: Item) -> Item:
    """The item as it is stored: with an id, a type, and its text in parts."""
    kept: Item = {"id": ITEM.new_id(), "type": "message", "status": "completed"} | item
    if kept["type"] == "item_reference":
        return kept
    if kept["type"] == "message" and isinstance(kept.get("content"), str):
        part = "output_text" if kept.get("role") == "assistant" else "input_text"
        kept["content"] = [{"type": part, "text": kept["content"]}]
    return kept


def earlier(store: Store, body: dict[str, Any]) -> tuple[list[Item], str]:
    """The items that came before, and the id of the conversation, if there is one.

    Raises:
        ApiError: the earlier response or the conversation isn't there.
    """
    previous = body.get("previous_response_id")
    if previous:
        thing = store.find(RESPONSE, previous)
        if thing is None:
            message = f"Previous response with id '{previous}' not found."
            param = "previous_response_id"
            raise errors.ApiError(400, message, param=param, code="previous_response_not_found")
        return list(thing.hidden["plan"].context), ""
    conversation = body.get("conversation")
    if not conversation:
        return [], ""
    id = conversation.get("id") if isinstance(conversation, dict) else conversation
    thing = store.get(CONVERSATION, id)
    return [item.document for item in store.all(ITEM, thing.id)], thing.id


def as_chat(body: dict[str, Any], items: list[Item]) -> dict[str, Any]:
    """The request in the form of a chat completion's: the rules for answers and for counting are the same."""
    messages = [_message(item) for item in items]
    if isinstance(body.get("instructions"), str):
        messages.insert(0, {"role": "system", "content": body["instructions"]})
    functions = [tool for tool in body.get("tools") or [] if isinstance(tool, dict)]
    text_format = (body.get("text") or {}).get("format") or {}
    chat: dict[str, Any] = {
        "messages": messages or [{"role": "user", "content": ""}],
        "tools": [
            {"type": "function", "function": tool} for tool in functions if tool.get("type") == "function"
        ],
        "tool_choice": body.get("tool_choice"),
    }
    if text_format.get("type") == "json_schema":
        chat["response_format"] = {"type": "json_schema", "json_schema": text_format}
    elif text_format.get("type") == "json_object":
        chat["response_format"] = text_format
    return chat


def _message(item: Item) -> Item:
    kind = item.get("type", "message")
    if kind == "message":
        return {"role": item.get("role", "user"), "content": item.get("content") or ""}
    if kind == "function_call":
        function = {"name": item.get("name"), "arguments": item.get("arguments")}
        return {"role": "assistant", "content": orjson.dumps(function).decode()}
    if kind == "function_call_output":
        output = item.get("output")
        return {"role": "tool", "content": output if isinstance(output, (str, list)) else ""}
    read = {name: value for name, value in item.items() if name not in NOT_READ}
    return {"role": kind, "content": orjson.dumps(read).decode() if read else ""}


async def count(model: str, body: dict[str, Any], items: list[Item]) -> int:
    """Input tokens, by the rule for chat messages."""
    chat = as_chat(body, items)
    if len(orjson.dumps(chat)) > tokens.COUNT_INLINE_BYTES:
        return await asyncio.to_thread(tokens.prompt_tokens, model, chat)
    return tokens.prompt_tokens(model, chat)
