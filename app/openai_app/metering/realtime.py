"""Realtime sessions: what a response costs in speech and text, and what of a session decides on it.

A token is a tenth of a second that is heard and a twentieth that is spoken; each response reads the whole
conversation anew. Sources: OpenAI's guide "Managing costs" of the Realtime API, and its API reference,
"Realtime", with "Realtime Beta" for the older names of fields.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from balances.units import AUDIO_INPUT, AUDIO_OUTPUT, CACHED_INPUT, IMAGE_INPUT, INPUT, OUTPUT, REASONING
from balances.usage import Estimate, Usage

from . import responses
from .meter import Meter
from .reading import above_zero, amount, items, mapping, string, totals, without_zeros

HEARD_PER_SECOND = 10
SPOKEN_PER_SECOND = 20
# Text is framed as in a chat with this model: exact to a token or two on recorded sessions.
_COUNTED_AS = "gpt-4o"
# The largest `max_output_tokens` (API reference); of the later models, by their pages.
_CEILING = 4_096
_LATER_CEILING = 32_000
_SMALL_CEILING = ("gpt-4o-", "gpt-realtime-mini", "gpt-realtime-1", "gpt-realtime-2025", "gpt-audio")
_BYTES_PER_SECOND = {
    "audio/pcm": 48_000,
    "audio/pcmu": 8_000,
    "audio/pcma": 8_000,
    "pcm16": 48_000,
    "g711_ulaw": 8_000,
    "g711_alaw": 8_000,
}
_WRITTEN = frozenset(
    f"response.{kind}.delta"
    for kind in (
        "text",
        "output_text",
        "audio_transcript",
        "output_audio_transcript",
        "function_call_arguments",
        "mcp_call_arguments",
    )
)
_SPOKEN = frozenset({"response.audio.delta", "response.output_audio.delta"})


@dataclass
class Settings:
    """What a session is set to, as far as it matters to what it costs."""

    model: str
    #: The names of fields are those of the beta.
    is_beta: bool = False
    #: What the session is for; told by OpenAI, or by its caller for a transcription.
    kind: str = "realtime"
    #: The most output a response may have by the caller's wish.
    asked: int | None = None
    speaks: bool = True
    detects_turns: bool = True
    #: Responses begin without being asked for, when speech ends.
    answers_by_itself: bool = True
    #: The model that writes down what is heard; empty: none does.
    transcribed_by: str = ""
    heard_bytes_per_second: int = 48_000
    spoken_bytes_per_second: int = 48_000
    _fixed: dict[str, Any] = field(default_factory=dict)
    _fixed_tokens: int | None = None

    def update(self, session: Mapping[str, Any]) -> None:
        """Takes over the fields that `session` has; all others stay."""
        heard, spoken = (mapping(mapping(session.get("audio")).get(way)) for way in ("input", "output"))
        self.is_beta |= bool(
            {"modalities", "input_audio_format", "max_response_output_tokens"} & session.keys()
        )
        self.kind = string(session.get("type")) or self.kind
        modalities = session.get("output_modalities", session.get("modalities"))
        if isinstance(modalities, list):
            self.speaks = "audio" in modalities
        for part in (session, heard):
            if "turn_detection" in part:
                detection = part["turn_detection"]
                self.detects_turns = detection is not None
                self.answers_by_itself = (
                    self.detects_turns and mapping(detection).get("create_response") is not False
                )
        for part, name in ((session, "input_audio_transcription"), (heard, "transcription")):
            if name in part:
                self.transcribed_by = _transcriber(part[name], self.transcribed_by)
        self.heard_bytes_per_second = _rate(heard, session, "input", self.heard_bytes_per_second)
        self.spoken_bytes_per_second = _rate(spoken, session, "output", self.spoken_bytes_per_second)
        for name in ("instructions", "tools"):
            if name in session and session[name] != self._fixed.get(name):
                self._fixed[name] = session[name]
                self._fixed_tokens = None

    def ask(self, session: Mapping[str, Any]) -> None:
        """Takes over the caller's limit of output, if it is there."""
        for name in ("max_output_tokens", "max_response_output_tokens"):
            if name in session:
                self.asked = above_zero(session[name])

    @property
    def fixed_tokens(self) -> int:
        """Tokens of the instructions and the tools, which every response reads."""
        if self._fixed_tokens is None:
            self._fixed_tokens = count_items([], self._fixed)
        return self._fixed_tokens

    def limit(self, tokens: int | None) -> dict[str, Any]:
        """A client's event that bounds the output of the responses to come; None takes the bound away."""
        if self.is_beta:
            return {"type": "session.update", "session": {"max_response_output_tokens": tokens or "inf"}}
        return {
            "type": "session.update",
            "session": {"type": "realtime", "max_output_tokens": tokens or "inf"},
        }


def estimate(settings: Settings, params: Mapping[str, Any], read: Mapping[str, int]) -> Estimate:
    """What a response with these parameters will cost that reads so many units."""
    modalities = params.get("output_modalities", params.get("modalities"))
    speaks = "audio" in modalities if isinstance(modalities, list) else settings.speaks
    asked = above_zero(params.get("max_output_tokens")) if "max_output_tokens" in params else settings.asked
    return Estimate(
        without_zeros(dict(read)),
        asked=asked,
        ceiling=ceiling(settings.model),
        output_unit=AUDIO_OUTPUT if speaks else OUTPUT,
    )


