"""Whatever goes wrong upstream: the caller gets an error in OpenAI's shape, and the hold its right end."""

import json
import re
from typing import Any

import pytest

from openai_app.settlement import charge
from openai_app.tests.harness import (
    OPERATORS_KEY,
    Answer,
    Caller,
    House,
    chat_body,
    events_of,
    house,
    port_of_nobody,
)
from simulator.testing import SimulatorProcess

NO_WORDS = "OpenAI answered with status 400 and no explanation."
IN_ONE_PIECE_OR_STREAMED = pytest.mark.parametrize("stream", [False, True], ids=["json", "stream"])


def record(gateway: House, *, stream: bool | None = None, **answer: Any) -> None:
    """The upstream's answer to the next "Hello!", which says so much about `stream`."""
    fields = {} if stream is None else {"stream": stream}
    gateway.simulator.record({"request": json.loads(chat_body(**fields)), **answer})


def assert_costs_nothing(caller: Caller, answer: Answer, reason: str) -> None:
    assert caller.account() == {"user": caller.id, "balance": 100_000, "held": 0, "available": 100_000}
    assert caller.charges() == []
    hold = caller.hold_of(answer)
    assert (hold["state"], hold["reason"]) == ("voided", reason)
    # A stream's head has gone out before anybody knows.
    assert answer.headers.get("x-balance-charged", "0") == "0"


def assert_leaks_nothing(answer: Answer) -> None:
    """Neither the operator's key nor the names of the account, whatever the upstream said of them."""
    shown = answer.body.decode() + str(answer.headers)
    assert not re.search(r"org-\w|proj_\w", shown)
    assert OPERATORS_KEY not in shown
    assert OPERATORS_KEY[:8] not in shown
    assert OPERATORS_KEY[-4:] not in shown


# --- refusals -------------------------------------------------------------------------------------------


@IN_ONE_PIECE_OR_STREAMED
@pytest.mark.parametrize(
    ("does", "status", "type", "code"),
    [
        ("status=400", 400, "invalid_request_error", None),
        ("status=403", 403, "invalid_request_error", None),
        ("status=404", 404, "invalid_request_error", "model_not_found"),
        ("status=409", 409, "invalid_request_error", None),
        ("status=413", 413, "invalid_request_error", None),
        ("status=422", 422, "invalid_request_error", None),
        ("status=429 retry_after=7", 429, "tokens", "rate_limit_exceeded"),
        ("status=429 quota", 429, "insufficient_quota", "insufficient_quota"),
        ("status=500", 500, "server_error", None),
        ("status=503", 503, "server_error", None),
    ],
)
def test_the_upstreams_refusal_passes_in_its_own_words(
    alice: Caller, does: str, status: int, type: str, code: str | None, stream: bool
) -> None:
    answer = alice.chat(does, stream=stream)
    assert answer.status == status
    assert answer.headers["content-type"] == "application/json"
    assert (answer.error["type"], answer.error["code"]) == (type, code)
    assert_leaks_nothing(answer)
    assert_costs_nothing(alice, answer, charge.REFUSED)


@IN_ONE_PIECE_OR_STREAMED
def test_the_time_after_which_to_try_again_passes(alice: Caller, stream: bool) -> None:
    answer = alice.chat("status=429 retry_after=7", stream=stream)
    assert answer.headers["retry-after"] == "7"
    assert alice.chat("status=503 retry_after=30", stream=stream).headers["retry-after"] == "30"


def test_a_refusal_tells_that_nothing_was_charged_and_what_is_left(alice: Caller) -> None:
    for does in ("status=400", "status=429", "status=503", "reset"):
        answer = alice.chat(does)
        told = answer.headers["x-balance-charged"], answer.headers["x-balance-remaining"]
        assert told == ("0", "100000")


def test_a_failure_upstream_that_names_no_time_is_given_one(alice: Caller) -> None:
    assert alice.chat("status=500").headers["retry-after"] == "1"
    assert "retry-after" not in alice.chat("status=400").headers


@IN_ONE_PIECE_OR_STREAMED
def test_a_refusal_of_the_operators_key_becomes_a_502_that_leaks_nothing(alice: Caller, stream: bool) -> None:
    answer = alice.chat("status=401", stream=stream)
    assert answer.status == 502
    assert answer.error["code"] == "upstream_error"
    assert "operator" in answer.error["message"]
    assert_leaks_nothing(answer)
    assert_costs_nothing(alice, answer, charge.REFUSED)


def test_names_of_the_operators_account_are_taken_out_of_a_refusal(gateway: House, alice: Caller) -> None:
    error = {
        "message": "Rate limit for gpt-4o in organization org-AbC123 in project proj_Qq9xyz: sk-proj-12ab…",
        "type": "tokens",
        "param": None,
        "code": "rate_limit_exceeded",
    }
    record(
        gateway,
        status=429,
        body=json.dumps({"error": error}),
        headers={"content-type": "application/json"},
    )
    answer = alice.chat()
    assert answer.status == 429
    assert_leaks_nothing(answer)
    assert answer.error["message"].startswith("Rate limit for gpt-4o in organization [hidden]")


