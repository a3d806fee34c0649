"""What each family of operations needs before the call, and what it is charged after it."""

import json
from typing import Any

import pytest

from openai_app import metering
from openai_app.metering import FormFile, batches, fine_tuning

MP3_OF_2_SECONDS = FormFile("a.mp3", "audio/mpeg", 4, b"", seconds=1.7)


def test_a_completion_that_sets_no_limit_has_sixteen_tokens() -> None:
    found = estimate(metering.COMPLETIONS, {"model": "gpt-3.5-turbo-instruct", "prompt": "Say this"})
    assert found.units == {"input": 2}
    assert found.asked == 16


@pytest.mark.parametrize(
    ("request_", "tokens", "choices"),
    [
        ({"prompt": "Hello", "n": 3}, 1, 3),
        ({"prompt": "Hello", "n": 2, "best_of": 5}, 1, 5),
        ({"prompt": ["Hello", "Hello"], "n": 2}, 2, 4),
        ({"prompt": [1, 2, 3]}, 3, 1),
        ({"prompt": [[1, 2, 3], [4]]}, 4, 2),
        ({"prompt": "Hello", "suffix": "Hello"}, 2, 1),
        ({}, 1, 1),
    ],
)
def test_each_completion_that_is_generated_counts(
    request_: dict[str, Any], tokens: int, choices: int
) -> None:
    found = estimate(metering.COMPLETIONS, {"model": "davinci-002", **request_})
    assert (found.units, found.choices) == ({"input": tokens}, choices)


def test_a_completion_may_be_asked_for_none() -> None:
    assert estimate(metering.COMPLETIONS, {"prompt": "x", "max_tokens": 0, "echo": True}).asked == 0


@pytest.mark.parametrize(
    ("given", "tokens"),
    [("Hello", 1), (["Hello", "Hello"], 2), ([1, 2, 3], 3), ([[1, 2], [3]], 3), ("", 1)],
)
def test_embeddings_cost_what_they_read(given: object, tokens: int) -> None:
    found = estimate(metering.EMBEDDINGS, {"model": "text-embedding-3-small", "input": given})
    assert (found.units, found.ceiling) == ({"input": tokens}, 0)


def test_a_response_counts_its_instructions_as_a_system_message() -> None:
    said = estimate(metering.RESPONSES, {"model": "gpt-4o", "input": "Hi", "instructions": "Be brief."})
    listed = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]
    assert said == estimate(metering.RESPONSES, {"model": "gpt-4o", "input": listed})
    assert said.units == estimate(metering.CHAT, {"model": "gpt-4o", "messages": listed}).units


def test_a_response_is_capped_by_its_own_field_and_not_below_sixteen() -> None:
    request = {"model": "gpt-4o", "input": "Hi", "max_output_tokens": 50}
    assert estimate(metering.RESPONSES, request).asked == 50
    assert estimate(metering.RESPONSES, request).least_cap == 16
    assert metering.RESPONSES.cap(request, 20) == {"max_output_tokens": 20}


def test_what_a_tool_gave_back_counts_whatever_its_type() -> None:
    short = {"type": "mcp_call", "name": "look", "arguments": "{}", "output": "x"}
    request = {"model": "gpt-4o", "input": [short]}
    long = {"model": "gpt-4o", "input": [{**short, "output": "word " * 1000}]}
    assert total(metering.RESPONSES, long) >= total(metering.RESPONSES, request) + 999


def test_images_that_a_response_generates_are_charged_with_its_tokens() -> None:
    image = {"input_tokens": 12, "input_tokens_details": {"image_tokens": 2}, "output_tokens": 272}
    response = {
        "usage": {"input_tokens": 10, "input_tokens_details": {"cached_tokens": 4}, "output_tokens": 5},
        "tool_usage": {"image_gen": image},
        "output": [{"type": "image_generation_call"}, {"type": "web_search_call"}, {"type": "function_call"}],
    }
    usage = metering.RESPONSES.usage({"type": "response.completed", "response": response}, {})
    assert usage is not None
    assert usage.units == {
        "input": 16,
        "cached_input": 4,
        "output": 5,
        "image_input": 2,
        "image_output": 272,
        "web_search": 1,
    }
    assert usage.details == {"image_generation_call": 1, "web_search_call": 1}


def test_a_stream_of_a_response_is_counted_by_its_deltas_and_ends_without_a_mark() -> None:
    events: list[dict[str, Any]] = [
        {"type": "response.output_item.added", "item": {"type": "function_call", "name": "look"}},
        {"type": "response.function_call_arguments.delta", "delta": '{"at":'},
        {"type": "response.function_call_arguments.done", "arguments": '{"at":1}'},
        {"type": "response.output_text.delta", "delta": "Hello"},
        {"type": "response.output_text.done", "text": "Hello"},
        {"type": "response.reasoning_summary_text.delta", "delta": "Hm"},
    ]
    written = "".join(text for event in events for _, text in metering.RESPONSES.text(event))
    assert written == 'look{"at":HelloHm'
    assert not any(map(metering.RESPONSES.ends, events))
    for kind in ("completed", "incomplete", "failed"):
        assert metering.RESPONSES.ends({"type": f"response.{kind}"})


