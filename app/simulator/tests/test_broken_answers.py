"""Answers that break as directed, seen from the wire, and what the journal says of them."""

from __future__ import annotations

import json
import socket
from typing import Any
from urllib.parse import urlsplit

import httpx2
import pytest
from openai import APIError, OpenAI

from simulator.testing import SimulatorProcess


def body(directives: str, *, stream: bool) -> dict[str, Any]:
    document: dict[str, Any] = {
        "model": "gpt-4o",
        "messages": [{"role": "user", "content": f"Go [[simulate: {directives}]]"}],
        "stream": stream,
    }
    if stream:
        document["stream_options"] = {"include_usage": True}
    return document


def raw(simulator: SimulatorProcess, directives: str, *, stream: bool) -> tuple[bytes, bool]:
    """What comes over the wire until the connection ends, and whether it ended by a reset."""
    address = urlsplit(simulator.base_url)
    content = json.dumps(body(directives, stream=stream)).encode()
    head = (
        "POST /v1/chat/completions HTTP/1.1\r\nHost: simulator\r\nAuthorization: Bearer sk-alice-0001\r\n"
        f"Content-Length: {len(content)}\r\nConnection: close\r\n\r\n"
    )
    received = b""
    with socket.create_connection((address.hostname or "", address.port or 0), timeout=60) as connection:
        connection.sendall(head.encode() + content)
        try:
            while part := connection.recv(65536):
                received += part
        except ConnectionResetError:
            return received, True
    return received, False


def only_call(simulator: SimulatorProcess) -> dict[str, Any]:
    calls = simulator.journal()
    assert len(calls) == 1
    return calls[0]


def test_a_reset_before_the_head_brings_nothing(simulator: SimulatorProcess) -> None:
    assert raw(simulator, "reset", stream=False) == (b"", True)
    call = only_call(simulator)
    assert (call["state"], call["status"], call["usage"]) == ("broken", 0, None)


@pytest.mark.parametrize("directive", ["reset_after", "close_after", "truncate_after"])
def test_a_stream_breaks_after_so_many_tokens(simulator: SimulatorProcess, directive: str) -> None:
    received, was_reset = raw(simulator, f"tokens=50 {directive}=20", stream=True)
    assert received.count(b'"content":"') == 1 + 20 + received.endswith(b'"content":"')
    assert b"[DONE]" not in received
    assert not received.endswith(b"0\r\n\r\n")
    assert was_reset == (directive == "reset_after")
    call = only_call(simulator)
    assert call["state"] == "broken"
    assert call["tokens_sent"] == 20
    assert call["usage"]["completion_tokens"] == 50
    assert call["usage_reported"] is False


@pytest.mark.parametrize("directive", ["reset_after", "close_after", "truncate_after"])
def test_a_json_answer_breaks_halfway(simulator: SimulatorProcess, directive: str) -> None:
    received, was_reset = raw(simulator, f"{directive}=0", stream=False)
    head, _, rest = received.partition(b"\r\n\r\n")
    announced = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
    assert len(rest) == announced // 2
    assert was_reset == (directive == "reset_after")
    assert only_call(simulator)["tokens_sent"] == 0


def test_an_error_event_ends_a_stream(client: OpenAI, simulator: SimulatorProcess) -> None:
    stream = client.chat.completions.create(
        model="gpt-4o",
        messages=[{"role": "user", "content": "[[simulate: tokens=9 error_after=4]]"}],
        stream=True,
    )
    with pytest.raises(APIError, match="The server had an error"):
        list(stream)
    call = only_call(simulator)
    assert (call["state"], call["tokens_sent"]) == ("broken", 4)


def test_a_malformed_answer_is_no_json(simulator: SimulatorProcess) -> None:
    received, _ = raw(simulator, "malformed", stream=False)
    with pytest.raises(json.JSONDecodeError):
        json.loads(received.partition(b"\r\n\r\n")[2])
    assert only_call(simulator)["state"] == "broken"


