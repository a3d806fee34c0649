"""/v1/fine_tuning: jobs with their events and checkpoints; permissions and graders."""

from __future__ import annotations

import time
from typing import Any

from simulator import errors, files, model_list, resources, tokens
from simulator.blobs import Blob
from simulator.exchange import Exchange, new_id
from simulator.kinds import CHECKPOINT, JOB, JOB_EVENT, PERMISSION, TUNED_MODEL
from simulator.store import Store, Thing

USUAL_EPOCHS = 3
CHECKPOINTS = 3
GRADER_ERRORS = (
    "formula_parse_error",
    "invalid_variable_error",
    "model_grader_parse_error",
    "model_grader_refusal_error",
    "model_grader_server_error",
    "model_grader_server_error_details",
    "other_error",
    "python_grader_runtime_error",
    "python_grader_runtime_error_details",
    "python_grader_server_error",
    "python_grader_server_error_type",
    "sample_parse_error",
    "truncated_observation_error",
    "unresponsive_reward_error",
)
RESULTS = b"step,train_loss\n1,0.5\n2,0.4\n3,0.3\n"


def epochs_of(given: object) -> int:
    """How often a file is read, of a job's hyperparameters."""
    epochs = given.get("n_epochs") if isinstance(given, dict) else None
    return epochs if isinstance(epochs, int) else USUAL_EPOCHS


def tokens_in(model: str, blob: Blob) -> int:
    """Tokens of a training file: those of its lines, by a rule of ours."""
    encoding = tokens.encoding_name(model)
    return sum(tokens.count(encoding, line.decode("utf-8", "replace")) for line in blob.lines())


def tuned_model(store: Store, model: str, suffix: object, *, legacy: bool = False) -> str:
    """Make the model that comes out; its name."""
    tail = new_id()[-8:]
    id = f"{model}:ft-tollgate-{tail}" if legacy else f"ft:{model}:tollgate:{suffix or ''}:{tail}"
    fields = {"owned_by": "org-simulator"}
    return store.add(TUNED_MODEL, fields, id=id, created="created").id


def tell(store: Store, job: Thing, message: str, level: str = "info") -> None:
    fields = {"level": level, "message": message, "type": "message", "data": {}}
    store.add(JOB_EVENT, fields, parent=job.id)


async def create(exchange: Exchange) -> None:
    """POST /v1/fine_tuning/jobs"""
    body, world = exchange.json_object(), exchange.world
    store, model = world.store, body.get("model")
    if not isinstance(model, str):
        raise errors.missing("model")
    if not model_list.exists(model):
        message = f"Model {model} is not available for fine-tuning or does not exist."
        raise errors.ApiError(400, message, code="model_not_available")
    file = files.named(store, body.get("training_file"), "training_file")
    if body.get("validation_file"):
        files.named(store, body["validation_file"], "validation_file")
    method = body.get("method") or {"type": "supervised", "supervised": {}}
    inner = method.get(method.get("type"), {}).get("hyperparameters")
    hyper = body.get("hyperparameters") or inner or {}
    automatic = {"n_epochs": "auto", "batch_size": "auto", "learning_rate_multiplier": "auto"}
    job = store.add(
        JOB,
        {
            "model": model,
            "finished_at": None,
            "fine_tuned_model": None,
            "organization_id": "org-simulator",
            "result_files": [],
            "status": "validating_files",
            "validation_file": body.get("validation_file"),
            "training_file": file.id,
            "hyperparameters": automatic | hyper,
            "trained_tokens": None,
            "error": None,
            "user_provided_suffix": body.get("suffix"),
            "seed": body.get("seed") or 1,
            "estimated_finish": None,
            "integrations": body.get("integrations") or [],
            "method": method,
            "metadata": body.get("metadata"),
        },
    )
    exchange.call.object_id, exchange.call.model = job.id, model
    tell(store, job, f"Created fine-tuning job: {job.id}")
    blob: Blob = file.hidden["blob"]

    async def finish(status: str, share: float) -> dict[str, Any] | None:
        return end(store, job, blob, status, share)

    world.work.begin(job, finish, model=model, finish_after=exchange.directives.finish_after)
    await exchange.send_object(job.document)


def end(store: Store, job: Thing, blob: Blob, status: str, share: float) -> dict[str, Any] | None:
    """End a job after this share of the training; return what that used."""
    document = job.document
    model = document["model"]
    trained = round(tokens_in(model, blob) * epochs_of(document["hyperparameters"]) * share)
    now = int(time.time())
    document.update(status=status, finished_at=now, trained_tokens=trained or None)
    if status == "completed":
        document["status"] = "succeeded"
        tuned = tuned_model(store, model, document["user_provided_suffix"])
        for number in range(1, CHECKPOINTS + 1):
            last = number == CHECKPOINTS
            fields = {
                "fine_tuning_job_id": job.id,
                "fine_tuned_model_checkpoint": tuned if last else f"{tuned}:ckpt-step-{number}",
                "step_number": number,
                "metrics": {"step": number, "train_loss": 0.5 / number},
            }
            store.add(CHECKPOINT, fields, parent=job.id)
        results = files.add(
            store, filename="step_metrics.csv", purpose="fine-tune-results", blob=Blob(RESULTS)
        )
        document.update(fine_tuned_model=tuned, result_files=[results.id])
        tell(store, job, f"New fine-tuned model created: {tuned}")
        tell(store, job, "The job has successfully completed")
    elif status == "failed":
        document["error"] = {"code": "server_error", "message": "Told to fail.", "param": None}
        tell(store, job, "The job failed", "error")
    else:
        tell(store, job, f"The job was {status}")
    return {"trained_tokens": trained} if trained else None


