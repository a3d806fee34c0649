"""A metered call with an Idempotency-Key that is sent again: its first answer again, and no second charge."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import pytest

from gateway.tests import console
from openai_app.tests.deferred_work import chats as chat_requests
from openai_app.tests.deferred_work import form, lines_of, upload
from openai_app.tests.deferred_work import post as plain_post
from openai_app.tests.harness import HELLO, Answer, Caller, House, chat_body, events_of
from openai_app.tests.idempotent import (
    REPLAYED,
    assert_replayed,
    chat,
    grow_older,
    kept_rows,
    keyed,
    post,
)
from openai_app.tests.test_uploads import wave


def paid_once(caller: Caller) -> dict[str, Any]:
    """The caller's only entry; there was one hold, and one call upstream."""
    caller.settled()
    assert len(caller.holds()) == 1
    (entry,) = caller.charges()
    return entry


# --- Answers of every kind ---------------------------------------------------------------------------------


def test_a_repeated_call_is_answered_again_and_charged_once(gateway: House, alice: Caller) -> None:
    first, again, third = (chat(alice, "a") for _ in range(3))
    assert first.status == 200
    assert_replayed(again, first)
    assert_replayed(third, first)
    assert again.headers["x-balance-remaining"] == str(alice.balance())
    assert -paid_once(alice)["amount"] == first.json["usage"]["total_tokens"]
    assert len(gateway.journal()) == 1


@pytest.mark.parametrize("asked", [{}, {"stream_options": {"include_usage": True}}], ids=["hidden", "asked"])
def test_a_repeated_stream_is_answered_as_its_client_saw_it(
    gateway: House, alice: Caller, asked: dict[str, Any]
) -> None:
    first, again = (chat(alice, "a", "tokens=30", stream=True, **asked) for _ in range(2))
    assert_replayed(again, first)
    assert first.headers["content-type"].startswith("text/event-stream")
    events = events_of(again.body)
    assert events[-1] == "[DONE]"
    assert any(event.get("usage") for event in events[:-1]) == bool(asked)
    assert paid_once(alice)["units"]["output"] == 30
    assert len(gateway.journal()) == 1


def test_what_comes_after_the_event_that_is_charged_is_repeated_too(gateway: House, alice: Caller) -> None:
    """A run's stream tells of the run's end first, and of its own end afterwards."""
    assistant = plain_post(alice, "/assistants", model="gpt-4o-mini")["id"]
    fields = {"assistant_id": assistant, "thread": {"messages": HELLO}, "stream": True}
    first, again = (post(alice, "a", "/threads/runs", **fields) for _ in range(2))
    assert_replayed(again, first)
    assert again.body.endswith(b"event: done\ndata: [DONE]\n\n")
    paid_once(alice)


def test_a_repeated_response_in_events_is_answered_as_it_was(gateway: House, alice: Caller) -> None:
    fields = {"model": "gpt-4o-mini", "input": "Hello!", "stream": True}
    first, again = (post(alice, "a", "/responses", **fields) for _ in range(2))
    assert_replayed(again, first)
    assert b"response.completed" in again.body
    paid_once(alice)


@pytest.mark.parametrize("kind", ["mp3", "wav"])
def test_repeated_speech_is_answered_byte_for_byte(gateway: House, alice: Caller, kind: str) -> None:
    fields = {"model": "tts-1", "input": "Good morning.", "voice": "alloy", "response_format": kind}
    first, again = (post(alice, "a", "/audio/speech", **fields) for _ in range(2))
    assert first.body
    assert_replayed(again, first)
    assert paid_once(alice)["units"] == {"character": 13}
    assert len(gateway.journal()) == 1


def transcribe(caller: Caller, key: str, content: bytes, **fields: str) -> Answer:
    files = {"file": ("a.wav", "audio/wav", content)}
    body, header = form({"model": "whisper-1", "response_format": "srt", **fields}, files)
    return caller.call("POST", "/v1/audio/transcriptions", body, {**header, "Idempotency-Key": key})


def test_a_repeated_form_is_known_by_its_parts_whatever_its_boundary(gateway: House, alice: Caller) -> None:
    first, again = (transcribe(alice, "a", wave(7)) for _ in range(2))
    assert first.status == 200
    assert_replayed(again, first)
    assert paid_once(alice)["units"] == {"second": 7}
    assert len(gateway.journal()) == 1


