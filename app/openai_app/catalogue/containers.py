"""Containers and their files."""

from openai_app.catalogue.operation import BYTES, FORM, JSON, MEGABYTE, PAGE_FORWARD, Operation
from openai_app.metering import CONTAINERS
from openai_app.owned.objects import CONTAINER, CONTAINER_FILE

_TAG = "Containers"
_ONE = "/containers/{container_id}"
_FILE = "/containers/{container_id}/files/{container_file_id}"

OPERATIONS = (
    Operation(
        "ListContainers",
        "GET",
        "/containers",
        _TAG,
        "List the containers",
        query=(*PAGE_FORWARD, "name"),
        lists=CONTAINER,
    ),
    Operation(
        "CreateContainer",
        "POST",
        "/containers",
        _TAG,
        "Create a container",
        meter=CONTAINERS,
        accepts=(JSON,),
        creates=CONTAINER,
        example={"name": "My container"},
    ),
    Operation("RetrieveContainer", "GET", _ONE, _TAG, "Retrieve a container"),
    Operation("DeleteContainer", "DELETE", _ONE, _TAG, "Delete a container", deletes=True),
    Operation(
        "CreateContainerFile",
        "POST",
        f"{_ONE}/files",
        _TAG,
        "Put a file into a container",
        accepts=(JSON, FORM),
        creates=CONTAINER_FILE,
        max_body_bytes=513 * MEGABYTE,
        files=("file",),
        example={"file_id": "file-abc123"},
    ),
    Operation(
        "ListContainerFiles",
        "GET",
        f"{_ONE}/files",
        _TAG,
        "List a container's files",
        query=PAGE_FORWARD,
    ),
    Operation("RetrieveContainerFile", "GET", _FILE, _TAG, "Retrieve what is known of a container's file"),
    Operation("DeleteContainerFile", "DELETE", _FILE, _TAG, "Delete a container's file", deletes=True),
    Operation(
        "RetrieveContainerFileContent",
        "GET",
        f"{_FILE}/content",
        _TAG,
        "Download the content of a container's file",
        answers=(BYTES,),
    ),
)
