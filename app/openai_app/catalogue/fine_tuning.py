"""Fine-tuning jobs and graders."""

from openai_app.catalogue.operation import JSON, PAGE_FORWARD, Operation
from openai_app.metering import FINE_TUNING, GRADERS
from openai_app.owned.objects import FINE_TUNING_JOB

_TAG = "Fine-tuning"
_JOB = "/fine_tuning/jobs/{fine_tuning_job_id}"
_PERMISSIONS = "/fine_tuning/checkpoints/{fine_tuned_model_checkpoint}/permissions"
_ADMINISTRATION = (
    "Who may use a checkpoint is decided between the projects of the upstream account: ask the operator, who "
    "can share a model with you."
)
_GRADER = {
    "type": "string_check",
    "name": "Equal",
    "operation": "eq",
    "input": "{{sample.output_text}}",
    "reference": "{{item.answer}}",
}

OPERATIONS = (
    Operation(
        "createFineTuningJob",
        "POST",
        "/fine_tuning/jobs",
        _TAG,
        "Start to fine-tune a model",
        meter=FINE_TUNING,
        accepts=(JSON,),
        creates=FINE_TUNING_JOB,
        example={"training_file": "file-abc123", "model": "gpt-4o-mini-2024-07-18"},
    ),
    Operation(
        "listPaginatedFineTuningJobs",
        "GET",
        "/fine_tuning/jobs",
        _TAG,
        "List the fine-tuning jobs",
        query=("after", "limit", "metadata"),
        lists=FINE_TUNING_JOB,
    ),
    Operation("retrieveFineTuningJob", "GET", _JOB, _TAG, "Retrieve a fine-tuning job"),
    Operation("cancelFineTuningJob", "POST", f"{_JOB}/cancel", _TAG, "Cancel a fine-tuning job"),
    Operation("pauseFineTuningJob", "POST", f"{_JOB}/pause", _TAG, "Pause a fine-tuning job"),
    Operation("resumeFineTuningJob", "POST", f"{_JOB}/resume", _TAG, "Go on with a paused fine-tuning job"),
    Operation(
        "listFineTuningJobCheckpoints",
        "GET",
        f"{_JOB}/checkpoints",
        _TAG,
        "List a job's checkpoints",
        query=("after", "limit"),
    ),
    Operation(
        "listFineTuningEvents",
        "GET",
        f"{_JOB}/events",
        _TAG,
        "List a job's events",
        query=("after", "limit"),
    ),
    Operation(
        "runGrader",
        "POST",
        "/fine_tuning/alpha/graders/run",
        _TAG,
        "Run a grader on a sample",
        meter=GRADERS,
        accepts=(JSON,),
        example={"grader": _GRADER, "model_sample": "fuzzy wuzzy", "item": {"answer": "fuzzy wuzzy"}},
    ),
    Operation(
        "validateGrader",
        "POST",
        "/fine_tuning/alpha/graders/validate",
        _TAG,
        "Check that a grader is valid",
        accepts=(JSON,),
        example={"grader": _GRADER},
    ),
    Operation(
        "listFineTuningCheckpointPermissions",
        "GET",
        _PERMISSIONS,
        _TAG,
        "List who may use a checkpoint",
        query=("project_id", *PAGE_FORWARD),
        refused=_ADMINISTRATION,
    ),
    Operation(
        "createFineTuningCheckpointPermission",
        "POST",
        _PERMISSIONS,
        _TAG,
        "Let projects use a checkpoint",
        accepts=(JSON,),
        refused=_ADMINISTRATION,
    ),
    Operation(
        "deleteFineTuningCheckpointPermission",
        "DELETE",
        f"{_PERMISSIONS}/{{permission_id}}",
        _TAG,
        "Take a checkpoint from a project",
        refused=_ADMINISTRATION,
    ),
)
