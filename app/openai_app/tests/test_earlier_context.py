"""What a response reads without its request holding it is on hold too, wherever it was said before."""

import json
from typing import Any

import pytest

from openai_app.tests.deferred_work import MODEL, get, post
from openai_app.tests.harness import Answer, Caller, House
from openai_app.tests.sockets.test_socket_clients import until

LONG_TOKENS = 3_000
LONG = "word " * LONG_TOKENS
MESSAGE = {"type": "message", "role": "user", "content": LONG}
# A request of a few words, its answer's bound and the framing.
LITTLE = 60


def respond(caller: Caller, **fields: Any) -> Answer:
    body = {"model": MODEL, "input": "Hi", "max_output_tokens": 16, **fields}
    return caller.call("POST", "/v1/responses", json.dumps(body).encode())


def held_for(caller: Caller, **fields: Any) -> int:
    """The hold of a short response that goes on from something."""
    answer = respond(caller, **fields)
    assert answer.status == 200, answer.body
    amount: int = caller.hold_of(answer)["amount"]
    return amount


def conversation_of(caller: Caller, *items: Any) -> str:
    return str(post(caller, "/conversations", items=list(items))["id"])


def test_what_a_conversation_begins_with_is_on_hold(gateway: House, alice: Caller) -> None:
    held = held_for(alice, conversation=conversation_of(alice, MESSAGE))
    assert LONG_TOKENS < held < LONG_TOKENS + LITTLE


def test_what_is_put_into_a_conversation_is_on_hold(gateway: House, alice: Caller) -> None:
    conversation = conversation_of(alice)
    for _ in range(2):
        post(alice, f"/conversations/{conversation}/items", items=[MESSAGE])
    held = held_for(alice, conversation={"id": conversation})
    assert 2 * LONG_TOKENS < held < 2 * LONG_TOKENS + LITTLE


def test_a_balance_must_cover_what_a_conversation_holds(gateway: House) -> None:
    bob = gateway.caller(LONG_TOKENS // 2, name="bob")
    conversation = conversation_of(bob, MESSAGE)
    assert respond(bob, conversation=conversation).status == 402
    assert [call["path"] for call in gateway.journal()] == ["/v1/conversations"]


def test_a_responses_usage_replaces_what_was_counted(gateway: House, alice: Caller) -> None:
    conversation = conversation_of(alice, MESSAGE)
    usage = respond(alice, conversation=conversation).json["usage"]["total_tokens"]
    assert usage < held_for(alice, conversation=conversation) < usage + LITTLE


@pytest.mark.parametrize("by", ["poller", "answer"])
def test_a_background_response_counts_once_it_has_ended(gateway: House, alice: Caller, by: str) -> None:
    conversation = conversation_of(alice)
    answer = respond(alice, input=LONG, background=True, conversation=conversation)
    gateway.simulator.finish(answer.json["id"])
    if by == "answer":
        get(alice, f"/responses/{answer.json['id']}")
    alice.settled()
    for earlier in {"previous_response_id": answer.json["id"]}, {"conversation": conversation}:
        assert LONG_TOKENS < held_for(alice, **earlier) < LONG_TOKENS + 2 * LITTLE


def test_a_response_that_failed_takes_nothing_out_of_its_conversation(gateway: House, alice: Caller) -> None:
    conversation = conversation_of(alice, MESSAGE)
    failed = respond(alice, background=True, conversation=conversation).json["id"]
    gateway.simulator.finish(failed, status="failed", share=0.0)
    alice.settled()
    assert held_for(alice, conversation=conversation) > LONG_TOKENS


def test_an_older_response_that_is_read_again_takes_nothing_out_of_its_conversation(
    gateway: House, alice: Caller
) -> None:
    conversation = conversation_of(alice)
    older = respond(alice, conversation=conversation).json["id"]
    respond(alice, input=LONG, conversation=conversation)
    get(alice, f"/responses/{older}")
    assert held_for(alice, conversation=conversation) > LONG_TOKENS


def test_a_streamed_response_counts_for_what_follows(gateway: House, alice: Caller) -> None:
    with alice.client() as client:
        *_, last = client.responses.create(model=MODEL, input=LONG, max_output_tokens=16, stream=True)
    assert last.type in ("response.completed", "response.incomplete")
    assert held_for(alice, previous_response_id=last.response.id) > LONG_TOKENS


def test_a_response_over_a_socket_counts_for_what_follows_elsewhere(gateway: House, alice: Caller) -> None:
    conversation = conversation_of(alice)
    with alice.client() as client, client.responses.connect() as connection:
        connection.response.create(model=MODEL, input=LONG, conversation=conversation)
        made = until(connection, "response.completed")[-1].response.id
    for earlier in {"previous_response_id": made}, {"conversation": conversation}:
        assert held_for(alice, **earlier) > LONG_TOKENS


@pytest.mark.parametrize("kind", ["previous_response_id", "conversation"])
def test_a_response_over_a_socket_is_held_for_with_what_was_said_elsewhere(
    gateway: House, alice: Caller, kind: str
) -> None:
    is_conversation = kind == "conversation"
    named = conversation_of(alice, MESSAGE) if is_conversation else respond(alice, input=LONG).json["id"]
    earlier: dict[str, Any] = {kind: named}
    before = {hold["id"] for hold in alice.holds()}
    with alice.client() as client, client.responses.connect() as connection:
        connection.response.create(model=MODEL, input="Hi", max_output_tokens=16, **earlier)
        while next(iter(connection)).type not in ("response.completed", "response.incomplete"):
            pass
    (hold,) = [hold for hold in alice.holds() if hold["id"] not in before]
    assert LONG_TOKENS < hold["amount"] < LONG_TOKENS + 2 * LITTLE
