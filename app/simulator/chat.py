"""POST /v1/chat/completions: what the simulator answers, and its form as JSON and as a stream.

The answer is deterministic. Completion tokens are those of the text (or of each tool's name and arguments)
in the model's vocabulary, one a stream event; all `n` choices are alike. Not simulated: logprobs, stop
sequences, the `obfuscation` padding of streams.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import orjson

from simulator import errors, model_list, samples, stored_chats, tokens
from simulator.directives import NOTHING, Directives, without_marker
from simulator.exchange import RATE_LIMIT_HEADERS, Exchange, new_id
from simulator.world import World

FINGERPRINT = "fp_simulator"
MOST_CHOICES = 128
QUOTED_CHARACTERS = 200
REASONING_MODELS = ("o1", "o3", "o4", "gpt-5")
GREETING = re.compile(r"(hello|hi|hey|good (morning|afternoon|evening))\b", re.IGNORECASE)


@dataclass(slots=True, frozen=True)
class ToolCall:
    name: str
    name_tokens: int
    arguments: tuple[str, ...]


@dataclass(slots=True, frozen=True)
class Answer:
    """One choice.

    Attributes:
        length: its completion tokens, without reasoning and audio.
        text: None when there are tool calls.
        filler: the text is `tokens.filler(length)`, which may be too long to be kept in pieces.
    """

    length: int
    finish_reason: str
    text: str | None = None
    calls: tuple[ToolCall, ...] = ()
    legacy_function: bool = False
    filler: bool = False

    def pieces(self, encoding: str) -> Iterable[str]:
        if self.filler:
            return tokens.filler_pieces(self.length)
        return islice(tokens.pieces(encoding, self.text or ""), self.length)


async def create(exchange: Exchange) -> None:
    """POST /v1/chat/completions"""
    body = exchange.json_object()
    model = validate(body)
    wish = exchange.directives
    call = exchange.call
    call.model, call.stream = model, bool(body.get("stream"))
    encoding = tokens.encoding_name(model)
    if len(exchange.body) > tokens.COUNT_INLINE_BYTES:
        prompt = await asyncio.to_thread(tokens.prompt_tokens, model, body)
    else:
        prompt = tokens.prompt_tokens(model, body)
    limit = body.get("max_completion_tokens") or body.get("max_tokens")
    reasoning = wish.reasoning if limit is None else min(wish.reasoning, limit)
    answer = compose(body, wish, encoding, None if limit is None else limit - reasoning)
    choices = body.get("n") or 1
    usage = usage_document(prompt, answer.length * choices, reasoning * choices, wish)
    completion_id = f"chatcmpl-{new_id()[3:]}"
    call.object_id, call.usage = completion_id, usage
    if body.get("store"):
        kept = json_document(completion_id, model, answer, choices, usage)
        stored_chats.keep(exchange.world.store, kept, body)
    if call.stream:
        options = body.get("stream_options") or {}
        include_usage = bool(options.get("include_usage")) and not wish.no_usage
        frame = Frame(completion_id, model, encoding, include_usage, wish.usage_with_choices)
        await exchange.send_stream(frame.events(answer, choices, usage))
        call.usage_reported = include_usage
        return
    document = json_document(completion_id, model, answer, choices, None if wish.no_usage else usage)
    await exchange.send_json(
        200,
        orjson.dumps(document, option=orjson.OPT_INDENT_2),
        headers=RATE_LIMIT_HEADERS,
        tokens=answer.length * choices,
    )
    call.usage_reported = not wish.no_usage and not wish.malformed


async def whole(_: World, body: dict[str, Any], wish: Directives) -> tuple[dict[str, Any], dict[str, Any]]:
    """The answer of one line of a batch, and the usage."""
    model = validate(body)
    encoding = tokens.encoding_name(model)
    limit = body.get("max_completion_tokens") or body.get("max_tokens")
    reasoning = wish.reasoning if limit is None else min(wish.reasoning, limit)
    answer = compose(body, wish, encoding, None if limit is None else limit - reasoning)
    choices = body.get("n") or 1
    prompt = tokens.prompt_tokens(model, body)
    usage = usage_document(prompt, answer.length * choices, reasoning * choices, wish)
    document = json_document(f"chatcmpl-{new_id()[3:]}", model, answer, choices, usage)
    return document, usage


def validate(body: dict[str, Any]) -> str:
    """Check what OpenAI checks first; return the model.

    Raises:
        ApiError: as OpenAI words it.
    """
    model = body.get("model")
    if not model or not isinstance(model, str):
        raise errors.ApiError(400, "you must provide a model parameter")
    if "messages" not in body:
        raise errors.missing("messages")
    messages = body["messages"]
    if not isinstance(messages, list):
        raise errors.invalid_type("messages", "an array of objects", messages)
    if not messages:
        raise errors.empty_array("messages")
    for index, message in enumerate(messages):
        if not isinstance(message, dict):
            raise errors.invalid_type(f"messages[{index}]", "an object", message)
        if "role" not in message:
            raise errors.missing(f"messages[{index}].role")
    for name in ("max_tokens", "max_completion_tokens", "n"):
        value = body.get(name)
        if value is None:
            continue
        if type(value) is not int:
            raise errors.invalid_type(name, "an integer", value)
        if value < 1:
            raise errors.below_minimum(name, 1, value)
    if (body.get("n") or 1) > MOST_CHOICES:
        raise errors.above_maximum("n", MOST_CHOICES, body["n"])
    if not model_list.exists(model):
        raise errors.unknown_model(model)
    validate_options(body)
    if "max_tokens" in body and model.startswith(REASONING_MODELS):
        raise errors.unsupported_max_tokens()
    return model


def validate_options(body: dict[str, Any]) -> None:
    """Check the parameters that the simulator looks into, and those that exclude each other."""
    for name in ("tools", "functions"):
        value = body.get(name)
        if value is not None and not isinstance(value, list):
            raise errors.invalid_type(name, "an array of objects", value)
        for index, tool in enumerate(value or []):
            if not isinstance(tool, dict):
                raise errors.invalid_type(f"{name}[{index}]", "an object", tool)
            kind = tool.get("type")
            if name == "tools" and (
                kind not in ("function", "custom") or not isinstance(tool.get(kind), dict)
            ):
                raise errors.missing(f"tools[{index}].function")
            if not isinstance((tool[kind] if name == "tools" else tool).get("name"), str):
                raise errors.missing(f"{name}[{index}].name")
    for name in ("stream_options", "response_format"):
        if body.get(name) is not None and not isinstance(body[name], dict):
            raise errors.invalid_type(name, "an object", body[name])
    if body.get("stream_options") is not None and not body.get("stream"):
        message = "The 'stream_options' parameter is only allowed when 'stream' is enabled."
        raise errors.ApiError(400, message, param="stream_options")
    if body.get("max_tokens") is not None and body.get("max_completion_tokens") is not None:
        message = "Setting 'max_tokens' and 'max_completion_tokens' at the same time is not supported."
        raise errors.ApiError(400, message, param="max_tokens", code="invalid_parameter_combination")


def compose(body: dict[str, Any], wish: Directives, encoding: str, limit: int | None) -> Answer:
    """The answer to a request, cut to `limit` tokens."""
    if wish.tokens is not None or wish.big is not None:
        length = wish.tokens
        if length is None:
            bytes_a_word = len(tokens.FILLER_BLOCK) / len(tokens.FILLER_WORDS)
            length = round((wish.big or 0) * 1_000_000 / bytes_a_word)
        answer = Answer(length, "stop", filler=True)
        if limit is not None and limit < length:
            answer = replace(answer, length=limit, finish_reason="length")
        return replace(answer, text=tokens.filler(answer.length))
    names, forced = tool_names(body, wish)
    if names:
        return tool_answer(body, names, forced, encoding, limit)
    text = samples.for_response_format(body.get("response_format")) or reply_to(body["messages"])
    pieces = tokens.pieces(encoding, text)
    if limit is not None and limit < len(pieces):
        return Answer(limit, "length", text="".join(pieces[:limit]))
    return Answer(len(pieces), "stop", text=text)


def reply_to(messages: list[dict[str, Any]]) -> str:
    """What the simulator says to a person."""
    last = messages[-1]
    text = without_marker(tokens.text_of(last.get("content")))
    if last.get("role") == "tool":
        return f"The tool answered: {text[:QUOTED_CHARACTERS]}"
    if GREETING.match(text):
        return "Hello! I am the simulator that stands in for OpenAI. How can I help you today?"
    if not text:
        return "I am the simulator that stands in for OpenAI, and I have nothing to go by."
    quoted = text if len(text) <= QUOTED_CHARACTERS else f"{text[:QUOTED_CHARACTERS]}…"
    return (
        f"You wrote: “{quoted}” I am the simulator that stands in for OpenAI, so this is no real answer. "
        "Give the gateway an OpenAI API key to get one."
    )


def tool_names(body: dict[str, Any], wish: Directives) -> tuple[list[str], bool]:
    """Names of the functions to call, and whether the caller forced one by name."""
    legacy = body.get("functions") or []
    offered = [tool[tool["type"]] for tool in body.get("tools") or []]
    names = [str(function["name"]) for function in (offered or legacy)]
    if not names:
        return [], False
    choice = body.get("tool_choice") if offered else body.get("function_call")
    if isinstance(choice, dict):
        named = choice.get("function") or choice.get("custom") or choice
        return [str(named["name"]) if isinstance(named, dict) and "name" in named else names[0]], True
    if wish.tools:
        return [names[i % len(names)] for i in range(wish.tools)], False
    return (names[:1], False) if choice == "required" else ([], False)


def tool_answer(
    body: dict[str, Any], names: list[str], forced: bool, encoding: str, limit: int | None
) -> Answer:
    """Calls of the named functions with arguments made up from their schemas."""
    functions = [tool[tool["type"]] for tool in body.get("tools") or []] or body["functions"]
    schemas = {function.get("name"): function.get("parameters") for function in functions}
    calls = []
    length = 0
    finish_reason = "stop" if forced else "tool_calls" if body.get("tools") else "function_call"
    for name in names:
        arguments = tokens.pieces(encoding, samples.json_text(schemas.get(name)))
        name_tokens = tokens.count(encoding, name)
        if limit is not None and length + name_tokens + len(arguments) > limit:
            finish_reason = "length"
            if limit - length < name_tokens:
                break
            arguments = arguments[: limit - length - name_tokens]
        calls.append(ToolCall(name, name_tokens, arguments))
        length += name_tokens + len(arguments)
    return Answer(length, finish_reason, calls=tuple(calls), legacy_function=not body.get("tools"))


def usage_document(prompt: int, completion: int, reasoning: int, wish: Directives) -> dict[str, Any]:
    if wish is NOTHING:
        cached = audio = 0
    else:
        prompt = prompt if wish.prompt is None else wish.prompt
        cached, audio = min(wish.cached, prompt), wish.audio
        completion += reasoning + audio
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": cached, "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": reasoning,
            "audio_tokens": audio,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }


def json_document(
    completion_id: str, model: str, answer: Answer, choices: int, usage: dict[str, Any] | None
) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": answer.text}
    if answer.legacy_function and answer.calls:
        function = answer.calls[0]
        message["function_call"] = {"name": function.name, "arguments": "".join(function.arguments)}
    elif answer.calls:
        message["tool_calls"] = [
            {
                "id": call_id(completion_id, index),
                "type": "function",
                "function": {"name": tool.name, "arguments": "".join(tool.arguments)},
            }
            for index, tool in enumerate(answer.calls)
        ]
    message["refusal"] = None
    message["annotations"] = []
    document: dict[str, Any] = {
        "id": completion_id,
        "object": "chat.completion",
        "created": int(time.time()),
        "model": model,
        "choices": [
            {"index": index, "message": message, "logprobs": None, "finish_reason": answer.finish_reason}
            for index in range(choices)
        ],
        "usage": usage,
        "service_tier": "default",
        "system_fingerprint": FINGERPRINT,
    }
    if usage is None:
        del document["usage"]
    return document


def call_id(completion_id: str, index: int) -> str:
    return f"call_{completion_id[-22:]}{index:02d}"


class Frame:
    """What all events of one stream share, as bytes, so that an event costs one join."""

    def __init__(
        self, completion_id: str, model: str, encoding: str, include_usage: bool, usage_with_choices: bool
    ) -> None:
        self.completion_id = completion_id
        self.encoding = encoding
        self.include_usage = include_usage
        self.usage_with_choices = usage_with_choices
        head = orjson.dumps(
            {
                "id": completion_id,
                "object": "chat.completion.chunk",
                "created": int(time.time()),
                "model": model,
                "service_tier": "default",
                "system_fingerprint": FINGERPRINT,
            }
        )
        self.start = b"data: %s" % head[:-1]
        self.end = b',"usage":null}\n\n' if include_usage else b"}\n\n"

    def event(self, index: int, delta: bytes, finish_reason: bytes = b"null") -> bytes:
        return b'%s,"choices":[{"index":%d,"delta":%s,"logprobs":null,"finish_reason":%s}]%s' % (
            self.start,
            index,
            delta,
            finish_reason,
            self.end,
        )

    def events(self, answer: Answer, choices: int, usage: dict[str, Any]) -> Iterator[tuple[bytes, int]]:
        """The whole stream but for `[DONE]`, each event with its completion tokens."""
        deltas = self.tool_deltas(answer) if answer.calls else self.text_deltas(answer)
        for delta, length in deltas:
            for index in range(choices):
                yield self.event(index, delta, b"null"), length
        reason = b'"%s"' % answer.finish_reason.encode()
        usage_end = b',"usage":%s}\n\n' % orjson.dumps(usage)
        for index in range(choices):
            last = self.event(index, b"{}", reason)
            if self.include_usage and self.usage_with_choices and index == choices - 1:
                last = last[: -len(self.end)] + usage_end
            yield last, 0
        if self.include_usage and not self.usage_with_choices:
            yield b'%s,"choices":[]%s' % (self.start, usage_end), 0

    def text_deltas(self, answer: Answer) -> Iterator[tuple[bytes, int]]:
        yield b'{"role":"assistant","content":"","refusal":null}', 0
        waiting = 0
        for piece in answer.pieces(self.encoding):
            waiting += 1
            if piece:
                yield b'{"content":%s}' % orjson.dumps(piece), waiting
                waiting = 0
        if waiting:
            yield b'{"content":""}', waiting

    def tool_deltas(self, answer: Answer) -> Iterator[tuple[bytes, int]]:
        for index, tool in enumerate(answer.calls):
            function: dict[str, Any] = {"name": tool.name, "arguments": ""}
            first: dict[str, Any] = {"role": "assistant", "content": None} if index == 0 else {}
            if answer.legacy_function:
                first |= {"function_call": function}
                argument = b'{"function_call":{"arguments":%s}}'
            else:
                identity = {"index": index, "id": call_id(self.completion_id, index), "type": "function"}
                first |= {"tool_calls": [identity | {"function": function}]}
                argument = b'{"tool_calls":[{"index":' + b"%d" % index + b',"function":{"arguments":%s}}]}'
            if index == 0:
                first["refusal"] = None
            yield orjson.dumps(first), tool.name_tokens
            for piece in tool.arguments:
                yield argument % orjson.dumps(piece), 1
