"""/v1/responses: answers as JSON, as streams and in the background, stored and continued."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import orjson

from simulator import (
    chat,
    conversations,
    errors,
    model_list,
    resources,
    response_context,
    response_stream,
    tokens,
)
from simulator.directives import Directives
from simulator.exchange import RATE_LIMIT_HEADERS, Broken, ClientLeft, Exchange, new_id
from simulator.kinds import ITEM, RESPONSE
from simulator.response_context import Item, count, items_of, kept_item
from simulator.store import Thing
from simulator.world import World

LEAST_OUTPUT_TOKENS = 16
ECHOED: dict[str, Any] = {
    "instructions": None,
    "max_output_tokens": None,
    "max_tool_calls": None,
    "parallel_tool_calls": True,
    "previous_response_id": None,
    "prompt_cache_key": None,
    "reasoning": {"effort": None, "summary": None},
    "safety_identifier": None,
    "service_tier": "default",
    "store": True,
    "temperature": 1.0,
    "text": {"format": {"type": "text"}, "verbosity": "medium"},
    "tool_choice": "auto",
    "tools": [],
    "top_logprobs": 0,
    "top_p": 1.0,
    "truncation": "disabled",
    "user": None,
    "metadata": {},
}


@dataclass(slots=True)
class Plan:
    """A response before it is told: its document, still in progress, and what it will say.

    Attributes:
        output: the finished items; usage: the truth.
    """

    document: dict[str, Any]
    answer: chat.Answer
    encoding: str
    output: list[dict[str, Any]]
    usage: dict[str, Any]
    input: list[Item]
    context: list[Item] = field(default_factory=list)
    conversation: str = ""
    reports_usage: bool = True

    def finished(self) -> dict[str, Any]:
        """The document at its end."""
        limited = self.answer.finish_reason == "length"
        return self.document | {
            "status": "incomplete" if limited else "completed",
            "completed_at": None if limited else int(time.time()),
            "incomplete_details": {"reason": "max_output_tokens"} if limited else None,
            "output": self.output,
            "usage": self.usage if self.reports_usage else None,
        }


def validate(body: dict[str, Any], *, needs_input: bool = True) -> str:
    """Check a body; return its model.

    Raises:
        ApiError: as OpenAI words it.
    """
    model = body.get("model")
    if not model or not isinstance(model, str):
        raise errors.missing("model")
    if needs_input and body.get("input") is None and not body.get("conversation") and not body.get("prompt"):
        raise errors.missing("input")
    given = body.get("input")
    if given is not None and not isinstance(given, (str, list)):
        raise errors.invalid_type("input", "one of a string or array of objects", given)
    limit = body.get("max_output_tokens")
    if limit is not None:
        if type(limit) is not int:
            raise errors.invalid_type("max_output_tokens", "an integer", limit)
        if limit < LEAST_OUTPUT_TOKENS:
            raise errors.below_minimum("max_output_tokens", LEAST_OUTPUT_TOKENS, limit)
    for name in ("tools", "include"):
        if body.get(name) is not None and not isinstance(body[name], list):
            raise errors.invalid_type(name, "an array", body[name])
    if body.get("previous_response_id") and body.get("conversation"):
        raise errors.ApiError(
            400,
            "Mutually exclusive parameters: 'previous_response_id' and 'conversation'. "
            "Ensure you are only providing one of: 'previous_response_id' or 'conversation'.",
            code="mutually_exclusive_parameters",
        )
    if not model_list.exists(model):
        message = f"The requested model '{model}' does not exist."
        raise errors.ApiError(400, message, param="model", code="model_not_found")
    return model


async def plan(world: World, body: dict[str, Any], wish: Directives) -> Plan:
    """Work out a response.

    Raises:
        ApiError: the body is wrong, or names what isn't there.
    """
    model = validate(body)
    encoding = tokens.encoding_name(model)
    earlier, conversation = response_context.earlier(world.store, body)
    given = [kept_item(item) for item in items_of(body.get("input"))]
    input_tokens = await count(model, body, [*earlier, *given])
    limit = body.get("max_output_tokens")
    reasoning = wish.reasoning if limit is None else min(wish.reasoning, limit)
    as_chat = response_context.as_chat(body, given)
    answer = chat.compose(as_chat, wish, encoding, None if limit is None else limit - reasoning)
    prompt = input_tokens if wish.prompt is None else wish.prompt
    response_id = RESPONSE.new_id()
    echoed = {name: body.get(name) if body.get(name) is not None else value for name, value in ECHOED.items()}
    document: dict[str, Any] = {
        "id": response_id,
        "object": "response",
        "created_at": int(time.time()),
        "status": "in_progress",
        "background": bool(body.get("background")),
        "completed_at": None,
        "error": None,
        "incomplete_details": None,
        "model": model,
        "output": [],
        **echoed,
        "usage": None,
    }
    if conversation:
        document["conversation"] = {"id": conversation}
    output_tokens = answer.length + reasoning
    usage = {
        "input_tokens": prompt,
        "input_tokens_details": {"cache_write_tokens": 0, "cached_tokens": min(wish.cached, prompt)},
        "output_tokens": output_tokens,
        "output_tokens_details": {"reasoning_tokens": reasoning},
        "total_tokens": prompt + output_tokens,
    }
    output = output_items(answer, reasoning, wish.searches)
    context = [*earlier, *given]
    return Plan(document, answer, encoding, output, usage, given, context, conversation, not wish.no_usage)


def output_items(answer: chat.Answer, reasoning: int, searches: int) -> list[dict[str, Any]]:
    """The finished output items: reasoning, web searches, then calls or a message."""
    items: list[dict[str, Any]] = []
    if reasoning:
        items.append({"id": f"rs_{new_id()}", "type": "reasoning", "summary": []})
    for _ in range(searches):
        action = {"type": "search", "query": "simulator"}
        items.append(
            {"id": f"ws_{new_id()}", "type": "web_search_call", "status": "completed", "action": action}
        )
    if not answer.calls:
        items.append(message_item(answer.text or "", answer.finish_reason))
        return items
    items.extend(
        {
            "id": f"fc_{new_id()}",
            "type": "function_call",
            "status": "completed",
            "call_id": f"call_{new_id()[-24:]}",
            "name": tool.name,
            "arguments": "".join(tool.arguments),
        }
        for tool in answer.calls
    )
    return items


def message_item(text: str, finish_reason: str = "stop") -> dict[str, Any]:
    part = {"type": "output_text", "annotations": [], "logprobs": [], "text": text}
    status = "incomplete" if finish_reason == "length" else "completed"
    return {"id": ITEM.new_id(), "type": "message", "status": status, "role": "assistant", "content": [part]}


def keep(world: World, made: Plan, document: dict[str, Any]) -> Thing:
    """Store a response, whatever its state."""
    thing = Thing(RESPONSE, document["id"], "", document, {"plan": made})
    if document["store"]:
        world.store.keep(thing)
    return thing


def settle(world: World, thing: Thing, document: dict[str, Any]) -> None:
    """The response has ended as `document` says."""
    thing.document.update(document)
    made: Plan = thing.hidden["plan"]
    if document["status"] in ("completed", "incomplete"):
        made.context = [*made.context, *made.output]
        if made.conversation:
            conversations.append(world.store, made.conversation, [*made.input, *made.output])


async def whole(
    world: World, body: dict[str, Any], wish: Directives
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The answer of one line of a batch, and the usage."""
    made = await plan(world, body, wish)
    thing = keep(world, made, dict(made.document))
    settle(world, thing, made.finished())
    return thing.document, made.usage


