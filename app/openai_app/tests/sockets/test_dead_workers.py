"""What a session costs whose worker dies: what had begun, and nothing for what only might have come."""

import base64
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from balances import leases
from gateway.tests import console
from openai_app.tests.harness import Caller, House, house, wait_for
from openai_app.tests.sockets.upstream import End, SocketUpstream, begin, connected

SOUND = base64.b64encode(bytes(48_000)).decode()  # a second
TRANSCRIBER = "gpt-4o-transcribe"
ENDS = {"posted": leases.DIED, "voided": leases.DIED_UNCOUNTED}


@pytest.fixture
def mortal(tmp_path: Path, socket_upstream: SocketUpstream) -> Iterator[House]:
    """A gateway of one worker, to be killed."""
    with house(tmp_path, workers=1, upstream=socket_upstream.base_url) as opened:
        yield opened


@contextmanager
def nobody_in_its_place(mortal: House) -> Iterator[None]:
    """Kills the worker. Meanwhile no other one takes its place, which would sweep."""
    (worker,) = mortal.gateway.workers
    os.kill(mortal.gateway.process.pid, signal.SIGSTOP)
    try:
        os.kill(worker, signal.SIGKILL)
        yield
    finally:
        os.kill(mortal.gateway.process.pid, signal.SIGCONT)


def sweep(mortal: House, caller: Caller) -> dict[str, str]:
    """Ends what the dead worker left; answers the state of the holds by their model."""
    mortal.console.run(console.end_leases)
    mortal.console.run(console.command, "sweep")
    holds = caller.holds()
    assert all(hold["reason"] == ENDS[hold["state"]] for hold in holds)
    return {hold["model"]: hold["state"] for hold in holds}


def hear(client: End, openai: End) -> None:
    """The first sound of a session that answers, and that writes down what it hears."""
    session = {"type": "realtime", "audio": {"input": {"transcription": {"model": TRANSCRIBER}}}}
    client.send("session.update", session=session)
    openai.event("session.update")
    client.send("input_audio_buffer.append", audio=SOUND)
    openai.event("input_audio_buffer.append")


def counted(caller: Caller) -> dict[str, dict[str, int]]:
    """What the ledger has noted on open holds, by their model."""
    return {hold["model"]: hold["counted"] for hold in caller.holds(state="open")}


def test_what_was_only_held_for_what_might_come_costs_nothing(
    mortal: House, socket_upstream: SocketUpstream
) -> None:
    caller = mortal.caller()
    with connected(caller, socket_upstream) as (client, openai):
        hear(client, openai)
        wait_for(lambda: counted(caller) == {"gpt-realtime": {}, TRANSCRIBER: {}})
        with nobody_in_its_place(mortal):
            assert sweep(mortal, caller) == {"gpt-realtime": "voided", TRANSCRIBER: "voided"}
            assert caller.charges() == []
            assert "wrong" not in mortal.audit()


def test_what_has_begun_costs_what_was_counted_and_what_still_stands_by_nothing(
    mortal: House, socket_upstream: SocketUpstream
) -> None:
    caller = mortal.caller()
    with connected(caller, socket_upstream) as (client, openai):
        hear(client, openai)
        begin(openai)
        for word in ("Hello", " there"):
            openai.send("response.output_audio_transcript.delta", response_id="resp_1", delta=word)
        # The words are noted about once a second: by then all that is noted so has been.
        wait_for(lambda: counted(caller)["gpt-realtime"].get("output") == 2)
        assert counted(caller)[TRANSCRIBER] == {}
        with nobody_in_its_place(mortal):
            assert sweep(mortal, caller) == {"gpt-realtime": "posted", TRANSCRIBER: "voided"}
            (entry,) = caller.charges()
            assert entry["units"]["output"] == 2
            assert entry["units"]["audio_input"] > 0
            assert "wrong" not in mortal.audit()


def test_a_transcript_that_has_begun_costs_what_was_heard(
    mortal: House, socket_upstream: SocketUpstream
) -> None:
    caller = mortal.caller()
    with connected(caller, socket_upstream) as (client, openai):
        hear(client, openai)
        openai.send("input_audio_buffer.committed", item_id="item_1")
        client.event("input_audio_buffer.committed")
        wait_for(lambda: counted(caller) == {"gpt-realtime": {}, TRANSCRIBER: {"audio_input": 10}})
        with nobody_in_its_place(mortal):
            assert sweep(mortal, caller) == {"gpt-realtime": "voided", TRANSCRIBER: "posted"}
            assert [entry["units"] for entry in caller.charges()] == [{"audio_input": 10}]
