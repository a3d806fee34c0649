"""Whatever JSON comes, metering answers: a caller's or OpenAI's strangest body must not break a call."""

import random
from typing import Any

import pytest

from balances.units import UNITS
from balances.usage import Estimate, Usage
from openai_app import metering
from openai_app.metering import LATER, FormFile, Meter, batches, duration, fine_tuning

METERS = {name: value for name, value in vars(metering).items() if isinstance(value, Meter)}


# What a batch's lines may call.
ENDPOINTS = (
    "/v1/responses",
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/embeddings",
    "/v1/images/generations",
    "/v1/images/edits",
    "/v1/moderations",
    "/v1/videos",
)


def words(text: str) -> list[str]:
    return text.split()


FIELDS = words(
    "model input prompt n best_of max_tokens max_output_tokens instructions tools tool_choice text format "
    "type name role content output call_id arguments encrypted_content reasoning function parameters "
    "properties json_schema schema usage input_tokens output_tokens input_tokens_details cached_tokens "
    "prompt_tokens completion_tokens image_tokens tool_usage image_gen response object status data size "
    "quality partial_images image image[] images input_fidelity file seconds duration thread messages "
    "additional_messages hyperparameters method n_epochs trained_tokens data_source source sampling_params "
    "per_model_usage reward metadata token_usage url body suffix documents query delta item choices variables"
)
WORDS = words(
    "message function custom namespace web_search function_call function_call_output reasoning compaction "
    "input_text input_image input_file input_audio user assistant system gpt-4o gpt-5 gpt-image-1 dall-e-3 "
    "whisper-1 gpt-4o-transcribe gpt-4o-mini-tts sora-2-pro completed failed response batch thread.run video "
    "fine_tuning.job eval.run json_schema 1024x1024 axb 99999999999999999999x1 high auto 7 ٣ -1 <|endoftext|>"
)
STRANGE: tuple[Any, ...] = ("", "\ud800", "\x00", 0, -1, 2**70, 1.5, -1e300, 1e308, True, False, None, [], {})


def anything(dice: random.Random, depth: int = 0) -> Any:
    kind = dice.randrange(8 if depth < 5 else 4)
    if kind < 2:
        return dice.choice(WORDS)
    if kind < 4:
        return dice.choice(STRANGE)
    if kind < 6:
        return [anything(dice, depth + 1) for _ in range(dice.randrange(4))]
    return an_object(dice, depth + 1)


def an_object(dice: random.Random, depth: int = 0) -> dict[str, Any]:
    return {dice.choice(FIELDS): anything(dice, depth) for _ in range(dice.randrange(9))}


def a_file(dice: random.Random) -> FormFile:
    start = dice.choice(
        (b"RIFF\0\0\0\0WAVEfmt ", b"fLaC", b"OggS", b"....ftyp...mvhd", b"\x1aE\xdf\xa3\x15I\xa9f", b"ID3")
    )
    return FormFile("a", "", dice.randrange(10**9), start + dice.randbytes(dice.randrange(400)))


@pytest.mark.parametrize("name", METERS)
def test_no_request_and_no_answer_breaks_a_meter(name: str) -> None:
    meter, dice = METERS[name], random.Random(name)
    for _ in range(400):
        request, answer = an_object(dice), an_object(dice)
        request.update(file=a_file(dice), image=a_file(dice)) if dice.random() < 0.3 else None
        if meter.estimate is not None:
            check_estimate(meter.estimate(request))
        check_usage(meter.usage(answer, request))
        assert isinstance(meter.rated_as(request), str)
        assert isinstance(meter.ends(answer), bool)
        assert all(isinstance(added, str) for _, added in meter.text(answer))
        assert isinstance(meter.cap(request, 16), dict)
        assert isinstance(meter.ask_for_usage(request), dict)


@pytest.mark.parametrize("kind", LATER)
def test_no_object_breaks_the_rules_of_its_kind(kind: str) -> None:
    later, dice = LATER[kind], random.Random(kind)
    for _ in range(400):
        found = an_object(dice)
        check_usage(later.usage(found))
        assert isinstance(later.has_ended(found), bool)
        assert isinstance(later.rated_as(found), str)


def test_no_line_breaks_the_reading_of_a_file() -> None:
    lines = [b"", b"{", b"[]", b"null", b"\xff\xfe", b'{"response":{"body":{"usage":[]}}}', b"[" * 100_000]
    for endpoint in ("", *ENDPOINTS):
        batch = {"endpoint": endpoint}
        output = batches.Output(batch, "")
        output.add(lines)
        check_usage(output.usage())
        check_estimate(batches.estimate_lines(lines, batch))
    check_estimate(fine_tuning.estimate_lines(lines, {}))


def check_estimate(estimate: Estimate) -> None:
    for unit, amount in estimate.units.items():
        assert unit in UNITS
        assert isinstance(amount, int)
        assert amount >= 0
    assert estimate.choices >= 1
    assert estimate.asked is None or estimate.asked >= 0


def check_usage(usage: Usage | None) -> None:
    for unit, amount in usage.units.items() if usage is not None else ():
        assert unit in UNITS
        assert isinstance(amount, int)
        assert amount >= 0


@pytest.mark.parametrize("absurd", [2**62, 2**70, 1e308])
def test_a_count_beyond_belief_still_fits_into_the_ledgers_columns(absurd: float) -> None:
    reported = {
        "prompt_tokens": absurd,
        "completion_tokens": absurd,
        "input_tokens": absurd,
        "seconds": absurd,
    }
    for name, meter in METERS.items():
        answer = {"usage": reported, "trained_tokens": absurd, "duration": absurd, "n": absurd}
        check_size(name, meter.usage(answer, {"model": "gpt-4o"}))
        check_size(name, meter.estimate({**reported, "n": absurd}) if meter.estimate else None)
    for name, later in LATER.items():
        check_size(name, later.usage({"usage": reported, "trained_tokens": absurd, "status": "succeeded"}))


def check_size(name: str, found: Usage | Estimate | None) -> None:
    for amount in found.units.values() if found is not None else ():
        assert amount < 2**53, name


def test_a_file_that_claims_to_last_for_ever_is_given_thirty_years() -> None:
    head = (
        b"\0\0\0\x18ftypM4A " + b"\0" * 8 + b"\0\0\0\x6cmvhd\x01" + b"\0" * 15 + b"\0\0\0\x01" + b"\xff" * 8
    )
    assert duration.seconds(head + bytes(8), 1_000) == 1e9
