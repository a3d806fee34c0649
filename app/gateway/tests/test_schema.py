"""The OpenAPI description is valid, complete and served."""

import io
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from django.core.management import call_command
from django.test import Client


@pytest.fixture(scope="module")
def schema() -> Any:
    out = io.StringIO()
    call_command("spectacular", validate=True, fail_on_warn=True, stdout=out)
    return yaml.safe_load(out.getvalue())


def control_plane(schema: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """The operations under /api/ as (name, operation); the data plane has its own tests."""
    for path, item in schema["paths"].items():
        for method, operation in item.items():
            if path.startswith("/api/") and not path.startswith("/api/openai/"):
                yield f"{method.upper()} {path}", operation


def test_the_description_is_valid_and_without_warnings(schema: Any) -> None:
    assert {
        "POST /api/user/create",
        "POST /api/user/auth",
        "PATCH /api/user/me",
        "POST /api/keys/{id}/rotate",
        "GET /api/balance",
        "PUT /api/balance/{user_id}",
        "GET /api/balance/entries",
        "GET /api/usage",
        "PATCH /api/rates/{id}",
    } <= {name for name, _ in control_plane(schema)}


def test_every_operation_has_a_tag_a_summary_an_example_and_its_errors(schema: Any) -> None:
    for name, operation in control_plane(schema):
        assert operation["tags"][0] in {"Users", "Keys", "Balances", "Rates", "Usage"}, name
        assert operation["summary"], name
        assert {"400", "401"} & operation["responses"].keys(), name
        if "requestBody" in operation:
            content = operation["requestBody"]["content"]["application/json"]
            assert content["examples"], name
        for status, answer in operation["responses"].items():
            if status in {"200", "201"}:
                assert answer["content"]["application/json"]["examples"], name


def test_kinds_are_named_enumerations(schema: Any) -> None:
    schemas = schema["components"]["schemas"]
    assert schemas["KeyKind"]["enum"] == ["issued", "login"]
    assert "charge" in schemas["EntryKind"]["enum"]


def test_keys_are_sent_as_bearer_tokens(schema: Any) -> None:
    scheme = schema["components"]["securitySchemes"]["API key"]
    assert (scheme["type"], scheme["scheme"]) == ("http", "bearer")


@pytest.mark.django_db
@pytest.mark.parametrize("path", ["/api/schema", "/api/schema/", "/api/docs", "/api/docs/"])
def test_strangers_may_read_the_description(client: Client, path: str) -> None:
    assert client.get(path).status_code == 200
