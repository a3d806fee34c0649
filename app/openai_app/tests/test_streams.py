"""Streams pass event by event, as the bytes they came in; the usage that nobody asked for is taken out."""

import json
import threading
from collections.abc import Iterator
from http.client import HTTPResponse

import pytest

from openai_app.settlement import charge
from openai_app.tests.harness import Caller, House, chat_body, events_of, house, text_of
from openai_app.tests.raw_upstream import LAST_CHUNK, STREAM_HEAD, Connection, RawUpstream

SSE = {"content-type": "text/event-stream; charset=utf-8"}
USAGE = '"usage":{"prompt_tokens":9,"completion_tokens":2,"total_tokens":11}'
ROLE = 'data: {"choices":[{"index":0,"delta":{"role":"assistant","content":""}}]}'
WORD = 'data: {"choices":[{"index":0,"delta":{"content":"Grüß dich"}}]}'
STOP = 'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}'
ONLY_USAGE = f'data: {{"choices":[],{USAGE}}}'
DONE = "data: [DONE]"


def joined(*events: str, end: str = "\n\n") -> str:
    return "".join(event + end for event in events)


def record(gateway: House, body: str, **options: object) -> None:
    """The next stream of "Hello!" is this one."""
    request = json.loads(chat_body(stream=True))
    gateway.simulator.record({"request": request, "body": body, "headers": SSE, **options})


# --- what is asked for ------------------------------------------------------------------------------------


def test_usage_is_taken_out_when_it_was_not_asked_for(alice: Caller) -> None:
    answer = alice.chat("tokens=5", stream=True)
    events = events_of(answer.body)
    assert events[-1] == "[DONE]"
    assert all(len(event["choices"]) == 1 for event in events[:-1])
    (call,) = alice.house.journal()
    assert alice.balance() == 100_000 - call["usage"]["total_tokens"]


def test_usage_stays_when_it_was_asked_for(alice: Caller) -> None:
    answer = alice.chat("tokens=5", stream=True, stream_options={"include_usage": True})
    *_, last, done = events_of(answer.body)
    assert done == "[DONE]"
    assert last["choices"] == []
    (call,) = alice.house.journal()
    assert last["usage"] == call["usage"]
    assert alice.balance() == 100_000 - call["usage"]["total_tokens"]


@pytest.mark.parametrize("asked", [True, False])
def test_usage_in_a_chunk_with_choices_is_charged_and_the_chunk_is_passed(alice: Caller, asked: bool) -> None:
    options = {"stream_options": {"include_usage": True}} if asked else {}
    answer = alice.chat("tokens=5 usage_with_choices", stream=True, **options)
    last = events_of(answer.body)[-2]
    assert last["choices"][0]["finish_reason"] == "stop"
    (call,) = alice.house.journal()
    assert alice.balance() == 100_000 - call["usage"]["total_tokens"]


def test_the_last_usage_counts_when_several_chunks_have_one(gateway: House, alice: Caller) -> None:
    early = USAGE.replace("2", "1").replace("11", "10")
    body = joined(ROLE, WORD[:-1] + f",{early}}}", STOP[:-1] + f",{USAGE}}}", DONE)
    record(gateway, body)
    assert alice.chat(stream=True).body == body.encode()
    assert alice.balance() == 100_000 - 11


def test_without_any_usage_the_whole_hold_is_charged_and_counted(gateway: House, alice: Caller) -> None:
    before = gateway.metric("tollgate_usage_missing_total", operation="createChatCompletion")
    stream = alice.chat("tokens=5 no_usage", stream=True, max_tokens=40)
    piece = alice.chat("tokens=5 no_usage", max_tokens=40)
    assert gateway.metric("tollgate_usage_missing_total", operation="createChatCompletion") == before + 2
    for answer in (stream, piece):
        hold = alice.hold_of(answer)
        (entry,) = [each for each in alice.charges() if each["hold_id"] == hold["id"]]
        assert -entry["amount"] == hold["amount"] > 40
        assert hold["reason"] == entry["reason"] == charge.NO_USAGE


def test_tool_calls_and_several_choices_pass(alice: Caller) -> None:
    tool = {"type": "function", "function": {"name": "look_up", "parameters": {"type": "object"}}}
    answer = alice.chat("tools=2", stream=True, tools=[tool], n=2)
    names = [
        call["function"]["name"]
        for event in events_of(answer.body)[:-1]
        for call in event["choices"][0]["delta"].get("tool_calls", [])
        if call["function"].get("name")
    ]
    assert names == ["look_up"] * 4
    (call,) = alice.house.journal()
    assert alice.balance() == 100_000 - call["usage"]["total_tokens"]


# --- byte for byte ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("split", [1, 2, 3, 7, 64, 100_000])
@pytest.mark.parametrize("end", ["\n\n", "\r\n\r\n", "\r\r"])
def test_a_stream_arrives_byte_for_byte_however_it_is_cut_into_pieces(
    gateway: House, alice: Caller, end: str, split: int
) -> None:
    kept = joined(": a comment", ROLE, f"event: message{end[: len(end) // 2]}{WORD}", STOP, end=end)
    record(gateway, kept + joined(ONLY_USAGE, DONE, end=end), split=split)
    assert alice.chat(stream=True).body == (kept + joined(DONE, end=end)).encode()
    assert alice.balance() == 100_000 - 11


def test_text_that_speaks_of_usage_errors_and_done_is_only_text(gateway: House, alice: Caller) -> None:
    words = '"usage":{"prompt_tokens":1}, "error":{"x":1}, data: [DONE]'
    event = "data: " + json.dumps({"choices": [{"index": 0, "delta": {"content": words}}]})
    body = joined(ROLE, event, STOP)
    record(gateway, body + joined(ONLY_USAGE, DONE))
    assert alice.chat(stream=True).body == (body + joined(DONE)).encode()
    assert alice.balance() == 100_000 - 11


