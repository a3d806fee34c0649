"""/v1/evals and their runs: each item of the data is sampled once, when the run ends."""

from __future__ import annotations

from typing import Any

import orjson

from simulator import errors, resources, tokens
from simulator.directives import Directives
from simulator.exchange import Exchange
from simulator.kinds import EVAL, EVAL_ITEM, EVAL_RUN, FILE
from simulator.store import Store, Thing

SAMPLE_TOKENS = 10


async def create(exchange: Exchange) -> None:
    """POST /v1/evals"""
    body = exchange.json_object()
    for name in ("data_source_config", "testing_criteria"):
        if body.get(name) is None:
            raise errors.missing(name)
    config = dict(body["data_source_config"])
    schema = config.pop("item_schema", {})
    config["schema"] = {"type": "object", "properties": {"item": schema}, "required": ["item"]}
    fields = {
        "name": body.get("name") or "",
        "data_source_config": config,
        "testing_criteria": body["testing_criteria"],
        "metadata": body.get("metadata") or {},
    }
    thing = exchange.world.store.add(EVAL, fields)
    exchange.call.object_id = thing.id
    await exchange.send_object(thing.document, 201)


async def delete(exchange: Exchange, eval_id: str) -> None:
    """DELETE /v1/evals/{eval_id}"""
    thing = exchange.world.store.get(EVAL, eval_id)
    for run in exchange.world.store.all(EVAL_RUN, thing.id):
        await exchange.world.work.finish(run.id, "cancelled", 0.0)
    exchange.world.store.remove(thing)
    await exchange.send_object({"object": "eval.deleted", "deleted": True, "eval_id": thing.id})


async def delete_run(exchange: Exchange, *ids: str) -> None:
    """DELETE /v1/evals/{eval_id}/runs/{run_id}"""
    thing = resources.resolve(exchange, (EVAL, EVAL_RUN), ids)
    await exchange.world.work.finish(thing.id, "cancelled", 0.0)
    exchange.world.store.remove(thing)
    await exchange.send_object({"object": "eval.run.deleted", "deleted": True, "run_id": thing.id})


def items_of(store: Store, source: dict[str, Any]) -> list[dict[str, Any]]:
    """The data of a run: given with it, or in a file, one item a line.

    Raises:
        ApiError: the file isn't there.
    """
    inner = source.get("source") or {}
    if inner.get("type") == "file_id":
        blob = store.get(FILE, inner.get("id")).hidden["blob"]
        lines = [orjson.loads(line) for line in blob.lines()]
    else:
        lines = inner.get("content") or []
    return [line.get("item") or line for line in lines]


async def create_run(exchange: Exchange, eval_id: str) -> None:
    """POST /v1/evals/{eval_id}/runs"""
    world, body = exchange.world, exchange.json_object()
    parent = world.store.get(EVAL, eval_id)
    source = body.get("data_source")
    if not isinstance(source, dict):
        raise errors.missing("data_source")
    model = str(source.get("model") or "")
    items = items_of(world.store, source)
    fields: dict[str, Any] = {
        "eval_id": parent.id,
        "report_url": "https://platform.openai.com/evaluations/simulator",
        "status": "queued",
        "model": model,
        "name": body.get("name") or "",
        "result_counts": {"total": 0, "errored": 0, "failed": 0, "passed": 0},
        "per_model_usage": [],
        "per_testing_criteria_results": [],
        "data_source": source,
        "metadata": body.get("metadata") or {},
        "error": None,
    }
    run = world.store.add(EVAL_RUN, fields, parent=parent.id)
    exchange.call.object_id, exchange.call.model = run.id, model
    wish = exchange.directives

    async def finish(status: str, share: float) -> dict[str, Any] | None:
        run.document["status"] = {"cancelled": "canceled"}.get(status, status)
        return sample(world.store, parent, run, items[: round(len(items) * share)], wish)

    world.work.begin(run, finish, model=model, finish_after=wish.finish_after)
    await exchange.send_object(run.document, 201)


def sample(
    store: Store, parent: Thing, run: Thing, items: list[dict[str, Any]], wish: Directives
) -> dict[str, Any] | None:
    """Sample the items; every one of them passes. Returns the usage, if a model had part in it."""
    document = run.document
    model = document["model"]
    template = orjson.dumps(document["data_source"].get("input_messages")).decode()
    total = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0, "cached_tokens": 0}
    criteria = [str(one.get("name") or one.get("type")) for one in parent.document["testing_criteria"]]
    for index, item in enumerate(items):
        text = template + orjson.dumps(item).decode()
        read = tokens.count(tokens.encoding_name(model), text) if model else 0
        written = (SAMPLE_TOKENS if wish.tokens is None else wish.tokens) if model else 0
        used = {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}
        used["cached_tokens"] = 0
        for name, value in used.items():
            total[name] += value
        fields: dict[str, Any] = {
            "run_id": run.id,
            "eval_id": parent.id,
            "status": "pass",
            "datasource_item_id": index,
            "datasource_item": item,
            "results": [{"name": name, "passed": True, "score": 1.0} for name in criteria],
            "sample": {
                "input": [{"role": "user", "content": text}],
                "output": [{"role": "assistant", "content": tokens.filler(written)}],
                "finish_reason": "stop",
                "model": model,
                "usage": used,
                "error": None,
                "temperature": 1.0,
                "max_completion_tokens": None,
                "top_p": 1.0,
                "seed": 1,
            },
        }
        store.add(EVAL_ITEM, fields, parent=run.id)
    count = len(items)
    document["result_counts"] = {"total": count, "errored": 0, "failed": 0, "passed": count}
    document["per_testing_criteria_results"] = [
        {"testing_criteria": name, "passed": count, "failed": 0} for name in criteria
    ]
    if not model or not items:
        return None
    document["per_model_usage"] = [{"model_name": model, "invocation_count": count, **total}]
    return total


async def cancel_run(exchange: Exchange, *ids: str) -> None:
    """POST /v1/evals/{eval_id}/runs/{run_id}"""
    run = resources.resolve(exchange, (EVAL, EVAL_RUN), ids)
    await exchange.world.work.finish(run.id, "cancelled")
    await exchange.send_object(run.document)


STATUS = (("status", "status"),)
ROUTES = (
    ("POST", "evals", create),
    ("DELETE", "evals/{}", delete),
    ("POST", "evals/{}/runs", create_run),
    ("POST", "evals/{}/runs/{}", cancel_run),
    ("POST", "evals/{}/runs/{}/cancel", cancel_run),  # so the official client
    ("DELETE", "evals/{}/runs/{}", delete_run),
)
RESOURCES = (
    resources.Resource("evals", (EVAL,), "list get update"),
    resources.Resource("evals/{}/runs", (EVAL, EVAL_RUN), "list get", filters=STATUS),
    resources.Resource(
        "evals/{}/runs/{}/output_items", (EVAL, EVAL_RUN, EVAL_ITEM), "list get", filters=STATUS
    ),
)
