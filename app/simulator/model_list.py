"""The models that the simulator has."""

from __future__ import annotations

import re
from typing import Any

import orjson

from simulator import errors
from simulator.exchange import Exchange
from simulator.kinds import TUNED_MODEL

# Name → Unix time of creation. The last three have the characters that make ids hard to route.
MODELS = {
    "gpt-6-sol": 1790000000,
    "gpt-5.5": 1776900000,
    "gpt-5.4": 1772691852,
    "gpt-5.4-mini": 1773451123,
    "gpt-5.4-nano": 1773450870,
    "gpt-5.1": 1762800673,
    "gpt-5": 1754425777,
    "gpt-5-2025-08-07": 1754075360,
    "gpt-5-mini": 1754425928,
    "gpt-5-nano": 1754426384,
    "gpt-4.1": 1744316542,
    "gpt-4.1-2025-04-14": 1744315746,
    "gpt-4.1-mini": 1744318173,
    "gpt-4.1-nano": 1744321707,
    "gpt-4o": 1715367049,
    "gpt-4o-2024-05-13": 1715368132,
    "gpt-4o-2024-08-06": 1722814719,
    "gpt-4o-2024-11-20": 1739331543,
    "gpt-4o-mini": 1721172741,
    "gpt-4o-mini-2024-07-18": 1721172717,
    "gpt-4o-audio-preview": 1727460443,
    "chatgpt-4o-latest": 1723515131,
    "gpt-4-turbo": 1712361441,
    "gpt-4": 1687882411,
    "gpt-4-0613": 1686588896,
    "gpt-3.5-turbo": 1677610602,
    "gpt-3.5-turbo-0125": 1706048358,
    "gpt-3.5-turbo-1106": 1698959748,
    "gpt-3.5-turbo-16k": 1683758102,
    "gpt-3.5-turbo-instruct": 1692901427,
    "o1": 1734375816,
    "o3": 1744225308,
    "o3-mini": 1737146383,
    "o4-mini": 1744225351,
    "davinci-002": 1692634301,
    "babbage-002": 1692634615,
    "text-embedding-3-small": 1705948997,
    "text-embedding-3-large": 1705953180,
    "text-embedding-ada-002": 1671217299,
    "omni-moderation-latest": 1731689265,
    "gpt-image-1": 1745517030,
    "dall-e-3": 1698785189,
    "tts-1": 1681940951,
    "gpt-4o-mini-tts": 1742403959,
    "gpt-image-1-mini": 1758845821,
    "dall-e-2": 1698798177,
    "tts-1-hd": 1699046015,
    "gpt-4o-mini-transcribe": 1742068596,
    "gpt-4o-transcribe-diarize": 1750798887,
    "gpt-realtime": 1756271701,
    "sora-2": 1759708615,
    "text-davinci-003": 1669599635,
    "text-davinci-edit-001": 1649809179,
    "text-moderation-latest": 1685563177,
    "davinci": 1649359874,
    "curie": 1649359874,
    "babbage": 1649358449,
    "ada": 1649357491,
    "whisper-1": 1677532384,
    "gpt-4o-transcribe": 1742068463,
    "ft:gpt-4o-mini-2024-07-18:tollgate::sim00001": 1730000000,
    "tollgate/simulator-1.0": 1730000000,
    "tollgate/simulator-1.0:latest": 1730000000,
}


# What engines were called; they take part in nothing but the oldest endpoints.
LEGACY = re.compile(r"(text-|code-)?(davinci|curie|babbage|ada)(-[a-z]+)*(-\d{3})?")
SNAPSHOT_DATE = re.compile(r"-(\d{4}-\d\d-\d\d|\d{4})$")


def exists(model: str) -> bool:
    """Whether the simulator has the model: by its name, dated, or fine-tuned by anyone."""
    if LEGACY.fullmatch(model):
        return True
    return model in MODELS or model.startswith("ft:") or SNAPSHOT_DATE.sub("", model) in MODELS


def document(model: str) -> dict[str, Any]:
    created = MODELS.get(model, 1730000000)
    return {"id": model, "object": "model", "created": created, "owned_by": "system"}


LIST_BODY = orjson.dumps(
    {"object": "list", "data": [document(model) for model in MODELS]}, option=orjson.OPT_INDENT_2
)


async def list_models(exchange: Exchange) -> None:
    """GET /v1/models"""
    tuned = [thing.document for thing in exchange.world.store.all(TUNED_MODEL)]
    if not tuned:
        await exchange.send_json(200, LIST_BODY)
        return
    await exchange.send_object({"object": "list", "data": [document(model) for model in MODELS] + tuned})


async def retrieve_model(exchange: Exchange, model: str) -> None:
    """GET /v1/models/{model}"""
    if not exists(model):
        error = errors.unknown_model(model)
        raise errors.ApiError(404, f"The model '{model}' does not exist", param="model", code=error.code)
    await exchange.send_json(200, orjson.dumps(document(model), option=orjson.OPT_INDENT_2))


async def delete_model(exchange: Exchange, model: str) -> None:
    """DELETE /v1/models/{model}: only what was fine-tuned can go."""
    thing = exchange.world.store.find(TUNED_MODEL, model)
    if thing is None and not exists(model):
        message = f"The model '{model}' does not exist"
        raise errors.ApiError(404, message, param="model", code="model_not_found")
    if thing is None and not model.startswith("ft:"):
        message = "You have insufficient permissions for this operation. Missing scopes: api.delete."
        raise errors.ApiError(403, message)
    if thing is not None:
        exchange.world.store.remove(thing)
    await exchange.send_object({"id": model, "object": "model", "deleted": True})
