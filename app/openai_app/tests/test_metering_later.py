"""Work that ends after its call: how it goes on, how it ends, and what it is charged then."""

import json
from typing import Any

import pytest

from openai_app import metering
from openai_app.metering import LATER, batches, later

TOKENS = {"input_tokens": 10, "input_tokens_details": {"cached_tokens": 4}, "output_tokens": 5}
RUN = {"object": "thread.run", "usage": None}
PAID = {"input": 6, "cached_input": 4, "output": 5}


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        ("batch", "validating"),
        ("batch", "finalizing"),
        ("batch", "cancelling"),
        ("response", "queued"),
        ("response", "in_progress"),
        ("thread.run", "requires_action"),
        ("thread.run", "cancelling"),
        ("fine_tuning.job", "validating_files"),
        ("fine_tuning.job", "paused"),
        ("fine-tune", "pending"),
        ("video", "in_progress"),
        ("eval.run", "queued"),
        ("video", None),
    ],
)
def test_what_goes_on_is_not_charged_whatever_it_reports(kind: str, status: str | None) -> None:
    found = {"object": kind, "status": status, "usage": TOKENS, "trained_tokens": 3, "seconds": "4"}
    assert later.pending(found) is LATER[kind]
    assert later.usage(found, {}) is None
    assert not later.has_ended(found)


@pytest.mark.parametrize(
    ("found", "units"),
    [
        ({"object": "batch", "status": "completed", "usage": TOKENS}, PAID),
        ({"object": "batch", "status": "cancelled", "usage": TOKENS}, PAID),
        ({"object": "batch", "status": "failed"}, {}),
        ({"object": "response", "status": "completed", "usage": TOKENS}, PAID),
        ({"object": "response", "status": "cancelled", "usage": None}, {}),
        ({"object": "response", "status": "failed", "usage": None}, {}),
        ({"object": "response", "status": "incomplete", "usage": TOKENS}, PAID),
        ({"object": "fine_tuning.job", "status": "succeeded", "trained_tokens": 900}, {"training": 900}),
        ({"object": "fine_tuning.job", "status": "cancelled", "trained_tokens": 90}, {"training": 90}),
        ({"object": "fine_tuning.job", "status": "failed", "trained_tokens": None}, {}),
        ({"object": "video", "status": "completed", "seconds": "8"}, {"second": 8}),
        ({"object": "video", "status": "failed", "seconds": "8"}, {}),
        ({**RUN, "status": "expired"}, {}),
        (
            {**RUN, "status": "completed", "usage": {"prompt_tokens": 7, "completion_tokens": 2}},
            {"input": 7, "output": 2},
        ),
    ],
)
def test_what_has_ended_is_charged_as_far_as_it_is_reported(
    found: dict[str, Any], units: dict[str, int]
) -> None:
    assert later.pending(found) is None
    usage = later.usage(found, {})
    assert usage is not None
    assert usage.units == units


@pytest.mark.parametrize(
    "found",
    [
        {"object": "response", "status": "completed"},
        {**RUN, "status": "completed"},
        {"object": "fine_tuning.job", "status": "succeeded", "trained_tokens": None},
        {"object": "fine-tune", "status": "succeeded"},
        {"object": "video", "status": "completed"},
        {"object": "eval.run", "status": "completed"},
    ],
)
def test_what_succeeded_and_reports_nothing_is_not_free(found: dict[str, Any]) -> None:
    assert later.has_ended(found)
    assert later.usage(found, {}) is None


def test_a_run_of_an_eval_is_charged_for_all_its_models() -> None:
    one = {"prompt_tokens": 10, "cached_tokens": 4, "completion_tokens": 5}
    run = {"object": "eval.run", "status": "completed", "per_model_usage": [one, {"prompt_tokens": 1}]}
    usage = later.usage(run, {})
    assert usage is not None
    assert usage.units == {"input": 7, "cached_input": 4, "output": 5}


def test_the_steps_of_a_run_are_part_of_it() -> None:
    step = {"object": "thread.run.step", "status": "completed", "usage": {"prompt_tokens": 7}}
    assert metering.RUNS.usage(step, {}) is None
    assert not metering.RUNS.ends(step)


def test_an_event_of_a_stream_tells_of_the_response_in_it() -> None:
    queued = {"type": "response.queued", "response": {"object": "response", "status": "queued"}}
    assert later.pending(queued) is LATER["response"]


