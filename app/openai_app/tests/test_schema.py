"""The description at /api/schema covers the data plane."""

from typing import Any

import pytest
from drf_spectacular.generators import SchemaGenerator
from drf_spectacular.validation import validate_schema

from openai_app import schema
from openai_app.catalogue import CATALOGUE, Operation
from openai_app.catalogue.operation import FORM, JSON


@pytest.fixture(scope="module")
def description() -> dict[str, Any]:
    found: dict[str, Any] = SchemaGenerator().get_schema(request=None, public=True)  # type: ignore[no-untyped-call]
    return found


def test_every_row_is_described(description: dict[str, Any]) -> None:
    described = {
        (method.upper(), path)
        for path, item in description["paths"].items()
        for method in item
        if path.startswith("/v1/")
    }
    assert described == {(row.method, "/v1" + row.path) for row in CATALOGUE}


def test_the_description_is_valid(description: dict[str, Any]) -> None:
    validate_schema(description)  # type: ignore[no-untyped-call]


@pytest.mark.parametrize("row", CATALOGUE, ids=lambda row: row.name)
def test_a_row_is_described_whole(row: Operation) -> None:
    described = schema.described(row)
    named = {parameter["name"] for parameter in described["parameters"]}
    is_repeatable = row.method == "POST" and row.meter.estimate is not None and not row.refused
    assert named == {*row.slots, *row.query, *(["Idempotency-Key"] if is_repeatable else [])}
    assert described["security"] == [{"API key": []}]
    assert described["externalDocs"]["url"].startswith("https://platform.openai.com/docs/api-reference/")
    if row.refused:
        assert described["responses"].keys() == {"403", "4XX"}
        assert row.refused in described["description"]
        return
    assert schema.metered(row.meter) in described["description"]
    assert ("402" in described["responses"]) == (row.meter.estimate is not None)
    assert ({"409", "422"} <= described["responses"].keys()) == is_repeatable
    assert described["responses"]["4XX"]["$ref"] == "#/components/responses/Error4XX"
    contents = described.get("requestBody", {}).get("content", {})
    assert contents.keys() == set(row.accepts)
    assert JSON not in contents or contents[JSON]["example"] == row.example
    assert FORM not in contents or contents[FORM]["schema"]["properties"]


def test_errors_have_the_shape_of_the_control_planes(description: dict[str, Any]) -> None:
    missing = description["components"]["responses"]["Error4XX"]
    assert missing["content"][JSON]["schema"] == {"$ref": "#/components/schemas/Error"}
    assert "Error" in description["components"]["schemas"]


def test_the_scheme_is_the_control_planes(description: dict[str, Any]) -> None:
    [(name, _)] = schema.described(CATALOGUE[0])["security"][0].items()
    assert description["components"]["securitySchemes"][name]["scheme"] == "bearer"
