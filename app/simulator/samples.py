"""Made-up JSON that fits a schema, for tool arguments and structured answers."""

from __future__ import annotations

from typing import Any, cast

import orjson

from simulator import errors

DEEPEST = 8  # a schema may refer to itself


def json_text(schema: object) -> str:
    """A JSON document that fits `schema`; an empty object without one.

    Raises:
        ApiError: it is no schema.
    """
    if schema is None:
        return "{}"
    try:
        return orjson.dumps(sample(cast("dict[str, Any]", schema))).decode()
    except (AttributeError, TypeError, ValueError, KeyError) as error:
        raise errors.invalid_schema(str(error)) from None


def for_response_format(response_format: object) -> str | None:
    """The answer to a `response_format` that asks for JSON; None if it doesn't."""
    if not isinstance(response_format, dict):
        return None
    if response_format.get("type") == "json_object":
        return '{"answer":"This is the simulator."}'
    if response_format.get("type") == "json_schema":
        wrapper = response_format.get("json_schema")
        if not isinstance(wrapper, dict):
            raise errors.missing("response_format.json_schema")
        return json_text(wrapper.get("schema"))
    return None


def sample(schema: dict[str, Any], root: dict[str, Any] | None = None, depth: int = 0) -> Any:
    """A value that fits the parts of JSON Schema that OpenAI supports, but for patterns and ranges."""
    root = schema if root is None else root
    if depth > DEEPEST:
        return None
    if "$ref" in schema:
        return sample(_resolve(str(schema["$ref"]), root), root, depth + 1)
    if "const" in schema:
        return schema["const"]
    if schema.get("enum"):
        return schema["enum"][0]
    for union in ("anyOf", "oneOf", "allOf"):
        if schema.get(union):
            return sample(schema[union][0], root, depth + 1)
    kind = schema.get("type", "object" if "properties" in schema else "string")
    if isinstance(kind, list):
        kind = kind[0]
    match kind:
        case "object":
            properties = schema.get("properties") or {}
            return {name: sample(value, root, depth + 1) for name, value in properties.items()}
        case "array":
            items = schema.get("items")
            count = max(1, int(schema.get("minItems", 1)))
            return [sample(items, root, depth + 1)] * count if isinstance(items, dict) else []
        case "integer" | "number":
            return 1
        case "boolean":
            return True
        case "null":
            return None
        case _:
            return "example"


def _resolve(reference: str, root: dict[str, Any]) -> dict[str, Any]:
    target: Any = root
    for part in reference.removeprefix("#").strip("/").split("/"):
        if part:
            target = target.get(part, {}) if isinstance(target, dict) else {}
    return target if isinstance(target, dict) else {}