def test_a_batch_that_reports_zeros_is_charged_by_its_output_file() -> None:
    zeros = {"input_tokens": 0, "output_tokens": 0}
    batch = {"object": "batch", "status": "completed", "usage": zeros, "output_file_id": "file-1"}
    assert later.usage(batch, {}) is None
    assert LATER["batch"].file_field == "output_file_id"
    chat = {"object": "chat.completion", "usage": {"prompt_tokens": 3, "completion_tokens": 2}}
    response = {"object": "response", "usage": TOKENS}
    embedding = {"object": "list", "usage": {"prompt_tokens": 1, "total_tokens": 1}}
    details = {"text_tokens": 5, "image_tokens": 0}
    image = {"usage": {"input_tokens": 5, "input_tokens_details": details, "output_tokens": 272}}
    lines = [answered(body) for body in (chat, response, embedding, image)]
    lines.append(json.dumps({"custom_id": "5", "response": None, "error": {"code": "x"}}).encode())
    assert units_of(lines) == {
        "input": 3 + 6 + 1 + 5,
        "cached_input": 4,
        "output": 2 + 5,
        "image_output": 272,
    }


def test_a_thousand_lines_add_up() -> None:
    chat = {"object": "chat.completion", "usage": {"prompt_tokens": 3, "completion_tokens": 2}}
    assert units_of([answered(chat)] * 1000) == {"input": 3000, "output": 2000}


@pytest.mark.parametrize(
    ("endpoint", "model", "body", "units"),
    [
        ("/v1/videos", "sora-2/720x1280", {"status": "completed", "seconds": "8"}, {"second": 8}),
        ("/v1/videos", "sora-2/720x1280", {"status": "failed", "seconds": "8"}, {}),
        ("/v1/images/generations", "dall-e-3/1024x1024/hd", {"data": [{"url": ""}]}, {"image": 1}),
        ("/v1/images/generations", "gpt-image-1", {"data": [{"b64_json": ""}]}, None),
        ("/v1/images/edits", "gpt-image-1.5", {"usage": {"output_tokens": 272}}, {"image_output": 272}),
        ("/v1/chat/completions", "gpt-4o", {"usage": {"prompt_tokens": 3}}, {"input": 3}),
        ("/v1/chat/completions", "gpt-4o", {"choices": []}, None),
        ("/v1/responses", "gpt-4o", {"status": "completed"}, None),
        ("/v1/responses", "gpt-4o", {"status": "failed"}, {}),
        ("/v1/moderations", "", {"results": []}, {}),
        ("/v1/of_next_year", "", {"data": []}, None),
    ],
)
def test_a_line_is_counted_as_its_endpoint_is(
    endpoint: str, model: str, body: dict[str, Any], units: dict[str, int] | None
) -> None:
    assert units_of([answered(body)], endpoint, model) == units


@pytest.mark.parametrize(
    ("lines", "units"),
    [
        ([], None),
        ([b"", b""], None),
        ([b"<html>"], None),
        ([b'{"custom_id": "1", "response": null, "error": null}'], None),
        ([b'{"custom_id": "1", "response": null, "error": {"code": "x"}}'], {}),
        ([b'{"custom_id": "1", "response": {"status_code": 400, "body": {}}}', b""], {}),
    ],
)
def test_a_file_without_answers_is_not_free_unless_it_tells_of_refusals(
    lines: list[bytes], units: dict[str, int] | None
) -> None:
    assert units_of(lines, "/v1/chat/completions") == units


def test_what_ended_is_rated_by_what_it_says_of_itself() -> None:
    video = {"model": "sora-2", "size": "1280x720"}
    assert LATER["video"].rated_as(video) == "sora-2/1280x720"
    assert LATER["batch"].rated_as({"model": "gpt-5-nano-2025-08-07"}) == "gpt-5-nano-2025-08-07"
    assert LATER["thread.run"].rated_as({"model": None}) == ""


def units_of(lines: list[bytes], endpoint: str = "", model: str = "") -> Any:
    """What the lines of an output file add up to; None if they do not tell."""
    output = batches.Output({"endpoint": endpoint}, model)
    output.add(lines)
    used = output.usage()
    return None if used is None else used.units


def answered(body: dict[str, Any]) -> bytes:
    return json.dumps({"custom_id": "1", "response": {"status_code": 200, "body": body}}).encode()
