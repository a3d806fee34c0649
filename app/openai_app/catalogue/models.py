"""Models, and the engines that they were called at first."""

from openai_app.catalogue.operation import Operation
from openai_app.owned.objects import MODEL

OPERATIONS = (
    Operation("listModels", "GET", "/models", "Models", "List the models", lists=MODEL),
    Operation("retrieveModel", "GET", "/models/{model}", "Models", "Retrieve a model"),
    Operation(
        "deleteModel", "DELETE", "/models/{model}", "Models", "Delete a fine-tuned model", deletes=True
    ),
)
