"""Every kind of thing that the simulated account can hold, in OpenAI's forms and words."""

from __future__ import annotations

from simulator.store import Kind

# Answers are stored unless the caller says otherwise, and hours of load must not fill the memory.
MOST_ANSWERS = 10_000

FILE = Kind("file", "file-", 22, "No such File object: {id}", "file", missing_param="id", page=10_000)
UPLOAD = Kind("upload", "upload_", 32, "No upload found with id '{id}'.")
PART = Kind("upload.part", "part_", 32, "No upload part found with id '{id}'.")
BATCH = Kind(
    "batch",
    "batch_",
    32,
    "No batch found with id '{id}'.",
    states=("validating", "in_progress"),
)
COMPLETION = Kind(
    "chat.completion",
    "chatcmpl-",
    29,
    "Chat completion {id} not found.",
    "chat.completion.deleted",
    ordered="asc",
    most=MOST_ANSWERS,
)
RESPONSE = Kind(
    "response",
    "resp_",
    48,
    "Response with id '{id}' not found.",
    "response",
    states=("queued", "in_progress"),
    most=MOST_ANSWERS,
)
CONVERSATION = Kind(
    "conversation", "conv_", 48, "Conversation with id '{id}' not found.", "conversation.deleted"
)
ITEM = Kind("item", "msg_", 48, "Item with id '{id}' not found.")

ASSISTANT = Kind("assistant", "asst_", 24, "No assistant found with id '{id}'.")
ASSISTANT_FILE = Kind("assistant.file", "file-", 22, "No file found with id '{id}'.")
THREAD = Kind("thread", "thread_", 24, "No thread found with id '{id}'.")
MESSAGE = Kind("thread.message", "msg_", 24, "No message found with id '{id}'.")
MESSAGE_FILE = Kind("thread.message.file", "file-", 22, "No file found with id '{id}'.")
RUN = Kind("thread.run", "run_", 24, "No run found with id '{id}'.", states=("queued", "in_progress"))
STEP = Kind("thread.run.step", "step_", 24, "No run step found with id '{id}'.")

VECTOR_STORE = Kind("vector_store", "vs_", 32, "No vector store found with id '{id}'.")
VECTOR_FILE = Kind("vector_store.file", "file-", 22, "No file found with id '{id}' in vector store.")
VECTOR_BATCH = Kind(
    "vector_store.file_batch", "vsfb_", 32, "No vector store file batch found with id '{id}'."
)
# OpenAI's documents say `vector_store.files_batch`; what it sends says `vector_store.file_batch`.

JOB = Kind(
    "fine_tuning.job",
    "ftjob-",
    24,
    "Could not find fine tune: {id}",
    states=("validating_files", "queued", "running"),
    missing_param="fine_tune_id",
    missing_code="fine_tune_not_found",
    has_ends=False,
)
JOB_EVENT = Kind("fine_tuning.job.event", "ftevent-", 24, "No event {id}", has_ends=False)
CHECKPOINT = Kind("fine_tuning.job.checkpoint", "ftckpt_", 24, "No checkpoint {id}", page=10)
PERMISSION = Kind(
    "checkpoint.permission", "cp_", 24, "No permission found with id '{id}'.", "checkpoint.permission"
)
FINE_TUNE = Kind(
    "fine-tune",
    "ft-",
    24,
    "No fine-tune job: {id}",
    states=("pending", "running"),
    missing_param="fine_tune_id",
    missing_code="fine_tune_not_found",
    has_ends=False,
    ordered="asc",
    page=1000,
)
TUNED_MODEL = Kind("model", "ft:", 24, "The model '{id}' does not exist", "model", missing_param="model")

EVAL = Kind("eval", "eval_", 32, "Eval with id '{id}' not found.", "eval.deleted", ordered="asc")
EVAL_RUN = Kind(
    "eval.run",
    "evalrun_",
    32,
    "Eval run with id '{id}' not found.",
    "eval.run.deleted",
    states=("queued", "in_progress"),
    ordered="asc",
)
EVAL_ITEM = Kind(
    "eval.run.output_item", "outputitem_", 32, "Output item with id '{id}' not found.", ordered="asc"
)
CONTAINER = Kind("container", "cntr_", 48, "Container with id '{id}' not found.")
CONTAINER_FILE = Kind("container.file", "cfile_", 32, "Container file with id '{id}' not found.")
VIDEO = Kind(
    "video",
    "video_",
    48,
    "Video with id '{id}' not found.",
    "video.deleted",
    states=("queued", "in_progress"),
)
CHARACTER = Kind("video.character", "char_", 48, "Character with id '{id}' not found.")
SKILL = Kind("skill", "skill_", 48, "Skill with id '{id}' not found.", "skill.deleted")
SKILL_VERSION = Kind(
    "skill.version", "skillver_", 48, "Skill version '{id}' not found.", "skill.version.deleted"
)
CONSENT = Kind(
    "audio.voice_consent", "cons_", 24, "Voice consent with id '{id}' not found.", "audio.voice_consent"
)
VOICE = Kind("audio.voice", "voice_", 24, "Voice with id '{id}' not found.")
