"""The first thing that a newcomer tries: a balance of 30, "Hello!", and a balance lowered by the usage."""

import json

import pytest

from gateway.tests import console
from openai_app.tests.deferred_work import form
from openai_app.tests.harness import JSON, Caller, House
from openai_app.tests.test_uploads import wave

MESSAGES = [{"role": "user", "content": "Hello!"}]


def test_hello_lowers_a_balance_of_30_by_exactly_the_usage(gateway: House) -> None:
    alice = gateway.caller(0)
    olga = gateway.caller(0, is_superuser=True)
    given = olga.call("PUT", f"/api/balance/{alice.id}", b'{"balance": 30}')
    assert (given.status, given.json["user"], given.json["balance"]) == (200, alice.id, 30)
    assert alice.balance() == 30

    body = json.dumps({"model": "gpt-4o-mini", "messages": MESSAGES}).encode()
    answer = alice.call("POST", "/api/openai/chat/completions", body)
    assert answer.status == 200
    used = answer.json["usage"]["total_tokens"]
    assert 0 < used <= 30

    left = {"user": alice.id, "balance": 30 - used, "held": 0, "available": 30 - used}
    assert alice.account() == left
    assert answer.headers["x-balance-charged"] == str(used)
    assert answer.headers["x-balance-remaining"] == str(30 - used)
    history = alice.call("GET", "/api/balance/entries").json["results"]
    assert [(entry["kind"], entry["amount"], entry["balance_after"]) for entry in history] == [
        ("charge", -used, 30 - used),
        ("set", 30, 30),
    ]
    assert history[0]["request_id"].replace("-", "") == answer.request_id


def test_the_older_scheme_of_the_header_is_understood_on_both_planes(alice: Caller) -> None:
    by_token = {**JSON, "Authorization": f"Token {alice.key}"}
    assert alice.call("GET", "/api/balance", headers=by_token).json["balance"] == 100_000
    body = json.dumps({"model": "gpt-4o-mini", "messages": MESSAGES}).encode()
    answer = alice.call("POST", "/v1/chat/completions", body, by_token)
    assert answer.status == 200
    assert alice.balance() == 100_000 - answer.json["usage"]["total_tokens"]


def test_another_user_neither_pays_nor_sees_any_of_it(alice: Caller, bob: Caller) -> None:
    assert alice.chat().status == 200
    assert bob.account() == {"user": bob.id, "balance": 100_000, "held": 0, "available": 100_000}
    assert [entry["kind"] for entry in bob.call("GET", "/api/balance/entries").json["results"]] == ["set"]
    assert bob.call("GET", f"/api/balance/{alice.id}").status == 403
    assert bob.call("GET", f"/api/balance/entries?user={alice.id}").status == 403


def test_input_above_the_balance_is_refused_and_nothing_is_forwarded(gateway: House) -> None:
    alice = gateway.caller(8)
    answer = alice.chat()
    assert answer.status == 402
    assert answer.error["code"] == answer.error["type"] == "insufficient_quota"
    assert "8 are available" in answer.error["message"]
    assert gateway.journal() == []
    assert alice.account() == {"user": alice.id, "balance": 8, "held": 0, "available": 8}
    assert alice.holds() == []


def test_a_balance_that_pays_for_the_input_and_no_output_is_refused(gateway: House) -> None:
    # "Hello!" is 9 tokens with its framing: nothing would be left to answer with.
    assert gateway.caller(9).chat().status == 402
    assert gateway.journal() == []
    answer = gateway.caller(10).chat()
    assert answer.json["usage"] | {"prompt_tokens": 9, "completion_tokens": 1} == answer.json["usage"]


def test_a_balance_is_spent_to_its_last_token(gateway: House) -> None:
    alice = gateway.caller(30)
    assert [alice.chat("tokens=1000").status for _ in range(2)] == [200, 402]
    assert alice.balance() == 0


def test_an_answer_in_one_piece_says_what_it_cost(alice: Caller) -> None:
    answer = alice.chat()
    charged = int(answer.headers["x-balance-charged"])
    assert charged == answer.json["usage"]["total_tokens"]
    assert int(answer.headers["x-balance-remaining"]) == 100_000 - charged
    assert alice.balance() == 100_000 - charged


CHAT = {"model": "gpt-4o-mini", "messages": MESSAGES}
SPEECH = {"model": "tts-1", "input": "Good morning.", "voice": "alloy"}
BACKGROUND = {"model": "gpt-4o-mini", "input": "Hello!", "background": True}
RECORDING = {"file": ("a.wav", "audio/wav", wave(2))}


@pytest.mark.parametrize(
    ("path", "body", "header"),
    [
        ("/chat/completions", json.dumps(CHAT).encode(), JSON),
        ("/chat/completions", json.dumps({**CHAT, "stream": True}).encode(), JSON),
        ("/audio/speech", json.dumps(SPEECH).encode(), JSON),
        ("/audio/transcriptions", *form({"model": "whisper-1", "response_format": "srt"}, RECORDING)),
        ("/responses", json.dumps(BACKGROUND).encode(), JSON),
    ],
    ids=["JSON", "stream", "speech", "text", "later"],
)
def test_every_metered_answer_says_what_is_left(
    alice: Caller, path: str, body: bytes, header: dict[str, str]
) -> None:
    answer = alice.call("POST", f"/v1{path}", body, header)
    assert answer.status == 200
    (hold,) = alice.holds()
    is_known = "x-balance-charged" in answer.headers
    # Where the charge is known only after the headers have gone out, it is what the hold leaves.
    left = alice.account()["available"] if is_known else 100_000 - hold["amount"]
    assert int(answer.headers["x-balance-remaining"]) == left
    assert is_known == (path == "/chat/completions" and b"stream" not in body)
    alice.house.simulator.finish()
    alice.settled()


def test_the_ledger_adds_up_after_all_this(gateway: House) -> None:
    gateway.wait_until_settled()
    assert "wrong" not in gateway.audit()
    assert gateway.console.run(console.holds, state="open") == []