def open_job(exchange: Exchange, job_id: str, what: str) -> Thing:
    job = exchange.world.store.get(JOB, job_id)
    if not exchange.world.work.pending(job.id):
        message = f'Cannot {what} a job {job.id} that already has status "{job.document["status"]}".'
        raise errors.ApiError(400, message)
    return job


async def cancel(exchange: Exchange, job_id: str) -> None:
    """POST /v1/fine_tuning/jobs/{fine_tuning_job_id}/cancel"""
    job = open_job(exchange, job_id, "cancel")
    await exchange.world.work.finish(job.id, "cancelled", 0.0)
    await exchange.send_object(job.document)


async def pause(exchange: Exchange, job_id: str) -> None:
    """POST /v1/fine_tuning/jobs/{fine_tuning_job_id}/pause"""
    job = open_job(exchange, job_id, "pause")
    job.document["status"] = "paused"
    await exchange.send_object(job.document)


async def resume(exchange: Exchange, job_id: str) -> None:
    """POST /v1/fine_tuning/jobs/{fine_tuning_job_id}/resume"""
    job = open_job(exchange, job_id, "resume")
    job.document["status"] = "queued"
    await exchange.send_object(job.document)


async def permit(exchange: Exchange, checkpoint: str) -> None:
    """POST /v1/fine_tuning/checkpoints/{checkpoint}/permissions"""
    made = [
        exchange.world.store.add(PERMISSION, {"project_id": project}, parent=checkpoint).document
        for project in exchange.json_object().get("project_ids") or []
    ]
    await exchange.send_object(resources.listing(made, PERMISSION))


async def list_permissions(exchange: Exchange, checkpoint: str) -> None:
    """GET /v1/fine_tuning/checkpoints/{checkpoint}/permissions"""
    things = exchange.world.store.all(PERMISSION, checkpoint)
    await exchange.send_object(resources.page(exchange, things, PERMISSION))


async def forbid(exchange: Exchange, checkpoint: str, permission: str) -> None:
    """DELETE /v1/fine_tuning/checkpoints/{checkpoint}/permissions/{permission_id}"""
    await resources.remove(exchange, exchange.world.store.get(PERMISSION, permission, checkpoint))


async def run_grader(exchange: Exchange) -> None:
    """POST /v1/fine_tuning/alpha/graders/run: one, if the sample is the reference, else zero."""
    body = exchange.json_object()
    grader = body.get("grader")
    if not isinstance(grader, dict):
        raise errors.missing("grader")
    reward = float(grader.get("reference") == body.get("model_sample"))
    used: dict[str, Any] = {}
    if grader.get("model"):
        count = tokens.count(
            tokens.encoding_name(grader["model"]), str(grader) + str(body.get("model_sample"))
        )
        used = {"prompt_tokens": count, "completion_tokens": 1, "total_tokens": count + 1}
        exchange.call.usage, exchange.call.model = used, grader["model"]
    metadata: dict[str, Any] = {
        "name": grader.get("name"),
        "type": grader.get("type"),
        "errors": {name: None if "details" in name or "type" in name else False for name in GRADER_ERRORS},
        "execution_time": 0.01,
        "scores": {},
        "token_usage": used.get("total_tokens"),
        "sampled_model_name": grader.get("model"),
    }
    per_model = {grader["model"]: used} if used else {}
    await exchange.send_object(
        {
            "reward": reward,
            "metadata": metadata,
            "sub_rewards": {},
            "model_grader_token_usage_per_model": per_model,
        }
    )


async def validate_grader(exchange: Exchange) -> None:
    """POST /v1/fine_tuning/alpha/graders/validate"""
    await exchange.send_object({"grader": exchange.json_object().get("grader")})


ROUTES = (
    ("POST", "fine_tuning/jobs", create),
    ("POST", "fine_tuning/jobs/{}/cancel", cancel),
    ("POST", "fine_tuning/jobs/{}/pause", pause),
    ("POST", "fine_tuning/jobs/{}/resume", resume),
    ("POST", "fine_tuning/checkpoints/{}/permissions", permit),
    ("GET", "fine_tuning/checkpoints/{}/permissions", list_permissions),
    ("DELETE", "fine_tuning/checkpoints/{}/permissions/{}", forbid),
    ("POST", "fine_tuning/alpha/graders/run", run_grader),
    ("POST", "fine_tuning/alpha/graders/validate", validate_grader),
)
RESOURCES = (
    resources.Resource("fine_tuning/jobs", (JOB,), "list get"),
    resources.Resource("fine_tuning/jobs/{}/events", (JOB, JOB_EVENT), "list"),
    resources.Resource("fine_tuning/jobs/{}/checkpoints", (JOB, CHECKPOINT), "list"),
)
