"""Runs of assistants: as work that ends when told to, or streamed to the end at once."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import orjson

from simulator import assistants, chat, errors, resources, tokens
from simulator.directives import Directives
from simulator.exchange import DONE, Exchange, new_id
from simulator.kinds import ASSISTANT, MESSAGE, RUN, STEP, THREAD
from simulator.store import Thing
from simulator.world import World

EXPIRES_AFTER_S = 600
ENDED = b"event: done\n" + DONE
RUN_FIELDS: dict[str, Any] = {
    "model": None,
    "instructions": "",
    "tools": [],
    "metadata": {},
    "temperature": 1.0,
    "top_p": 1.0,
    "reasoning_effort": None,
    "max_completion_tokens": None,
    "max_prompt_tokens": None,
    "truncation_strategy": {"type": "auto", "last_messages": None},
    "response_format": "auto",
    "tool_choice": "auto",
    "parallel_tool_calls": True,
}


Told = tuple[str, dict[str, Any], int]  # the name of an event, its document, its completion tokens


@dataclass(slots=True)
class Turn:
    """One answer of the model within a run: calls that wait for their outputs, or a message.

    Attributes:
        telling: its events, once it has begun to end; who reads on continues where another one stopped.
    """

    answer: chat.Answer
    encoding: str
    usage: dict[str, Any]
    telling: Iterator[Told] | None = None

    def tell(self, world: World, run: Thing, status: str, share: float) -> Iterator[Told]:
        if self.telling is None:
            self.telling = ends(world, run, self, status, share)
        return self.telling


async def create(exchange: Exchange, thread_id: str) -> None:
    """POST /v1/threads/{thread_id}/runs"""
    thread = exchange.world.store.get(THREAD, thread_id)
    await start(exchange, thread, exchange.json_object())


async def create_with_thread(exchange: Exchange) -> None:
    """POST /v1/threads/runs"""
    body = exchange.json_object()
    exchange.world.store.get(ASSISTANT, body.get("assistant_id"))
    thread = assistants.new_thread(exchange.world.store, body.get("thread") or {})
    await start(exchange, thread, body, new=True)


async def start(exchange: Exchange, thread: Thing, body: dict[str, Any], *, new: bool = False) -> None:
    store, call = exchange.world.store, exchange.call
    if not isinstance(body.get("assistant_id"), str):
        raise errors.missing("assistant_id")
    assistant = store.get(ASSISTANT, body["assistant_id"])
    active = [run for run in store.all(RUN, thread.id) if exchange.world.work.pending(run.id)]
    if active:
        message = f"Thread {thread.id} already has an active run {active[0].id}."
        raise errors.ApiError(400, message)
    for message in body.get("additional_messages") or []:
        assistants.new_message(store, thread.id, message)
    fields = assistants.filled(body, assistants.filled(assistant.document, RUN_FIELDS))
    fields |= {"assistant_id": assistant.id, "thread_id": thread.id, "status": "queued", "usage": None}
    fields |= {"expires_at": int(time.time()) + EXPIRES_AFTER_S, "required_action": None, "last_error": None}
    for moment in ("started_at", "cancelled_at", "failed_at", "completed_at", "incomplete_details"):
        fields[moment] = None
    extra = body.get("additional_instructions")
    if extra:
        fields["instructions"] = f"{fields['instructions']}\n{extra}"
    run = store.add(RUN, fields, parent=thread.id)
    run.hidden.update(spent={"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}, outputs=[])
    call.object_id, call.model, call.stream = run.id, fields["model"], bool(body.get("stream"))
    thread_events = [("thread.created", thread.document)] if new else []
    await go_on(exchange, run, [*thread_events, ("thread.run.created", run.document)])


async def go_on(exchange: Exchange, run: Thing, begun: list[tuple[str, dict[str, Any]]]) -> None:
    """The run takes its next turn: at once in a stream, else when it is told to."""
    world, wish = exchange.world, exchange.directives
    turn = plan(world, run, wish)

    async def finish(status: str, share: float) -> dict[str, Any] | None:
        for _ in turn.tell(world, run, status, share):
            pass
        return turn.usage if turn.usage["total_tokens"] else None

    world.work.begin(run, finish, model=run.document["model"], finish_after=wish.finish_after)
    if not exchange.call.stream:
        await exchange.send_object(run.document)
        return
    await exchange.send_stream(told(begun, world, run, turn), done=ENDED)
    await world.work.finish(run.id)


def told(
    begun: list[tuple[str, dict[str, Any]]], world: World, run: Thing, turn: Turn
) -> Iterator[tuple[bytes, int]]:
    """The events of a turn; it ends only when all of them were read."""
    for name, document in begun:
        yield event(name, document), 0
    yield event("thread.run.queued", run.document), 0
    run.document.update(status="in_progress", started_at=int(time.time()))
    yield event("thread.run.in_progress", run.document), 0
    for name, document, length in turn.tell(world, run, "completed", 1.0):
        yield event(name, document), length


def event(name: str, document: dict[str, Any]) -> bytes:
    return b"event: %s\ndata: %s\n\n" % (name.encode(), orjson.dumps(document))


def plan(world: World, run: Thing, wish: Directives) -> Turn:
    """What the model reads and says next: calls of functions first, words once their outputs are in."""
    document = run.document
    encoding = tokens.encoding_name(document["model"])
    messages = [
        {"role": one.document["role"], "content": _texts(one)} for one in world.store.all(MESSAGE, run.parent)
    ]
    if not messages and not document["instructions"]:
        message = "Run creation requires a Thread with a user message or an assistant with instructions."
        raise errors.ApiError(400, message, code="invalid_thread")
    if document["instructions"]:
        messages.insert(0, {"role": "system", "content": document["instructions"]})
    outputs = run.hidden["outputs"]
    messages.extend({"role": "tool", "content": str(output.get("output"))} for output in outputs)
    functions = [tool for tool in document["tools"] if tool.get("type") == "function"]
    body: dict[str, Any] = {"messages": messages}
    if functions and not outputs:
        body |= {"tools": functions, "tool_choice": document["tool_choice"]}
    answer = chat.compose(body, wish, encoding, document["max_completion_tokens"])
    read = tokens.prompt_tokens(document["model"], body) if wish.prompt is None else wish.prompt
    usage = {
        "prompt_tokens": read,
        "completion_tokens": answer.length,
        "total_tokens": read + answer.length,
        "prompt_token_details": {"cached_tokens": min(wish.cached, read)},
        "completion_tokens_details": {"reasoning_tokens": 0},
    }
    return Turn(answer, encoding, usage)


def _texts(message: Thing) -> str:
    parts = (part.get("text") for part in message.document["content"])
    return "".join(text["value"] for text in parts if isinstance(text, dict))


def ends(world: World, run: Thing, turn: Turn, status: str, share: float) -> Iterator[Told]:
    """End a turn, telling it in events; the run is not over if it has called functions."""
    document = run.document
    if document["status"] == "cancelling" and status == "completed":
        status, share = "cancelled", 0.5
    now = int(time.time())
    if status != "completed":
        read, written = turn.usage["prompt_tokens"] if share else 0, round(turn.answer.length * share)
        turn.usage.update(prompt_tokens=read, completion_tokens=written, total_tokens=read + written)
        spend(run, turn)
        document.update({"status": status, f"{status}_at": now, "usage": total(run)})
        if status == "failed":
            document["last_error"] = {"code": "server_error", "message": "Told to fail."}
        yield f"thread.run.{status}", document, 0
        return
    document["started_at"] = document["started_at"] or now
    yield from (calls(world, run, turn) if turn.answer.calls else words(world, run, turn))
    spend(run, turn)
    if turn.answer.calls:
        document["status"] = "requires_action"
        yield "thread.run.requires_action", document, 0
        return
    limited = turn.answer.finish_reason == "length"
    final = "incomplete" if limited else "completed"
    document.update(status=final, completed_at=None if limited else now, usage=total(run))
    if limited:
        document["incomplete_details"] = {"reason": "max_completion_tokens"}
    yield f"thread.run.{final}", document, 0


def spend(run: Thing, turn: Turn) -> None:
    for name in run.hidden["spent"]:
        run.hidden["spent"][name] += turn.usage[name]


def total(run: Thing) -> dict[str, Any] | None:
    """What all turns used; OpenAI shows it when the run is over."""
    spent: dict[str, Any] = run.hidden["spent"]
    return dict(spent) if spent["total_tokens"] else None


def new_step(world: World, run: Thing, kind: str, details: dict[str, Any]) -> Thing:
    fields: dict[str, Any] = {
        "run_id": run.id,
        "assistant_id": run.document["assistant_id"],
        "thread_id": run.parent,
        "type": kind,
        "status": "in_progress",
        "step_details": {"type": kind, kind: details},
        "usage": None,
        "last_error": None,
    }
    for moment in ("cancelled_at", "completed_at", "expired_at", "failed_at"):
        fields[moment] = None
    return world.store.add(STEP, fields, parent=run.id)


def words(world: World, run: Thing, turn: Turn) -> Iterator[Told]:
    """The model's message, token by token."""
    now = int(time.time())
    for step in world.store.all(STEP, run.id):
        step.document.update(status="completed", completed_at=now)
    message = assistants.new_message(
        world.store,
        run.parent,
        {"role": "assistant", "content": []},
        assistant_id=run.document["assistant_id"],
        run_id=run.id,
        status="in_progress",
    )
    step = new_step(world, run, "message_creation", {"message_id": message.id})
    yield "thread.run.step.created", step.document, 0
    yield "thread.run.step.in_progress", step.document, 0
    yield "thread.message.created", message.document, 0
    yield "thread.message.in_progress", message.document, 0
    head = {"id": message.id, "object": "thread.message.delta"}
    waiting = 0
    for piece in turn.answer.pieces(turn.encoding):
        waiting += 1
        if piece:
            part = {"index": 0, "type": "text", "text": {"value": piece, "annotations": []}}
            yield "thread.message.delta", {**head, "delta": {"content": [part]}}, waiting
            waiting = 0
    text = {"type": "text", "text": {"value": turn.answer.text or "", "annotations": []}}
    message.document.update(content=[text], status="completed", completed_at=now)
    yield "thread.message.completed", message.document, 0
    step.document.update(status="completed", completed_at=now, usage=turn.usage)
    yield "thread.run.step.completed", step.document, 0


