"""A client that goes away: its stream ends upstream too, and it pays for what there was."""

import json
import threading
from collections.abc import Iterator

import pytest

from openai_app.settlement import charge
from openai_app.tests.harness import PATIENCE_S, Caller, House, chat_body, house, raw_request, wait_for
from openai_app.tests.raw_upstream import STREAM_HEAD, Connection, RawUpstream

HELLO_TOKENS = 9


def only_end(caller: Caller) -> tuple[str, str, dict[str, int]]:
    """State and reason of the caller's only hold, and the units charged on it."""
    caller.settled()
    (hold,) = caller.holds()
    charges = caller.charges()
    assert len(charges) == (hold["state"] == "posted")
    return hold["state"], hold["reason"], charges[0]["units"] if charges else {}


def test_a_client_that_leaves_a_stream_before_the_first_byte_pays_for_its_input(
    gateway: House, alice: Caller
) -> None:
    gateway.simulator.fault("delay=60")
    with alice.house.connected() as connection:
        connection.sendall(raw_request(alice, chat_body(stream=True)))
        gateway.wait_for_a_call()
    assert only_end(alice) == ("posted", charge.LEFT, {"input": HELLO_TOKENS, "output": 0})
    # The upstream was told to stop.
    (call,) = gateway.journal()
    assert call["state"] == "cut"


def test_a_client_that_leaves_in_the_middle_pays_for_input_and_output_so_far(
    gateway: House, alice: Caller
) -> None:
    gateway.simulator.fault("tokens=50 stall=60 stall_after=20")
    with alice.chat_stream() as response:
        came = b""
        while came.count(b'"content"') < 21:
            came += response.readline()
    assert only_end(alice) == ("posted", charge.LEFT, {"input": HELLO_TOKENS, "output": 20})
    assert alice.balance() == 100_000 - HELLO_TOKENS - 20
    (call,) = gateway.journal()
    assert (call["state"], call["tokens_sent"]) == ("cut", 20)


def test_a_client_that_leaves_a_call_in_one_piece_pays_exactly_what_it_used(
    gateway: House, alice: Caller
) -> None:
    gateway.simulator.fault("tokens=40 wait")
    with alice.house.connected() as connection:
        connection.sendall(raw_request(alice, chat_body()))
        gateway.wait_for_a_call()
    gateway.simulator.release()
    assert only_end(alice) == ("posted", charge.FINISHED, {"input": HELLO_TOKENS, "output": 40})
    (call,) = gateway.journal()
    assert call["state"] == "finished"


def test_a_client_that_leaves_a_call_that_fails_pays_nothing(gateway: House, alice: Caller) -> None:
    gateway.simulator.fault("status=500 wait")
    with alice.house.connected() as connection:
        connection.sendall(raw_request(alice, chat_body()))
        gateway.wait_for_a_call()
    gateway.simulator.release()
    assert only_end(alice) == ("voided", charge.REFUSED, {})


