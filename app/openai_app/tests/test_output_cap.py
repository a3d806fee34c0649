"""What is written into a request: a bound on the output where the balance needs one, and nothing else."""

import hashlib
import json
from typing import Any

import orjson
import pytest

from openai_app.request.request_body import write_into
from openai_app.tests.harness import HELLO, Caller, House, chat_body

# "Hello!" with its framing, as the models read it.
HELLO_TOKENS = 9
STREAMED = {"stream_options": {"include_usage": True}, "max_completion_tokens": 100}
# What gpt-4o-mini can write at most, by OpenAI's list of models.
MOST_OUTPUT = 16_384


def forwarded(gateway: House) -> dict[str, Any]:
    """The body that the upstream got."""
    (call,) = gateway.journal()
    body: dict[str, Any] = call["body"]
    return body


def test_a_balance_that_covers_the_longest_answer_needs_no_cap(gateway: House) -> None:
    # A call reserves a quarter of what is left after its input.
    alice = gateway.caller(HELLO_TOKENS + 4 * MOST_OUTPUT)
    answer = alice.chat()
    assert forwarded(gateway) == {"model": "gpt-4o-mini", "messages": HELLO}
    assert alice.hold_of(answer)["amount"] == HELLO_TOKENS + MOST_OUTPUT


def test_a_balance_that_does_not_cover_it_caps_the_output(gateway: House) -> None:
    alice = gateway.caller(HELLO_TOKENS + 4 * MOST_OUTPUT - 4)
    answer = alice.chat()
    assert forwarded(gateway)["max_completion_tokens"] == MOST_OUTPUT - 1
    assert alice.hold_of(answer)["amount"] == HELLO_TOKENS + MOST_OUTPUT - 1


def test_a_small_balance_may_be_spent_whole(gateway: House) -> None:
    alice = gateway.caller(HELLO_TOKENS + 100)
    alice.chat()
    assert forwarded(gateway)["max_completion_tokens"] == 100


@pytest.mark.parametrize("field", ["max_tokens", "max_completion_tokens"])
def test_a_limit_of_the_callers_own_is_kept_when_it_is_low_enough(gateway: House, field: str) -> None:
    alice = gateway.caller(HELLO_TOKENS + 100)
    answer = alice.chat(**{field: 50})
    assert forwarded(gateway) == {"model": "gpt-4o-mini", "messages": HELLO, field: 50}
    assert alice.hold_of(answer)["amount"] == HELLO_TOKENS + 50


@pytest.mark.parametrize("field", ["max_tokens", "max_completion_tokens"])
def test_a_limit_of_the_callers_own_is_lowered_in_its_own_field(gateway: House, field: str) -> None:
    alice = gateway.caller(HELLO_TOKENS + 100)
    alice.chat(**{field: 5000})
    assert forwarded(gateway) == {"model": "gpt-4o-mini", "messages": HELLO, field: 100}


def test_a_limit_of_null_is_none(gateway: House) -> None:
    gateway.caller(HELLO_TOKENS + 100).chat(max_tokens=None)
    assert forwarded(gateway)["max_completion_tokens"] == 100


def test_of_two_limits_none_is_raised(gateway: House) -> None:
    gateway.caller(HELLO_TOKENS + 100).chat(max_tokens=30, max_completion_tokens=9000)
    sent = forwarded(gateway)
    assert (sent["max_tokens"], sent["max_completion_tokens"]) == (30, 100)


@pytest.mark.parametrize("value", [0, -5, "100", True, [7]])
def test_what_is_no_limit_stays_as_it_came_for_openai_to_refuse(gateway: House, value: object) -> None:
    alice = gateway.caller(HELLO_TOKENS + 100)
    alice.chat("status=400", max_completion_tokens=value)
    sent = forwarded(gateway)
    assert sent["max_completion_tokens"] == value
    # Whoever takes it all the same is bounded.
    assert 0 < sent["max_tokens"] < 100
    assert alice.settled()["balance"] == HELLO_TOKENS + 100


def test_the_cap_is_shared_by_the_choices(gateway: House) -> None:
    alice = gateway.caller(HELLO_TOKENS + 100)
    gateway.simulator.fault("tokens=1000")
    answer = alice.chat(n=3)
    sent = forwarded(gateway)
    assert (sent["n"], sent["max_completion_tokens"]) == (3, 33)
    assert answer.json["usage"]["completion_tokens"] == 99
    assert alice.balance() == 1


def test_a_limit_asked_for_is_held_once_for_each_choice(gateway: House) -> None:
    alice = gateway.caller()
    answer = alice.chat(n=4, max_completion_tokens=25)
    assert alice.hold_of(answer)["amount"] == HELLO_TOKENS + 4 * 25


