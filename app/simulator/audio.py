"""/v1/audio: speech, transcriptions and translations, voices."""

from __future__ import annotations

import base64
import math
import struct
from collections.abc import Iterator
from typing import Any

import orjson

from simulator import errors, model_list, resources, tokens
from simulator.blobs import Blob
from simulator.exchange import Exchange, new_id
from simulator.kinds import CONSENT, VOICE

AUDIO_TYPES = {
    "mp3": b"audio/mpeg",
    "opus": b"audio/opus",
    "aac": b"audio/aac",
    "flac": b"audio/flac",
    "wav": b"audio/wav",
    "pcm": b"audio/pcm",
}
BYTES_A_CHARACTER = 960  # about what a spoken character takes as mp3
TOKENS_A_SECOND = 10  # of audio that is read
SPOKEN_TOKENS_A_CHARACTER = 1.25
BYTES_A_SECOND = 16_000  # of files other than wav: 128 kbit/s
SPEECH_EVENT_BYTES = 3_000
TEXT = "The quick brown fox jumps over the lazy dog."
LONGEST_SPEECH_CHARACTERS = 4096


async def speak(exchange: Exchange) -> None:
    """POST /v1/audio/speech: silence, as long as the text asks for."""
    body, call, wish = exchange.json_object(), exchange.call, exchange.directives
    for name in ("model", "input", "voice"):
        if not body.get(name):
            raise errors.missing(name)
    model, text = str(body["model"]), str(body["input"])
    if not model_list.exists(model):
        raise errors.unknown_model(model)
    if len(text) > LONGEST_SPEECH_CHARACTERS:
        message = (
            f"Invalid 'input': string too long. Expected at most {LONGEST_SPEECH_CHARACTERS} characters."
        )
        raise errors.ApiError(400, message, param="input", code="string_above_max_length")
    kind = str(body.get("response_format") or "mp3")
    if kind not in AUDIO_TYPES:
        known = ", ".join(f"'{name}'" for name in AUDIO_TYPES)
        message = f"Invalid value: '{kind}'. Supported values are: {known}."
        raise errors.ApiError(400, message, param="response_format", code="invalid_value")
    size = round(wish.big * 1_000_000) if wish.big else len(text) * BYTES_A_CHARACTER
    sound = wav(size) if kind == "wav" else bytes(size)
    call.model = model
    if model.startswith("tts-1"):
        call.usage = {"characters": len(text)}
    else:
        read, written = tokens.count("o200k_base", text), round(len(text) * SPOKEN_TOKENS_A_CHARACTER)
        call.usage = {"input_tokens": read, "output_tokens": written, "total_tokens": read + written}
    if body.get("stream_format") != "sse":
        await exchange.send_text(AUDIO_TYPES[kind], sound)
        return
    call.stream = True
    usage = None if wish.no_usage or "characters" in call.usage else call.usage
    await exchange.send_stream(_speech_events(sound, usage), done=b"")
    call.usage_reported = usage is not None


def _speech_events(sound: bytes, usage: dict[str, Any] | None) -> Iterator[tuple[bytes, int]]:
    for start in range(0, len(sound), SPEECH_EVENT_BYTES):
        part = base64.b64encode(sound[start : start + SPEECH_EVENT_BYTES]).decode()
        yield _data({"type": "speech.audio.delta", "audio": part}), 0
    yield _data({"type": "speech.audio.done"} | ({"usage": usage} if usage else {})), 0


def _data(document: dict[str, Any]) -> bytes:
    return b"data: %s\n\n" % orjson.dumps(document)


def wav(size: int, bytes_a_second: int = 48_000) -> bytes:
    """Silence of `size` bytes: 16 bits, one channel."""
    form = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, bytes_a_second // 2, bytes_a_second, 2, 16)
    head = struct.pack("<4sI4s", b"RIFF", 36 + size, b"WAVE")
    return head + form + struct.pack("<4sI", b"data", size) + bytes(size)


def seconds_of(blob: Blob) -> float:
    """How long a sound lasts: by the header of a wav file, else by its size."""
    head = blob.read(0, 44)
    if head[:4] == b"RIFF" and len(head) == 44:
        bytes_a_second: int = struct.unpack_from("<I", head, 28)[0]
        return (blob.size - 44) / (bytes_a_second or BYTES_A_SECOND)
    return blob.size / BYTES_A_SECOND


async def transcribe(exchange: Exchange) -> None:
    """POST /v1/audio/transcriptions"""
    await listen(exchange, "transcribe")


async def translate(exchange: Exchange) -> None:
    """POST /v1/audio/translations"""
    await listen(exchange, "translate")


