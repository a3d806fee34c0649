"""Which method of OpenAI's official client makes which call, read from the client's own source."""

import inspect
import re
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

import openai
from openai._resource import SyncAPIResource

from openai_app.catalogue import Operation
from openai_app.tests.attacks import form_files, kinds_in

_CALL = re.compile(r'self\._(get|post|delete|get_api_list)\(\s*(?:path_template\()?\s*f?"(/[^"]*)"')
_METHOD = re.compile(r'method="(\w+)"')


def method_for(row: Operation) -> str:
    """Such as `chat.completions.create`; empty if the client has none."""
    return _methods().get((row.method, _anonymous(row.path)), ("", ()))[0]


def arguments(row: Operation, slots: Mapping[str, str]) -> dict[str, Any]:
    """What makes the client's method call a row as its example does."""
    name, parameters = _methods()[row.method, _anonymous(row.path)]
    method = find(openai.OpenAI(api_key="none"), name)
    given: dict[str, Any] = dict(zip(parameters, (slots[slot] for slot in kinds_in(row.path)), strict=True))
    fields: dict[str, Any] = dict(row.example or {})
    if "multipart/form-data" in row.accepts and row.files:
        fields = {**row.form_example, **{name: ("file.wav", held) for name, held in form_files(row).items()}}
    known = inspect.signature(method).parameters
    given.update({name: value for name, value in fields.items() if name in known})
    if others := {name: value for name, value in fields.items() if name not in known}:
        given["extra_body"] = others
    return given


def find(client: Any, name: str) -> Any:
    """The method of this name."""
    found = client
    for part in name.split("."):
        found = getattr(found, part)
    return found


@cache
def _methods() -> Mapping[tuple[str, str], tuple[str, tuple[str, ...]]]:
    """By HTTP method and path: the name and the parameters that fill the path's slots."""
    found: dict[tuple[str, str], tuple[str, tuple[str, ...]]] = {}
    with openai.OpenAI(api_key="none") as client:
        # What is still a trial has an older name for some of it.
        for name, verb, path in sorted(_calls(client, ""), key=lambda call: call[0].startswith("beta.")):
            slots = tuple(re.findall(r"\{(\w+)\}", path))
            found.setdefault((verb, _anonymous(path.partition("?")[0])), (name, slots))
    return found


def _calls(holder: Any, prefix: str) -> Iterator[tuple[str, str, str]]:
    for name in dir(type(holder)):
        if name.startswith(("_", "with_")):
            continue
        held = inspect.getattr_static(type(holder), name)
        if inspect.isfunction(held):
            source = inspect.getsource(held)
            for verb, path in _CALL.findall(source)[:1]:
                told = _METHOD.search(source) if verb == "get_api_list" else None
                yield prefix + name, (told[1] if told else verb.removesuffix("_api_list")).upper(), path
        elif isinstance(inside := getattr(holder, name), SyncAPIResource):
            yield from _calls(inside, f"{prefix}{name}.")


def _anonymous(path: str) -> str:
    return re.sub(r"\{\w+\}", "{}", path)
