"""Assistants."""

from openai_app.catalogue.operation import JSON, PAGE, Operation
from openai_app.owned.objects import ASSISTANT, ASSISTANT_FILE

_TAG = "Assistants"
_ONE = "/assistants/{assistant_id}"

OPERATIONS = (
    Operation(
        "listAssistants", "GET", "/assistants", _TAG, "List the assistants", query=PAGE, lists=ASSISTANT
    ),
    Operation(
        "createAssistant",
        "POST",
        "/assistants",
        _TAG,
        "Create an assistant",
        accepts=(JSON,),
        creates=ASSISTANT,
        example={"model": "gpt-4o-mini", "instructions": "You are a maths tutor."},
    ),
    Operation("getAssistant", "GET", _ONE, _TAG, "Retrieve an assistant"),
    Operation(
        "modifyAssistant",
        "POST",
        _ONE,
        _TAG,
        "Change an assistant",
        accepts=(JSON,),
        example={"instructions": "You are a patient maths tutor."},
    ),
    Operation("deleteAssistant", "DELETE", _ONE, _TAG, "Delete an assistant", deletes=True),
    # Files of an assistant are of the first version of its API, and no longer in OpenAI's description.
    Operation(
        "listAssistantFiles", "GET", f"{_ONE}/files", _TAG, "List an assistant's files (v1)", query=PAGE
    ),
    Operation(
        "createAssistantFile",
        "POST",
        f"{_ONE}/files",
        _TAG,
        "Attach a file to an assistant (v1)",
        accepts=(JSON,),
        creates=ASSISTANT_FILE,
        example={"file_id": "file-abc123"},
    ),
    Operation(
        "getAssistantFile",
        "GET",
        f"{_ONE}/files/{{assistant_file_id}}",
        _TAG,
        "Retrieve an assistant's file (v1)",
    ),
    Operation(
        "deleteAssistantFile",
        "DELETE",
        f"{_ONE}/files/{{assistant_file_id}}",
        _TAG,
        "Detach a file from an assistant (v1)",
        deletes=True,
    ),
)
