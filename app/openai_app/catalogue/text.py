"""Completions, embeddings and moderations."""

from openai_app.catalogue.operation import JSON, Operation
from openai_app.metering import COMPLETIONS, EMBEDDINGS

OPERATIONS = (
    Operation(
        "createCompletion",
        "POST",
        "/completions",
        "Completions",
        "Create a completion",
        meter=COMPLETIONS,
        accepts=(JSON,),
        aliases=("/completion",),
        example={"model": "gpt-3.5-turbo-instruct", "prompt": "Say this is a test", "max_tokens": 7},
    ),
    Operation(
        "createEmbedding",
        "POST",
        "/embeddings",
        "Embeddings",
        "Create embeddings",
        meter=EMBEDDINGS,
        accepts=(JSON,),
        example={"model": "text-embedding-3-small", "input": "The food was delicious."},
    ),
    Operation(
        "createModeration",
        "POST",
        "/moderations",
        "Moderations",
        "Classify texts or images as harmful or not",
        accepts=(JSON,),
        example={"model": "omni-moderation-latest", "input": "I want to help them."},
    ),
)
