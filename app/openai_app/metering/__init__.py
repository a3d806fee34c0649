"""What a call will cost, counted before it, and what it did cost, read from its answer."""

from openai_app.metering import (
    batches,
    calls,
    chat,
    chat_stream,
    completions,
    embeddings,
    evals,
    fine_tuning,
    image_calls,
    later,
    responses,
    runs,
    search,
    speech,
    transcription,
    videos,
)
from openai_app.metering.form import FormFile
from openai_app.metering.later import LATER, Later
from openai_app.metering.meter import FREE, Answer, Meter, Request
from openai_app.metering.tokens import preload
from openai_app.metering.units import Usage


def _usage_of_tokens(answer: Answer, _: Request) -> Usage | None:
    return chat.usage(answer)


CHAT = Meter(
    estimate=chat.estimate,
    usage=chat.usage_with_searches,
    text=chat_stream.text,
    cap=chat_stream.cap,
    ask_for_usage=chat_stream.ask_for_usage,
)
#: A request may leave the model to a stored prompt.
RESPONSES = Meter(
    estimate=responses.estimate,
    usage=responses.usage,
    needs_model=False,
    text=responses.text,
    ends=responses.ends,
    cap=responses.cap,
)
COMPACTION = Meter(estimate=responses.estimate_compaction, usage=responses.usage)
COMPLETIONS = Meter(
    estimate=completions.estimate,
    usage=_usage_of_tokens,
    text=completions.text,
    cap=completions.cap,
    ask_for_usage=chat_stream.ask_for_usage,
)
EDITS = Meter(estimate=completions.estimate_edit, usage=_usage_of_tokens)
EMBEDDINGS = Meter(estimate=embeddings.estimate, usage=_usage_of_tokens)
#: Generations, and variations of an image.
IMAGES = Meter(
    estimate=image_calls.estimate,
    usage=image_calls.usage,
    rated_as=image_calls.rated_as,
    needs_model=False,
    ends=image_calls.ends,
)
IMAGE_EDITS = Meter(
    estimate=image_calls.estimate_edit,
    usage=image_calls.usage_of_edit,
    rated_as=image_calls.rated_as_edit,
    needs_model=False,
    ends=image_calls.ends,
)
SPEECH = Meter(estimate=speech.estimate, usage=speech.usage, ends=speech.ends)
#: Transcriptions and translations.
TRANSCRIPTION = Meter(
    estimate=transcription.estimate,
    usage=transcription.usage,
    text=transcription.text,
    ends=transcription.ends,
)
VECTOR_STORE_SEARCH = Meter(
    estimate=calls.estimate,
    usage=calls.usage,
    rated_as=lambda _: "vector_store_search",
    needs_model=False,
)
CONTAINERS = Meter(
    estimate=calls.estimate, usage=calls.usage, rated_as=lambda _: "container", needs_model=False
)
#: Search in documents, with the engine in the path.
DOCUMENT_SEARCH = Meter(estimate=search.estimate, usage=search.usage, needs_model=False)
GRADERS = Meter(estimate=fine_tuning.estimate_grader, usage=fine_tuning.usage_of_grader, needs_model=False)
# What follows ends after its call: see `later`.
RUNS = Meter(
    estimate=runs.estimate,
    usage=later.usage,
    needs_model=False,
    text=runs.text,
    ends=later.has_ended,
    cap=runs.cap,
)
BATCHES = Meter(
    estimate=batches.estimate,
    usage=later.usage,
    needs_model=False,
    lines_field="input_file_id",
    estimate_lines=batches.estimate_lines,
)
FINE_TUNING = Meter(
    estimate=fine_tuning.estimate,
    usage=later.usage,
    needs_model=False,
    lines_field="training_file",
    estimate_lines=fine_tuning.estimate_lines,
)
VIDEOS = Meter(estimate=videos.estimate, usage=later.usage, rated_as=videos.rated_as, needs_model=False)
#: Remixes, edits and extensions of a video.
VIDEO_REMIXES = Meter(
    estimate=videos.estimate_remix,
    usage=later.usage,
    rated_as=videos.rated_as_remix,
    needs_model=False,
)
EVAL_RUNS = Meter(estimate=evals.estimate, usage=later.usage, rated_as=evals.rated_as, needs_model=False)

__all__ = [
    "BATCHES",
    "CHAT",
    "COMPACTION",
    "COMPLETIONS",
    "CONTAINERS",
    "DOCUMENT_SEARCH",
    "EDITS",
    "EMBEDDINGS",
    "EVAL_RUNS",
    "FINE_TUNING",
    "FREE",
    "GRADERS",
    "IMAGES",
    "IMAGE_EDITS",
    "LATER",
    "RESPONSES",
    "RUNS",
    "SPEECH",
    "TRANSCRIPTION",
    "VECTOR_STORE_SEARCH",
    "VIDEOS",
    "VIDEO_REMIXES",
    "FormFile",
    "Later",
    "Meter",
    "preload",
]
