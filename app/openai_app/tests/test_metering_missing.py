"""Usage that is no number from zero up is not known: the hold is charged, by one rule for all families."""

from typing import Any

import pytest

from openai_app import metering
from openai_app.metering import LATER, FormFile, Meter, realtime
from openai_app.metering.reading import told, totals

ODD: list[object] = [None, -1, "x", "-1", "", True, [3], {}, float("nan"), float("inf")]
SPEECH = FormFile("a.wav", "audio/wav", 96_000, b"")

odd = pytest.mark.parametrize("value", ODD, ids=repr)


@odd
def test_what_is_no_number_is_not_known(value: object) -> None:
    assert told(value) is None
    assert totals({"read": value, "written": 3}, "read", "written") is None


@pytest.mark.parametrize(
    ("value", "number"), [(0, 0), (7, 7), (6.2, 7), ("8", 8), ("8.47", 9), ("8.470000267028809", 9)]
)
def test_numbers_count_and_so_do_decimal_digits_in_a_text(value: object, number: int) -> None:
    assert told(value) == number


def test_a_total_that_is_left_out_is_zero_unless_all_are() -> None:
    assert totals({"read": 3}, "read", "written") == [3, 0]
    assert totals({}, "read", "written") is None


@odd
@pytest.mark.parametrize("name", ["input_tokens", "output_tokens"])
@pytest.mark.parametrize(
    "meter",
    [metering.RESPONSES, metering.COMPACTION, metering.SPEECH, metering.TRANSCRIPTION],
    ids=["responses", "compaction", "speech", "transcription"],
)
def test_odd_tokens_are_missing_usage(meter: Meter, name: str, value: object) -> None:
    usage = {"input_tokens": 3, "output_tokens": 2}
    assert meter.usage({"usage": usage}, {}) is not None
    assert meter.usage({"usage": {**usage, name: value}}, {"model": "whisper-1", "file": SPEECH}) is None


@odd
def test_odd_tokens_of_images_runs_and_sessions_are_missing_usage(value: object) -> None:
    of_images = {"usage": {"input_tokens": 3, "output_tokens": value}, "data": [{}]}
    assert metering.IMAGES.usage(of_images, {"model": "gpt-image-1"}) is None
    usage = {"prompt_tokens": value, "completion_tokens": 2}
    run = {"object": "thread.run", "status": "completed", "usage": usage}
    assert metering.RUNS.usage(run, {}) is None
    # What was cut short and tells something that cannot be read is not free, either.
    assert LATER["thread.run"].usage({**run, "status": "expired"}) is None
    done = {"response": {"usage": {"input_tokens": value, "output_tokens": 1}}}
    assert realtime.usage(done, {}) is None


@odd
def test_odd_numbers_of_other_kinds_are_missing_usage(value: object) -> None:
    heard = {"model": "whisper-1", "file": SPEECH}
    assert metering.TRANSCRIPTION.usage({"usage": {"seconds": value}}, heard) is None
    assert metering.TRANSCRIPTION.usage({"text": "", "duration": value}, heard) is None
    assert LATER["video"].usage({"status": "completed", "seconds": value}) is None
    assert LATER["fine_tuning.job"].usage({"status": "succeeded", "trained_tokens": value}) is None
    models = [{"prompt_tokens": 3, "completion_tokens": 1}, {"prompt_tokens": value}]
    assert LATER["eval.run"].usage({"status": "completed", "per_model_usage": models}) is None
    graded: dict[str, Any] = {"reward": 1, "model_grader_token_usage_per_model": {"gpt-4o": models[1]}}
    assert metering.GRADERS.usage(graded, {}) is None


def test_a_duration_may_be_told_as_a_text() -> None:
    usage = metering.TRANSCRIPTION.usage({"text": "", "duration": "8.47"}, {"model": "whisper-1"})
    assert usage is not None
    assert usage.units == {"second": 9}
