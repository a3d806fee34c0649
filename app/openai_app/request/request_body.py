"""A JSON request: read once, and forwarded as the bytes it came in unless something is written into it."""

import json
import re
from collections.abc import Mapping
from typing import Any

import orjson

from common.errors import BadRequest

# No model's name is near as long; it is kept with every hold and entry.
MAX_MODEL_CHARACTERS = 200
# No schema or tool is nested so deeply. orjson reads up to 1,024 levels, and writes a quarter of them.
MAX_DEPTH = 100


def parse(body: bytes, *, needs_model: bool) -> dict[str, Any]:
    """Raises BadRequest for anything but a JSON object, with a model's name if it needs one.

    A name that stands twice in an object is refused: OpenAI might go by the other one of its values.
    """
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise BadRequest(f"We could not parse the JSON body of your request: {error}.") from None
    refuse_depth(body, value)
    if not isinstance(value, dict):
        raise BadRequest("The body of your request must be a JSON object.")
    if body.count(b'"') != 2 * _strings_in(value):
        refuse_repeated_names(body)
    model = value.get("model")
    if needs_model and not (isinstance(model, str) and model):
        raise BadRequest(
            "You must provide a model parameter.", param="model", code="missing_required_parameter"
        )
    if isinstance(model, str) and len(model) > MAX_MODEL_CHARACTERS:
        raise BadRequest("The model's name is too long.", param="model")
    if isinstance(model, str) and not model.isprintable():
        # PostgreSQL keeps no NUL, and no model's name has any character of its kind.
        raise BadRequest("The model's name has characters that no name has.", param="model")
    return value


def refuse_depth(raw: bytes | str, value: Any) -> None:
    """Raises BadRequest if `value`, read from `raw`, is nested more deeply than MAX_DEPTH."""
    beginnings = (
        raw.count("[") + raw.count("{") if isinstance(raw, str) else raw.count(b"[") + raw.count(b"{")
    )
    if beginnings <= MAX_DEPTH:
        return
    level = [value]
    for _ in range(MAX_DEPTH):
        inner = [each.values() if isinstance(each, dict) else each for each in level]
        level = [one for held in inner for one in held if isinstance(one, dict | list)]
        if not level:
            return
    raise BadRequest(f"The JSON of your request is nested too deeply: more than {MAX_DEPTH} levels.")


def _strings_in(value: Any) -> int:
    """How many names and strings a JSON value has, lists of numbers left out.

    Each brings two quotation marks. A body with more of them has strings with quotation marks inside, or
    names that were lost in reading because they stood twice; to tell which takes a second, slower reading.
    """
    count = 0
    stack = [value]
    while stack:
        current = stack.pop()
        if isinstance(current, str):
            count += 1
        elif isinstance(current, dict):
            count += len(current)
            stack.extend(current.values())
        elif isinstance(current, list) and not (current and isinstance(current[0], int | float)):
            stack.extend(current)
    return count


def refuse_repeated_names(body: bytes) -> None:
    """Raises BadRequest if a name stands twice in an object of a JSON text."""

    def read(pairs: list[tuple[str, Any]]) -> None:
        names = {name for name, _ in pairs}
        if len(names) != len(pairs):
            repeated = next(name for name in names if [other for other, _ in pairs].count(name) > 1)
            raise BadRequest(f"The name {repeated!r} stands twice in an object of your JSON body.")

    try:
        # The numbers do not matter here, and Python refuses to read the longest.
        json.loads(body, object_pairs_hook=read, parse_int=len, parse_float=len)
    except RecursionError:
        raise BadRequest("The JSON body of your request is nested too deeply.") from None


def write_into(body: bytes, parsed: Mapping[str, Any], fields: Mapping[str, Any]) -> bytes:
    """`body` with `fields` set: one that it has is replaced, new ones are put in front of the last brace.

    All else stays as it came; written anew, a number of twenty digits would be another one.
    """
    if not fields:
        return body
    if not parsed:
        return orjson.dumps(fields)
    replaced = fields.keys() & parsed.keys()
    if replaced:
        body = _replaced(body.decode(), {name: fields[name] for name in replaced}).encode()
    added = {name: value for name, value in fields.items() if name not in replaced}
    return body.rstrip()[:-1] + b"," + orjson.dumps(added)[1:] if added else body


def _replaced(text: str, values: Mapping[str, Any]) -> str:
    """A JSON object, already read without error, with other values under names that it has."""
    pieces: list[str] = []
    kept = 0
    name_at = _skip(text, text.index("{") + 1)
    while text[name_at] == '"':
        name, end = _SCAN.raw_decode(text, name_at)
        begins = _skip(text, _skip(text, end) + 1)
        _, ends = _SCAN.raw_decode(text, begins)
        if name in values:
            pieces += [text[kept:begins], orjson.dumps(values[name]).decode()]
            kept = ends
        # Behind the comma, or at the last brace.
        comma = _skip(text, ends)
        name_at = _skip(text, comma + 1) if text[comma] == "," else comma
    return "".join([*pieces, text[kept:]])


# What the numbers are does not matter here, and Python refuses to read the longest.
_SCAN = json.JSONDecoder(parse_int=len, parse_float=len)
_skip_spaces = re.compile(r"[ \t\n\r]*").match


def _skip(text: str, position: int) -> int:
    """Where the spaces end that begin here."""
    found = _skip_spaces(text, position)
    assert found is not None
    return found.end()
