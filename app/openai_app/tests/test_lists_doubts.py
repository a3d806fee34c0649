"""Lists: queries that no number says, and what OpenAI may not have said."""

import json

import pytest

from openai_app.tests.deferred_work import get, post
from openai_app.tests.harness import Caller, House

# Python reads no number of more digits than 4,300.
MANY = "1" * 5_000


@pytest.fixture
def alice(gateway: House) -> Caller:
    return gateway.caller(10_000_000, name="alice")


@pytest.mark.parametrize("path", ["files", "batches", "vector_stores"])
@pytest.mark.parametrize("limit", [MANY, f"-{MANY}", "0" * 5_000, "²", "1.0", "%00", ""])
def test_a_limit_that_is_no_number_is_refused(alice: Caller, path: str, limit: str) -> None:
    answer = alice.call("GET", f"/v1/{path}?limit={limit.replace('²', '%B2')}")
    assert answer.status == (200 if limit == "" else 400)
    assert limit == "" or answer.error["message"].startswith("Invalid 'limit'")


@pytest.mark.parametrize("kind", ["html", "json"])
def test_a_404_that_is_not_openais_takes_nothing_away(gateway: House, alice: Caller, kind: str) -> None:
    """It is not shown while it cannot be seen, and is one's own again as soon as it can."""
    made = post(alice, "/vector_stores")["id"]
    if kind == "html":
        gateway.simulator.fault("html status=404", path=f"/v1/vector_stores/{made}")
    else:
        gateway.simulator.record(
            {
                "method": "GET",
                "path": f"/v1/vector_stores/{made}",
                "request_base64": "",
                "status": 404,
                "headers": {"content-type": "application/json"},
                "body": json.dumps({"detail": "Not Found"}),
            }
        )
    assert get(alice, "/vector_stores")["data"] == []
    assert [one["id"] for one in get(alice, "/vector_stores")["data"]] == [made]
    assert alice.call("GET", f"/v1/vector_stores/{made}").status == 200