def test_an_event_of_several_data_lines_is_read_as_one(gateway: House, alice: Caller) -> None:
    usage = 'data: {"choices":[],\ndata: ' + USAGE + "}"
    record(gateway, joined(ROLE, WORD, STOP, usage, DONE))
    assert alice.chat(stream=True).body == joined(ROLE, WORD, STOP, DONE).encode()
    assert alice.balance() == 100_000 - 11


def test_a_last_event_without_an_end_is_passed_all_the_same(gateway: House, alice: Caller) -> None:
    body = joined(ROLE, WORD, ONLY_USAGE) + DONE
    record(gateway, body)
    assert alice.chat(stream=True).body == (joined(ROLE, WORD) + DONE).encode()
    assert alice.balance() == 100_000 - 11


def test_a_usage_whose_event_has_no_end_is_charged_all_the_same(gateway: House, alice: Caller) -> None:
    record(gateway, joined(ROLE, WORD, STOP) + ONLY_USAGE)
    assert text_of(alice.chat(stream=True).body) == "Grüß dich"
    assert alice.balance() == 100_000 - 11


def test_a_very_long_event_is_passed_whole(gateway: House, alice: Caller) -> None:
    long = "data: " + json.dumps({"choices": [{"index": 0, "delta": {"content": "word " * 1_500_000}}]})
    record(gateway, joined(ROLE, long, STOP, ONLY_USAGE, DONE), split=1_000_000)
    assert alice.chat(stream=True).body == joined(ROLE, long, STOP, DONE).encode()
    assert alice.balance() == 100_000 - 11


def test_an_answer_in_one_piece_to_a_call_for_a_stream_passes(gateway: House, alice: Caller) -> None:
    body = f'{{"choices":[],{USAGE}}}'
    request = json.loads(chat_body(stream=True))
    gateway.simulator.record(
        {"request": request, "body": body, "headers": {"content-type": "application/json"}}
    )
    answer = alice.chat(stream=True)
    assert (answer.body, answer.headers["content-type"]) == (body.encode(), "application/json")
    assert alice.balance() == 100_000 - 11


# --- as it comes ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def upstream() -> Iterator[RawUpstream]:
    opened = RawUpstream()
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def slow_house(tmp_path_factory: pytest.TempPathFactory, upstream: RawUpstream) -> Iterator[House]:
    """A gateway whose upstream sends what a test lets it send."""
    with house(tmp_path_factory.mktemp("slow"), workers=1, upstream=upstream.base_url) as opened:
        yield opened


def next_event(response: HTTPResponse) -> bytes:
    lines = []
    while (line := response.readline()) not in (b"\n", b""):
        lines.append(line)
    return b"".join(lines)


def test_each_event_arrives_before_the_next_one_is_sent(slow_house: House, upstream: RawUpstream) -> None:
    alice = slow_house.caller()
    may_go_on = threading.Semaphore(0)

    def serve(connection: Connection) -> None:
        connection.send(STREAM_HEAD)
        for event in (ROLE, WORD, STOP, ONLY_USAGE, DONE):
            assert may_go_on.acquire(timeout=60)
            connection.send_chunk(joined(event).encode())
        connection.send(LAST_CHUNK)

    with upstream.serving(serve), alice.chat_stream() as response:
        # The head came while the upstream had sent nothing else.
        assert response.status == 200
        for expected in (ROLE, WORD, STOP):
            may_go_on.release()
            assert next_event(response).decode() == expected + "\n"
        may_go_on.release(2)
        assert response.read().decode() == joined(DONE)
    assert alice.balance() == 100_000 - 11


def test_the_charge_is_in_when_the_last_event_arrives(slow_house: House, upstream: RawUpstream) -> None:
    alice = slow_house.caller()
    may_end = threading.Event()

    def serve(connection: Connection) -> None:
        connection.send(STREAM_HEAD)
        connection.send_chunk(joined(ROLE, ONLY_USAGE, DONE).encode())
        assert may_end.wait(60)
        connection.send(LAST_CHUNK)

    with upstream.serving(serve), alice.chat_stream() as response:
        assert next_event(response).decode() == ROLE + "\n"
        assert next_event(response).decode() == DONE + "\n"
        assert alice.account() == {"user": alice.id, "balance": 99_989, "held": 0, "available": 99_989}
        may_end.set()
        assert response.read() == b""


def test_half_an_event_waits_for_its_other_half(slow_house: House, upstream: RawUpstream) -> None:
    alice = slow_house.caller()
    first_is_read = threading.Event()
    body = joined(ROLE, WORD, STOP).encode()
    # In the middle of a character.
    cut = body.index("ü".encode()) + 1

    def serve(connection: Connection) -> None:
        connection.send(STREAM_HEAD)
        connection.send_chunk(body[:cut])
        assert first_is_read.wait(60)
        connection.send_chunk(body[cut:] + joined(ONLY_USAGE, DONE).encode())
        connection.send(LAST_CHUNK)

    with upstream.serving(serve), alice.chat_stream() as response:
        assert next_event(response).decode() == ROLE + "\n"
        first_is_read.set()
        assert response.read().decode() == joined(WORD, STOP, DONE)
    assert alice.balance() == 100_000 - 11


def test_other_calls_go_on_while_a_stream_is_silent(gateway: House, alice: Caller, bob: Caller) -> None:
    with alice.chat_stream("tokens=10 stall=60 stall_after=5") as response:
        assert next_event(response).startswith(b"data: ")
        assert bob.chat().status == 200
        assert alice.chat().status == 200
    alice.settled()
