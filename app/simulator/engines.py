"""/v1/engines: what models were called before, with their own completions, embeddings and search."""

from __future__ import annotations

from simulator import completions, embeddings, errors, model_list, tokens
from simulator.exchange import Exchange
from simulator.kinds import FILE

CHARACTERS_A_SCORE = 10


def document(engine: str) -> dict[str, object]:
    return {"id": engine, "object": "engine", "owner": "openai", "ready": True, "created": None}


def known(engine: str) -> str:
    if not model_list.exists(engine):
        raise errors.ApiError(404, "That model does not exist", param="engine")
    return engine


async def list_engines(exchange: Exchange) -> None:
    """GET /v1/engines"""
    await exchange.send_object({"object": "list", "data": [document(model) for model in model_list.MODELS]})


async def retrieve(exchange: Exchange, engine: str) -> None:
    """GET /v1/engines/{engine_id}"""
    await exchange.send_object(document(known(engine)))


async def complete(exchange: Exchange, engine: str) -> None:
    """POST /v1/engines/{engine_id}/completions"""
    await completions.answer(exchange, exchange.json_object() | {"model": known(engine)})


async def embed(exchange: Exchange, engine: str) -> None:
    """POST /v1/engines/{engine_id}/embeddings"""
    await embeddings.answer(exchange, exchange.json_object() | {"model": known(engine)})


async def search(exchange: Exchange, engine: str) -> None:
    """POST /v1/engines/{engine_id}/search: documents by their words in common with the query."""
    body = exchange.json_object()
    query = body.get("query")
    if not isinstance(query, str):
        raise errors.missing("query")
    documents = body.get("documents")
    if body.get("file"):
        blob = exchange.world.store.get(FILE, body["file"]).hidden["blob"]
        documents = [line.decode("utf-8", "replace") for line in blob.lines()]
    if not isinstance(documents, list):
        raise errors.missing("documents")
    encoding = tokens.encoding_name(known(engine))
    total = sum(tokens.count(encoding, str(text)) for text in [query, *documents])
    exchange.call.model = engine
    exchange.call.usage = {"prompt_tokens": total, "total_tokens": total}  # OpenAI reports none
    words = set(query.lower().split())
    data = [
        {
            "object": "search_result",
            "document": index,
            "score": len(words & set(str(text).lower().split())) * 100.0
            - len(str(text)) / CHARACTERS_A_SCORE,
        }
        for index, text in enumerate(documents)
    ]
    await exchange.send_object({"object": "list", "data": data, "model": engine})


ROUTES = (
    ("GET", "engines", list_engines),
    ("GET", "engines/{}", retrieve),
    ("POST", "engines/{}/completions", complete),
    ("POST", "engines/{}/embeddings", embed),
    ("POST", "engines/{}/search", search),
)
RESOURCES = ()
