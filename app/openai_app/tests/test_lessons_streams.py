"""Streams and clients that go away, as other gateways charged them wrongly; see docs/lessons.md.

The eight scenarios of an issue thread there have a test each, `test_scenario_…`.
"""

import json
import os
import re
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.client import HTTPException
from pathlib import Path
from typing import Any

import openai
import pytest
from django.conf import settings

from balances import leases
from gateway.tests import console
from openai_app.settlement import charge
from openai_app.tests.harness import (
    HELLO,
    PATIENCE_S,
    Caller,
    House,
    chat_body,
    events_of,
    house,
    raw_request,
)
from openai_app.tests.raw_upstream import LAST_CHUNK, STREAM_HEAD, Connection, RawUpstream
from openai_app.tests.test_clients_that_leave import only_end

HELLO_TOKENS = 9
PLENTY = 100_000
JSON_OR_STREAM = pytest.mark.parametrize("stream", [False, True], ids=["json", "stream"])


# --- the eight scenarios --------------------------------------------------------------------------------


def test_scenario_1_cancelled_before_the_first_chunk(gateway: House, alice: Caller) -> None:
    """The head is there, no event yet: OpenAI has read the input, and that is paid for."""
    gateway.simulator.fault("tokens=20 stall=60 stall_after=0")
    with alice.chat_stream() as response:
        assert response.status == 200
    assert only_end(alice) == ("posted", charge.LEFT, {"input": HELLO_TOKENS, "output": 0})
    (call,) = gateway.journal()
    assert (call["state"], call["tokens_sent"]) == ("cut", 0)


class Unanswering:
    """A TLS server that takes connections and never shakes hands: what connects to it, connects for ever."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(PATIENCE_S)
        self.base_url = f"https://127.0.0.1:{self._listener.getsockname()[1]}/v1"
        self.connections = 0

    def accept(self) -> socket.socket:
        """The next connection, once the other end has said its first word."""
        accepted, _ = self._listener.accept()
        accepted.settimeout(PATIENCE_S)
        self.connections += 1
        assert accepted.recv(65_536)
        return accepted

    def close(self) -> None:
        self._listener.close()


@pytest.fixture(scope="module")
def unanswering() -> Iterator[Unanswering]:
    opened = Unanswering()
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def connecting(tmp_path_factory: pytest.TempPathFactory, unanswering: Unanswering) -> Iterator[House]:
    """A gateway that never gets further than to connect."""
    folder = tmp_path_factory.mktemp("connecting")
    with house(folder, workers=1, upstream=unanswering.base_url) as opened:
        yield opened


def test_scenario_2_cancelled_during_connect(connecting: House, unanswering: Unanswering) -> None:
    """Nothing had been sent to OpenAI: nothing is paid, and nobody goes on connecting."""
    alice = connecting.caller()
    with connecting.connected() as client:
        client.sendall(raw_request(alice, chat_body(stream=True)))
        upstream = unanswering.accept()
    # The gateway hangs up, without another word.
    with upstream:
        assert upstream.recv(1) == b""
    assert only_end(alice) == ("voided", charge.UNSENT, {})
    assert alice.account()["available"] == PLENTY


def test_scenario_3_cancelled_during_a_call_in_one_piece(gateway: House, alice: Caller) -> None:
    """OpenAI finishes it and charges for it all: so is the user, exactly."""
    gateway.simulator.fault("tokens=40 stall=0.5")
    with alice.house.connected() as connection:
        connection.sendall(raw_request(alice, chat_body()))
        gateway.wait_for_a_call()
    assert only_end(alice) == ("posted", charge.FINISHED, {"input": HELLO_TOKENS, "output": 40})
    (call,) = gateway.journal()
    assert call["state"] == "finished"


@JSON_OR_STREAM
def test_scenario_4_a_timeout_of_the_client(led_house: House, upstream: RawUpstream, stream: bool) -> None:
    """The official client gives up. The gateway's own patience has its tests in `test_timeouts`."""
    alice = led_house.caller()
    has_given_up = threading.Event()

    def serve(connection: Connection) -> None:
        if stream:
            connection.send(chunked(STREAM_HEAD + WORD))
            connection.wait_until_closed()
        else:
            assert has_given_up.wait(PATIENCE_S)
            body = json.dumps({"usage": {"prompt_tokens": 700, "completion_tokens": 77}}).encode()
            head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
            connection.send(head % len(body) + body)

    with upstream.serving(serve):
        with alice.client(timeout=3) as client, pytest.raises(Exception, match="imed out"):
            words_of(client, stream=stream)
        has_given_up.set()
        state, reason, units = only_end(alice)
    if stream:
        assert (state, reason, units["input"]) == ("posted", charge.LEFT, HELLO_TOKENS)
        # On a machine that is slow enough it gives up before the word is there.
        assert units["output"] in (0, 1)
    else:
        assert (state, reason, units) == ("posted", charge.FINISHED, REPORTED)