def test_a_response_that_failed_and_reports_nothing_is_free() -> None:
    failed = {"object": "response", "status": "failed", "usage": None}
    usage = metering.RESPONSES.usage({"type": "response.failed", "response": failed}, {})
    assert usage is not None
    assert usage.units == {}
    assert metering.RESPONSES.usage({**failed, "status": "completed"}, {}) is None


def test_a_gpt_image_needs_the_tokens_of_its_size_and_quality() -> None:
    request = {"model": "gpt-image-1", "prompt": "An isolated stop sign.", "n": 2}
    small = {"quality": "low", "size": "1024x1024"}
    assert estimate(metering.IMAGES, {**request, **small}).units == {"input": 22, "image_output": 544}
    assert estimate(metering.IMAGES, request).units == {"input": 22, "image_output": 2 * 6_240}


def test_an_answer_of_a_gpt_image_model_without_usage_tells_nothing() -> None:
    answer = {"data": [{"b64_json": ""}]}
    assert metering.IMAGES.usage(answer, {"model": "gpt-image-1"}) is None
    assert metering.IMAGE_EDITS.usage(answer, {}) is None


@pytest.mark.parametrize(
    ("request_", "name"),
    [
        ({}, "dall-e-2/1024x1024"),
        ({"size": "256x256"}, "dall-e-2/256x256"),
        ({"model": "dall-e-3"}, "dall-e-3/1024x1024/standard"),
        ({"model": "dall-e-3", "size": "1024x1792", "quality": "hd"}, "dall-e-3/1024x1792/hd"),
        ({"model": "gpt-image-1", "size": "1024x1024"}, "gpt-image-1"),
    ],
)
def test_images_of_dall_e_are_rated_by_size_and_quality(request_: dict[str, Any], name: str) -> None:
    assert metering.IMAGES.rated_as(request_) == name


def test_images_of_dall_e_are_counted() -> None:
    assert estimate(metering.IMAGES, {"n": "3"}).units == {"image": 3}
    usage = metering.IMAGES.usage({"data": [{"url": ""}, {"url": ""}]}, {"n": 3})
    assert usage is not None
    assert usage.units == {"image": 2}


def test_images_to_edit_count_in_a_form_and_in_json() -> None:
    file = FormFile("a.png", "image/png", 10, b"")
    one = estimate(metering.IMAGE_EDITS, {"model": "gpt-image-1", "prompt": "x", "image": file})
    two = estimate(metering.IMAGE_EDITS, {"model": "gpt-image-1", "prompt": "x", "image[]": [file, file]})
    same = {"model": "gpt-image-1", "prompt": "x", "images": [{"image_url": "u"}, {"file_id": "file-1"}]}
    assert two == estimate(metering.IMAGE_EDITS, same)
    assert two.units["image_input"] == 2 * one.units["image_input"]


def test_speech_is_charged_by_the_character_or_as_a_stream_reports() -> None:
    request = {"model": "gpt-4o-mini-tts", "input": "Hello!", "instructions": "Whisper"}
    assert estimate(metering.SPEECH, request).units == {"character": 6, "input": 2}
    spoken = metering.SPEECH.usage({}, request)
    assert spoken is not None
    assert spoken.units == {"character": 6, "input": 2}
    assert metering.SPEECH.usage({"type": "speech.audio.delta", "audio": ""}, request) is None
    done = {"type": "speech.audio.done", "usage": {"input_tokens": 10, "output_tokens": 82}}
    reported = metering.SPEECH.usage(done, request)
    assert reported is not None
    assert reported.units == {"input": 10, "audio_output": 82}


def test_a_transcription_needs_the_seconds_of_its_file_or_their_tokens() -> None:
    file = {"file": MP3_OF_2_SECONDS}
    assert estimate(metering.TRANSCRIPTION, {"model": "whisper-1", **file}).units == {"second": 2}
    by_tokens = estimate(metering.TRANSCRIPTION, {"model": "gpt-4o-transcribe", **file})
    assert by_tokens.units == {"audio_input": 17}
    # No field bounds the output: a balance that does not cover it is not enough.
    assert by_tokens.least_cap == by_tokens.asked
    assert by_tokens.asked is not None
    assert by_tokens.asked > 10


def test_subtitles_are_charged_by_the_seconds_of_their_file() -> None:
    usage = metering.TRANSCRIPTION.usage({}, {"model": "whisper-1", "file": MP3_OF_2_SECONDS})
    assert usage is not None
    assert usage.units == {"second": 2}
    assert metering.TRANSCRIPTION.usage({}, {"model": "gpt-4o-transcribe", "file": MP3_OF_2_SECONDS}) is None