async def create(exchange: Exchange) -> None:
    """POST /v1/responses"""
    body = exchange.json_object()
    wish, call, world = exchange.directives, exchange.call, exchange.world
    made = await plan(world, body, wish)
    call.model, call.stream = made.document["model"], bool(body.get("stream"))
    call.object_id = made.document["id"]
    if body.get("background"):
        await create_in_background(exchange, made)
        return
    call.usage = made.usage
    thing = keep(world, made, dict(made.document))
    if call.stream:
        async with ends(world, thing):
            events = response_stream.events(made, ends_well=not wish.no_done)
            await exchange.send_stream(events, done=b"", named=True)
        call.usage_reported = made.reports_usage and not wish.no_done
        return
    settle(world, thing, made.finished())
    document = made.finished()
    if not made.reports_usage:
        del document["usage"]
    await exchange.send_json(
        200,
        orjson.dumps(document, option=orjson.OPT_INDENT_2),
        headers=RATE_LIMIT_HEADERS,
        tokens=made.answer.length,
    )
    call.usage_reported = made.reports_usage and not wish.malformed


@asynccontextmanager
async def ends(world: World, thing: Thing) -> AsyncIterator[None]:
    """The response ends with its stream: well, or with the connection."""
    try:
        yield
    except (ClientLeft, Broken, asyncio.CancelledError):
        thing.document["status"] = "cancelled"
        raise
    settle(world, thing, thing.hidden["plan"].finished())