def test_a_malformed_event_stands_in_an_otherwise_whole_stream(simulator: SimulatorProcess) -> None:
    received, _ = raw(simulator, "malformed tokens=5", stream=True)
    events = [line[6:] for line in received.split(b"\n") if line.startswith(b"data: {")]
    bad = 0
    for event in events:
        try:
            json.loads(event)
        except json.JSONDecodeError:
            bad += 1
    assert bad == 1
    assert b"[DONE]" in received


@pytest.mark.parametrize(("directives", "status"), [("html", b"502"), ("html status=200", b"200")])
def test_html_comes_with_the_status_asked_for(
    simulator: SimulatorProcess, directives: str, status: bytes
) -> None:
    received, _ = raw(simulator, directives, stream=False)
    assert received.startswith(b"HTTP/1.1 " + status)
    assert b"content-type: text/html" in received


def test_usage_can_be_missing_while_the_journal_knows_it(simulator: SimulatorProcess) -> None:
    for stream in (False, True):
        simulator.clear()
        received, _ = raw(simulator, "no_usage tokens=6", stream=stream)
        assert b'"total_tokens"' not in received
        call = only_call(simulator)
        assert (call["state"], call["usage"]["completion_tokens"]) == ("finished", 6)
        assert call["usage_reported"] is False


def test_usage_can_come_with_the_last_choice(simulator: SimulatorProcess) -> None:
    received, _ = raw(simulator, "usage_with_choices tokens=6", stream=True)
    events = [json.loads(line[6:]) for line in received.split(b"\n") if line.startswith(b"data: {")]
    assert events[-1]["choices"][0]["finish_reason"] == "stop"
    assert events[-1]["usage"]["completion_tokens"] == 6


def test_a_stream_can_end_without_done(simulator: SimulatorProcess) -> None:
    received, _ = raw(simulator, "no_done tokens=3", stream=True)
    assert b"[DONE]" not in received
    assert received.endswith(b"0\r\n\r\n")


@pytest.mark.parametrize("stream", [False, True])
def test_delays_and_stalls_change_nothing_but_time(simulator: SimulatorProcess, stream: bool) -> None:
    directives = "tokens=4 delay=0.01 chunk_delay=0.001 stall=0.01 stall_after=2"
    received, _ = raw(simulator, directives, stream=stream)
    assert b"four" in received
    call = only_call(simulator)
    assert (call["state"], call["tokens_sent"]) == ("finished", 4)


def test_a_big_answer_is_as_big_as_asked_for(simulator: SimulatorProcess) -> None:
    received, _ = raw(simulator, "big=2", stream=False)
    assert 1_990_000 < len(received) < 2_010_000


def test_a_client_that_leaves_a_stream_is_seen_to_leave(simulator: SimulatorProcess) -> None:
    document = body("tokens=100000 chunk_delay=0.001", stream=True)
    with (
        httpx2.Client(headers={"Authorization": "Bearer sk-alice-0001"}, timeout=60) as client,
        client.stream("POST", f"{simulator.base_url}/chat/completions", json=document) as answer,
    ):
        next(answer.iter_bytes())
    call = only_call(simulator)
    assert call["state"] == "cut"
    assert 0 <= call["tokens_sent"] < 100_000
    assert call["usage"]["completion_tokens"] == 100_000


def test_a_client_that_leaves_before_the_head_is_seen_to_leave(simulator: SimulatorProcess) -> None:
    with pytest.raises(httpx2.ReadTimeout):
        httpx2.post(
            f"{simulator.base_url}/chat/completions",
            headers={"Authorization": "Bearer sk-alice-0001"},
            json=body("delay=600", stream=False),
            timeout=httpx2.Timeout(60, read=2),
        )
    call = only_call(simulator)
    assert (call["state"], call["status"], call["usage"]) == ("cut", 0, None)