def words_of(client: openai.OpenAI, *, stream: bool) -> None:
    """Reads an answer to its end. Raises what the client raises."""
    chat: Any = client.chat.completions
    answer = chat.create(model="gpt-4o-mini", messages=HELLO, stream=stream)
    assert [*answer]


def test_scenario_5_an_upstream_error_after_tokens_were_generated(gateway: House, alice: Caller) -> None:
    """What had come is paid for, and no more; an answer of status 500 brings nothing and costs nothing."""
    gateway.simulator.fault("tokens=40 error_after=15")
    events = events_of(alice.chat(stream=True).body)
    assert any("error" in event for event in events if isinstance(event, dict))
    (entry,) = alice.charges()
    assert (entry["units"], entry["reason"]) == ({"input": HELLO_TOKENS, "output": 15}, charge.BROKEN)
    gateway.simulator.fault("status=500 tokens=40")
    assert alice.chat().status == 500
    assert alice.settled()["balance"] == PLENTY - HELLO_TOKENS - 15


def test_scenario_6_a_retry_in_the_middle(gateway: House, alice: Caller) -> None:
    """The try that failed is released, the one that was answered is charged, each once."""
    gateway.simulator.fault("tokens=40 reset_after=15")
    gateway.simulator.fault("status=500")
    with alice.client(max_retries=2) as client:
        answer = client.chat.completions.create(model="gpt-4o-mini", messages=HELLO)  # type: ignore[arg-type]
    assert answer.usage
    assert [hold["state"] for hold in alice.holds()] == ["voided", "voided", "posted"]
    assert alice.settled()["balance"] == PLENTY - answer.usage.total_tokens
    assert len(gateway.journal()) == 3


def test_scenario_7_a_fallback_to_another_model(gateway: House, alice: Caller) -> None:
    """The model that failed is released at its size, the other one charged under its own name."""
    gateway.simulator.fault("status=503", model="gpt-4.1")
    assert alice.chat(model="gpt-4.1").status == 503
    answer = alice.chat(model="gpt-4o-mini")
    assert [hold["state"] for hold in alice.holds()] == ["voided", "posted"]
    (entry,) = alice.charges()
    assert (entry["model"], entry["hold_id"]) == ("gpt-4o-mini", answer.request_id)
    assert alice.account()["available"] == PLENTY - answer.json["usage"]["total_tokens"]


@pytest.mark.parametrize("death", [signal.SIGABRT, signal.SIGKILL], ids=["abort", "kill"])
def test_scenario_8_a_worker_that_panics(tmp_path: Path, death: signal.Signals) -> None:
    """Its holds are closed by others with what had been counted, and serving goes on by itself."""
    with house(tmp_path, workers=1) as mortal:
        alice = mortal.caller()
        mortal.simulator.fault("tokens=50 stall=600 stall_after=20")
        with alice.chat_stream() as response:
            came = b""
            while came.count(b'"content"') < 21:
                came += response.readline()
            (worker,) = mortal.gateway.workers
            os.kill(worker, death)
            with suppress(OSError, HTTPException):
                # What becomes of the connection is the system's affair.
                response.read()
        mortal.console.run(console.end_leases)
        alice.settled()
        (hold,) = alice.holds()
        ends = {("posted", leases.DIED), ("voided", leases.DIED_UNCOUNTED)}
        assert (hold["state"], hold["reason"]) in ends
        charged = sum(sum(entry["units"].values()) for entry in alice.charges())
        assert charged in (0, HELLO_TOKENS, HELLO_TOKENS + 20)
        assert alice.chat().status == 200
        assert "wrong" not in mortal.audit()


