"""The control endpoints: journal, faults, recordings; and the process itself."""

from __future__ import annotations

import base64
import hashlib
import json
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

import httpx2
import openai
import pytest
from openai import OpenAI

from simulator.testing import APP_FOLDER, SimulatorProcess

HEADERS = {"Authorization": "Bearer sk-alice-0001"}


def chat(text: str, **more: Any) -> dict[str, Any]:
    return {"model": "gpt-4o", "messages": [{"role": "user", "content": text}], **more}


def post(simulator: SimulatorProcess, document: dict[str, Any]) -> httpx2.Response:
    return httpx2.post(f"{simulator.base_url}/chat/completions", headers=HEADERS, json=document, timeout=60)


def test_the_journal_tells_the_truth_of_a_call_and_hides_its_key(simulator: SimulatorProcess) -> None:
    answer = post(simulator, chat("Hello!"))
    [call] = simulator.journal()
    assert call["usage"] == answer.json()["usage"]
    assert call["usage_reported"] is True
    assert call["tokens_sent"] == call["usage"]["completion_tokens"]
    assert call["request_id"] == answer.headers["x-request-id"]
    assert call["object_id"] == answer.json()["id"]
    assert call["body"] == chat("Hello!")
    assert call["body_sha256"] == hashlib.sha256(answer.request.content).hexdigest()
    assert (call["state"], call["status"], call["model"]) == ("finished", 200, "gpt-4o")
    assert call["authorization"] == "…0001"
    assert "alice" not in json.dumps(call)


def test_a_call_under_way_stands_open_in_the_journal(simulator: SimulatorProcess) -> None:
    with (
        httpx2.Client(headers=HEADERS, timeout=60) as client,
        client.stream(
            "POST",
            f"{simulator.base_url}/chat/completions",
            json=chat("[[simulate: tokens=9 stall=600]]", stream=True),
        ),
    ):
        page = simulator.control("GET", "journal")
        assert (page["open"], page["calls"][0]["state"]) == (1, "open")
    assert simulator.journal()[0]["state"] == "cut"


def test_the_journal_is_read_page_by_page(simulator: SimulatorProcess) -> None:
    for index in range(5):
        post(simulator, chat(f"call {index}"))
    first = simulator.control("GET", "journal?limit=3")
    second = simulator.control("GET", f"journal?after={first['last']}")
    texts = [call["body"]["messages"][0]["content"] for call in first["calls"] + second["calls"]]
    assert texts == [f"call {index}" for index in range(5)]
    assert simulator.control("GET", f"journal?after={second['last']}")["calls"] == []


def test_a_fault_that_names_no_path_is_not_for_a_poller(simulator: SimulatorProcess, client: OpenAI) -> None:
    simulator.fault("status=500")
    client.with_options(default_headers={"User-Agent": "tollgate-poller"}).models.list()
    with pytest.raises(openai.InternalServerError):
        client.models.list()


def test_a_fault_meets_the_calls_that_match_and_only_so_often(
    simulator: SimulatorProcess, client: OpenAI
) -> None:
    simulator.fault("status=500", times=2, path="/v1/models")
    for _ in range(2):
        with pytest.raises(openai.InternalServerError):
            client.models.list()
    assert post(simulator, chat("Hello!")).status_code == 200
    client.models.list()
    assert simulator.control("GET", "faults") == {"faults": []}


def test_a_fault_wins_over_the_body(simulator: SimulatorProcess) -> None:
    simulator.fault("tokens=3", contains="nine")
    assert post(simulator, chat("nine [[simulate: tokens=9]]")).json()["usage"]["completion_tokens"] == 3


@pytest.mark.parametrize(
    "document",
    [{}, {"action": "no_such"}, {"action": "delay=-1"}, {"action": "html", "match": {"x": "y"}}, []],
)
def test_a_fault_that_means_nothing_is_refused(simulator: SimulatorProcess, document: object) -> None:
    with pytest.raises(HTTPError, match="400"):
        simulator.control("POST", "faults", document)