async def listen(exchange: Exchange, task: str) -> None:
    body, call, wish = exchange.fields(), exchange.call, exchange.directives
    part = exchange.form.file("file") if exchange.form is not None else None
    if part is None:
        raise errors.missing("file")
    model = body.get("model")
    if not isinstance(model, str):
        raise errors.ApiError(400, "you must provide a model parameter")
    if not model_list.exists(model):
        raise errors.unknown_model(model)
    seconds = seconds_of(part.blob) if wish.seconds is None else wish.seconds
    text = TEXT if wish.tokens is None else tokens.filler(wish.tokens)
    usage = usage_of(model, seconds, str(body.get("prompt") or ""), text)
    call.model, call.usage = model, usage
    call.stream = body.get("stream") == "true" and model != "whisper-1"
    reported = None if wish.no_usage else usage
    if call.stream:
        await exchange.send_stream(_transcript_events(text, seconds, reported, "diarize" in model))
        call.usage_reported = reported is not None
        return
    shape = str(body.get("response_format") or "json")
    if shape in ("text", "srt", "vtt"):
        await exchange.send_text(b"text/plain; charset=utf-8", subtitles(shape, text, seconds).encode())
        return
    document: dict[str, Any] = {"text": text}
    if shape == "verbose_json":
        segment = {"id": 0, "seek": 0, "start": 0.0, "end": seconds, "text": text, "tokens": []}
        segment |= {"temperature": 0.0, "avg_logprob": -0.2, "compression_ratio": 1.0, "no_speech_prob": 0.01}
        document = {
            "task": task,
            "language": "english",
            "duration": seconds,
            **document,
            "segments": [segment],
        }
    elif shape == "diarized_json":
        document = {"task": task, "duration": seconds, **document, "segments": [_spoken(text, seconds)]}
    await exchange.send_object(document | ({"usage": reported} if reported else {}))
    call.usage_reported = reported is not None and not wish.malformed


def usage_of(model: str, seconds: float, prompt: str, text: str) -> dict[str, Any]:
    """whisper-1 is paid by the second, begun ones whole; the others by tokens."""
    if model == "whisper-1":
        return {"type": "duration", "seconds": math.ceil(seconds)}
    asked, heard = tokens.count("o200k_base", prompt), max(1, round(seconds * TOKENS_A_SECOND))
    written = tokens.count("o200k_base", text)
    return {
        "type": "tokens",
        "input_tokens": asked + heard,
        "input_token_details": {"text_tokens": asked, "audio_tokens": heard},
        "output_tokens": written,
        "total_tokens": asked + heard + written,
    }


def _spoken(text: str, seconds: float) -> dict[str, Any]:
    return {
        "type": "transcript.text.segment",
        "id": "seg_0",
        "speaker": "A",
        "start": 0.0,
        "end": seconds,
        "text": text,
    }


def _transcript_events(
    text: str, seconds: float, usage: dict[str, Any] | None, diarized: bool
) -> Iterator[tuple[bytes, int]]:
    pieces = tokens.pieces("o200k_base", text)
    if diarized:
        yield _data(_spoken(text, seconds)), len(pieces)
    else:
        for piece in pieces:
            yield _data({"type": "transcript.text.delta", "delta": piece}), 1
    yield _data({"type": "transcript.text.done", "text": text} | ({"usage": usage} if usage else {})), 0


def subtitles(shape: str, text: str, seconds: float) -> str:
    if shape == "text":
        return f"{text}\n"
    minutes, rest = divmod(seconds, 60)
    clock = f"{int(minutes // 60):02}:{int(minutes % 60):02}:{rest:06.3f}"
    if shape == "vtt":
        return f"WEBVTT\n\n00:00:00.000 --> {clock}\n{text}\n\n"
    return f"1\n00:00:00,000 --> {clock.replace('.', ',')}\n{text}\n\n\n"


async def consent(exchange: Exchange) -> None:
    """POST /v1/audio/voice_consents"""
    body = exchange.fields()
    thing = exchange.world.store.add(CONSENT, {"name": body.get("name"), "language": body.get("language")})
    exchange.call.object_id = thing.id
    await exchange.send_object(thing.document)


async def create_voice(exchange: Exchange) -> None:
    """POST /v1/audio/voices"""
    body = exchange.fields()
    exchange.world.store.get(CONSENT, body.get("consent"))
    thing = exchange.world.store.add(VOICE, {"name": body.get("name") or f"voice {new_id()}"})
    exchange.call.object_id = thing.id
    await exchange.send_object(thing.document)


ROUTES = (
    ("POST", "audio/speech", speak),
    ("POST", "audio/transcriptions", transcribe),
    ("POST", "audio/translations", translate),
    ("POST", "audio/voice_consents", consent),
    ("POST", "audio/voices", create_voice),
)
RESOURCES = (resources.Resource("audio/voice_consents", (CONSENT,), "list get update delete"),)