def test_they_are_taken_out_of_an_error_in_a_stream_and_of_no_models_text(
    gateway: House, alice: Caller
) -> None:
    name = "org-AbC123AbC123AbC123AbC123"
    text = {"choices": [{"index": 0, "delta": {"content": f"A user-friendly org-chart of {name}"}}]}
    error = {"error": {"message": f"Limit of {name}, proj_{'x' * 24} with {OPERATORS_KEY}", "type": "tokens"}}
    events = [f"data: {json.dumps(event)}\n\n" for event in (text, error)]
    record(gateway, stream=True, body="".join(events), headers={"content-type": "text/event-stream"})
    answer = alice.chat(stream=True)
    passed, told = events_of(answer.body)[:2]
    assert passed == text
    assert told["error"]["message"] == "Limit of [hidden], [hidden] with [hidden]"


@pytest.mark.parametrize(
    ("status", "content_type", "body", "shown"),
    [
        (502, "text/html", "<html><h1>502</h1> cloudflare org-AbC123</html>", 502),
        (503, "text/plain", "upstream connect error", 503),
        (500, "application/json", "{not json", 500),
        (500, "application/json", '"words"', 500),
        (500, "application/json", '{"detail": "elsewhere"}', 500),
        (404, "text/html", "<html>not found</html>", 404),
        (400, "text/plain", "", 400),
        (529, "application/json", "", 529),
        (301, "text/html", "<a>moved</a>", 502),
        (302, "application/json", "{}", 502),
        (304, "application/json", "", 502),
    ],
)
@IN_ONE_PIECE_OR_STREAMED
def test_a_refusal_that_is_no_error_object_is_put_into_one(
    gateway: House, alice: Caller, status: int, content_type: str, body: str, shown: int, stream: bool
) -> None:
    headers = {"content-type": content_type, "location": "http://10.0.0.1/inside"}
    record(gateway, stream=stream, status=status, body=body, headers=headers)
    answer = alice.chat(stream=stream)
    assert answer.status == shown
    assert answer.headers["content-type"] == "application/json"
    assert answer.error["message"]
    assert "location" not in answer.headers
    assert "html" not in answer.body.decode()
    assert_leaks_nothing(answer)
    assert_costs_nothing(alice, answer, charge.REFUSED)


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (503, {"error": "overloaded"}, ("overloaded", "upstream_error", "upstream_503")),
        (400, {"error": {"code": 7}}, (NO_WORDS, "invalid_request_error", "upstream_400")),
        (404, {"error": None}, (NO_WORDS.replace("400", "404"), "invalid_request_error", "upstream_404")),
    ],
)
def test_a_refusal_without_a_message_is_given_one(
    gateway: House, alice: Caller, status: int, body: object, expected: tuple[str, str, str]
) -> None:
    record(gateway, status=status, body=json.dumps(body), headers={"content-type": "application/json"})
    error = alice.chat().error
    assert error.keys() == {"message", "type", "param", "code"}
    assert (error["message"], error["type"], error["code"]) == expected


def test_a_page_that_says_429_is_told_as_a_limit(gateway: House, alice: Caller) -> None:
    headers = {"content-type": "text/html", "retry-after": "9"}
    record(gateway, status=429, body="<html>slow down</html>", headers=headers)
    answer = alice.chat()
    assert (answer.status, answer.error["code"]) == (429, "rate_limit_exceeded")
    assert answer.headers["retry-after"] == "9"


def test_an_error_with_a_status_of_200_costs_nothing(gateway: House, alice: Caller) -> None:
    body = json.dumps({"error": {"message": "no such deployment", "type": "", "param": None, "code": None}})
    record(gateway, body=body, headers={"content-type": "application/json"})
    answer = alice.chat(max_tokens=50)
    assert (answer.status, answer.body.decode()) == (200, body)
    assert_costs_nothing(alice, answer, charge.REFUSED)


def test_a_redirection_is_not_followed(gateway: House, alice: Caller) -> None:
    target = f"{gateway.simulator.base_url}/models"
    record(gateway, status=307, body="", headers={"location": target})
    assert alice.chat().status == 502
    assert [call["path"] for call in gateway.journal()] == ["/v1/chat/completions"]


# --- nonsense and broken answers --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("application/json", "{"),
        ("application/json", "[]"),
        ("application/json", "null"),
        ("application/json", ""),
        ("text/html", "<html>Just a moment…</html>"),
        ("text/plain", '{"usage": {"prompt_tokens": 1}}'),
    ],
)
def test_an_answer_of_200_that_is_no_json_object_becomes_a_502(
    gateway: House, alice: Caller, content_type: str, body: str
) -> None:
    record(gateway, body=body, headers={"content-type": content_type})
    answer = alice.chat()
    assert (answer.status, answer.error["code"]) == (502, "upstream_error")
    assert_costs_nothing(alice, answer, charge.FAILED)


