"""Real calls with OpenAI, recorded by others, go through the gateway to an upstream that answers as recorded.

What comes out is what was recorded, and the bill is the usage that was reported.
"""

import asyncio
import gzip
import json
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import pytest

from gateway.tests import console
from openai_app.settlement import charge
from openai_app.tests.harness import JSON, PATIENCE_S, Caller, House
from openai_app.tests.recordings import TRAFFIC, needs_recordings
from simulator.recordings import key_of

pytestmark = needs_recordings

AT_ONCE = 16
UPLOAD_AT_ONCE = 100
CREDITS_A_SEARCH = 1_000
PASSED_HEADERS = ("openai-model", "openai-processing-ms", "openai-version", "retry-after", "x-should-retry")
# Names of the account and of keys, which are not for the caller's eyes.
ACCOUNT = re.compile(rb"\b(?:org-|proj_|sk-|user-)[\w*.\-]{4,}")


@dataclass
class Replay:
    """A recorded exchange, and what came of it through the gateway."""

    request: dict[str, Any]
    recorded: dict[str, Any]
    usage: dict[str, Any] | None
    status: int = 0
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    hold: dict[str, Any] = field(default_factory=dict)
    entry: dict[str, Any] = field(default_factory=dict)

    @property
    def is_stream(self) -> bool:
        return bool(self.recorded["body_kind"] == "sse")

    @property
    def has_failed(self) -> bool:
        """Some streams end with an error of the model's, most of them without usage."""
        return self.is_stream and b'\ndata: {"error":' in self.recorded_body

    @property
    def recorded_body(self) -> bytes:
        return str(self.recorded["body"]).encode("utf-8", "surrogatepass")

    def expected_body(self) -> bytes:
        """The recording, less the chunk with the usage if the client had not asked for it."""
        body = self.recorded_body
        if self.recorded["status"] != 200:
            return ACCOUNT.sub(b"[hidden]", body)
        if not self.is_stream or (self.request.get("stream_options") or {}).get("include_usage"):
            return body
        events = re.split(rb"(?<=\n\n)", body)
        return b"".join(event for event in events if not is_only_usage(event))

    def expected_charge(self) -> int:
        """Credits; a stream of which nobody reported the usage costs its whole hold.

        A model that searches the web is paid for one search besides.
        """
        if self.usage is not None:
            searches = "web_search_options" in self.request or "-search-" in self.request["model"]
            tokens = int(self.usage["prompt_tokens"]) + int(self.usage["completion_tokens"])
            return tokens + (CREDITS_A_SEARCH if searches else 0)
        return int(self.hold["amount"])

    def upload(self) -> dict[str, Any]:
        """The recording as the simulator takes it."""
        headers = {"content-type": "application/json", **self.recorded["headers"]}
        if self.is_stream:
            # In three recordings this header is not the one that OpenAI sends.
            headers["content-type"] = "text/event-stream; charset=utf-8"
        return {
            "request": self.request,
            "status": self.recorded["status"],
            "headers": headers,
            "body": self.recorded["body"],
            "usage": self.usage,
        }

    def mentions(self) -> dict[str, str]:
        """The files and audio that the request names, with their kinds."""
        text = json.dumps(self.request.get("messages"))
        files = dict.fromkeys(re.findall(r'"file_id": "([^"]+)"', text), "file")
        return {**files, **dict.fromkeys(re.findall(r'"audio": {"id": "([^"]+)"}', text), "chat_audio")}


def is_only_usage(event: bytes) -> bool:
    data = event.strip().removeprefix(b"data: ")
    if not data.startswith(b"{"):
        return False
    parsed = json.loads(data)
    return bool(parsed.get("usage")) and not parsed.get("choices")


def chat_calls() -> Iterator[tuple[dict[str, Any], str | None]]:
    """Every record of chat completions, and why it cannot be replayed, if it cannot."""
    with gzip.open(TRAFFIC, "rt", encoding="utf-8") as lines:
        for line in lines:
            record = json.loads(line)
            if (record["endpoint"] or "").startswith("chat/completions"):
                yield record, obstacle(record)


def obstacle(record: dict[str, Any]) -> str | None:
    if record["method"] != "POST" or record["endpoint"] != "chat/completions":
        return "not a call for a completion, but of what is stored"
    if not isinstance(record["request"]["body"], dict):
        return "the request's body is not recorded"
    if not record["request"]["body"].get("model"):
        return "the model stands in the address (Azure), not in the body"
    if not isinstance(record["response"]["body"], str) or record["response"]["truncated"]:
        return "the answer is not recorded, or not whole"
    return None


async def play(caller: Caller, replays: list[Replay]) -> None:
    """Sends all, those with the same request one after the other, so that each gets its own answer."""
    queues = defaultdict(list)
    for replay in replays:
        queues[key_of("POST", "/v1/chat/completions", json.dumps(replay.request).encode())].append(replay)
    turn = asyncio.Semaphore(AT_ONCE)
    url = f"{caller.house.url}/v1/chat/completions"
    headers = {"Authorization": f"Bearer {caller.key}", **JSON}
    timeout = aiohttp.ClientTimeout(total=PATIENCE_S)
    async with aiohttp.ClientSession(timeout=timeout, headers=headers) as session:

        async def send_all(queue: list[Replay]) -> None:
            for replay in queue:
                async with turn, session.post(url, data=json.dumps(replay.request).encode()) as answer:
                    replay.status, replay.headers = answer.status, answer.headers
                    replay.body = await answer.read()

        await asyncio.gather(*[send_all(queue) for queue in queues.values()])