@pytest.mark.parametrize(
    ("content", "fields"), [(wave(7)[:-1] + b"\1", {}), (wave(7), {"language": "de"})], ids=["file", "field"]
)
def test_a_form_with_another_part_is_another_request(
    gateway: House, alice: Caller, content: bytes, fields: dict[str, str]
) -> None:
    assert transcribe(alice, "a", wave(7)).status == 200
    refused = transcribe(alice, "a", content, **fields)
    assert (refused.status, refused.error["code"]) == (422, "idempotency_key_reused")
    paid_once(alice)


@pytest.mark.parametrize("kind", ["batch", "response"])
def test_work_that_goes_on_is_begun_once(gateway: House, alice: Caller, kind: str) -> None:
    fields: dict[str, Any]
    if kind == "batch":
        file_id = upload(alice, lines_of(*chat_requests(3)), "batch")
        path = "/batches"
        fields = {
            "input_file_id": file_id,
            "endpoint": "/v1/chat/completions",
            "completion_window": "24h",
        }
    else:
        path, fields = "/responses", {"model": "gpt-4o-mini", "input": "Hello!", "background": True}
    first, again = (post(alice, "a", path, **fields) for _ in range(2))
    assert_replayed(again, first)
    (hold,) = alice.holds(state="open")
    assert hold["awaits"].endswith(f"{path}/{first.json['id']}")
    gateway.simulator.finish()
    paid_once(alice)
    assert_replayed(post(alice, "a", path, **fields), first)


# --- Which calls are the same ------------------------------------------------------------------------------


def test_another_body_or_address_under_the_same_key_is_refused(gateway: House, alice: Caller) -> None:
    assert chat(alice, "a").status == 200
    body = chat_body()
    others = [
        chat(alice, "a", temperature=1),
        alice.call("POST", "/v1/chat/completions?x=1", body, keyed("a")),
        alice.call("POST", "/v1/responses", body, keyed("a")),
    ]
    for refused in others:
        assert (refused.status, refused.error["code"]) == (422, "idempotency_key_reused")
        assert "new key" in refused.error["message"]
    assert len(gateway.journal()) == 1
    paid_once(alice)


def test_the_other_spellings_of_an_address_are_the_same(gateway: House, alice: Caller) -> None:
    first = chat(alice, "a")
    for path in ("/v1/chat/completions/", "/api/openai/chat/completions"):
        assert_replayed(alice.call("POST", path, chat_body(), keyed("a")), first)
    paid_once(alice)


def test_the_same_key_of_another_user_or_of_another_api_key_is_another(
    gateway: House, alice: Caller, bob: Caller
) -> None:
    second = gateway.console.run(console.add_keys, alice.id, 1)[0]
    elsewhere = Caller(gateway, alice.id, second.key, second.key_id)
    answers = [chat(caller, "a") for caller in (alice, bob, elsewhere)]
    assert [answer.status for answer in answers] == [200] * 3
    assert not any(REPLAYED in answer.headers for answer in answers)
    assert (len(alice.charges()), len(bob.charges())) == (2, 1)
    # The upstream is not told that they are the same, either.
    assert len({call["headers"]["idempotency-key"] for call in gateway.journal()}) == 3


def test_calls_with_different_keys_or_without_one_are_served_each(gateway: House, alice: Caller) -> None:
    answers = [chat(alice, "a"), chat(alice, "b"), alice.chat(), alice.chat()]
    assert not any(REPLAYED in answer.headers for answer in answers)
    assert len(alice.charges()) == 4


def test_calls_that_cost_nothing_are_served_each(gateway: House, alice: Caller) -> None:
    answers = [post(alice, "a", "/moderations", input="Hello!") for _ in range(2)]
    assert not any(REPLAYED in answer.headers for answer in answers)
    assert len(gateway.journal()) == 2


@pytest.mark.parametrize("key", ["", "x" * 256, "a\tb", "größe"], ids=["empty", "long", "tab", "umlaut"])
def test_a_key_that_cannot_be_used_is_refused(gateway: House, alice: Caller, key: str) -> None:
    refused = chat(alice, key)
    assert (refused.status, refused.error["code"]) == (400, "invalid_idempotency_key")
    assert gateway.journal() == []


def test_the_longest_key_is_taken(alice: Caller) -> None:
    first, again = (chat(alice, "~" * 255) for _ in range(2))
    assert_replayed(again, first)


