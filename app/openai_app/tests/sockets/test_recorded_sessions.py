"""Recorded realtime sessions pass unchanged, and are charged what OpenAI reported."""

import gzip
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from conftest import SHARED
from openai_app.settlement import charge
from openai_app.tests.harness import Caller, House
from openai_app.tests.sockets.upstream import SocketUpstream, connected

RECORDED = SHARED / "traffic" / "realtime_open.jsonl.gz"


def sessions() -> list[dict[str, Any]]:
    if not RECORDED.exists():
        return []
    with gzip.open(RECORDED) as lines:
        return [json.loads(line) for line in lines]


@pytest.fixture
def rich(opened: House) -> Caller:
    return opened.caller(10_000_000)


@contextmanager
def replayed(caller: Caller, upstream: SocketUpstream, session: dict[str, Any]) -> Iterator[None]:
    """Both ends send what was recorded of them, and get what the other sent; then the block runs."""
    path = f"/v1/realtime?model={session['models'][0]}"
    with connected(caller, upstream, path) as (client, openai):
        for event in session["events"]:
            frame = json.dumps(event["data"])
            sender, reader = (client, openai) if event["direction"] == "sent" else (openai, client)
            sender.connection.send(frame)
            assert reader.frame() == frame
        yield


@pytest.mark.skipif(not RECORDED.exists(), reason="the recorded sessions are not beside this clone")
@pytest.mark.parametrize("session", sessions(), ids=lambda session: session["models"][0])
def test_a_recorded_session_passes_unchanged_and_is_charged_as_reported(
    rich: Caller, socket_upstream: SocketUpstream, session: dict[str, Any]
) -> None:
    with replayed(rich, socket_upstream, session):
        entries = rich.charges()
    reported = [each["usage"] for each in session["usage_events"]]
    assert [sum(entry["units"].values()) for entry in entries if entry["reason"] == charge.FINISHED] == [
        usage.get("total_tokens", usage.get("seconds")) for usage in reported
    ]
    ends = ("response.done", "conversation.item.input_audio_transcription.completed")
    ended = [event for event in session["events"] if event["data"]["type"] in ends]
    assert len(entries) == len(ended)
    assert rich.settled()["balance"] == 10_000_000 + sum(entry["amount"] for entry in rich.charges())
    rich.house.audit()


@pytest.mark.skipif(not RECORDED.exists(), reason="the recorded sessions are not beside this clone")
@pytest.mark.parametrize("session", sessions(), ids=lambda session: session["models"][0])
def test_what_is_held_for_a_recorded_response_covers_its_input(
    rich: Caller, socket_upstream: SocketUpstream, session: dict[str, Any]
) -> None:
    """All but a few tokens of it: what OpenAI adds to a conversation is not told."""
    with replayed(rich, socket_upstream, session):
        pass
    for hold in rich.holds(state="posted", operation="connectRealtime"):
        if not hold["model"].startswith("gpt-realtime") or hold["model"].endswith("whisper"):
            continue
        (entry,) = [each for each in rich.charges() if each["hold_id"] == hold["id"]]
        read = sum(entry["units"].get(unit, 0) for unit in ("input", "cached_input", "audio_input"))
        assert sum(hold["counted"].values()) > read * 0.9 - 40, (hold["counted"], entry["units"])
