"""Chat completions: the input counted before the call, the usage read from the answer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from . import hosted
from .chat_stream import LIMITS, limit_in
from .formats import schema_text
from .messages import measure, replies
from .models import Family, find
from .parts import text_of
from .reading import totals, whole
from .tokens import count
from .tools import definitions, namespace
from .units import (
    AUDIO_INPUT,
    AUDIO_OUTPUT,
    CACHED_INPUT,
    IMAGE_INPUT,
    INPUT,
    OUTPUT,
    REASONING,
    Estimate,
    Usage,
)

# n of the API's reference; more is refused upstream.
_MOST_CHOICES = 128


def estimate(body: dict[str, Any]) -> Estimate:
    """What a chat completion asks for; never raises, whatever JSON the body holds.

    Takes 6 µs for a short chat and up to 0.1 ms for each kB of body in the worst case, text without spaces;
    a body of megabytes belongs in a thread, where the tokeniser runs without the interpreter's lock.
    """
    name = body.get("model")
    model = find(name if isinstance(name, str) else "")
    return Estimate(
        units=_input(body, model.family),
        asked=_asked(body),
        ceiling=model.max_output,
        choices=min(max(_whole(body.get("n")) or 1, 1), _MOST_CHOICES),
        besides=hosted.searches(body),
    )


def usage(answer: Mapping[str, Any]) -> Usage | None:
    """The usage in a completion or in a chunk of one; None when there is none that can be billed."""
    reported = answer.get("usage")
    if not isinstance(reported, dict):
        return None
    total = totals(reported, "prompt_tokens", "completion_tokens")
    if total is None:
        return None
    prompt, completion = total
    read = _details(reported.get("prompt_tokens_details"))
    written = _details(reported.get("completion_tokens_details"))
    audio = min(read.get("audio_tokens", 0), prompt)
    image = min(read.get("image_tokens", 0), prompt - audio)
    cached = min(read.get("cached_tokens", 0), prompt - audio - image)
    audio_written = min(written.get("audio_tokens", 0), completion)
    reasoning = min(written.get("reasoning_tokens", 0), completion - audio_written)
    units = {
        INPUT: prompt - cached - audio - image,
        CACHED_INPUT: cached,
        AUDIO_INPUT: audio,
        IMAGE_INPUT: image,
        OUTPUT: completion - audio_written - reasoning,
        REASONING: reasoning,
        AUDIO_OUTPUT: audio_written,
    }
    details = {
        "accepted_prediction": written.get("accepted_prediction_tokens", 0),
        "rejected_prediction": written.get("rejected_prediction_tokens", 0),
        "cache_write": read.get("cache_write_tokens", 0),
    }
    return Usage(
        {unit: amount for unit, amount in units.items() if amount},
        {detail: amount for detail, amount in details.items() if amount},
    )


def usage_with_searches(answer: Mapping[str, Any], request: Mapping[str, Any]) -> Usage | None:
    """The usage of a chat completion; a model that searches the web is paid for that as well."""
    reported, searched = usage(answer), hosted.searches(request)
    if reported is None or not searched:
        return reported
    return replace(reported, units={**reported.units, **searched})


def count_output(model: str, text: str) -> int:
    """Tokens of the text that a model wrote, for an answer that was cut before its usage came."""
    return count(text, find(model).family.encoding)


def _input(body: Mapping[str, Any], family: Family) -> dict[str, int]:
    """The input by class; an image counts as input, as OpenAI bills it in a chat."""
    listed = body.get("messages")
    messages = listed if isinstance(listed, list) else []
    total = family.reply + _choice(body, family)
    appended = []
    if tools := namespace(definitions(body), old=family.old_tools):
        appended.append(tools)
        total += family.tools
    name, schema = schema_text(body.get("response_format"))
    if schema:
        appended.append(schema)
        # Each earlier answer is opened with the name of the format; the one to come too, without tools.
        opened = replies(messages) + (0 if tools else 1)
        total += opened * (family.schema + count(name, family.encoding))
    measured = measure(messages, "\n\n".join(appended), family)
    total += measured.text + measured.image
    return {"input": total, "audio_input": measured.audio} if measured.audio else {"input": total}


def _choice(body: Mapping[str, Any], family: Family) -> int:
    """What forbidding all functions, or forcing one, adds."""
    choice = body.get("tool_choice", body.get("function_call"))
    if choice == "none":
        return 1
    if not isinstance(choice, dict) or not family.choice:
        return 0
    function = choice.get("function", choice)
    name = text_of(function.get("name")) if isinstance(function, dict) else ""
    return family.choice + count(f"functions.{name}", family.encoding)


def _asked(body: Mapping[str, Any]) -> int | None:
    """The output tokens asked for, by today's field or else by the older one."""
    return next((limit for field in LIMITS if (limit := limit_in(body, field)) is not None), None)


def _whole(value: object) -> int | None:
    """A JSON number as a whole one; digits in a text are none here."""
    return None if isinstance(value, str) else whole(value)


def _details(value: object) -> dict[str, int]:
    """The whole numbers above zero in an object of usage details."""
    if not isinstance(value, dict):
        return {}
    wholes = {key: _whole(number) for key, number in value.items()}
    return {key: number for key, number in wholes.items() if number is not None and number > 0}