# --- retries end with the client ------------------------------------------------------------------------


def test_the_clients_leaving_ends_the_gateways_own_retries(
    connecting: House, unanswering: Unanswering
) -> None:
    """A connection that failed is tried again, but for nobody who has left."""
    alice, bob = connecting.caller(), connecting.caller()
    # While its client is there, a connection that fails is made anew.
    with connecting.connected() as client:
        client.sendall(raw_request(bob, chat_body(stream=True)))
        unanswering.accept().close()
        unanswering.accept().close()
        assert client.recv(65_536).startswith(b"HTTP/1.1 502 ")
    before = unanswering.connections
    with connecting.connected() as client:
        client.sendall(raw_request(alice, chat_body(stream=True)))
        upstream = unanswering.accept()
    with upstream:
        assert upstream.recv(1) == b""
    alice.settled()
    # The next to connect is the next caller.
    with connecting.connected() as client:
        client.sendall(raw_request(bob, chat_body(stream=True)))
        unanswering.accept().close()
        unanswering.accept().close()
        assert client.recv(65_536).startswith(b"HTTP/1.1 502 ")
    assert unanswering.connections == before + 3
    assert [hold["state"] for hold in alice.holds()] == ["voided"]


def test_an_answered_failure_is_not_tried_again_behind_the_clients_back(
    gateway: House, alice: Caller
) -> None:
    """Whether to try again is the client's decision, which it can take back."""
    for does in ("status=500", "status=429 retry_after=1", "status=503", "html", "reset"):
        gateway.simulator.fault(does)
        assert alice.chat().status >= 429
    assert len(gateway.journal()) == 5
    assert alice.charges() == []


# --- a client that leaves, in every phase ---------------------------------------------------------------


@pytest.fixture(scope="module")
def upstream() -> Iterator[RawUpstream]:
    opened = RawUpstream()
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def led_house(tmp_path_factory: pytest.TempPathFactory, upstream: RawUpstream) -> Iterator[House]:
    with house(tmp_path_factory.mktemp("led"), workers=1, upstream=upstream.base_url) as opened:
        yield opened


def event(**fields: Any) -> bytes:
    return b"data: " + json.dumps({"choices": [], **fields}).encode() + b"\n\n"


WORD = event(choices=[{"index": 0, "delta": {"content": "Hello"}}])
USAGE = event(usage={"prompt_tokens": 700, "completion_tokens": 77})
REPORTED = {"input": 700, "output": 77}
# What the upstream sends before the client leaves; how the hold ends; what is charged.
PHASES: dict[str, tuple[bytes, str, dict[str, int]]] = {
    "before the head": (b"", charge.LEFT, {"input": HELLO_TOKENS, "output": 0}),
    "within the head": (STREAM_HEAD[:40], charge.LEFT, {"input": HELLO_TOKENS, "output": 0}),
    "before the first event": (STREAM_HEAD, charge.LEFT, {"input": HELLO_TOKENS, "output": 0}),
    "after a word": (STREAM_HEAD + WORD, charge.LEFT, {"input": HELLO_TOKENS, "output": 1}),
    "within an event": (STREAM_HEAD + WORD + WORD[:-9], charge.LEFT, {"input": HELLO_TOKENS, "output": 1}),
    "after the usage": (STREAM_HEAD + WORD + USAGE + WORD, charge.CUT_REPORTED, REPORTED),
    "after the last event": (STREAM_HEAD + WORD + USAGE + b"data: [DONE]\n\n", charge.FINISHED, REPORTED),
}


def chunked(data: bytes) -> bytes:
    """An answer whose body is in one chunk, so far as it goes."""
    head, body = data[: len(STREAM_HEAD)], data[len(STREAM_HEAD) :]
    return head + (b"%x\r\n%s\r\n" % (len(body), body) if body else b"")