def test_a_client_that_leaves_in_its_own_request_pays_nothing(gateway: House, alice: Caller) -> None:
    body = chat_body()
    with alice.house.connected() as connection:
        connection.sendall(raw_request(alice, body)[: -len(body) // 2])
    assert alice.chat().status == 200
    assert len(gateway.journal()) == 1
    assert len(alice.holds()) == 1


def test_many_that_leave_do_not_keep_anything(gateway: House, alice: Caller) -> None:
    gateway.simulator.fault("tokens=50 stall=60 stall_after=5", times=None)
    for _ in range(20):
        with alice.chat_stream(max_tokens=60) as response:
            assert response.readline().startswith(b"data: ")
    alice.settled()
    assert {call["state"] for call in gateway.journal()} == {"cut"}
    assert {hold["reason"] for hold in alice.holds()} == {charge.LEFT}
    gateway.audit()


BEHIND = b"GET /healthz HTTP/1.1\r\nHost: gateway\r\n\r\n"


def test_a_client_that_leaves_with_another_request_sent_is_noticed_and_pays_as_any(
    gateway: House, alice: Caller
) -> None:
    gateway.simulator.fault("tokens=50 stall=60 stall_after=20")
    with alice.house.connected() as connection:
        connection.sendall(raw_request(alice, chat_body(stream=True)) + BEHIND)
        came = b""
        while came.count(b'"content"') < 21:
            came += connection.recv(65_536)
        connection.sendall(BEHIND)
    assert only_end(alice) == ("posted", charge.LEFT, {"input": HELLO_TOKENS, "output": 20})


def test_a_request_behind_another_is_not_answered_and_the_connection_ends(alice: Caller) -> None:
    with alice.house.connected() as connection:
        connection.sendall(raw_request(alice, chat_body()) + BEHIND + b"no HTTP at all")
        came = b""
        while piece := connection.recv(65_536):
            came += piece
    assert came.count(b"HTTP/1.1 ") == 1
    head, _, body = came.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert json.loads(body)["object"] == "chat.completion"


def test_speech_of_which_a_part_was_read_is_paid_for_though_another_request_was_sent(alice: Caller) -> None:
    body = json.dumps({"model": "tts-1", "voice": "alloy", "input": "Hello [[simulate:big=20]]"}).encode()
    with alice.house.connected() as connection:
        connection.sendall(raw_request(alice, body, "/v1/audio/speech") + BEHIND)
        came = 0
        while came < 8_000_000:
            came += len(connection.recv(65_536))
    state, reason, units = only_end(alice)
    assert (state, reason) == ("posted", charge.LEFT)
    assert sum(units.values()) > 0


# --- with an upstream that the test leads by the hand -----------------------------------------------------


@pytest.fixture(scope="module")
def upstream() -> Iterator[RawUpstream]:
    opened = RawUpstream()
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def led_house(tmp_path_factory: pytest.TempPathFactory, upstream: RawUpstream) -> Iterator[House]:
    with house(tmp_path_factory.mktemp("led"), workers=1, upstream=upstream.base_url) as opened:
        yield opened


def test_a_client_that_leaves_after_the_usage_pays_exactly_that(
    led_house: House, upstream: RawUpstream
) -> None:
    alice = led_house.caller()
    word = {"choices": [{"index": 0, "delta": {"content": "Hello"}}]}
    usage = {"choices": [], "usage": {"prompt_tokens": 700, "completion_tokens": 77}}

    def serve(connection: Connection) -> None:
        connection.send(STREAM_HEAD)
        for event in (usage, word):
            connection.send_chunk(b"data: " + json.dumps(event).encode() + b"\n\n")
        connection.wait_until_closed()

    with upstream.serving(serve), alice.chat_stream() as response:
        # What comes after the usage is here: so it was read.
        assert json.loads(response.readline().removeprefix(b"data: ")) == word
    assert only_end(alice) == ("posted", charge.CUT_REPORTED, {"input": 700, "output": 77})


def test_the_upstream_is_left_as_soon_as_the_client_has_left(led_house: House, upstream: RawUpstream) -> None:
    alice = led_house.caller()
    has_arrived, has_left = threading.Event(), threading.Event()

    def serve(connection: Connection) -> None:
        has_arrived.set()
        # It has sent nothing, and never would.
        connection.wait_until_closed()
        has_left.set()

    with upstream.serving(serve):
        with led_house.connected() as connection:
            connection.sendall(raw_request(alice, chat_body(stream=True)))
            assert has_arrived.wait(PATIENCE_S)
        assert has_left.wait(PATIENCE_S)
    assert only_end(alice) == ("posted", charge.LEFT, {"input": HELLO_TOKENS, "output": 0})


def test_a_client_that_leaves_while_openai_refuses_pays_nothing(
    led_house: House, upstream: RawUpstream
) -> None:
    alice = led_house.caller()
    has_refused = threading.Event()

    def serve(connection: Connection) -> None:
        connection.send(
            b"HTTP/1.1 429 Slow Down\r\ncontent-type: application/json\r\ncontent-length: 999\r\n\r\n{"
        )
        has_refused.set()
        connection.wait_until_closed()

    with upstream.serving(serve), led_house.connected() as connection:
        connection.sendall(raw_request(alice, chat_body(stream=True)))
        assert has_refused.wait(PATIENCE_S)
        wait_for(lambda: alice.holds(state="voided"))
        connection.close()
    assert only_end(alice) == ("voided", charge.REFUSED, {})


def test_a_client_that_reads_nothing_is_waited_for_and_its_leaving_is_noticed(
    led_house: House, upstream: RawUpstream
) -> None:
    """The gateway must not gather an endless stream in its memory for a client that does not read."""
    alice = led_house.caller()
    event = {"choices": [{"index": 0, "delta": {"content": "word " * 2_000}}]}
    data = b"data: " + json.dumps(event).encode() + b"\n\n"
    sent = 0
    is_stuck = threading.Event()

    def serve(connection: Connection) -> None:
        nonlocal sent
        connection.send(STREAM_HEAD)
        connection.socket.settimeout(2)
        try:
            while sent < 200_000_000:
                connection.send_chunk(data)
                sent += len(data)
        except TimeoutError:
            is_stuck.set()
            connection.socket.settimeout(PATIENCE_S)
            connection.wait_until_closed()
        except OSError:
            pass

    with upstream.serving(serve), led_house.connected() as connection:
        connection.sendall(raw_request(alice, chat_body(stream=True)))
        assert is_stuck.wait(PATIENCE_S)
        connection.close()
    assert sent < 100_000_000
    state, reason, units = only_end(alice)
    assert (state, reason) == ("posted", charge.LEFT)
    assert units["output"] > 0