@IN_ONE_PIECE_OR_STREAMED
def test_a_reset_before_the_head_becomes_a_502(alice: Caller, stream: bool) -> None:
    answer = alice.chat("reset", stream=stream)
    assert (answer.status, answer.error["code"]) == (502, "upstream_error")
    assert answer.headers["retry-after"] == "1"
    assert_costs_nothing(alice, answer, charge.FAILED)
    # A call that may have been served is not sent again.
    assert len(alice.house.journal()) == 1


@pytest.mark.parametrize("does", ["reset_after=5", "close_after=5", "malformed"])
def test_an_answer_that_breaks_off_half_way_becomes_a_502(alice: Caller, does: str) -> None:
    answer = alice.chat(f"tokens=50 {does}")
    assert (answer.status, answer.error["code"]) == (502, "upstream_error")
    assert_costs_nothing(alice, answer, charge.FAILED)


def test_an_answer_that_stalls_for_a_while_is_waited_for(alice: Caller) -> None:
    for stream in (False, True):
        answer = alice.chat("tokens=20 stall=1 stall_after=10", stream=stream)
        assert answer.status == 200
    served = [call["usage"]["total_tokens"] for call in alice.house.journal()]
    assert alice.balance() == 100_000 - sum(served)


@pytest.mark.parametrize("does", ["reset_after=7", "close_after=7", "truncate_after=7"])
def test_a_stream_that_breaks_off_ends_with_an_error_and_costs_what_had_come(
    alice: Caller, does: str
) -> None:
    answer = alice.chat(f"tokens=20 {does}", stream=True)
    assert answer.status == 200
    *events, error = events_of(answer.body)
    assert error["error"]["code"] == "upstream_error"
    (call,) = alice.house.journal()
    text = "".join(event["choices"][0]["delta"].get("content") or "" for event in events)
    assert len(text.split()) == call["tokens_sent"] in (6, 7)
    hold = alice.hold_of(answer)
    assert (hold["state"], hold["reason"]) == ("posted", charge.BROKEN)
    (entry,) = alice.charges()
    assert entry["units"] == {"input": hold["counted"]["input"], "output": call["tokens_sent"]}
    assert alice.balance() == 100_000 - sum(entry["units"].values())


def test_an_error_in_a_stream_passes_and_what_had_come_is_charged(alice: Caller) -> None:
    answer = alice.chat("tokens=20 error_after=7", stream=True)
    *_, error, done = events_of(answer.body)
    assert error["error"]["type"] == "server_error"
    assert done == "[DONE]"
    (entry,) = alice.charges()
    assert (entry["units"]["output"], entry["reason"]) == (7, charge.BROKEN)


def test_a_stream_that_breaks_before_its_first_event_costs_nothing(gateway: House, alice: Caller) -> None:
    record(gateway, stream=True, body="", headers={"content-type": "text/event-stream"})
    answer = alice.chat(stream=True)
    assert answer.status == 200
    assert_costs_nothing(alice, answer, charge.FAILED)


def test_a_stream_without_done_is_charged_by_its_usage(alice: Caller) -> None:
    answer = alice.chat("tokens=20 no_done", stream=True)
    assert not answer.body.endswith(b"[DONE]\n\n")
    (call,) = alice.house.journal()
    assert alice.balance() == 100_000 - call["usage"]["total_tokens"]


def test_an_event_that_is_no_json_passes_and_the_usage_is_charged(alice: Caller) -> None:
    answer = alice.chat("tokens=20 malformed", stream=True)
    assert answer.body.endswith(b"data: [DONE]\n\n")
    (call,) = alice.house.journal()
    assert alice.balance() == 100_000 - call["usage"]["total_tokens"]


@pytest.mark.parametrize("does", ["status=500", "reset", "html", "malformed", "reset_after=3"])
def test_a_failed_call_does_not_disturb_the_next(alice: Caller, does: str) -> None:
    for _ in range(5):
        alice.chat(f"tokens=10 {does}")
        assert alice.chat().status == 200
    served = [c["usage"]["total_tokens"] for c in alice.house.journal() if c["state"] == "finished"]
    assert alice.balance() == 100_000 - sum(served)


# --- no upstream ----------------------------------------------------------------------------------------


def test_an_upstream_that_cannot_be_reached_becomes_a_502_and_serves_again_when_it_is_back(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    with (
        port_of_nobody() as port,
        house(tmp_path_factory.mktemp("away"), workers=1, upstream=f"http://127.0.0.1:{port}/v1") as opened,
    ):
        alice = opened.caller()
        for stream in (False, True):
            answer = alice.chat(stream=stream)
            assert (answer.status, answer.error["code"]) == (502, "upstream_error")
            assert answer.headers["retry-after"] == "1"
            assert_costs_nothing(alice, answer, charge.FAILED)
        models = alice.call("GET", "/v1/models")
        assert (models.status, models.error["code"]) == (502, "upstream_error")
        with SimulatorProcess("--port", str(port)):
            assert alice.chat().status == 200
