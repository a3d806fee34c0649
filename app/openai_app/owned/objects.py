"""The kinds of things that calls leave with OpenAI, how each is found in its answers, and how it is missed.

The wording of `missing` is what OpenAI answered in recorded calls or, where none was recorded, what public
code quotes; the rest follows the pattern of its neighbours.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from common.asgi import Headers

_ASSISTANTS: Headers = [(b"openai-beta", b"assistants=v2")]
_CHATKIT: Headers = [(b"openai-beta", b"chatkit_beta=v1")]


# How names of fine-tuned models begin; those of the first API are like `curie:ft-personal-…`.
FINE_TUNED = ("ft:", "ada:ft-", "babbage:ft-", "curie:ft-", "davinci:ft-")


@dataclass(frozen=True)
class Kind:
    """One kind of object. `missing`, `param` and `code` are what OpenAI says of an id that does not exist."""

    name: str
    #: Where one is read, below the prefix, with its own id as `{id}`; empty where OpenAI has no such call.
    path: str = ""
    missing: str = "No such object: {id}"
    param: str | None = None
    code: str | None = None
    #: The name of the kind that it is a child of: it belongs to whom that belongs to, which stands before it
    #: in every path.
    parent: str | None = None
    #: What ids look like, where the fields that hold them hold other things as well; empty: anything.
    form: str = ""
    #: How ids begin, a choice of words of which a dash or an underscore follows, where any field may have the
    #: name of one that holds such ids.
    begins: str = ""
    #: It has the id of the file that it is: the same file may be in many of its kind's parents.
    has_files_id: bool = False
    #: Fields by whose values a list can be narrowed, apart from `metadata`.
    filters: tuple[str, ...] = ()
    #: The largest `limit` of a list, and the one it has when none is asked for.
    most_listed: int = 100
    fewest_listed: int = 1
    usually_listed: int = 20
    #: The order of a list when none is asked for.
    usual_order: str = "desc"
    #: Whether lists name their first and last element.
    lists_tell_ends: bool = True
    #: Without a call that names it, and without a status that says so.
    changes_by_itself: bool = False
    #: What a call that reads one must carry.
    headers: Headers = field(default_factory=list, compare=False)
    #: Objects of other kinds that its answer names and that came into being by it, by place in the answer:
    #: `a.b` descends, `[]` stands for each element.
    yields: Mapping[str, Kind] = field(default_factory=dict, compare=False)

    @property
    def is_model(self) -> bool:
        """Most models are everybody's; one that was fine-tuned belongs to somebody."""
        return self.name == "model"

    def may_be(self, value: str) -> bool:
        """Whether a value can be an id of this kind that belongs to somebody."""
        if self.is_model:
            return value.startswith(FINE_TUNED)
        return bool(value) and (not self.form or re.fullmatch(self.form, value) is not None)

    def looks_like_one(self, value: str) -> bool:
        """Whether a value that may be an id of this kind is written as OpenAI writes them."""
        return not self.begins or re.match(rf"(?:{self.begins})[-_].{{6}}", value, re.DOTALL) is not None

    def recorded_as(self, object_id: str, parent_id: str | None) -> str:
        """The id in the records. An id that is a file's is told from the file's own by its parent's."""
        return f"{parent_id}/{object_id}" if self.has_files_id and parent_id else object_id


def yielded(kind: Kind, answer: Any) -> Iterator[tuple[Kind, str]]:
    """The objects that an answer, itself an object of `kind`, names as having come into being by it."""
    for place, other in kind.yields.items():
        for value in _at(answer, place.split(".")):
            if isinstance(value, str) and other.may_be(value):
                yield other, value


def _at(value: Any, steps: list[str]) -> Iterator[Any]:
    if not steps:
        yield value
        return
    step, rest = steps[0], steps[1:]
    name = step.removesuffix("[]")
    found = value.get(name) if isinstance(value, dict) else None
    if step.endswith("[]"):
        for element in found if isinstance(found, list) else ():
            yield from _at(element, rest)
    elif found is not None:
        yield from _at(found, rest)


# --- Models and files ---------------------------------------------------------------------------------------
MODEL = Kind(
    "model",
    "/models/{id}",
    "The model `{id}` does not exist or you do not have access to it.",
    code="model_not_found",
)
FILE = Kind(
    "file",
    "/files/{id}",
    "No such File object: {id}",
    param="id",
    begins="file|assistant",
    filters=("purpose",),
    most_listed=10_000,
    usually_listed=10_000,
)
UPLOAD = Kind(
    "upload",
    missing="No such Upload object: {id}",
    param="upload_id",
    yields={"file.id": FILE},
)
UPLOAD_PART = Kind("upload_part", missing="No such Part object: {id}", param="part_ids", begins="part")
BATCH = Kind(
    "batch",
    "/batches/{id}",
    "No batch found with id '{id}'.",
    yields={"output_file_id": FILE, "error_file_id": FILE},
)