def test_a_recording_is_given_back_byte_for_byte_though_a_gateway_wrote_into_the_request(
    simulator: SimulatorProcess,
) -> None:
    body = 'data: {"a":\u2028"é"}\r\n\r\ndata: [DONE]\n\n'
    simulator.record(
        {
            "request": chat("recorded", stream=True, max_tokens=900),
            "headers": {
                "Content-Type": "text/event-stream",
                "Content-Encoding": "gzip",
                "x-request-id": "req_1",
            },
            "body": body,
            "split": 3,
            "usage": {"total_tokens": 29},
        }
    )
    sent = chat("recorded", stream=True, max_completion_tokens=10, stream_options={"include_usage": True})
    answer = post(simulator, dict(reversed(sent.items())))
    assert answer.content == body.encode()
    assert answer.headers["x-request-id"] == "req_1"
    assert "content-encoding" not in answer.headers
    [call] = simulator.journal()
    assert (call["usage"], call["state"]) == ({"total_tokens": 29}, "finished")
    assert simulator.control("GET", "recordings") == {"waiting": 0}
    assert post(simulator, chat("recorded")).json()["object"] == "chat.completion"


def test_recordings_of_many_requests_do_not_mix_in_parallel(simulator: SimulatorProcess) -> None:
    requests = [chat(f"question {index % 20}") for index in range(60)]
    simulator.record(
        *(
            {
                "request": request,
                "status": 203,
                "body_base64": base64.b64encode(request["messages"][0]["content"].encode()).decode(),
            }
            for request in requests
        )
    )
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda request: post(simulator, request), requests))
    assert {answer.status_code for answer in answers} == {203}
    assert [answer.text for answer in answers] == [r["messages"][0]["content"] for r in requests]


def test_the_journal_file_holds_each_ended_call(tmp_path: Path) -> None:
    file = tmp_path / "journal.jsonl"
    with SimulatorProcess("--journal", str(file), "--no-journal") as simulator:
        post(simulator, chat("Hello!"))
        post(simulator, chat("[[simulate: status=429]]"))
        assert simulator.control("GET", "journal")["calls"] == []
    states = [json.loads(line)["state"] for line in file.read_text().splitlines()]
    assert states == ["finished", "refused"]


def test_it_stops_with_status_0_when_told_to_though_a_stream_is_open() -> None:
    simulator = SimulatorProcess()
    with (
        httpx2.Client(headers=HEADERS, timeout=60) as client,
        client.stream(
            "POST",
            f"{simulator.base_url}/chat/completions",
            json=chat("[[simulate: tokens=9 stall=600]]", stream=True),
        ),
    ):
        assert simulator.stop() == 0


@pytest.mark.parametrize("command", [["-m", "simulator"], ["manage.py", "simulate"]])
def test_it_ends_with_its_parent(command: list[str]) -> None:
    running = subprocess.Popen(
        [sys.executable, *command, "--port", "0", "--quit-with-parent"],
        cwd=APP_FOLDER,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert running.stdout is not None
    line = running.stdout.readline().decode()
    assert line.startswith("simulator listening on http://127.0.0.1:")
    running.communicate(timeout=60)  # closes its standard input
    assert running.returncode == 0


def test_it_refuses_connections_for_as_long_as_it_is_told_and_comes_back(simulator: SimulatorProcess) -> None:
    with httpx2.Client(timeout=60) as client:
        kept = client.get(f"{simulator.root}/simulator/health")
        assert kept.status_code == 200
        simulator.control("POST", "refuse", {"seconds": 3})
        deadline = time.monotonic() + 60
        refused = 0
        while True:
            try:
                answer = client.get(f"{simulator.root}/simulator/health")
            except httpx2.TransportError:
                refused += 1
                assert time.monotonic() < deadline
                time.sleep(0.02)
            else:
                assert answer.status_code == 200
                break
        assert refused