def test_a_cap_leaves_everything_else_in_the_body_as_it_was(gateway: House) -> None:
    alice = gateway.caller(HELLO_TOKENS + 100)
    fields = {"temperature": 0.1, "seed": 2**62, "metadata": {"a": "ü"}, "not_yet_invented": [1, None, {}]}
    alice.chat(**fields)
    assert forwarded(gateway) == {
        "model": "gpt-4o-mini",
        "messages": HELLO,
        **fields,
        "max_completion_tokens": 100,
    }


@pytest.mark.parametrize(
    "body",
    [
        b'{"model":"gpt-4o-mini","messages":[{"role":"user","content":"Hello!"}]}',
        b'\n { "messages" : [ {"content" : "\\u0048ello!", "role":"user"}],\t"model":"gpt-4o-mini" , '
        b'"seed":1.0 } \n',
        '{"model":"gpt-4o-mini","x":{"b":1,"a":1e3},"messages":[{"role":"user","content":"Grüß"}]}'.encode(),
        b'{"model":"gpt-4o-mini","messages":[{"role":"user","content":"Hi"}],"stream":true,'
        b'"stream_options":{"include_usage":true}}',
    ],
)
def test_a_body_into_which_nothing_is_written_arrives_byte_for_byte(alice: Caller, body: bytes) -> None:
    assert alice.call("POST", "/v1/chat/completions", body).status == 200
    (call,) = alice.house.journal()
    assert call["body_bytes"] == len(body)
    assert call["body_sha256"] == hashlib.sha256(body).hexdigest()


@pytest.mark.parametrize(
    ("body", "arrives"),
    [
        (
            b' {"model" : "gpt-4o-mini", "seed":123456789012345678901234567890,\n "x": 1.0e2,'
            b' "m\\u0061x_tokens" : 5000 ,"messages":[{"role":"user","content":"Hello!"}], "y": "}," } ',
            b' {"model" : "gpt-4o-mini", "seed":123456789012345678901234567890,\n "x": 1.0e2,'
            b' "m\\u0061x_tokens" : 100 ,"messages":[{"role":"user","content":"Hello!"}], "y": "}," } ',
        ),
        (
            b'{"stream_options":{"include_usage":false}, "z": 1E40, "stream" :true,"model":"gpt-4o-mini",'
            b'"messages":[{"role":"user","content":"Hello!"}]}\n',
            b'{"stream_options":{"include_usage":true}, "z": 1E40, "stream" :true,"model":"gpt-4o-mini",'
            b'"messages":[{"role":"user","content":"Hello!"}],"max_completion_tokens":100}',
        ),
    ],
)
def test_what_is_written_into_a_body_leaves_every_other_byte(body: bytes, arrives: bytes) -> None:
    written = {"max_tokens": 100} if b"5000" in body else STREAMED
    assert write_into(body, orjson.loads(body), written) == arrives


def test_a_large_body_arrives_byte_for_byte(gateway: House) -> None:
    alice = gateway.caller(10_000_000)
    body = json.dumps({"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "word " * 500_000}]})
    assert alice.call("POST", "/v1/chat/completions", body.encode()).status == 200
    (call,) = gateway.journal()
    assert call["body_sha256"] == hashlib.sha256(body.encode()).hexdigest()


def test_a_stream_is_asked_for_its_usage(alice: Caller) -> None:
    alice.call("POST", "/v1/chat/completions", chat_body(stream=True))
    assert forwarded(alice.house) == {
        "model": "gpt-4o-mini",
        "messages": HELLO,
        "stream": True,
        "stream_options": {"include_usage": True},
    }


def test_the_callers_own_stream_options_are_kept(alice: Caller) -> None:
    options = {"include_usage": False, "include_obfuscation": False}
    alice.call("POST", "/v1/chat/completions", chat_body(stream=True, stream_options=options))
    assert forwarded(alice.house)["stream_options"] == {**options, "include_usage": True}


def test_a_relaxed_account_is_never_capped(gateway: House) -> None:
    alice = gateway.caller(HELLO_TOKENS, relaxed=True)
    gateway.simulator.fault("tokens=200")
    answer = alice.chat()
    assert forwarded(gateway).keys() == {"model", "messages"}
    assert answer.json["usage"]["completion_tokens"] == 200
    assert alice.balance() == -200


def test_a_body_too_deep_to_have_a_limit_written_into_it_is_refused_and_costs_nothing(gateway: House) -> None:
    alice = gateway.caller(HELLO_TOKENS + 100)
    deep = json.loads("[" * 500 + "]" * 500)
    answer = alice.chat(max_tokens=5000, metadata={"deep": deep})
    assert (answer.status, answer.error["type"]) == (400, "invalid_request_error")
    assert "nested too deeply" in answer.error["message"]
    assert alice.account() == {"user": alice.id, "balance": 109, "held": 0, "available": 109}
