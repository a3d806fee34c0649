"""/v1/realtime: a spoken or written conversation over a WebSocket.

Audio is silence. Of server_vad this much is simulated: after a chunk with sound, one without ends the turn,
is committed and, as `create_response` says, answered.
"""

from __future__ import annotations

import base64
import binascii
import copy
import math
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qs

from simulator import chat, errors, model_list, response_context, tokens
from simulator.audio import TEXT
from simulator.exchange import new_id
from simulator.sockets import Left, Socket

Document = dict[str, Any]
BYTES_A_SECOND = 48_000  # 24 kHz, 16 bits
TOKENS_A_SECOND = 10
SPOKEN_TOKENS_A_TOKEN = 2  # of audio, for each token of its transcript
LASTS_S = 1800
PCM = {"type": "audio/pcm", "rate": 24_000}
VAD = {"type": "server_vad", "threshold": 0.5, "prefix_padding_ms": 300, "silence_duration_ms": 200}


class Session:
    def __init__(self, socket: Socket, model: str) -> None:
        self.socket = socket
        self.model = model
        self.items: list[Document] = []
        self.buffer = bytearray()
        self.conversation_id = f"conv_{new_id()[-21:]}"
        self.document: Document = {
            "type": "realtime",
            "object": "realtime.session",
            "id": f"sess_{new_id()[-21:]}",
            "model": model,
            "output_modalities": ["audio"],
            "instructions": "",
            "tools": [],
            "tool_choice": "auto",
            "max_output_tokens": "inf",
            "tracing": None,
            "truncation": "auto",
            "prompt": None,
            "expires_at": int(time.time()) + LASTS_S,
            "audio": {
                "input": {
                    "format": PCM,
                    "transcription": None,
                    "noise_reduction": None,
                    "turn_detection": VAD | {"create_response": True, "interrupt_response": True},
                },
                "output": {"format": PCM, "voice": "alloy", "speed": 1.0},
            },
            "include": None,
        }

    async def tell(self, type: str, **fields: Any) -> None:
        await self.socket.tell(event_of(type, fields))

    async def handle(self, event: Document) -> None:
        """Answer one event of the client.

        Raises:
            ApiError: it means nothing.
            Left: the client is gone.
        """
        match event.get("type"):
            case "session.update":
                merge(self.document, event.get("session") or {})
                await self.tell("session.updated", session=self.document)
            case "conversation.item.create":
                await self.add_item(event.get("item") or {})
            case "conversation.item.retrieve":
                await self.tell("conversation.item.retrieved", item=self.item(event))
            case "conversation.item.delete":
                self.items.remove(self.item(event))
                await self.tell("conversation.item.deleted", item_id=event["item_id"])
            case "conversation.item.truncate":
                self.item(event)
                place = {name: event.get(name) for name in ("item_id", "content_index", "audio_end_ms")}
                await self.tell("conversation.item.truncated", **place)
            case "input_audio_buffer.append":
                await self.hear(event.get("audio"))
            case "input_audio_buffer.commit":
                await self.commit()
            case "input_audio_buffer.clear":
                self.buffer.clear()
                await self.tell("input_audio_buffer.cleared")
            case "response.create":
                await self.respond(event.get("response") or {})
            case "response.cancel":
                raise errors.ApiError(
                    400, "Cancellation failed: no active response found", code="response_cancel_not_active"
                )
            case kind:
                raise errors.ApiError(400, f"Invalid value: '{kind}'.", param="type", code="invalid_value")

    def item(self, event: Document) -> Document:
        for item in self.items:
            if item["id"] == event.get("item_id"):
                return item
        message = f"Item with item_id not found: {event.get('item_id')}"
        raise errors.ApiError(400, message, param="item_id", code="item_not_found")

    async def add_item(self, item: Document) -> Document:
        added = {"id": f"item_{new_id()[-21:]}", "type": "message", "status": "completed"} | item
        previous = self.items[-1]["id"] if self.items else None
        self.items.append(added)
        await self.tell("conversation.item.added", previous_item_id=previous, item=added)
        await self.tell("conversation.item.done", previous_item_id=previous, item=added)
        return added

    async def hear(self, audio: object) -> None:
        try:
            heard = base64.b64decode(str(audio), validate=True)
        except binascii.Error:
            raise errors.ApiError(400, "Invalid 'audio'.", param="audio", code="invalid_value") from None
        spoke = any(self.buffer)
        self.buffer += heard
        vad = self.document["audio"]["input"].get("turn_detection")
        if not vad or not spoke or any(heard):
            return
        for moment in ("started", "stopped"):
            await self.tell(f"input_audio_buffer.speech_{moment}", item_id=None)
        await self.commit()
        if vad.get("create_response", True):
            await self.respond({})

    async def commit(self) -> None:
        """What was heard becomes an item; it is transcribed if the session says so, and that costs extra."""
        if not self.buffer:
            message = "Error committing input audio buffer: buffer too small."
            raise errors.ApiError(400, message, code="input_audio_buffer_commit_empty")
        seconds = len(self.buffer) / BYTES_A_SECOND
        self.buffer.clear()
        id = f"item_{new_id()[-21:]}"
        previous = self.items[-1]["id"] if self.items else None
        await self.tell("input_audio_buffer.committed", previous_item_id=previous, item_id=id)
        part = {"type": "input_audio", "transcript": None}
        await self.add_item({"id": id, "role": "user", "content": [part], "seconds": seconds})
        transcription = self.document["audio"]["input"].get("transcription")
        if not transcription:
            return
        model = str(transcription.get("model"))
        usage: Document = {"type": "duration", "seconds": math.ceil(seconds)}
        if model.startswith("gpt-4o"):
            heard, written = audio_tokens(seconds), tokens.count("o200k_base", TEXT)
            usage = {"type": "tokens", "total_tokens": heard + written, "input_tokens": heard}
            usage |= {"input_token_details": {"text_tokens": 0, "audio_tokens": heard}}
            usage["output_tokens"] = written
        place = {"item_id": id, "content_index": 0}
        name = "conversation.item.input_audio_transcription"
        self.socket.record("realtime.transcription", id, model, usage, "completed", 0, "finished")
        await self.tell(f"{name}.delta", **place, delta=TEXT)
        await self.tell(f"{name}.completed", **place, transcript=TEXT, usage=usage)

    async def respond(self, wanted: Document) -> None:
        """Generate a response, which the client may cancel; it is paid for as far as it was generated."""
        settings = self.document | {name: value for name, value in wanted.items() if value is not None}
        wish = self.socket.directives()
        given = wanted.get("input")
        items = self.items if given is None else given
        body = response_context.as_chat(
            {"instructions": settings["instructions"], "tools": settings["tools"]}, items
        )
        body["tool_choice"] = settings["tool_choice"]
        limit = settings["max_output_tokens"]
        answer = chat.compose(body, wish, "o200k_base", limit if isinstance(limit, int) else None)
        spoken = "audio" in settings["output_modalities"] and not answer.calls
        heard = sum(audio_tokens(item.get("seconds", 0)) for item in items)
        read = tokens.prompt_tokens("gpt-4o", body) if wish.prompt is None else wish.prompt
        response_id = f"resp_{new_id()[-21:]}"
        head: Document = {
            "object": "realtime.response",
            "id": response_id,
            "status": "in_progress",
            "status_details": None,
            "output": [],
            "conversation_id": None if wanted.get("conversation") == "none" else self.conversation_id,
            "output_modalities": settings["output_modalities"],
            "max_output_tokens": limit,
            "usage": None,
            "metadata": settings.get("metadata"),
        }
        output = items_of(answer, spoken=spoken)
        state, sent, status = "finished", 0, "completed"
        if answer.finish_reason == "length":
            status = "incomplete"

        def cancelled() -> bool:
            return any(event.get("type") == "response.cancel" for event in self.socket.inbox)

        try:
            await self.tell("response.created", response=head)
            events = told(response_id, output, answer, spoken=spoken)
            sent = await self.socket.tell_all(events, wish, cancelled)
            if cancelled():
                kept = [event for event in self.socket.inbox if event.get("type") != "response.cancel"]
                self.socket.inbox.clear()
                self.socket.inbox.extend(kept)
                status = "cancelled"
        except Left as left:
            state, sent, status = "cut", left.args[0] if left.args else 0, "cancelled"
            raise
        finally:
            usage = usage_of(read, heard, sent, min(wish.cached, read), spoken=spoken)
            self.socket.record("realtime.response", response_id, self.model, usage, status, sent, state)
        if head["conversation_id"]:
            self.items.extend(output)
        reported = None if wish.no_usage else usage
        done = head | {"status": status, "output": output, "usage": reported}
        await self.tell("response.done", response=done)
        limits = {"name": "tokens", "limit": 15_000_000, "remaining": 14_999_715, "reset_seconds": 0.001}
        await self.tell("rate_limits.updated", rate_limits=[limits])


