"""Batches."""

from openai_app.catalogue.operation import JSON, Operation
from openai_app.metering import BATCHES
from openai_app.owned.objects import BATCH

OPERATIONS = (
    Operation(
        "createBatch",
        "POST",
        "/batches",
        "Batch",
        "Start a batch of the requests in a file",
        meter=BATCHES,
        accepts=(JSON,),
        creates=BATCH,
        example={
            "input_file_id": "file-abc123",
            "endpoint": "/v1/chat/completions",
            "completion_window": "24h",
        },
    ),
    Operation(
        "listBatches",
        "GET",
        "/batches",
        "Batch",
        "List the batches",
        query=("after", "limit"),
        lists=BATCH,
    ),
    Operation("retrieveBatch", "GET", "/batches/{batch_id}", "Batch", "Retrieve a batch"),
    Operation("cancelBatch", "POST", "/batches/{batch_id}/cancel", "Batch", "Cancel a batch"),
)