@pytest.fixture(scope="module")
def traffic() -> tuple[list[Replay], Counter[str]]:
    """What can be replayed, and how many cannot, by reason."""
    replays, obstacles = [], Counter[str]()
    for record, reason in chat_calls():
        if reason is None:
            replays.append(Replay(record["request"]["body"], record["response"], record["usage"]))
        else:
            obstacles[reason] += 1
    return replays, obstacles


@pytest.fixture(scope="module")
def replays(undisturbed: House, traffic: tuple[list[Replay], Counter[str]]) -> list[Replay]:
    """All that can be replayed, replayed."""
    found, _ = traffic
    simulator = undisturbed.simulator
    simulator.clear()
    for start in range(0, len(found), UPLOAD_AT_ONCE):
        simulator.record(*[replay.upload() for replay in found[start : start + UPLOAD_AT_ONCE]])
    # A call of a model that nobody knows may reserve, and without usage cost, a quarter of what is available.
    caller = undisturbed.caller(9 * 10**15)
    for replay in found:
        if mentions := replay.mentions():
            undisturbed.console.run(console.own, caller.id, mentions)
    asyncio.run(play(caller, found))
    assert simulator.control("GET", "recordings") == {"waiting": 0}
    simulator.clear()
    holds = {hold["id"]: hold for hold in caller.holds()}
    entries = {entry["hold_id"]: entry for entry in caller.charges()}
    for replay in found:
        replay.hold = holds.get(replay.headers["x-request-id"], {})
        replay.entry = entries.get(replay.headers["x-request-id"], {})
    return found


def unlike(replays: list[Replay], is_right: Callable[[Replay], bool]) -> list[str]:
    """What does not meet the claim, briefly."""
    return [
        f"{replay.request['model']} recorded={replay.recorded['status']} got={replay.status} "
        f"charged={replay.entry.get('amount')} usage={replay.usage} hold={replay.hold.get('reason')}"
        for replay in replays
        if not is_right(replay)
    ]


def test_each_answer_that_was_recorded_arrives_byte_for_byte(replays: list[Replay]) -> None:
    answered = [replay for replay in replays if replay.recorded["status"] == 200]
    assert len(answered) > 4_000
    wrong = unlike(answered, lambda each: (each.status, each.body) == (200, each.expected_body()))
    assert wrong == []


def test_each_bill_is_the_usage_that_was_recorded(replays: list[Replay]) -> None:
    answered = [replay for replay in replays if replay.recorded["status"] == 200]

    def is_right(replay: Replay) -> bool:
        if replay.has_failed and not replay.usage:
            return bool(replay.entry["reason"] == charge.BROKEN)
        reason = charge.FINISHED if replay.usage else charge.NO_USAGE
        return (replay.entry["amount"], replay.entry["reason"]) == (-replay.expected_charge(), reason)

    assert unlike(answered, is_right) == []


def test_each_refusal_that_was_recorded_arrives_and_costs_nothing(replays: list[Replay]) -> None:
    refused = [replay for replay in replays if replay.recorded["status"] != 200]
    assert refused

    def is_right(replay: Replay) -> bool:
        if replay.recorded["status"] == 401:
            # It speaks of the operator's key, which is not for the caller to know.
            return replay.status == 502 and json.loads(replay.body)["error"]["code"] == "upstream_error"
        return (replay.status, replay.body) == (replay.recorded["status"], replay.expected_body())

    assert unlike(refused, is_right) == []
    assert unlike(refused, lambda each: not each.entry and each.hold["state"] == "voided") == []


def test_the_headers_that_may_pass_are_those_recorded(replays: list[Replay]) -> None:
    def is_right(replay: Replay) -> bool:
        recorded = {name.lower(): str(value) for name, value in replay.recorded["headers"].items()}
        return all(replay.headers.get(name) == recorded.get(name) for name in PASSED_HEADERS)

    answered = [replay for replay in replays if replay.recorded["status"] == 200]
    assert unlike(answered, is_right) == []


def test_nothing_stays_on_hold_and_the_ledger_adds_up(shared_house: House, replays: list[Replay]) -> None:
    shared_house.wait_until_settled()
    assert shared_house.console.run(console.holds, state="open") == []
    assert "wrong" not in shared_house.audit()


def test_the_figures_are_reported(
    replays: list[Replay],
    traffic: tuple[list[Replay], Counter[str]],
    record_property: Callable[[str, object], None],
) -> None:
    _, obstacles = traffic
    answered = [replay for replay in replays if replay.recorded["status"] == 200]
    with_usage = [replay for replay in answered if replay.usage]
    bodies = sum(replay.body == replay.expected_body() for replay in answered)
    bills = sum(-replay.entry.get("amount", 1) == replay.expected_charge() for replay in with_usage)
    whole = sum(replay.entry.get("reason") == charge.NO_USAGE for replay in answered)
    streams = sum(replay.is_stream for replay in answered)
    lines = [
        f"Recorded chat completions: {len(replays):,} of {len(replays) + obstacles.total():,} replayed, "
        f"{streams:,} of them streams, {len(replays) - len(answered):,} refusals.",
        f"  bodies as recorded: {bodies:,} of {len(answered):,}",
        f"  bills as recorded: {bills:,} of {len(with_usage):,}; "
        f"whole holds where no usage was recorded: {whole:,}",
        *[f"  not replayed: {count:,} ({reason})" for reason, count in obstacles.most_common()],
    ]
    record_property("figures", "\n".join(lines))
    assert (bodies, bills) == (len(answered), len(with_usage))