# --- Answers that are kept ----------------------------------------------------------------------------------
#: The sound of an answer, to which a later message can refer.
CHAT_AUDIO = Kind("chat_audio", missing="Audio with id '{id}' not found.", begins="audio")
CHAT_COMPLETION = Kind(
    "chat_completion",
    "/chat/completions/{id}",
    "Completion {id} not found",
    param="completion_id",
    code="not_found",
    filters=("model",),
    usual_order="asc",
    yields={"choices[].message.audio.id": CHAT_AUDIO, "choices[].delta.audio.id": CHAT_AUDIO},
)
CONTAINER = Kind(
    "container",
    "/containers/{id}",
    "Container with id '{id}' not found.",
    form="cntr_.+",
    filters=("name",),
)
CONTAINER_FILE = Kind(
    "container_file", missing="Container file with id '{id}' not found.", parent="container"
)
#: In a path it follows its conversation; a request may also refer to one by its id alone.
ITEM = Kind(
    "item",
    missing="Item with id '{id}' not found.",
    parent="conversation",
    form="[a-z]+_[A-Za-z0-9]{6,}",
    begins="msg|rs|fc|ctc|ws|fs|ci|ig|cu|mcp|mcpr|mcpl|lsh|sh|ap|cmp|tsc|item",
)
CONVERSATION = Kind(
    "conversation",
    "/conversations/{id}",
    "Conversation with id '{id}' not found.",
    form="conv_.+",
    yields={"data[].id": ITEM},
)
RESPONSE = Kind(
    "response",
    "/responses/{id}",
    "Response with id '{id}' not found.",
    begins="resp",
    yields={
        "output[].id": ITEM,
        # In the list of its input.
        "data[].id": ITEM,
        # Those that the code interpreter and the shell made for themselves.
        "output[].container_id": CONTAINER,
        "output[].environment.container_id": CONTAINER,
    },
)

# --- Fine-tuning --------------------------------------------------------------------------------------------
FINE_TUNING_JOB = Kind(
    "fine_tuning_job",
    "/fine_tuning/jobs/{id}",
    "Could not find fine tune: {id}",
    param="fine_tune_id",
    code="fine_tune_not_found",
    lists_tell_ends=False,
    yields={
        "fine_tuned_model": MODEL,
        "result_files[]": FILE,
        # In the list of its checkpoints.
        "data[].fine_tuned_model_checkpoint": MODEL,
    },
)
FINE_TUNE = Kind(
    "fine_tune",
    "/fine-tunes/{id}",
    "Could not find fine tune: {id}",
    param="fine_tune_id",
    code="fine_tune_not_found",
    # That list never had pages.
    most_listed=10_000,
    usually_listed=10_000,
    usual_order="asc",
    lists_tell_ends=False,
    yields={"fine_tuned_model": MODEL, "result_files[].id": FILE},
)

# --- Vector stores, assistants, threads ---------------------------------------------------------------------
VECTOR_STORE = Kind(
    "vector_store",
    "/vector_stores/{id}",
    "No vector store found with id '{id}'.",
    begins="vs",
    changes_by_itself=True,
    headers=_ASSISTANTS,
)
VECTOR_STORE_FILE = Kind(
    "vector_store_file",
    missing="No file found with id '{id}' in vector store.",
    parent="vector_store",
    has_files_id=True,
)
VECTOR_STORE_FILE_BATCH = Kind(
    "vector_store_file_batch", missing="No file batch found with id '{id}'.", parent="vector_store"
)
_TOOL_RESOURCES = "tool_resources.file_search.vector_store_ids[]"
ASSISTANT = Kind(
    "assistant",
    "/assistants/{id}",
    "No assistant found with id '{id}'.",
    begins="asst",
    headers=_ASSISTANTS,
    yields={_TOOL_RESOURCES: VECTOR_STORE},
)
ASSISTANT_FILE = Kind(
    "assistant_file",
    missing="No file found with id '{id}' attached to assistant.",
    parent="assistant",
    has_files_id=True,
)
THREAD = Kind(
    "thread",
    "/threads/{id}",
    "No thread found with id '{id}'.",
    begins="thread",
    # A run or a message may add to what it brings along.
    changes_by_itself=True,
    headers=_ASSISTANTS,
    yields={_TOOL_RESOURCES: VECTOR_STORE},
)
MESSAGE = Kind(
    "message",
    missing="No message found with id '{id}'.",
    parent="thread",
    yields={
        "content[].image_file.file_id": FILE,
        "content[].text.annotations[].file_path.file_id": FILE,
    },
)
MESSAGE_FILE = Kind(
    "message_file", missing="No file found with id '{id}' in message.", parent="message", has_files_id=True
)
#: `thread_id` is new when the thread was made with the run.
RUN = Kind("run", missing="No run found with id '{id}'.", parent="thread", yields={"thread_id": THREAD})
RUN_STEP = Kind(
    "run_step",
    missing="No run step found with id '{id}'.",
    parent="run",
    yields={"step_details.tool_calls[].code_interpreter.outputs[].image.file_id": FILE},
)

# --- Evaluations --------------------------------------------------------------------------------------------
EVAL = Kind("eval", "/evals/{id}", "Eval with id '{id}' not found.", usual_order="asc")
EVAL_RUN = Kind("eval_run", missing="Eval run with id '{id}' not found.", parent="eval")
EVAL_OUTPUT_ITEM = Kind(
    "eval_output_item", missing="Output item with id '{id}' not found.", parent="eval_run"
)

