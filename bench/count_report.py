"""How the count before a call compares with what OpenAI reported: ``python bench/count_report.py [traffic]``.

``traffic`` is a folder with ``open.jsonl.gz``, recorded exchanges one JSON object a line; by default
``../shared/traffic`` beside the project. Only chat completions with usage whose request is known byte for
byte, or in all that counts, are compared. (The recordings hold only the beginning of audio files.)
"""

from __future__ import annotations

import gzip
import json
import statistics
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).resolve().parent.parent
TRAFFIC = PROJECT.parent / "shared" / "traffic"
sys.path.insert(0, str(PROJECT / "app"))

from openai_app.metering import chat  # noqa: E402

_TRUSTED = ("exact", "reserialised")
_NOT_FOR_COUNTING = {"maybe_smart_chars_normalised", "request_key_order_lost", "request_length_mismatch"}
_MEDIA = {"image_url": "images", "input_audio": "audio", "file": "files"}
KINDS = (
    "plain text",
    "plain text, several parts",
    "plain text, reasoning models",
    "function tools",
    "function tools, history",
    "tool history only",
    "json schemas",
    "images",
    "images, remote",
    "audio",
    "files",
)


@dataclass(frozen=True, slots=True)
class Comparison:
    """One recorded exchange: input tokens as counted here and as reported."""

    kind: str
    counted: int
    reported: int
    identity: str

    @property
    def error(self) -> int:
        return self.counted - self.reported


def recorded(traffic: Path) -> Iterator[dict[str, Any]]:
    """The recorded chat completions that carry usage and a JSON request."""
    with gzip.open(traffic / "open.jsonl.gz", "rt", encoding="utf-8") as lines:
        for line in lines:
            record = json.loads(line)
            usable = record["endpoint"] == "chat/completions" and record.get("usage")
            if usable and isinstance(record["request"]["body"], dict):
                yield record


def trustworthy(record: dict[str, Any]) -> bool:
    return record["request"]["integrity"] in _TRUSTED and not _NOT_FOR_COUNTING & set(record["flags"])


def kind_of(body: dict[str, Any]) -> str:
    """The first thing in a request that makes it harder to count than plain text."""
    messages = [message for message in body["messages"] if isinstance(message, dict)]
    parts = [message["content"] for message in messages if isinstance(message.get("content"), list)]
    types = {part.get("type") for content in parts for part in content if isinstance(part, dict)}
    for part, kind in _MEDIA.items():
        if part in types:
            return "images, remote" if part == "image_url" and _remote(parts) else kind
    if any(isinstance(message.get("audio"), dict) for message in messages):
        return "audio"
    history = any(message.get("tool_calls") or message.get("function_call") for message in messages)
    if body.get("tools") or body.get("functions"):
        return "function tools, history" if history else "function tools"
    if history:
        return "tool history only"
    if (body.get("response_format") or {}).get("type") == "json_schema":
        return "json schemas"
    if str(body.get("model")).startswith(("o1", "o3", "o4", "gpt-5")):
        return "plain text, reasoning models"
    return "plain text, several parts" if any(len(content) > 1 for content in parts) else "plain text"


def _remote(contents: list[list[Any]]) -> bool:
    """Whether an image is given by an address, so that its size cannot be known before the call."""
    images = [part.get("image_url") for parts in contents for part in parts if isinstance(part, dict)]
    urls = [image.get("url") if isinstance(image, dict) else image for image in images]
    return any(isinstance(url, str) and not url.startswith("data:") for url in urls)


def compare(traffic: Path = TRAFFIC) -> list[Comparison]:
    """Every trustworthy recorded chat completion with the count that would have been made before it."""
    found = []
    for record in filter(trustworthy, recorded(traffic)):
        # Azure names the model in the path: the answer's is taken for it.
        body = {"model": record["model_response"], **record["request"]["body"]}
        counted = sum(chat.estimate(body).units.values())
        reported = record["usage"]["prompt_tokens"]
        found.append(Comparison(kind_of(body), counted, reported, f"{record['request_hash']} {reported}"))
    return found


def table(comparisons: Iterable[Comparison]) -> str:
    """The report as a Markdown table; the error is counted less reported, in tokens."""
    groups: dict[str, list[Comparison]] = defaultdict(list)
    for each in comparisons:
        groups[each.kind].append(each)
    rows = [
        "| kind | records | distinct | exact | within 3 | within 10% | median error | worst |",
        "|---" * 8 + "|",
    ]
    for kind in sorted(groups, key=KINDS.index):
        rows.append(_row(kind, groups[kind]))
    return "\n".join([*rows, _row("all", [each for group in groups.values() for each in group])])


def _row(kind: str, group: list[Comparison]) -> str:
    distinct = len({each.identity for each in group})
    exact = share(group, lambda each: each.error == 0)
    near = share(group, lambda each: abs(each.error) <= 3)
    tenth = share(group, lambda each: abs(each.error) * 10 <= each.reported)
    worst = max(group, key=lambda each: abs(each.error))
    return (
        f"| {kind} | {len(group)} | {distinct} | {exact:.1%} | {near:.1%} | {tenth:.1%} "
        f"| {statistics.median(each.error for each in group):+g} | {worst.error:+} of {worst.reported} |"
    )


def share(group: list[Comparison], holds: Callable[[Comparison], bool]) -> float:
    """The part of a group for which something holds, from 0 to 1."""
    return sum(map(holds, group)) / len(group)


if __name__ == "__main__":
    print(table(compare(Path(sys.argv[1]) if len(sys.argv) > 1 else TRAFFIC)))
