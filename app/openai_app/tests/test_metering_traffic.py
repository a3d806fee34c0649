"""What recorded calls are charged is what OpenAI reported for them, token for token."""

from collections import Counter, defaultdict
from typing import Any

from balances.units import TOKENS
from balances.usage import Usage
from openai_app import metering
from openai_app.metering import Meter
from openai_app.tests.recordings import Recording, needs_recordings, recordings

METERS = {
    "chat/completions": metering.CHAT,
    "responses": metering.RESPONSES,
    "responses/compact": metering.COMPACTION,
    "completions": metering.COMPLETIONS,
    "embeddings": metering.EMBEDDINGS,
    "engines/text-embedding-ada-002/embeddings": metering.EMBEDDINGS,
    "edits": metering.EDITS,
    "images/generations": metering.IMAGES,
    "images/edits": metering.IMAGE_EDITS,
    "audio/speech": metering.SPEECH,
    "audio/transcriptions": metering.TRANSCRIPTION,
    "audio/translations": metering.TRANSCRIPTION,
    "threads/{id}/runs": metering.RUNS,
    "threads/runs": metering.RUNS,
    "threads/{id}/runs/{id}": metering.RUNS,
    "threads/{id}/runs/{id}/submit_tool_outputs": metering.RUNS,
    "responses/{id}...": metering.RESPONSES,
}


def reported(recording: Recording) -> dict[str, int]:
    """Tokens read and written, and seconds, by OpenAI's own numbers."""
    usage = recording.usage
    details = usage.get("prompt_tokens_details") or usage.get("input_tokens_details") or {}
    read = usage.get("prompt_tokens", usage.get("input_tokens")) or 0
    return {
        "read": read,
        "written": usage.get("completion_tokens", usage.get("output_tokens")) or 0,
        # One recording claims more cached than read.
        "cached": max(min(details.get("cached_tokens") or 0, read - (details.get("audio_tokens") or 0)), 0),
        "seconds": usage.get("seconds") or 0,
    }


def charged(usage: Usage, endpoint: str) -> dict[str, int]:
    units = dict(usage.units)
    if endpoint.startswith("responses"):
        # The images that its tools made are no part of the usage that a response reports.
        units.pop("image_output", None)
    written = sum(amount for unit, amount in units.items() if unit.endswith("output") or unit == "reasoning")
    tokens = sum(amount for unit, amount in units.items() if unit in TOKENS)
    return {
        "read": tokens - written,
        "written": written,
        "cached": usage.units.get("cached_input", 0),
        "seconds": usage.units.get("second", 0),
    }


def last_usage(meter: Meter, recording: Recording) -> Usage | None:
    found = None
    for answer in recording.answers():
        found = meter.usage(answer, recording.request) or found
    return found


@needs_recordings
def test_each_recorded_usage_is_charged_exactly() -> None:
    wrong: list[Any] = []
    right: Counter[str] = Counter()
    for recording in recordings():
        meter = METERS.get(recording.endpoint)
        if meter is None or recording.status != 200 or not recording.usage:
            continue
        found = last_usage(meter, recording)
        if found is not None and charged(found, recording.endpoint) == reported(recording):
            right[recording.endpoint] += 1
        else:
            wrong.append((recording.endpoint, recording.usage, found))
    assert not wrong
    # Each family has been seen, so that nothing passes by not being there.
    assert right.keys() == METERS.keys() - {"threads/runs", "audio/translations"}


@needs_recordings
def test_prompts_are_counted_as_openai_counts_them() -> None:
    errors: dict[str, list[int]] = defaultdict(list)
    for recording in recordings():
        meter = METERS.get(recording.endpoint)
        if recording.endpoint not in ("completions", "embeddings", "edits") or not recording.usage:
            continue
        assert meter is not None
        assert meter.estimate is not None
        counted = sum(meter.estimate({"model": recording.model, **recording.request}).units.values())
        errors[recording.endpoint].append(counted - reported(recording)["read"])
    for endpoint, least in (("completions", 0.93), ("embeddings", 0.99), ("edits", 1)):
        found = errors[endpoint]
        assert found.count(0) >= least * len(found), endpoint


@needs_recordings
def test_images_and_recordings_are_charged_no_more_than_was_held() -> None:
    """Nothing can bound what these calls use, so the hold has to cover all of it."""
    seen = 0
    for recording in recordings():
        meter = METERS.get(recording.endpoint)
        if meter is None or recording.status != 200 or not recording.usage:
            continue
        if recording.endpoint.startswith(("images/", "audio/transcriptions")):
            assert meter.estimate is not None
            estimate = meter.estimate(recording.request)
            used = last_usage(meter, recording)
            assert used is not None
            held = sum(estimate.units.values()) + (estimate.asked or 0) * estimate.choices
            assert sum(used.units.values()) <= held
            assert used.units.get("second", 0) == estimate.units.get("second", 0)
            seen += 1
    assert seen > 40