def test_two_keys_on_one_call_are_refused(gateway: House, alice: Caller) -> None:
    body = chat_body()
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {alice.key}\r\n"
        f"idempotency-key: a\r\nidempotency-key: b\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    with gateway.connected() as connection:
        connection.sendall(head.encode() + body)
        assert connection.recv(65_536).startswith(b"HTTP/1.1 400 ")
    assert gateway.journal() == []


def test_of_calls_at_the_same_moment_one_is_served(gateway: House, alice: Caller) -> None:
    gateway.simulator.fault("delay=0.2", times=None)
    with ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(lambda _: chat(alice, "a"), range(12)))
    assert {answer.status for answer in answers} <= {200, 409}
    (first,) = [answer for answer in answers if answer.status == 200 and REPLAYED not in answer.headers]
    for answer in answers:
        if answer.status == 409:
            assert answer.error["code"] == "idempotency_key_in_use"
            assert int(answer.headers["retry-after"]) >= 1
        elif answer is not first:
            assert_replayed(answer, first)
    assert len(gateway.journal()) == 1
    paid_once(alice)


# --- Who may have the answer again, and how long ------------------------------------------------------------


def test_a_revoked_key_is_answered_nothing_again(gateway: House, alice: Caller) -> None:
    assert chat(alice, "a").status == 200
    gateway.console.run(console.change_key, alice.key_id, revoked_at=datetime.now(UTC))
    refused = chat(alice, "a")
    assert (refused.status, refused.error["code"]) == (401, "invalid_api_key")


def test_a_user_who_was_disabled_is_answered_nothing_again(gateway: House, alice: Caller) -> None:
    assert chat(alice, "a").status == 200
    gateway.console.run(console.change_user, alice.id, is_active=False)
    assert chat(alice, "a").status == 401


def test_an_empty_balance_does_not_keep_a_paid_answer_back(gateway: House) -> None:
    poor = gateway.caller(60, name="poor")
    first = chat(poor, "a", "tokens=40", max_tokens=40)
    assert first.status == 200
    assert chat(poor, "b", "tokens=40", max_tokens=40).status == 402
    assert_replayed(chat(poor, "a", "tokens=40", max_tokens=40), first)


def test_after_a_day_the_call_runs_anew(gateway: House, alice: Caller) -> None:
    first = chat(alice, "a")
    gateway.console.run(grow_older, 23.9)
    assert_replayed(chat(alice, "a"), first)
    gateway.console.run(grow_older, 0.2)
    # Another request may have the key by then.
    later = chat(alice, "a", temperature=1)
    assert later.status == 200
    assert REPLAYED not in later.headers
    assert_replayed(chat(alice, "a", temperature=1), later)
    assert len(alice.charges()) == 2


def test_what_is_older_than_a_day_is_deleted(gateway: House, alice: Caller) -> None:
    old = chat(alice, "a").request_id
    gateway.console.run(grow_older, 24.1)
    new = chat(alice, "b").request_id
    gateway.console.run(console.command, "sweep")
    kept = {row["request_id"] for row in gateway.console.run(kept_rows)}
    assert new in kept
    assert old not in kept


def test_what_is_kept_names_neither_balance_nor_operator(gateway: House, alice: Caller) -> None:
    answers = chat(alice, "a"), chat(alice, "b", stream=True)
    rows = {row["request_id"]: row for row in gateway.console.run(kept_rows)}
    for answer in answers:
        names = {name for name, _ in rows[answer.request_id]["headers"]}
        assert not {name for name in names if name.startswith(("x-", "set-cookie", "openai-org"))}


# --- Too large ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ask", [chat, lambda *a: chat(*a, stream=True)], ids=["whole", "stream"])
def test_an_answer_too_large_to_be_kept_is_charged_and_not_made_again(
    gateway: House, ask: Callable[[Caller, str, str], Answer]
) -> None:
    rich = gateway.caller(1_000_000_000, name="rich")
    first = ask(rich, "a", "big=5")
    assert first.status == 200
    assert len(first.body) > 4 * 1024 * 1024
    again = ask(rich, "a", "big=5")
    assert (again.status, again.error["code"]) == (409, "idempotency_answer_not_kept")
    assert first.request_id in again.error["message"]
    # OpenAI's SDKs try a 409 again unless they are told otherwise.
    assert again.headers["x-should-retry"] == "false"
    paid_once(rich)
    assert len(gateway.journal()) == 1
