"""/v1/moderations, and where contents come from; neither costs anything."""

from __future__ import annotations

import time

from simulator import errors
from simulator.exchange import Exchange, new_id

CATEGORIES = (
    "harassment",
    "harassment/threatening",
    "hate",
    "hate/threatening",
    "illicit",
    "illicit/violent",
    "self-harm",
    "self-harm/instructions",
    "self-harm/intent",
    "sexual",
    "sexual/minors",
    "violence",
    "violence/graphic",
)
VIOLENT_WORDS = ("kill", "bomb", "murder")


async def moderate(exchange: Exchange) -> None:
    """POST /v1/moderations"""
    body = exchange.json_object()
    given = body.get("input")
    if given is None:
        raise errors.missing("input")
    entries = given if isinstance(given, list) else [given]
    if entries and isinstance(entries[0], dict):  # parts of one input
        entries = [" ".join(str(part.get("text") or "") for part in entries)]
    exchange.call.model = str(body.get("model") or "omni-moderation-latest")
    exchange.call.object_id = f"modr-{new_id()}"
    results = []
    for entry in entries:
        flagged = any(word in str(entry).lower() for word in VIOLENT_WORDS)
        categories = {name: flagged and name == "violence" for name in CATEGORIES}
        results.append(
            {
                "flagged": flagged,
                "categories": categories,
                "category_scores": {name: 0.9 if is_so else 0.0001 for name, is_so in categories.items()},
                "category_applied_input_types": {name: ["text"] for name in CATEGORIES},
            }
        )
    document = {"id": exchange.call.object_id, "model": exchange.call.model, "results": results}
    await exchange.send_object(document)


async def check_provenance(exchange: Exchange) -> None:
    """POST /v1/content_provenance_checks"""
    if exchange.form is None or exchange.form.file("file") is None:
        raise errors.missing("file")
    document = {"object": "content_provenance_check", "created_at": int(time.time()), "results": []}
    await exchange.send_object(document)


ROUTES = (("POST", "moderations", moderate), ("POST", "content_provenance_checks", check_provenance))
RESOURCES = ()
