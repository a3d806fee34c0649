"""Evaluations, their runs and the outputs of these."""

from openai_app.catalogue.operation import JSON, PAGE_FORWARD, Operation
from openai_app.metering import EVAL_RUNS
from openai_app.owned.objects import EVAL, EVAL_RUN

_TAG = "Evals"
_EVAL = "/evals/{eval_id}"
_RUN = "/evals/{eval_id}/runs/{eval_run_id}"
_ALL = (
    "An evaluation of what the upstream account has stored would reach what all users have left there. Put "
    "what is to be evaluated into a file, or into the request itself."
)
_REFUSED_CONFIGURATIONS = {
    ("data_source_config", "stored_completions"): _ALL,
    ("data_source_config", "logs"): _ALL,
}
_REFUSED_SOURCES = {("source", "stored_completions"): _ALL, ("source", "responses"): _ALL}

OPERATIONS = (
    Operation(
        "listEvals",
        "GET",
        "/evals",
        _TAG,
        "List the evaluations",
        query=(*PAGE_FORWARD, "order_by"),
        lists=EVAL,
    ),
    Operation(
        "createEval",
        "POST",
        "/evals",
        _TAG,
        "Create an evaluation",
        succeeds_with=201,
        accepts=(JSON,),
        creates=EVAL,
        refused_types=_REFUSED_CONFIGURATIONS,
        example={
            "data_source_config": {
                "type": "custom",
                "item_schema": {"type": "object", "properties": {"answer": {"type": "string"}}},
                "include_sample_schema": True,
            },
            "testing_criteria": [
                {
                    "type": "string_check",
                    "name": "Equal",
                    "operation": "eq",
                    "input": "{{sample.output_text}}",
                    "reference": "{{item.answer}}",
                }
            ],
        },
    ),
    Operation("getEval", "GET", _EVAL, _TAG, "Retrieve an evaluation"),
    Operation(
        "updateEval",
        "POST",
        _EVAL,
        _TAG,
        "Change an evaluation's name or metadata",
        accepts=(JSON,),
        example={"name": "Updated evaluation"},
    ),
    Operation("deleteEval", "DELETE", _EVAL, _TAG, "Delete an evaluation", deletes=True),
    Operation(
        "getEvalRuns",
        "GET",
        f"{_EVAL}/runs",
        _TAG,
        "List an evaluation's runs",
        query=(*PAGE_FORWARD, "status"),
    ),
    Operation(
        "createEvalRun",
        "POST",
        f"{_EVAL}/runs",
        _TAG,
        "Run an evaluation",
        succeeds_with=201,
        meter=EVAL_RUNS,
        accepts=(JSON,),
        creates=EVAL_RUN,
        refused_types=_REFUSED_SOURCES,
        example={
            "data_source": {
                "type": "jsonl",
                "source": {"type": "file_id", "id": "file-abc123"},
            }
        },
    ),
    Operation("getEvalRun", "GET", _RUN, _TAG, "Retrieve a run of an evaluation"),
    Operation(
        "cancelEvalRun",
        "POST",
        _RUN,
        _TAG,
        "Cancel a run of an evaluation",
        # So the official Python client; OpenAI's description knows only the path above.
        aliases=(f"{_RUN}/cancel",),
    ),
    Operation("deleteEvalRun", "DELETE", _RUN, _TAG, "Delete a run of an evaluation", deletes=True),
    Operation(
        "getEvalRunOutputItems",
        "GET",
        f"{_RUN}/output_items",
        _TAG,
        "List the outputs of a run",
        query=(*PAGE_FORWARD, "status"),
    ),
    Operation(
        "getEvalRunOutputItem",
        "GET",
        f"{_RUN}/output_items/{{output_item_id}}",
        _TAG,
        "Retrieve an output of a run",
    ),
)
