"""What an operation does not read is refused: it could not be metered either."""

import pytest

from openai_app.tests.deferred_work import begin_response, form
from openai_app.tests.harness import HELLO, JSON, Caller, House, chat_body

FORMS_ONLY = ("/v1/audio/transcriptions", "/v1/images/variations", "/v1/files")
JSON_ONLY = ("/v1/chat/completions", "/v1/responses", "/v1/embeddings", "/v1/images/generations", "/v1/edits")
URLENCODED = "application/x-www-form-urlencoded"


@pytest.mark.parametrize("path", JSON_ONLY)
@pytest.mark.parametrize("kind", ["multipart/form-data", URLENCODED])
def test_a_form_is_refused_where_json_is_asked_for(
    gateway: House, alice: Caller, path: str, kind: str
) -> None:
    body, header = form({"model": "gpt-4o-mini", "messages": "[]", "a": "b"}, {})
    if kind == URLENCODED:
        body, header = b"model=gpt-4o-mini&messages=[]", {"Content-Type": kind}
    answer = alice.call("POST", path, body, header)
    assert (answer.status, answer.error["code"]) == (400, "unsupported_content_type")
    assert answer.error["message"] == (
        f"Unsupported content type: '{kind}'. This API method only accepts 'application/json' requests, but "
        f"you specified the header 'Content-Type: {kind}'. Please try again with a supported content type."
    )
    assert gateway.journal() == []
    assert alice.holds() == []


@pytest.mark.parametrize("path", FORMS_ONLY)
@pytest.mark.parametrize("header", [JSON, {"Content-Type": "text/plain"}, {}], ids=str)
def test_json_is_refused_where_a_form_is_asked_for(
    gateway: House, alice: Caller, path: str, header: dict[str, str]
) -> None:
    answer = alice.call("POST", path, b'{"model": "whisper-1", "file": "x"}', header)
    assert (answer.status, answer.error["code"]) == (400, "unsupported_content_type")
    assert "only accepts 'multipart/form-data' requests" in answer.error["message"]
    assert gateway.journal() == []
    assert alice.holds() == []


@pytest.mark.parametrize("header", [{}, {"Content-Type": "text/plain"}], ids=str)
def test_json_need_not_say_that_it_is(alice: Caller, header: dict[str, str]) -> None:
    assert alice.call("POST", "/v1/chat/completions", chat_body(messages=HELLO), header).status == 200
    assert len(alice.charges()) == 1


def test_a_call_without_a_body_may_name_any_content_type(alice: Caller) -> None:
    # As `curl -d ''` does.
    for header in ({}, JSON, {"Content-Type": URLENCODED}):
        path = f"/v1/responses/{begin_response(alice)}/cancel"
        assert alice.call("POST", path, b"", header).status == 200
