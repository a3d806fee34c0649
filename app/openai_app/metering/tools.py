"""Functions as the model reads them: a TypeScript namespace at the end of the system message.

The shape is the one that OpenAI published with its harmony format (github.com/openai/harmony, Apache-2.0);
where the hosted models differ from it (titles, one-line objects, unions) it was fitted to recorded calls.
gpt-4-0613 has an older shape, which shows less of a schema.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .parts import as_json, text_of

# What nests deeper is cut short: the upstream refuses schemas of more than ten levels.
_DEEPEST = 40
# Schemas whose $refs multiply are cut short here: more characters than fit into most context windows, and
# each part of a schema weighs as much as so many, which bounds the time to about 0.2 s.
_LONGEST = 2_000_000
_PART = 20


@dataclass(frozen=True, slots=True)
class _Type:
    """A TypeScript type and the comment lines that go before it."""

    text: str
    comment: tuple[str, ...] = ()

    @property
    def tall(self) -> bool:
        return bool(self.comment) or "\n" in self.text

    def lines(self, mark: str = "") -> str:
        return "".join(f"{line}\n" for line in self.comment) + mark + self.text


_ANY = _Type("any")


def definitions(body: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The functions and custom tools that a chat may call, from ``tools`` and the older ``functions``."""
    tools, functions = body.get("tools"), body.get("functions")
    found = []
    for tool in tools if isinstance(tools, list) else []:
        if isinstance(tool, dict):
            found.append(tool.get("function") or tool.get("custom"))
    found += functions if isinstance(functions, list) else []
    return [each for each in found if isinstance(each, dict)]


def namespace(functions: Sequence[Mapping[str, Any]], *, old: bool = False) -> str:
    """The text that stands for function definitions (``name``, ``description``, ``parameters``)."""
    if not functions:
        return ""
    renderer = _Renderer(old)
    lines = ["# Tools", "", "## functions", "", "namespace functions {", ""]
    for function in functions:
        parameters = function.get("parameters")
        lines += _comment(function.get("description"))
        lines += _grammar(function.get("format"))
        name = text_of(function.get("name"))
        if isinstance(parameters, dict) and parameters.get("properties"):
            renderer.root = parameters
            lines.append(f"type {name} = (_: {renderer.type(parameters, 0).lines()}) => any;")
        else:
            lines.append(f"type {name} = () => any;")
        lines.append("")
    lines.append("} // namespace functions")
    return "\n".join(lines)


def _grammar(form: object) -> list[str]:
    """The grammar that a custom tool's input has to follow."""
    grammar = form.get("grammar") if isinstance(form, dict) else None
    if not isinstance(grammar, dict):
        return []
    return [f"// {text_of(grammar.get('syntax'))} grammar:", *_comment(grammar.get("definition"))]


@dataclass(slots=True)
class _Renderer:
    old: bool
    root: Mapping[str, Any] = field(default_factory=dict)
    left: int = _LONGEST
    followed: set[str] = field(default_factory=set)

    def type(self, schema: object, level: int) -> _Type:
        """A JSON schema as a TypeScript type, with its title and description before it."""
        self.left -= _PART
        if not isinstance(schema, dict) or level > _DEEPEST or self.left < 0:
            return _ANY
        bare = self.bare(schema, level)
        return _Type(bare.text, (*self.comment(schema), *bare.comment))

    def comment(self, schema: Mapping[str, Any], level: int = 0) -> list[str]:
        title = [] if self.old else _comment(schema.get("title"))
        description = _comment(schema.get("description")) if level < 2 or not self.old else []
        lines = [*title, "//", *description] if title and description else title + description
        self.left -= sum(map(len, lines))
        return lines if self.left >= 0 else []

    def bare(self, schema: Mapping[str, Any], level: int) -> _Type:
        """The type without what the schema says of itself."""
        if isinstance(reference := schema.get("$ref"), str):
            return self.reference(reference, level)
        for union in ("anyOf", "oneOf"):
            if isinstance(variants := schema.get(union), list):
                return _union([self.type(variant, level + 1) for variant in variants])
        if isinstance(values := schema.get("enum"), list):
            return _union([_Type(as_json(value)) for value in values])
        kind = schema.get("type")
        if isinstance(kind, list):
            comment = tuple(self.comment(schema))
            return _union([_Type(self.kind(schema, each, level).text, comment) for each in kind])
        return self.kind(schema, kind, level)

    def kind(self, schema: Mapping[str, Any], kind: object, level: int) -> _Type:
        if kind == "object":
            return self.record(schema, level)
        if kind == "array":
            item = self.type(schema.get("items"), level + 1)
            return _Type(f"Array<\n{item.lines()}\n>" if item.tall else f"{item.text}[]")
        if kind in ("number", "integer"):
            return _Type("number")
        return _Type(kind) if isinstance(kind, str) and kind in ("string", "boolean", "null") else _ANY

    def reference(self, reference: str, level: int) -> _Type:
        if reference in self.followed:
            return _ANY
        node: object = self.root
        for part in reference.removeprefix("#").split("/"):
            if part:
                node = node.get(part) if isinstance(node, dict) else None
        self.followed.add(reference)
        found = self.type(node, level + 1)
        self.followed.discard(reference)
        return found

    def record(self, schema: Mapping[str, Any], level: int) -> _Type:
        properties = schema.get("properties")
        if not isinstance(properties, dict) or not properties:
            return _ANY
        required = schema.get("required")
        required = required if isinstance(required, list) else []
        members = [
            self.member(name, value if isinstance(value, dict) else {}, name in required, level)
            for name, value in properties.items()
            if not (self.old and _shapeless(value))
        ]
        if schema.get("additionalProperties") is True:
            members.append(("[k: string]: any,", False))
        if self.old or any(tall for _, tall in members):
            return _Type("\n".join(("{", *(text for text, _ in members), "}")))
        return _Type("{ " + " ".join(text for text, _ in members).removesuffix(",") + " }")

    def member(self, name: str, schema: Mapping[str, Any], required: bool, level: int) -> tuple[str, bool]:
        """A property, and whether it wants lines of its own."""
        comment = self.comment(schema, level)
        bare = self.bare(schema, level + 1)
        text = f"{name}{'' if required else '?'}:"
        text += f"\n{bare.lines()}" if bare.comment or bare.text.endswith("\n") else f" {bare.text}"
        text += ","
        if "default" in schema:
            text += f" // default: {as_json(schema['default'])}"
        return "\n".join((*comment, text)), bool(comment) or "\n" in text or "default" in schema


def _shapeless(schema: object) -> bool:
    """An object of unknown properties, which gpt-4-0613 is not shown."""
    return isinstance(schema, dict) and schema.get("type") == "object" and not schema.get("properties")


def _union(variants: Sequence[_Type]) -> _Type:
    if any(variant.tall for variant in variants):
        return _Type("".join(variant.lines(" | ") + "\n" for variant in variants))
    if _ANY in variants:
        return _ANY
    return _Type(" | ".join(variant.text for variant in variants))


def _comment(text: object) -> list[str]:
    if not isinstance(text, str) or not text.strip():
        return []
    return [f"// {line.strip()}".rstrip() for line in text.strip().splitlines()]
