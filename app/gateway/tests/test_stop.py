"""A gateway that is stopped while calls go on for longer than it can wait for them."""

import http.client
import json
import signal
import sys
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import openai
import pytest
from django.conf import settings

from gateway.tests.running import Gateway, database, log_of, running, running_as
from gateway.tests.test_serve import get, token_of

pytestmark = pytest.mark.xdist_group("serve")
# The same program, but that open calls have a second to finish.
IMPATIENT = """
from django.core.management import execute_from_command_line
from gateway.worker import Worker
import os, sys
os.environ["DJANGO_SETTINGS_MODULE"] = "gateway.settings"
Worker.CONFIG_KWARGS["timeout_graceful_shutdown"] = 1
execute_from_command_line(["manage.py", *sys.argv[1:]])
"""


def chat(gateway: Gateway, token: str, does: str, *, stream: bool) -> http.client.HTTPResponse:
    body = {
        "model": "gpt-4o-mini",
        "stream": stream,
        "messages": [{"role": "user", "content": f"Hello! [[simulate:{does}]]"}],
    }
    request = urllib.request.Request(
        f"{gateway.url}/v1/chat/completions",
        data=json.dumps(body).encode(),
        headers={"Authorization": f"Bearer {token}", "Content-Type": "application/json"},
    )
    answer: http.client.HTTPResponse = urllib.request.urlopen(request)
    return answer


def test_calls_that_take_too_long_are_cut_off_told_and_paid_for_and_nothing_alarms_the_log(
    tmp_path: Path,
) -> None:
    data_dir = tmp_path / "data"
    command = [sys.executable, "-c", IMPATIENT, "serve", "--demo"]
    path = str(settings.ROOT / "app")
    with database() as variables:
        with running_as(command, data_dir, {"PYTHONPATH": path, **variables}) as gateway:
            token = token_of(gateway)
            with (
                ThreadPoolExecutor(1) as pool,
                chat(gateway, token, "tokens=1000,chunk_delay=0.1", stream=True) as streaming,
            ):
                assert streaming.readline().startswith(b"data: ")
                by_the_stream = held(gateway, token)
                waiting = pool.submit(chat, gateway, token, "delay=60", stream=False)
                while held(gateway, token) == by_the_stream:
                    time.sleep(0.02)
                gateway.process.send_signal(signal.SIGTERM)
                *_, last = streaming.read().strip().split(b"\n\n")
                error = json.loads(last.removeprefix(b"data: "))["error"]
                assert error["code"] == "service_unavailable"
                with pytest.raises(urllib.error.HTTPError) as refused:
                    waiting.result()
                refused.value.close()
            assert gateway.process.wait() == 0
        assert (refused.value.code, refused.value.headers["Retry-After"]) == (503, "1")
        assert "Traceback" not in log_of(data_dir).read_text()
        with running(data_dir, **variables) as gateway:
            account: dict[str, Any] = get(f"{gateway.url}/api/balance", Authorization=f"Bearer {token}")
            history = get(f"{gateway.url}/api/balance/entries?kind=charge", Authorization=f"Bearer {token}")
    assert account["held"] == 0
    assert {entry["reason"] for entry in history["results"]} == {
        "The gateway was stopped; charged what had been counted."
    }
    assert len(history["results"]) == 2


def held(gateway: Gateway, token: str) -> int:
    credits: int = get(f"{gateway.url}/api/balance", Authorization=f"Bearer {token}")["held"]
    return credits


def test_the_official_client_raises_an_error_for_a_stream_that_is_cut_off(tmp_path: Path) -> None:
    command = [sys.executable, "-c", IMPATIENT, "serve", "--demo"]
    path = str(settings.ROOT / "app")
    with (
        database() as variables,
        running_as(command, tmp_path / "data", {"PYTHONPATH": path, **variables}) as gateway,
        openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=token_of(gateway), max_retries=0) as client,
    ):
        hello = "Hello! [[simulate:tokens=1000,chunk_delay=0.1]]"
        chat_stream = client.chat.completions.create(
            model="gpt-4o-mini", messages=[{"role": "user", "content": hello}], stream=True
        )
        response_stream = client.responses.create(model="gpt-4o-mini", input=hello, stream=True)
        for stream in (chat_stream, response_stream):
            assert next(iter(stream))
        gateway.process.send_signal(signal.SIGTERM)
        for stream in (chat_stream, response_stream):
            with pytest.raises(openai.APIError, match="being stopped"):
                list(stream)
        assert gateway.process.wait() == 0