def calls(world: World, run: Thing, turn: Turn) -> Iterator[Told]:
    """The functions that the model calls."""
    called = [
        {
            "id": f"call_{new_id()[-24:]}",
            "type": "function",
            "function": {"name": tool.name, "arguments": "".join(tool.arguments)},
        }
        for tool in turn.answer.calls
    ]
    step = new_step(world, run, "tool_calls", {})
    step.document.update(step_details={"type": "tool_calls", "tool_calls": called}, usage=turn.usage)
    submit = {"tool_calls": called}
    run.document["required_action"] = {"type": "submit_tool_outputs", "submit_tool_outputs": submit}
    yield "thread.run.step.created", step.document, 0
    yield "thread.run.step.in_progress", step.document, 0
    delta = {"step_details": {"type": "tool_calls", "tool_calls": [{"index": 0, **called[0]}]}}
    head = {"id": step.id, "object": "thread.run.step.delta", "delta": delta}
    yield "thread.run.step.delta", head, turn.answer.length


async def submit_tool_outputs(exchange: Exchange, thread_id: str, run_id: str) -> None:
    """POST /v1/threads/{thread_id}/runs/{run_id}/submit_tool_outputs"""
    run = resources.resolve(exchange, (THREAD, RUN), (thread_id, run_id))
    body = exchange.json_object()
    status = run.document["status"]
    if status != "requires_action":
        raise errors.ApiError(400, f'Runs in status "{status}" do not accept tool outputs.')
    outputs = body.get("tool_outputs")
    if not isinstance(outputs, list):
        raise errors.missing("tool_outputs")
    wanted = {call["id"] for call in run.document["required_action"]["submit_tool_outputs"]["tool_calls"]}
    given = {output.get("tool_call_id") for output in outputs if isinstance(output, dict)}
    if given != wanted:
        message = f"Expected tool outputs for call_ids {sorted(wanted)}, got {sorted(map(str, given))}"
        raise errors.ApiError(400, message)
    run.hidden["outputs"].extend(outputs)
    run.document.update(status="queued", required_action=None)
    exchange.call.object_id, exchange.call.stream = run.id, bool(body.get("stream"))
    await go_on(exchange, run, [])


async def cancel(exchange: Exchange, thread_id: str, run_id: str) -> None:
    """POST /v1/threads/{thread_id}/runs/{run_id}/cancel"""
    run = resources.resolve(exchange, (THREAD, RUN), (thread_id, run_id))
    status = run.document["status"]
    if status == "requires_action":
        run.document.update(status="cancelled", cancelled_at=int(time.time()), usage=total(run))
        run.document["required_action"] = None
    elif exchange.world.work.pending(run.id):
        run.document["status"] = "cancelling"
    else:
        raise errors.ApiError(400, f"Cannot cancel run with status '{status}'.")
    await exchange.send_object(run.document)


ROUTES = (
    ("POST", "threads/runs", create_with_thread),
    ("POST", "threads/{}/runs", create),
    ("POST", "threads/{}/runs/{}/submit_tool_outputs", submit_tool_outputs),
    ("POST", "threads/{}/runs/{}/cancel", cancel),
)
RESOURCES = (
    resources.Resource("threads/{}/runs", (THREAD, RUN), "list get update"),
    resources.Resource("threads/{}/runs/{}/steps", (THREAD, RUN, STEP), "list get"),
)
