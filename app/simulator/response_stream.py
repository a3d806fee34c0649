"""The events of a streamed response."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import orjson

if TYPE_CHECKING:
    from simulator.responses import Plan

Event = tuple[dict[str, Any], int]


def events(made: Plan, *, ends_well: bool = True, starting_after: int = -1) -> Iterator[tuple[bytes, int]]:
    """The stream as server-sent events, each with its output tokens; without an end if it ends badly."""
    for event, length in documents(made, ends_well=ends_well):
        if event["sequence_number"] > starting_after:
            yield b"event: %s\ndata: %s\n\n" % (event["type"].encode(), orjson.dumps(event)), length


def documents(made: Plan, *, ends_well: bool = True) -> Iterator[Event]:
    """The same as objects, numbered."""
    for number, (event, length) in enumerate(_told(made, ends_well)):
        event["sequence_number"] = number
        yield event, length


def _told(made: Plan, ends_well: bool) -> Iterator[Event]:
    document = made.document
    yield {"type": "response.created", "response": document}, 0
    yield {"type": "response.in_progress", "response": document | {"status": "in_progress"}}, 0
    calls = iter(made.answer.calls)
    for index, item in enumerate(made.output):
        begun = item | {"status": "in_progress"} if "status" in item else item
        if item["type"] == "message":
            yield from _item(index, begun | {"content": []}, item, _text(made, index, item))
        elif item["type"] == "function_call":
            tool = next(calls)
            pieces = ((piece, 1) for piece in tool.arguments)
            arguments = _arguments(index, item, pieces, tool.name_tokens)
            yield from _item(index, begun | {"arguments": ""}, item, arguments)
        else:
            yield from _item(index, begun, item, iter(()))
    if ends_well:
        ended = made.finished()
        yield {"type": f"response.{ended['status']}", "response": ended}, 0


def _item(
    index: int, begun: dict[str, Any], item: dict[str, Any], inside: Iterator[Event]
) -> Iterator[Event]:
    yield {"type": "response.output_item.added", "output_index": index, "item": begun}, 0
    yield from inside
    yield {"type": "response.output_item.done", "output_index": index, "item": item}, 0


def _text(made: Plan, index: int, item: dict[str, Any]) -> Iterator[Event]:
    where = {"item_id": item["id"], "output_index": index, "content_index": 0}
    part = item["content"][0]
    yield {"type": "response.content_part.added", **where, "part": part | {"text": ""}}, 0
    waiting = 0
    for piece in made.answer.pieces(made.encoding):
        waiting += 1
        if piece:
            yield {"type": "response.output_text.delta", **where, "delta": piece, "logprobs": []}, waiting
            waiting = 0
    if waiting:
        yield {"type": "response.output_text.delta", **where, "delta": "", "logprobs": []}, waiting
    yield {"type": "response.output_text.done", **where, "text": part["text"], "logprobs": []}, 0
    yield {"type": "response.content_part.done", **where, "part": part}, 0


def _arguments(
    index: int, item: dict[str, Any], pieces: Iterator[tuple[str, int]], name_tokens: int
) -> Iterator[Event]:
    where = {"item_id": item["id"], "output_index": index}
    kind = "response.function_call_arguments"
    for number, (piece, length) in enumerate(pieces):
        yield {"type": f"{kind}.delta", **where, "delta": piece}, length + (0 if number else name_tokens)
    yield {"type": f"{kind}.done", **where, "name": item["name"], "arguments": item["arguments"]}, 0