def event_of(type: str, fields: Document) -> Document:
    return {"type": type, "event_id": f"event_{new_id()[-21:]}", **copy.deepcopy(fields)}


def merge(onto: Document, changes: Document) -> None:
    """Change what is named, at any depth."""
    for name, value in changes.items():
        if isinstance(value, dict) and isinstance(onto.get(name), dict):
            onto[name] = dict(onto[name])
            merge(onto[name], value)
        else:
            onto[name] = value


def audio_tokens(seconds: float) -> int:
    return round(seconds * TOKENS_A_SECOND)


def items_of(answer: chat.Answer, *, spoken: bool) -> list[Document]:
    if not answer.calls:
        part = {"type": "output_text", "text": answer.text}
        if spoken:
            part = {"type": "output_audio", "transcript": answer.text}
        item: Document = {"id": f"item_{new_id()[-21:]}", "type": "message", "status": "completed"}
        return [item | {"role": "assistant", "content": [part]}]
    return [
        {
            "id": f"item_{new_id()[-21:]}",
            "type": "function_call",
            "status": "completed",
            "name": tool.name,
            "call_id": f"call_{new_id()[-16:]}",
            "arguments": "".join(tool.arguments),
        }
        for tool in answer.calls
    ]


def told(
    response_id: str, output: list[Document], answer: chat.Answer, *, spoken: bool
) -> Iterator[tuple[Document, int]]:
    """The events between `response.created` and `response.done`, with their tokens of text."""
    for index, item in enumerate(output):
        where: Document = {"response_id": response_id, "output_index": index}
        begun: Document = item | {"status": "in_progress"}
        begun["content" if "content" in item else "arguments"] = [] if "content" in item else ""
        yield event_of("response.output_item.added", {**where, "item": begun}), 0
        inside = {**where, "item_id": item["id"]}
        if item["type"] == "function_call":
            tool = answer.calls[index]
            kind, called = "response.function_call_arguments", {"call_id": item["call_id"]}
            for number, piece in enumerate(tool.arguments):
                extra = 0 if number else tool.name_tokens
                yield event_of(f"{kind}.delta", {**inside, **called, "delta": piece}), 1 + extra
            ended = {"name": item["name"], "arguments": item["arguments"]}
            yield event_of(f"{kind}.done", {**inside, **called, **ended}), 0
        else:
            yield from _message(inside | {"content_index": 0}, item["content"][0], answer, spoken=spoken)
        yield event_of("response.output_item.done", {**where, "item": item}), 0


