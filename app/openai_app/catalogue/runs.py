"""Runs of an assistant on a thread, and their steps."""

from openai_app.catalogue.operation import EVENTS, JSON, PAGE, Operation
from openai_app.metering import RUNS
from openai_app.owned.objects import RUN

_TAG = "Assistants"
_RUNS = "/threads/{thread_id}/runs"
_RUN = "/threads/{thread_id}/runs/{run_id}"

OPERATIONS = (
    Operation(
        "createThreadAndRun",
        "POST",
        "/threads/runs",
        _TAG,
        "Create a thread and run an assistant on it",
        meter=RUNS,
        accepts=(JSON,),
        answers=(JSON, EVENTS),
        creates=RUN,
        example={
            "assistant_id": "asst_abc123",
            "thread": {"messages": [{"role": "user", "content": "Hello!"}]},
        },
    ),
    Operation("listRuns", "GET", _RUNS, _TAG, "List a thread's runs", query=PAGE),
    Operation(
        "createRun",
        "POST",
        _RUNS,
        _TAG,
        "Run an assistant on a thread",
        meter=RUNS,
        accepts=(JSON,),
        answers=(JSON, EVENTS),
        query=("include[]",),
        creates=RUN,
        example={"assistant_id": "asst_abc123"},
    ),
    Operation("getRun", "GET", _RUN, _TAG, "Retrieve a run"),
    Operation(
        "modifyRun",
        "POST",
        _RUN,
        _TAG,
        "Change a run's metadata",
        accepts=(JSON,),
        example={"metadata": {"topic": "greeting"}},
    ),
    Operation("cancelRun", "POST", f"{_RUN}/cancel", _TAG, "Cancel a run"),
    # The hold of the run that it goes on with covers it.
    Operation(
        "submitToolOuputsToRun",
        "POST",
        f"{_RUN}/submit_tool_outputs",
        _TAG,
        "Hand a run the outputs of its tools",
        accepts=(JSON,),
        answers=(JSON, EVENTS),
        example={"tool_outputs": [{"tool_call_id": "call_001", "output": "70 degrees and sunny."}]},
    ),
    Operation(
        "listRunSteps",
        "GET",
        f"{_RUN}/steps",
        _TAG,
        "List a run's steps",
        query=(*PAGE, "include[]"),
    ),
    Operation(
        "getRunStep",
        "GET",
        f"{_RUN}/steps/{{step_id}}",
        _TAG,
        "Retrieve a step of a run",
        query=("include[]",),
    ),
)
