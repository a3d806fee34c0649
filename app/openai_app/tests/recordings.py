"""Recorded exchanges with OpenAI: they lie beside the project where it is developed, not within it."""

import base64
import gzip
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from conftest import SHARED
from openai_app.answer import sse
from openai_app.metering.form import HEAD_BYTES, FormFile

TRAFFIC = SHARED / "traffic" / "open.jsonl.gz"

needs_recordings = pytest.mark.skipif(not TRAFFIC.exists(), reason="the recorded traffic is not at hand")


@dataclass(frozen=True)
class Recording:
    """One exchange. `request` is what metering sees: a JSON body, or a form's fields."""

    endpoint: str
    method: str
    service: str
    model: str
    request: dict[str, Any]
    is_exact: bool
    status: int
    kind: str
    body: str
    usage: dict[str, Any]

    def answers(self) -> list[dict[str, Any]]:
        """The JSON object that came, or the events of the stream."""
        if self.kind == "sse":
            events = (sse.parse(event) for event in sse.split(self.body.encode()))
            return [event for event in events if event is not None]
        answer = json.loads(self.body) if self.kind == "json" else {}
        return [answer] if isinstance(answer, dict) else []


def recordings() -> Iterator[Recording]:
    with gzip.open(TRAFFIC, "rt", encoding="utf-8") as lines:
        for line in lines:
            row = json.loads(line)
            request, response = row["request"], row["response"]
            yield Recording(
                endpoint=row["endpoint"] or row["path"],
                method=row["method"],
                service=row["service"],
                model=row["model"] or "",
                request=_fields(request["body"]),
                is_exact=request.get("integrity") in ("exact", "reserialised") and not row.get("flags"),
                status=response["status"],
                kind=response["body_kind"],
                body=response["body"] or "",
                usage=row["usage"] or {},
            )


def _fields(body: object) -> dict[str, Any]:
    if isinstance(body, dict):
        return body
    fields: dict[str, Any] = {}
    for part in body if isinstance(body, list) else []:
        value = part["value"] if "value" in part else _file(part)
        if part["name"] in fields:
            before = fields[part["name"]]
            value = [*(before if isinstance(before, list) else [before]), value]
        fields[part["name"]] = value
    return fields


def _file(part: dict[str, Any]) -> FormFile:
    encoded = part.get("base64", "")
    head = base64.b64decode(encoded + "=" * (-len(encoded) % 4))[:HEAD_BYTES]
    return FormFile(part.get("filename") or "", part.get("content_type") or "", part["size"], head)