def _message(
    where: Document, part: Document, answer: chat.Answer, *, spoken: bool
) -> Iterator[tuple[Document, int]]:
    field = "transcript" if spoken else "text"
    shown = {"type": "audio" if spoken else "text", field: ""}
    yield event_of("response.content_part.added", {**where, "part": shown}), 0
    kind = "response.output_audio_transcript" if spoken else "response.output_text"
    silence = base64.b64encode(bytes(BYTES_A_SECOND // TOKENS_A_SECOND)).decode()
    for piece in answer.pieces("o200k_base"):
        yield event_of(f"{kind}.delta", {**where, "delta": piece}), 1
        if spoken:
            yield event_of("response.output_audio.delta", {**where, "delta": silence}), 0
    if spoken:
        yield event_of("response.output_audio.done", where), 0
    yield event_of(f"{kind}.done", {**where, field: part[field]}), 0
    yield event_of("response.content_part.done", {**where, "part": shown | {field: part[field]}}), 0


def usage_of(read: int, heard: int, written: int, cached: int, *, spoken: bool) -> Document:
    """The usage of a response of `written` tokens of text, spoken or not."""
    said = written * SPOKEN_TOKENS_A_TOKEN if spoken else 0
    return {
        "total_tokens": read + heard + written + said,
        "input_tokens": read + heard,
        "output_tokens": written + said,
        "input_token_details": {
            "text_tokens": read,
            "audio_tokens": heard,
            "image_tokens": 0,
            "cached_tokens": cached,
            "cached_tokens_details": {"text_tokens": cached, "audio_tokens": 0, "image_tokens": 0},
        },
        "output_token_details": {"text_tokens": written, "audio_tokens": said},
    }


async def talk(socket: Socket) -> None:
    """Answer the events of one connection."""
    query = parse_qs(socket.scope["query_string"].decode("latin-1"))
    model = query.get("model", ["gpt-realtime"])[0]
    if not model_list.exists(model):
        await socket.tell_error(errors.unknown_model(model), {})
        return
    socket.call.model = model
    session = Session(socket, model)
    socket.call.object_id = session.document["id"]
    await session.tell("session.created", session=session.document)
    while True:
        event = await socket.next()
        try:
            await session.handle(event)
        except errors.ApiError as error:
            await socket.tell_error(error, event)