# --- Video, voice, skills -----------------------------------------------------------------------------------
VIDEO = Kind("video", "/videos/{id}", "Video with id '{id}' not found.", begins="video", fewest_listed=0)
VIDEO_CHARACTER = Kind("video_character", "/videos/characters/{id}", "Character with id '{id}' not found.")
VOICE_CONSENT = Kind(
    "voice_consent", "/audio/voice_consents/{id}", "Voice consent with id '{id}' not found.", begins="cons"
)
#: The built-in voices have names, those that callers made have ids.
VOICE = Kind("voice", missing="Voice with id '{id}' not found.", form="voice_.+")
SKILL = Kind(
    "skill",
    "/skills/{id}",
    "Skill with id '{id}' not found.",
    begins="skill",
    fewest_listed=0,
    changes_by_itself=True,
)
SKILL_VERSION = Kind("skill_version", missing="Skill version '{id}' not found.", parent="skill")

# --- What only the operator makes, outside the API ----------------------------------------------------------
CHATKIT_SESSION = Kind("chatkit_session", missing="Session with id '{id}' not found.")
CHATKIT_THREAD = Kind(
    "chatkit_thread",
    "/chatkit/threads/{id}",
    "Thread with id '{id}' not found.",
    fewest_listed=0,
    filters=("user",),
    changes_by_itself=True,
    headers=_CHATKIT,
)
#: Made in OpenAI's dashboard; a plain text may stand in its place.
PROMPT = Kind("prompt", missing="Prompt with id '{id}' not found.", form="pmpt_.+")
TUNNEL = Kind("tunnel", missing="Tunnel with id '{id}' not found.", begins="tunnel")

#: The kind that a slot in the catalogue's paths names.
SLOT_KINDS: Mapping[str, Kind] = {
    "assistant_file_id": ASSISTANT_FILE,
    "assistant_id": ASSISTANT,
    "batch_id": BATCH,
    "chatkit_session_id": CHATKIT_SESSION,
    "chatkit_thread_id": CHATKIT_THREAD,
    "completion_id": CHAT_COMPLETION,
    "consent_id": VOICE_CONSENT,
    "container_file_id": CONTAINER_FILE,
    "container_id": CONTAINER,
    "conversation_id": CONVERSATION,
    "character_id": VIDEO_CHARACTER,
    "engine_id": MODEL,
    "eval_id": EVAL,
    "eval_run_id": EVAL_RUN,
    "file_batch_id": VECTOR_STORE_FILE_BATCH,
    "file_id": FILE,
    "fine_tune_id": FINE_TUNE,
    "fine_tuning_job_id": FINE_TUNING_JOB,
    "item_id": ITEM,
    "message_file_id": MESSAGE_FILE,
    "message_id": MESSAGE,
    "model": MODEL,
    "output_item_id": EVAL_OUTPUT_ITEM,
    "response_id": RESPONSE,
    "run_id": RUN,
    "skill_id": SKILL,
    "skill_version": SKILL_VERSION,
    "step_id": RUN_STEP,
    "thread_id": THREAD,
    "upload_id": UPLOAD,
    "vector_store_file_id": VECTOR_STORE_FILE,
    "vector_store_id": VECTOR_STORE,
    "video_id": VIDEO,
}

#: The fields of JSON objects and forms that hold ids, at any depth: one, a list of them, or an object with it
#: under `id`. From the request schemas of OpenAI's description; a test looks for fields that are missing.
REFERENCES: Mapping[str, Kind] = {
    "assistant_id": ASSISTANT,
    "audio": CHAT_AUDIO,
    "consent": VOICE_CONSENT,
    "container": CONTAINER,
    "container_id": CONTAINER,
    "conversation": CONVERSATION,
    "file": replace(FILE, form="file[-_].+"),
    "file_id": FILE,
    "file_ids": FILE,
    "fine_tuned_model": MODEL,
    "fine_tuned_model_checkpoint": MODEL,
    "input": ITEM,
    "input_file_id": FILE,
    "items": ITEM,
    "model": MODEL,
    "part_ids": UPLOAD_PART,
    "previous_response_id": replace(
        RESPONSE,
        missing="Previous response with id '{id}' not found.",
        param="previous_response_id",
        code="previous_response_not_found",
    ),
    "prompt": PROMPT,
    "search_model": MODEL,
    "skill_id": SKILL,
    # `{"type": "file_id", "id": …}` in an evaluation's run.
    "source": replace(FILE, form="file[-_].+"),
    "thread_id": THREAD,
    "training_file": FILE,
    "tunnel_id": TUNNEL,
    "validation_file": FILE,
    "vector_store_ids": VECTOR_STORE,
    "video": VIDEO,
    "voice": VOICE,
}

#: The names of all kinds that are recorded.
KINDS: tuple[str, ...] = tuple(sorted({kind.name for kind in (*SLOT_KINDS.values(), *REFERENCES.values())}))
