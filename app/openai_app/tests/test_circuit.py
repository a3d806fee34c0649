"""An upstream that cannot be reached: calls fail at once, cost nothing, and are served when it is back."""

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pytest

from common.errors import ApiError, UpstreamFailed
from gateway.tests.running import log_of
from openai_app import circuit
from openai_app.settlement import charge
from openai_app.tests.harness import PATIENCE_S, Answer, Caller, House, house, port_of_nobody, wait_for
from openai_app.tests.http.peers import HELLO, Peer, serving
from openai_app.upstream import Upstream
from simulator.testing import SimulatorProcess

REFUSED_AT_ONCE = "OpenAI cannot be reached at the moment. Try again in a second."


def call_until_refused_at_once(caller: Caller) -> Answer:
    answers: list[Answer] = []

    def is_refused() -> bool:
        answers.append(caller.chat())
        assert answers[-1].status == 502
        assert answers[-1].headers["retry-after"] == "1"
        return bool(answers[-1].error["message"] == REFUSED_AT_ONCE)

    wait_for(is_refused)
    return answers[-1]


def test_calls_fail_at_once_while_the_upstream_is_away_and_are_served_when_it_is_back(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    with (
        port_of_nobody() as port,
        house(tmp_path, workers=1, upstream=f"http://127.0.0.1:{port}/v1") as served,
    ):
        alice = served.caller()
        for _ in range(circuit.MOST_FAILURES):
            failed = alice.chat()
            assert (failed.status, failed.error["code"]) == (502, "upstream_error")
            assert alice.hold_of(failed)["reason"] == charge.FAILED
        refused = call_until_refused_at_once(alice)
        # Nothing was held for it.
        assert alice.holds(id=refused.request_id) == []
        assert replace(alice, key="sk-tg-nobodys").chat().status == 401
        assert served.metric("tollgate_circuit_open") == 1
        assert alice.call("GET", "/readyz").status == 200
        with SimulatorProcess("--port", str(port)):
            back_at = time.monotonic()
            wait_for(lambda: alice.chat().status == 200)
            passed_s = time.monotonic() - back_at
            record_property("figures", f"upstream back: served again after {passed_s:.2f} s")
            assert served.metric("tollgate_circuit_open") == 0
            assert alice.settled()["balance"] == 100_000 + sum(e["amount"] for e in alice.charges())
        served.audit()
        log = log_of(tmp_path / "data").read_text()
        assert "calls fail at once" in log
        assert "the upstream takes connections again" in log


def test_an_upstream_that_answers_with_errors_is_there(gateway: House, alice: Caller) -> None:
    for status in (500, 503, 429):
        gateway.simulator.fault(f"status={status}", times=2 * circuit.MOST_FAILURES)
        for _ in range(2 * circuit.MOST_FAILURES):
            assert alice.chat().status == status
    assert gateway.metric("tollgate_circuit_open") == 0
    assert alice.chat().status == 200


def test_calls_of_one_caller_that_are_lost_keep_nobody_else_out(gateway: House, alice: Caller) -> None:
    bob = gateway.caller()

    def lose() -> str:
        lost = alice.chat("reset")
        assert lost.status == 502
        return str(lost.error["message"])

    with ThreadPoolExecutor(10) as pool:
        messages = list(pool.map(lambda _: lose(), range(200)))
        assert REFUSED_AT_ONCE in messages
        flood = [pool.submit(lose) for _ in range(200)]
        for _ in range(20):
            assert bob.chat().status == 200
        for each in flood:
            each.result()
    assert gateway.metric("tollgate_circuit_open") == 0
    wait_for(lambda: alice.chat().status == 200)


# --- the client towards the upstream, before servers of bare sockets ------------------------------------


async def answers_at_last(upstream: Upstream, caller: str | None = None) -> None:
    """Calls until the upstream answers."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            with suppress(ApiError):
                await call(upstream, caller)
                return
            await asyncio.sleep(0.01)


async def call(upstream: Upstream, caller: str | None = None) -> None:
    response = await upstream.send("GET", "/models", b"", [], b"", caller=caller)
    assert await response.read() == b"hello"
    response.close()


async def open_circuit(upstream: Upstream) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while True:
            try:
                upstream.circuit.check(None)
            except UpstreamFailed:
                return
            with suppress(ApiError):
                await call(upstream)


@pytest.fixture
async def away() -> AsyncIterator[tuple[Upstream, int]]:
    """An upstream at whose port nobody listens yet, its circuit open."""
    with port_of_nobody() as port:
        upstream = Upstream(f"http://127.0.0.1:{port}", api_key="sk-x")
        await open_circuit(upstream)
        yield upstream, port
        await upstream.close()


async def answer(peer: Peer) -> None:
    while await peer.request():
        await peer.send(HELLO)


async def hang_up(peer: Peer) -> None:
    await peer.request()


async def lose_calls(upstream: Upstream, caller: str | None) -> None:
    """As many calls as open a caller's circuit."""
    for _ in range(circuit.MOST_LOST):
        upstream.circuit.check(caller)
        with pytest.raises(UpstreamFailed):
            await call(upstream, caller)


async def test_connections_that_are_lost_before_an_answer_open_it_for_their_caller() -> None:
    serves = [hang_up] * (2 * circuit.MOST_LOST) + [answer]
    async with serving(*serves) as server:
        upstream = Upstream(f"http://127.0.0.1:{server.port}", api_key="sk-x")
        await lose_calls(upstream, "alice")
        connections = server.accepted
        with pytest.raises(UpstreamFailed, match="at the moment"):
            await call(upstream, "alice")
        assert server.accepted == connections
        # Others are not kept out: it may be the fault of her requests.
        upstream.circuit.check("bob")
        upstream.circuit.check(None)
        # That a connection stands says nothing here: only an answer closes it.
        await answers_at_last(upstream, "alice")
        upstream.circuit.check("alice")
        await upstream.close()


async def test_calls_that_are_lost_again_and_again_open_no_circuit_but_their_callers() -> None:
    async with serving(*[hang_up] * (5 * circuit.MOST_LOST), answer) as server:
        upstream = Upstream(f"http://127.0.0.1:{server.port}", api_key="sk-x")
        for name in ("alice", "bob", "charlie"):
            await lose_calls(upstream, name)
        # The gateway's own requests open none.
        await lose_calls(upstream, None)
        upstream.circuit.check(None)
        upstream.circuit.check("dora")
        await upstream.close()


async def test_an_upstream_that_swallows_everything_is_tried_by_one_call_at_a_time() -> None:
    with full_port() as port:
        upstream = Upstream(f"http://127.0.0.1:{port}", api_key="sk-x")
        for _ in range(circuit.MOST_FAILURES):
            upstream.circuit.not_connected()
        await asyncio.sleep(circuit.FIRST_PAUSE_S)
        finding_out = asyncio.create_task(call(upstream))
        await asyncio.sleep(2 * circuit.MOST_PAUSE_S)
        assert not finding_out.done()
        with pytest.raises(UpstreamFailed, match="at the moment"):
            await call(upstream)
        finding_out.cancel()
        await asyncio.gather(finding_out, return_exceptions=True)
        # It has ended: soon another one may try.
        await asyncio.sleep(circuit.MOST_PAUSE_S)
        upstream.circuit.check(None)
        await upstream.close()


@contextmanager
def full_port() -> Iterator[int]:
    """A port whose queue of connections is full: whoever comes then hears nothing."""
    with socket.socket() as listener, ExitStack() as queued:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(3):
            waiting = queued.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(listener.getsockname())
        port: int = listener.getsockname()[1]
        yield port


async def test_one_that_comes_back_slowly_is_there_as_soon_as_it_takes_connections(
    away: tuple[Upstream, int],
) -> None:
    upstream, port = away
    is_asked = asyncio.Event()

    async def think(peer: Peer) -> None:
        await peer.request()
        is_asked.set()
        await peer.is_closed()

    async with serving(think, port=port):
        calls = asyncio.create_task(answers_at_last(upstream))
        async with asyncio.timeout(PATIENCE_S):
            await is_asked.wait()
        # The first call still waits for its answer, and no other has to wait for that.
        assert not calls.done()
        upstream.circuit.check(None)
        calls.cancel()
        await asyncio.gather(calls, return_exceptions=True)


async def test_a_call_that_is_cancelled_while_it_finds_out_keeps_nobody_out(
    away: tuple[Upstream, int],
) -> None:
    upstream, port = away
    async with asyncio.timeout(PATIENCE_S):
        while True:
            with suppress(UpstreamFailed):
                upstream.circuit.check(None)
                break
            await asyncio.sleep(0.01)
    finding_out = asyncio.create_task(call(upstream))
    await asyncio.sleep(0)
    finding_out.cancel()
    assert isinstance((await asyncio.gather(finding_out, return_exceptions=True))[0], asyncio.CancelledError)
    # It had its turn; the others wait for theirs.
    with pytest.raises(UpstreamFailed, match="at the moment"):
        upstream.circuit.check(None)
    async with serving(answer, port=port):
        await answers_at_last(upstream)
        await upstream.close()
