"""A response format as the model reads it: its JSON schema under a heading, in the system message.

The heading is the one of OpenAI's harmony format (github.com/openai/harmony, Apache-2.0); which keywords of
the schema are shown was fitted to recorded calls.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .parts import as_json, text_of

# Keywords that bind the sampling and are not shown to the model.
_HIDDEN = frozenset(
    (
        "additionalProperties",
        "required",
        "default",
        "minimum",
        "maximum",
        "exclusiveMinimum",
        "exclusiveMaximum",
        "multipleOf",
        "minItems",
        "maxItems",
        "minLength",
        "maxLength",
    )
)
# Under these a key is a name that the caller chose, not a keyword.
_NAMES = frozenset(("properties", "$defs", "definitions"))
_DEEPEST = 100


def schema_text(response_format: object) -> tuple[str, str]:
    """The name of a ``json_schema`` format and the text that stands for it; both "" for other formats."""
    if not isinstance(response_format, dict) or response_format.get("type") != "json_schema":
        return "", ""
    given = response_format.get("json_schema")
    if not isinstance(given, dict):
        return "", ""
    name, description = text_of(given.get("name")), text_of(given.get("description"))
    lines = ["# Response Formats", "", f"## {name}", ""]
    if description:
        lines.append(f"// {description}")
    lines.append(as_json(_shown(given.get("schema"), 0), escaped=True, compact=True))
    return name, "\n".join(lines)


def _shown(schema: object, level: int) -> object:
    if level > _DEEPEST:
        return None
    if isinstance(schema, list):
        return [_shown(each, level + 1) for each in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        key: _names(value, level) if key in _NAMES and isinstance(value, dict) else _shown(value, level + 1)
        for key, value in schema.items()
        if key not in _HIDDEN
    }


def _names(schemas: Mapping[str, Any], level: int) -> dict[str, object]:
    return {name: _shown(schema, level + 1) for name, schema in schemas.items()}