async def create_in_background(exchange: Exchange, made: Plan) -> None:
    """The work goes on whatever becomes of the call; only a stream that is read to its end ends it too."""
    world, wish = exchange.world, exchange.directives
    if made.document["store"] is False:
        raise errors.ApiError(400, "Background mode requires store=true.", param="background")
    made.document["status"] = "queued"
    thing = keep(world, made, dict(made.document))

    async def finish(status: str, share: float) -> dict[str, Any] | None:
        if status == "completed":
            settle(world, thing, made.finished())
            return made.usage
        usage = partly(made.usage, share) if share else None
        settle(world, thing, {"status": status, "usage": usage})
        if status == "failed":
            thing.document["error"] = {"code": "server_error", "message": "The simulator was told to fail."}
        return usage

    model = made.document["model"]
    world.work.begin(thing, finish, model=model, finish_after=wish.finish_after)
    if not exchange.call.stream:
        await exchange.send_object(thing.document)
        return
    thing.document["status"] = "in_progress"
    await exchange.send_stream(response_stream.events(made), done=b"", named=True)
    await world.work.finish(thing.id)


def partly(usage: dict[str, Any], share: float) -> dict[str, Any]:
    """The usage when only a share of the output was generated."""
    output = round(usage["output_tokens"] * share)
    return usage | {
        "output_tokens": output,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": usage["input_tokens"] + output,
    }


async def retrieve(exchange: Exchange, response_id: str) -> None:
    """GET /v1/responses/{response_id}, also as a stream that goes on from `starting_after`."""
    thing = exchange.world.store.get(RESPONSE, response_id)
    exchange.call.object_id = thing.id
    await exchange.world.work.look(thing)
    query = exchange.query()
    if query.get("stream") != "true":
        await exchange.send_object(thing.document)
        return
    while exchange.world.work.pending(thing.id):
        await exchange.pause(0.05)
    after = int(query.get("starting_after", -1))
    exchange.call.stream = True
    events = response_stream.events(thing.hidden["plan"], starting_after=after)
    await exchange.send_stream(((event, 0) for event, _ in events), done=b"", named=True)


async def cancel(exchange: Exchange, response_id: str) -> None:
    """POST /v1/responses/{response_id}/cancel"""
    thing = exchange.world.store.get(RESPONSE, response_id)
    if not thing.document["background"]:
        raise errors.ApiError(400, "Cannot cancel a synchronous response.")
    await exchange.world.work.finish(thing.id, "cancelled", 0.0)
    await exchange.send_object(thing.document)


async def input_items(exchange: Exchange, response_id: str) -> None:
    """GET /v1/responses/{response_id}/input_items"""
    thing = exchange.world.store.get(RESPONSE, response_id)
    items = [Thing(ITEM, item["id"], thing.id, item) for item in thing.hidden["plan"].input]
    await exchange.send_object(resources.page(exchange, items, ITEM))


async def input_tokens(exchange: Exchange) -> None:
    """POST /v1/responses/input_tokens: what a response would cost to read; nothing is generated."""
    body = exchange.json_object()
    model = body.get("model") or "gpt-4o"
    earlier, _ = response_context.earlier(exchange.world.store, body)
    items = [*earlier, *items_of(body.get("input"))]
    total = await count(model, body, items)
    await exchange.send_object({"object": "response.input_tokens", "input_tokens": total})


async def compact(exchange: Exchange) -> None:
    """POST /v1/responses/compact: the messages of users stay, the rest becomes one opaque item."""
    body = exchange.json_object()
    model = validate(body, needs_input=not body.get("previous_response_id"))
    earlier, _ = response_context.earlier(exchange.world.store, body)
    items = [*earlier, *(kept_item(item) for item in items_of(body.get("input")))]
    input_count = await count(model, body, items)
    output_count = min(max(1, input_count // 4), 500)
    compaction = {
        "id": f"cmp_{new_id()}",
        "type": "compaction",
        "encrypted_content": tokens.filler(output_count),
    }
    usage = {
        "input_tokens": input_count,
        "input_tokens_details": {"cache_write_tokens": 0, "cached_tokens": 0},
        "output_tokens": output_count,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": input_count + output_count,
    }
    call = exchange.call
    call.model, call.usage, call.object_id = model, usage, RESPONSE.new_id()
    output = [*(item for item in items if item.get("role") == "user"), compaction]
    document = {"id": call.object_id, "object": "response.compaction", "created_at": int(time.time())}
    reported = {} if exchange.directives.no_usage else {"usage": usage}
    await exchange.send_json(
        200,
        orjson.dumps({**document, "output": output, **reported}, option=orjson.OPT_INDENT_2),
        tokens=output_count,
    )
    call.usage_reported = bool(reported)


ROUTES = (
    ("POST", "responses", create),
    ("POST", "responses/input_tokens", input_tokens),
    ("POST", "responses/compact", compact),
    ("GET", "responses/{}", retrieve),
    ("POST", "responses/{}/cancel", cancel),
    ("GET", "responses/{}/input_items", input_items),
)
RESOURCES = (resources.Resource("responses", (RESPONSE,), "delete"),)
