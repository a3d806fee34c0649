"""OpenAI's own description, where it lies beside the project: its operations, and where ids stand in them."""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import yaml

from conftest import SHARED
from openai_app.catalogue import Operation
from openai_app.owned.objects import REFERENCES, Kind

FILE = SHARED / "openai" / "openapi.yaml"

# What puts a value where it stands, and answers the whole body.
Plant = Callable[[Any], dict[str, Any]]


@dataclass(frozen=True)
class Place:
    """A field of a body that holds ids. `path` reads like `tools[].vector_store_ids`."""

    path: str
    kind: Kind
    schema: Mapping[str, Any]
    plant: Plant


@cache
def description() -> Mapping[str, Any]:
    """The whole of it. Raises FileNotFoundError where it is not at hand."""
    loaded: Mapping[str, Any] = yaml.load(FILE.read_bytes(), Loader=yaml.CSafeLoader)
    return loaded


@cache
def operations() -> Mapping[tuple[str, str], list[Mapping[str, Any]]]:
    """By method and path with its slots as `{}`; a beta variant stands beside the operation itself."""
    found: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for path, item in description()["paths"].items():
        for method, operation in item.items():
            if method in ("get", "post", "put", "patch", "delete"):
                found.setdefault(_address(method, path.removesuffix("?beta=true")), []).append(operation)
    return found


def described(row: Operation) -> list[Mapping[str, Any]]:
    """What the description says of a row; nothing for those that it no longer has."""
    return operations().get(_address(row.method, row.path), [])


def places(row: Operation, content_type: str) -> list[Place]:
    """Every field of a row's body that holds ids, at every depth; one place for each path."""
    found: dict[str, Place] = {}
    for operation in described(row):
        content = operation.get("requestBody", {}).get("content", {}).get(content_type, {})
        for place in _places(content.get("schema", {}), lambda body: body, "", frozenset()):
            found.setdefault(place.path, place)
    return list(found.values())


def resolved(schema: Any) -> Any:
    """A schema itself, where a reference to it stands."""
    while isinstance(schema, Mapping) and "$ref" in schema:
        target: Any = description()
        for step in schema["$ref"].split("/")[1:]:
            target = target[step]
        schema = target
    return schema


def takes(schema: Any, type_: str) -> bool:
    """Whether a value of this JSON type is admitted."""
    schema = resolved(schema)
    parts = [part for word in ("allOf", "anyOf", "oneOf") for part in schema.get(word, ())]
    return schema.get("type") == type_ or any(takes(part, type_) for part in parts)


def _places(schema: Any, plant: Plant, path: str, seen: frozenset[str]) -> Iterator[Place]:
    reference = schema.get("$ref") if isinstance(schema, Mapping) else None
    if reference is not None:
        if reference in seen:
            return
        seen = seen | {reference}
    schema = resolved(schema)
    if not isinstance(schema, Mapping):
        return
    for together in ("allOf", "anyOf", "oneOf"):
        for part in schema.get(together, ()):
            yield from _places(part, plant, path, seen)
    if "items" in schema:
        yield from _places(schema["items"], lambda item: plant([item]), f"{path}[]", seen)
    if isinstance(schema.get("additionalProperties"), Mapping):
        named = schema["additionalProperties"]
        yield from _places(named, lambda held: plant({"any": held}), f"{path}.any".removeprefix("."), seen)
    properties: Mapping[str, Any] = schema.get("properties") or {}
    fixed = {name: value for name, held in properties.items() if (value := _fixed(held)) is not None}
    for name, held in properties.items():
        below = f"{path}.{name}".removeprefix(".")

        def plant_here(value: Any, name: str = name) -> dict[str, Any]:
            return plant({**fixed, name: value})

        if name in REFERENCES and (takes(held, "string") or takes(held, "array") or takes(held, "object")):
            yield Place(below, REFERENCES[name], {**resolved(held)}, plant_here)
        yield from _places(held, plant_here, below, seen)


def _fixed(schema: Any) -> str | None:
    """The only value that a field may have, such as its object's `type`."""
    schema = resolved(schema)
    words = schema.get("enum") or ([schema["const"]] if "const" in schema else [])
    return words[0] if len(words) == 1 and isinstance(words[0], str) else None


def _address(method: str, path: str) -> tuple[str, str]:
    return method.upper(), re.sub(r"\{\w+\}", "{}", path)
