"""Operations that older clients call and OpenAI's description no longer has."""

from openai_app.catalogue.operation import EVENTS, JSON, Operation, per_call
from openai_app.metering import COMPLETIONS, DOCUMENT_SEARCH, EDITS, EMBEDDINGS, FINE_TUNING
from openai_app.owned.objects import FINE_TUNE, MODEL

_TAG = "Legacy"
_ENGINE = "/engines/{engine_id}"
_FINE_TUNE = "/fine-tunes/{fine_tune_id}"
_EXAMPLES = [["A happy moment", "Positive"], ["I am sad.", "Negative"]]

OPERATIONS = (
    Operation("listEngines", "GET", "/engines", _TAG, "List the models", lists=MODEL),
    Operation("retrieveEngine", "GET", _ENGINE, _TAG, "Retrieve a model"),
    Operation(
        "createEngineCompletion",
        "POST",
        f"{_ENGINE}/completions",
        _TAG,
        "Create a completion by the model in the path",
        meter=COMPLETIONS,
        accepts=(JSON,),
        answers=(JSON, EVENTS),
        only_reads=True,
        example={"prompt": "Say this is a test", "max_tokens": 7},
    ),
    Operation(
        "createEngineEmbedding",
        "POST",
        f"{_ENGINE}/embeddings",
        _TAG,
        "Create embeddings by the model in the path",
        meter=EMBEDDINGS,
        accepts=(JSON,),
        only_reads=True,
        example={"input": "The food was delicious."},
    ),
    Operation(
        "createEngineSearch",
        "POST",
        f"{_ENGINE}/search",
        _TAG,
        "Rank documents by the model in the path",
        meter=DOCUMENT_SEARCH,
        accepts=(JSON,),
        only_reads=True,
        example={"documents": ["White House", "hospital", "school"], "query": "the president"},
    ),
    Operation(
        "createEdit",
        "POST",
        "/edits",
        _TAG,
        "Edit a text by an instruction",
        meter=EDITS,
        accepts=(JSON,),
        example={
            "model": "text-davinci-edit-001",
            "input": "What day of the wek is it?",
            "instruction": "Fix the spelling mistakes",
        },
    ),
    Operation(
        "createAnswer",
        "POST",
        "/answers",
        _TAG,
        "Answer a question from documents",
        meter=per_call("answer"),
        accepts=(JSON,),
        example={
            "model": "curie",
            "question": "Which puppy is happy?",
            "documents": ["Puppy A is happy.", "Puppy B is sad."],
            "examples": [["What is the life expectancy?", "78 years."]],
            "examples_context": "In 2017, life expectancy was 78.6 years.",
        },
    ),
    Operation(
        "createClassification",
        "POST",
        "/classifications",
        _TAG,
        "Classify a text by examples",
        meter=per_call("classification"),
        accepts=(JSON,),
        example={"model": "curie", "query": "It is a rainy day", "examples": _EXAMPLES},
    ),
    Operation(
        "createFineTune",
        "POST",
        "/fine-tunes",
        _TAG,
        "Start to fine-tune a model",
        meter=FINE_TUNING,
        accepts=(JSON,),
        creates=FINE_TUNE,
        example={"training_file": "file-abc123", "model": "curie"},
    ),
    Operation("listFineTunes", "GET", "/fine-tunes", _TAG, "List the fine-tunes", lists=FINE_TUNE),
    Operation("retrieveFineTune", "GET", _FINE_TUNE, _TAG, "Retrieve a fine-tune"),
    Operation("cancelFineTune", "POST", f"{_FINE_TUNE}/cancel", _TAG, "Cancel a fine-tune"),
    Operation(
        "listFineTuneEvents",
        "GET",
        f"{_FINE_TUNE}/events",
        _TAG,
        "List a fine-tune's events, or follow them",
        answers=(JSON, EVENTS),
        query=("stream",),
    ),
)