def ceiling(model: str) -> int:
    """The most output that a response can have."""
    return _CEILING if model == "gpt-realtime" or model.startswith(_SMALL_CEILING) else _LATER_CEILING


def count_items(listed: list[Any], fixed: Mapping[str, Any]) -> int:
    """Tokens of the text and the images in items of a conversation, below instructions and tools."""
    request = {
        "model": _COUNTED_AS,
        "instructions": string(fixed.get("instructions")),
        "tools": fixed.get("tools"),
        "input": [without_sound(item) for item in listed],
    }
    return responses.estimate(request).units.get(INPUT, 0)


def read_by(listed: list[Any], settings: Settings) -> Counter[str]:
    """What items add to the input of the responses that read them."""
    seconds = sum(
        heard_seconds(part.get("audio"), settings)
        for item in listed
        for part in map(mapping, items(mapping(item).get("content")))
    )
    return Counter({INPUT: count_items(listed, {}), AUDIO_INPUT: round(seconds * HEARD_PER_SECOND)})


def heard_seconds(sound: object, settings: Settings) -> float:
    """How long sound in base64 lasts that a client sends."""
    return len(string(sound)) * 3 / 4 / settings.heard_bytes_per_second


def spoken_tokens(event: Mapping[str, Any], settings: Settings) -> float:
    """Tokens of the speech that a server's event brings."""
    if event.get("type") not in _SPOKEN:
        return 0
    return len(string(event.get("delta"))) * 3 / 4 / settings.spoken_bytes_per_second * SPOKEN_PER_SECOND


def without_sound(value: Any) -> Any:
    """The value without the sound in it, which is neither text nor an id."""
    if isinstance(value, list):
        return [without_sound(each) for each in value]
    if isinstance(value, dict):
        return {
            name: without_sound(held)
            for name, held in value.items()
            if not (name == "audio" and isinstance(held, str))
        }
    return value


def usage(event: Mapping[str, Any], _: dict[str, Any]) -> Usage | None:
    """The usage in `response.done`. What was cached is one class, whatever it was before."""
    reported = mapping(mapping(event.get("response")).get("usage"))
    total = totals(reported, "input_tokens", "output_tokens")
    if total is None:
        return None
    read, written = total
    of_input = mapping(reported.get("input_token_details"))
    audio, image = (amount(of_input.get(f"{kind}_tokens")) for kind in ("audio", "image"))
    text = max(read - audio - image, 0)
    cached = amount(of_input.get("cached_tokens"))
    of_cached = mapping(of_input.get("cached_tokens_details"))
    cached_audio = min(amount(of_cached.get("audio_tokens", max(cached - text, 0))), audio)
    cached_image = min(amount(of_cached.get("image_tokens")), image)
    cached_text = min(max(cached - cached_audio - cached_image, 0), text)
    of_output = mapping(reported.get("output_token_details"))
    spoken = min(amount(of_output.get("audio_tokens")), written)
    reasoning = min(amount(of_output.get("reasoning_tokens")), written - spoken)
    units = {
        INPUT: text - cached_text,
        AUDIO_INPUT: audio - cached_audio,
        IMAGE_INPUT: image - cached_image,
        CACHED_INPUT: cached_text + cached_audio + cached_image,
        OUTPUT: written - spoken - reasoning,
        REASONING: reasoning,
        AUDIO_OUTPUT: spoken,
    }
    return Usage(without_zeros(units), without_zeros({"cached_audio": cached_audio}))


def left_in_conversation(event: Mapping[str, Any]) -> Counter[str]:
    """What a conversation holds once `response.done` has come: all that was read, and what was answered."""
    reported = mapping(mapping(event.get("response")).get("usage"))
    read, written = amount(reported.get("input_tokens")), amount(reported.get("output_tokens"))
    audio = sum(
        amount(mapping(reported.get(f"{way}_token_details")).get("audio_tokens"))
        for way in ("input", "output")
    )
    return Counter({INPUT: max(read + written - audio, 0), AUDIO_INPUT: audio})


def text(event: Mapping[str, Any]) -> Iterable[tuple[int, str]]:
    """What an event adds to the text of a response, the words of its speech included."""
    if event.get("type") in _WRITTEN:
        yield 0, string(event.get("delta"))


def transcribed(event: Mapping[str, Any]) -> Iterable[tuple[int, str]]:
    """What an event adds to the text of what was heard."""
    if event.get("type") == "conversation.item.input_audio_transcription.delta":
        yield 0, string(event.get("delta"))


#: Its estimate needs the state of the session: see `estimate`.
REALTIME = Meter(estimate=None, usage=usage, text=text)


def _transcriber(value: object, before: str) -> str:
    if not isinstance(value, dict):
        return ""
    return string(value.get("model")) or before or "whisper-1"


def _rate(part: Mapping[str, Any], session: Mapping[str, Any], way: str, before: int) -> int:
    name = mapping(part.get("format")).get("type") or session.get(f"{way}_audio_format")
    return _BYTES_PER_SECOND.get(string(name), before)