@pytest.mark.parametrize("phase", PHASES)
def test_a_client_that_disconnects_pays_by_the_written_rule_in_every_phase(
    led_house: House, upstream: RawUpstream, phase: str
) -> None:
    """Neither nothing, nor all of it, nor the prompt alone: and the entry says by which rule."""
    sent, reason, units = PHASES[phase]
    alice = led_house.caller()
    has_sent = threading.Event()

    def serve(connection: Connection) -> None:
        connection.send(chunked(sent))
        has_sent.set()
        connection.wait_until_closed()

    with upstream.serving(serve), led_house.connected() as client:
        client.sendall(raw_request(alice, chat_body(stream=True)))
        assert has_sent.wait(PATIENCE_S)
        came = b""
        # What passes is seen by the client before it leaves; half an event does not pass.
        while sent.count(WORD) > came.count(b'"Hello"') or (b"[DONE]" in sent and b"[DONE]" not in came):
            came += client.recv(65_536)
    assert only_end(alice) == ("posted", reason, units)
    shown = alice.call("GET", "/api/balance/entries").json["results"][0]
    assert (shown["reason"], shown["amount"]) == (reason, -sum(units.values()))
    assert "wrong" not in led_house.audit()


@pytest.mark.parametrize(
    "share", [0.0, 0.3, 0.9], ids=["before a byte", "within the head", "within the body"]
)
def test_a_client_that_disconnects_within_its_own_request_pays_nothing(
    led_house: House, share: float
) -> None:
    alice = led_house.caller()
    request = raw_request(alice, chat_body(messages=[{"role": "user", "content": "Hello! " * 50}]))
    with led_house.connected() as client:
        client.sendall(request[: int(len(request) * share)])
    assert alice.account()["available"] == PLENTY
    assert alice.holds() == []


def test_the_written_rule_is_the_same_in_the_readme_and_in_the_code() -> None:
    """So that it does not change from version to version without a word."""
    readme = (settings.ROOT / "README.md").read_text(encoding="utf-8")
    table = readme.partition("| how the call ended |")[2].partition("\n\n")[0]
    told = {row.split("|")[1].strip() for row in table.splitlines()[2:]}
    lines = (charge.__doc__ or "").splitlines()
    coded = {re.split(r"\s{2,}", line)[0] for line in lines if re.search(r"\S\s{2,}\S", line)}
    coded -= {"how the call ended"}

    def plain(words: set[str]) -> set[str]:
        return {re.sub(r"\b(a|the) ", "", each) for each in words}

    assert plain(told) == plain(coded)


# --- usage wherever it comes ----------------------------------------------------------------------------


@contextmanager
def streaming(upstream: RawUpstream, *events: bytes) -> Iterator[list[bytes]]:
    """The upstream streams these events; the list gets the request."""
    requests: list[bytes] = []

    def serve(connection: Connection) -> None:
        requests.append(connection.request)
        connection.send(chunked(STREAM_HEAD + b"".join(events)) + LAST_CHUNK)

    with upstream.serving(serve):
        yield requests


@pytest.mark.parametrize("asked", [None, False, True], ids=["unasked", "refused", "asked"])
def test_usage_is_always_asked_for_and_its_extra_chunk_hidden_from_who_did_not(
    led_house: House, upstream: RawUpstream, asked: bool | None
) -> None:
    alice = led_house.caller()
    options = {} if asked is None else {"stream_options": {"include_usage": asked}}
    with streaming(upstream, WORD, USAGE, b"data: [DONE]\n\n") as requests:
        answer = alice.chat(stream=True, **options)
    body = json.loads(requests[0].partition(b"\r\n\r\n")[2])
    assert body["stream_options"]["include_usage"] is True
    assert (b'"usage"' in answer.body) is (asked is True)
    assert alice.balance() == PLENTY - 777


@pytest.mark.parametrize("asked", [False, True], ids=["unasked", "asked"])
def test_usage_in_a_last_chunk_that_also_has_choices_is_not_missed(
    led_house: House, upstream: RawUpstream, asked: bool
) -> None:
    """Missed, the whole hold would be charged: many times what was used."""
    alice = led_house.caller()
    last = event(
        choices=[{"index": 0, "delta": {"content": "!"}, "finish_reason": "stop"}],
        usage={"prompt_tokens": 9, "completion_tokens": 2},
    )
    options = {"stream_options": {"include_usage": True}} if asked else {}
    with streaming(upstream, WORD, last, b"data: [DONE]\n\n"):
        answer = alice.chat(stream=True, max_tokens=4_000, **options)
    assert answer.body == WORD + last + b"data: [DONE]\n\n"
    (entry,) = alice.charges()
    assert (entry["amount"], entry["reason"]) == (-11, charge.FINISHED)
