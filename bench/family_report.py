"""The count before a call against what OpenAI reported: ``python bench/family_report.py [traffic]``.

Like ``count_report.py``, which is about chat completions, for the other families that count text: responses,
completions, embeddings and edits.
"""

from __future__ import annotations

import gzip
import json
import statistics
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from count_report import TRAFFIC, Comparison, share, trustworthy

# count_report has put the application on the path.
from openai_app import metering

METERS = {
    "responses": metering.RESPONSES,
    "completions": metering.COMPLETIONS,
    "embeddings": metering.EMBEDDINGS,
    "edits": metering.EDITS,
}
_ITEMS_OF_A_CHAT = {"message", "function_call", "function_call_output", "reasoning"}


def recorded(traffic: Path) -> Iterator[dict[str, Any]]:
    """The recorded calls of these families with usage, and a JSON request that is known well enough."""
    with gzip.open(traffic / "open.jsonl.gz", "rt", encoding="utf-8") as lines:
        for line in lines:
            record = json.loads(line)
            request = record["request"]
            usable = record["endpoint"] in METERS and record["method"] == "POST" and record.get("usage")
            # Of edits no recording says that it is exact.
            known = trustworthy(record) or request.get("integrity") == "unknown"
            if usable and known and isinstance(request["body"], dict) and not request.get("truncated"):
                yield record


def kind_of(endpoint: str, body: dict[str, Any], features: list[str]) -> str:
    """The family and, of responses, the first thing that makes one harder to count than plain text."""
    if endpoint != "responses":
        return endpoint
    given = body.get("input")
    types = {item.get("type", "message") for item in given} if isinstance(given, list) else set()
    if "server_state" in features or body.get("prompt"):
        return "responses, what came before is with OpenAI"
    if {tool.get("type") for tool in body.get("tools") or []} - {"function"}:
        return "responses, OpenAI's own tools"
    if {"image", "file"} & set(features):
        return "responses, images and files"
    if types - _ITEMS_OF_A_CHAT:
        return "responses, other items"
    if "reasoning" in types:
        return "responses, reasoning given back"
    if body.get("tools"):
        return "responses, functions"
    return "responses, json schemas" if "json_schema" in features else "responses, plain text"


def compare(traffic: Path = TRAFFIC) -> list[Comparison]:
    """Each recorded call with the count that would have been made before it."""
    found = []
    for record in recorded(traffic):
        # Azure names the model in the path: the answer's is taken for it.
        body = {"model": record["model_response"], **record["request"]["body"]}
        estimate = METERS[record["endpoint"]].estimate
        assert estimate is not None
        counted = sum(estimate(body).units.values())
        reported = record["usage"].get("input_tokens", record["usage"].get("prompt_tokens"))
        kind = kind_of(record["endpoint"], body, record["features"])
        found.append(Comparison(kind, counted, reported, f"{record['request_hash']} {reported}"))
    return found


def table(comparisons: list[Comparison]) -> str:
    """The report as a Markdown table; the error is counted less reported, in tokens."""
    groups: dict[str, list[Comparison]] = defaultdict(list)
    for each in comparisons:
        groups[each.kind].append(each)
    rows = ["| kind | records | distinct | exact | within 3 | median error | worst |", "|---" * 7 + "|"]
    for kind, group in sorted(groups.items()):
        exact = share(group, lambda each: each.error == 0)
        near = share(group, lambda each: abs(each.error) <= 3)
        worst = max(group, key=lambda each: abs(each.error))
        rows.append(
            f"| {kind} | {len(group)} | {len({each.identity for each in group})} | {exact:.1%} | {near:.1%} "
            f"| {statistics.median(each.error for each in group):+g} | {worst.error:+} of {worst.reported} |"
        )
    return "\n".join(rows)


if __name__ == "__main__":
    print(table(compare(Path(sys.argv[1]) if len(sys.argv) > 1 else TRAFFIC)))
