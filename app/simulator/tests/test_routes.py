"""Which operations are answered."""

from __future__ import annotations

import re

import pytest
import yaml

from conftest import SHARED
from simulator import routes

DESCRIPTION = SHARED / "openai" / "openapi.yaml"
METHODS = {"get", "post", "put", "patch", "delete"}
# Administration, and what hands out credentials to talk past a gateway.
LEFT_OUT = ("/organization", "/projects", "/chatkit", "/realtime/")


def is_answered(method: str, path: str) -> bool:
    if (method, path) in routes.WHOLE or (path.startswith(routes.MODEL_PREFIX) and method in routes.MODELS):
        return True
    candidates = routes.TEMPLATES.get(path.count("/"), ())
    return any(known == method and pattern.fullmatch(path) for known, pattern, _ in candidates)


@pytest.mark.skipif(not DESCRIPTION.exists(), reason="OpenAI's description is not at hand")
def test_every_operation_that_openai_describes_is_answered() -> None:
    with DESCRIPTION.open() as file:
        paths = yaml.load(file, yaml.CSafeLoader)["paths"]
    operations = [
        (method.upper(), re.sub(r"\{[^}]*\}", "x", f"/v1{path.partition('?')[0]}"))
        for path, item in paths.items()
        for method in item
        if method in METHODS and not path.startswith(LEFT_OUT)
    ]
    assert len(operations) > 100
    assert [operation for operation in operations if not is_answered(*operation)] == []


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v1/engines/davinci/search"),
        ("POST", "/v1/edits"),
        ("GET", "/v1/fine-tunes/ft-x/events"),
        ("DELETE", "/v1/assistants/asst_x/files/file-x"),
        ("GET", "/v1/threads/thread_x/messages/msg_x/files/file-x"),
        ("GET", "/v1/threads"),
    ],
)
def test_what_came_before_is_answered_too(method: str, path: str) -> None:
    assert is_answered(method, path)