def test_a_search_of_a_vector_store_and_a_container_cost_by_the_call() -> None:
    for meter, name in (
        (metering.VECTOR_STORE_SEARCH, "vector_store_search"),
        (metering.CONTAINERS, "container"),
    ):
        assert estimate(meter, {}).units == {"request": 1}
        usage = meter.usage({}, {})
        assert usage is not None
        assert usage.units == {"request": 1}
        assert meter.rated_as({"model": "whatever"}) == name


def test_an_old_search_costs_its_documents_and_the_query_for_each() -> None:
    request = {"model": "ada", "documents": ["White House", "hospital"], "query": "the president"}
    # 2 + 1 tokens of documents, and three times the query's 2 and 10 more.
    assert estimate(metering.DOCUMENT_SEARCH, request).units == {"input": 3 + 3 * 12}


def test_a_video_is_rated_by_model_and_size() -> None:
    request = {"model": "sora-2-pro", "prompt": "x", "seconds": "8", "size": "1792x1024"}
    assert estimate(metering.VIDEOS, request).units == {"second": 8}
    assert metering.VIDEOS.rated_as(request) == "sora-2-pro/1792x1024"
    assert metering.VIDEOS.rated_as({}) == "sora-2/720x1280"
    assert estimate(metering.VIDEOS, {}).units == {"second": 4}


def test_the_requests_of_a_batch_are_counted_line_by_line() -> None:
    message = {"role": "user", "content": "Hello!"}
    chat = {"model": "gpt-4o", "messages": [message], "max_tokens": 7, "n": 2}
    lines = [
        line("/v1/chat/completions", chat),
        line("/v1/embeddings", {"model": "text-embedding-3-small", "input": "Hello"}),
        line("/v1/chat/completions", {"model": "gpt-4o", "messages": [message]}),
        line("/v1/moderations", {"input": "Hello"}),
    ]
    assert batches.estimate_lines(lines, {}).units == {"input": 9 + 1 + 9, "output": 14 + 1_000}


def test_a_batch_is_rated_as_its_lines_would_be() -> None:
    chats = [line("/v1/chat/completions", {"model": "gpt-4o", "messages": []})] * 2
    assert batches.estimate_lines(chats, {}).rated_as == {"gpt-4o"}
    large = {"model": "dall-e-3", "prompt": "x", "size": "1024x1792"}
    images = [line("/v1/images/generations", body) for body in ({"model": "dall-e-3"}, large)]
    names = {"dall-e-3/1024x1024/standard", "dall-e-3/1024x1792/standard"}
    assert batches.estimate_lines(images, {}).rated_as == names
    film = line("/v1/videos", {"model": "sora-2-pro", "prompt": "x", "seconds": "8"})
    assert batches.estimate_lines([film], {}).units == {"second": 8}
    assert batches.estimate_lines([film], {}).rated_as == {"sora-2-pro/720x1280"}
    assert batches.estimate_lines([line("/v1/moderations", {"input": "x"}), b"{"], {}).rated_as == set()


def test_the_searches_that_a_batchs_lines_may_make_are_held() -> None:
    request = {"model": "gpt-4o", "input": "Hi", "tools": [{"type": "web_search"}]}
    assert batches.estimate_lines([line("/v1/responses", request)], {}).units["web_search"] == 1


def test_training_is_counted_once_an_epoch() -> None:
    message = {"role": "user", "content": "Hello!"}
    lines = [json.dumps({"messages": [message]}).encode()] * 3
    request: dict[str, Any] = {"model": "gpt-4o", "hyperparameters": {"n_epochs": 2}}
    assert fine_tuning.estimate_lines(lines, request).units == {"training": 2 * 3 * 9}
    chosen = {"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 4}}}
    by_method = fine_tuning.estimate_lines(lines, {"model": "gpt-4o", "method": chosen})
    assert by_method.units == {"training": 4 * 3 * 9}


def test_a_grader_is_charged_what_its_models_used() -> None:
    answer = {"reward": 1, "model_grader_token_usage_per_model": {"gpt-4o": {"prompt_tokens": 3}}}
    usage = metering.GRADERS.usage(answer, {})
    assert usage is not None
    assert usage.units == {"input": 3}
    free = metering.GRADERS.usage({"reward": 1, "metadata": {"token_usage": None}}, {})
    assert free is not None
    assert free.units == {}


def line(url: str, body: dict[str, Any]) -> bytes:
    return json.dumps({"custom_id": "1", "method": "POST", "url": url, "body": body}).encode()


def estimate(meter: metering.Meter, request: dict[str, Any]) -> Any:
    assert meter.estimate is not None
    return meter.estimate(request)


def total(meter: metering.Meter, request: dict[str, Any]) -> int:
    return sum(estimate(meter, request).units.values())
