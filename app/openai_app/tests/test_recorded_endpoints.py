"""Calls of everything but chat, recorded by others, go through the gateway to an upstream that answers as
recorded. What comes out is what was recorded, and the bill is the usage that was reported.

They are an operator's calls: the things that they speak of were made in accounts of which nothing is known.
"""

import asyncio
import base64
import gzip
import json
import re
import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Any

import aiohttp
import pytest
from yarl import URL

from balances.units import TOKENS
from common.errors import ApiError
from gateway.tests import console
from openai_app import catalogue
from openai_app.answer import sse
from openai_app.catalogue import Operation
from openai_app.metering import LATER
from openai_app.request.paths import path_below_prefix
from openai_app.settlement import charge, deferred
from openai_app.tests.harness import GONE_AFTER_S, PATIENCE_S, Caller, House, house, polling, wait_for
from openai_app.tests.recordings import TRAFFIC, needs_recordings
from openai_app.tests.test_recorded_traffic import ACCOUNT, AT_ONCE, UPLOAD_AT_ONCE, is_only_usage
from simulator.forms import FormReader
from simulator.recordings import key_of

pytestmark = needs_recordings

# What each costs by default.
TOOL_CREDITS = {"web_search": 1_000, "file_search": 250, "code_interpreter": 3_000}
BOUNDARY = "a-line-that-no-recording-has"
# The gateway reads a batch's lines before it passes the batch on; most of those files were not recorded.
LINE = b'{"custom_id": "1", "method": "POST", "url": "/v1/embeddings", "body": {"model": "m", "input": ""}}\n'


@dataclass
class Replay:
    """A recorded exchange, and what came of it through the gateway."""

    record: dict[str, Any]
    operation: Operation
    path: str
    status: int = 0
    request_id: str = ""
    body: bytes = b""
    hold: dict[str, Any] = field(default_factory=dict)
    entry: dict[str, Any] = field(default_factory=dict)

    @property
    def recorded(self) -> dict[str, Any]:
        response: dict[str, Any] = self.record["response"]
        return response

    @property
    def is_answered(self) -> bool:
        return bool(self.recorded["status"] == 200)

    @property
    def kind(self) -> str:
        return str(self.recorded["body_kind"])

    @property
    def turn(self) -> int:
        """Work is begun first, and looked at last: its end is settled by what is seen of it."""
        if self.operation.meter.estimate is not None:
            return 0
        return 1 if self.operation.answers_bytes else 2

    @property
    def target(self) -> str:
        """The path and the query, as the gateway calls them."""
        return self.path + (f"?{self.record['query']}" if self.record["query"] else "")

    @cached_property
    def sent(self) -> bytes:
        body = self.record["request"]["body"]
        if body is None:
            return b""
        return form(body) if isinstance(body, list) else json.dumps(body).encode()

    @property
    def content_type(self) -> str:
        is_form = isinstance(self.record["request"]["body"], list)
        return f"multipart/form-data; boundary={BOUNDARY}" if is_form else "application/json"

    @property
    def is_sent_in_part(self) -> bool:
        """A picture in JSON is then shorter than it was; a file in a form is filled up with zeros."""
        request = self.record["request"]
        parts = request["body"] if isinstance(request["body"], list) else ()
        return bool(request.get("truncated")) or any(part.get("truncated") for part in parts)

    @cached_property
    def known_by(self) -> bytes:
        """The body as the simulator looks for its recording: of a form, what is in it."""
        if not isinstance(self.record["request"]["body"], list):
            return self.sent
        reader = FormReader(self.content_type.encode())
        reader.feed(self.sent)
        reader.end()
        return reader.form.as_json()

    @cached_property
    def recorded_body(self) -> bytes:
        body = self.recorded["body"] or ""
        return base64.b64decode(body) if self.kind == "base64" else body.encode("utf-8", "surrogatepass")

    def expected(self) -> tuple[int, bytes]:
        """The recording, less the chunk of a completion with the usage if the client had not asked for it."""
        status, body = self.recorded["status"], self.recorded_body
        if status != 200:
            return status, ACCOUNT.sub(b"[hidden]", body)
        if self.operation.name != "createCompletion" or self.kind != "sse" or b"include_usage" in self.sent:
            return status, body
        events = re.split(rb"(?<=\n\n)", body)
        return status, b"".join(event for event in events if not is_only_usage(event))

    def answers(self) -> list[dict[str, Any]]:
        """The JSON object that was recorded, or the events of the stream."""
        if self.kind == "sse":
            events = (sse.parse(event) for event in sse.split(self.recorded_body))
            return [event for event in events if event is not None]
        answer = json.loads(self.recorded_body) if self.kind == "json" else {}
        return [answer] if isinstance(answer, dict) else []

    def upload(self) -> dict[str, Any]:
        """The recording as the simulator takes it."""
        headers = {name.lower(): value for name, value in self.recorded["headers"].items()}
        if self.kind == "sse":
            headers["content-type"] = "text/event-stream; charset=utf-8"
        elif self.kind == "json":
            headers.setdefault("content-type", "application/json")
        return {
            "method": self.record["method"],
            "path": self.target,
            "request_base64": base64.b64encode(self.known_by).decode(),
            "status": self.recorded["status"],
            "headers": headers,
            "body_base64": base64.b64encode(self.recorded_body).decode(),
        }

    def input_file(self) -> dict[str, Any] | None:
        """The lines of a batch, which the gateway reads first."""
        if self.operation.name != "createBatch":
            return None
        path = f"/v1/files/{self.record['request']['body']['input_file_id']}/content"
        return {"method": "GET", "path": path, "body": LINE.decode(), "headers": {}}


def form(parts: list[dict[str, Any]]) -> bytes:
    """The form of these parts. What was not recorded of a file's end is filled up with zeros."""
    lines = []
    for part in parts:
        disposition = f'Content-Disposition: form-data; name="{part["name"]}"'
        if part.get("filename") is not None:
            disposition += f'; filename="{part["filename"]}"'
        head = [disposition]
        if "/" in (part.get("content_type") or ""):
            head.append(f"Content-Type: {part['content_type']}")
        encoded = part.get("base64") or ""
        data = base64.b64decode(encoded + "=" * (-len(encoded) % 4)).ljust(part["size"], b"\0")
        if "value" in part:
            data = part["value"].encode()
        lines.append("\r\n".join((f"--{BOUNDARY}", *head, "", "")).encode() + data)
    return b"\r\n".join((*lines, f"--{BOUNDARY}--\r\n".encode()))


def calls() -> Iterator[Replay | str]:
    """Every record but those of chats that are asked for: to be replayed, or why it cannot be."""
    with gzip.open(TRAFFIC, "rt", encoding="utf-8") as lines:
        for line in lines:
            record = json.loads(line)
            if record["endpoint"] == "chat/completions" and record["method"] == "POST":
                continue
            try:
                below = path_below_prefix(record["path"])
                operation, slots = catalogue.match(record["method"], below)
            except ApiError:
                is_azure = record["service"] == "azure_openai"
                yield "an address of Azure's" if is_azure else "nothing that the gateway offers"
                continue
            reason = obstacle(record, operation)
            yield reason or Replay(record, operation, f"/v1{operation.path.format(**slots)}")


def obstacle(record: dict[str, Any], operation: Operation) -> str | None:
    request, response = record["request"], record["response"]
    if operation.refused:
        return "nothing that the gateway offers"
    if response["truncated"] or (response["body"] is None and response["status"] == 200):
        return "the answer is not recorded, or not whole"
    if isinstance(request["body"], str) or (operation.files and request["body"] is None):
        return "the form that was sent is not recorded"
    if operation.files and not operation.streams_body and not isinstance(request["body"], list | dict):
        return "the form that was sent is not recorded"
    return None


async def play(caller: Caller, replays: list[Replay]) -> None:
    """Sends all, those with the same request one after the other, so that each gets its own answer."""
    queues = defaultdict(list)
    for replay in replays:
        queues[key_of(replay.record["method"], replay.target, replay.known_by)].append(replay)
    turn = asyncio.Semaphore(AT_ONCE)
    timeout = aiohttp.ClientTimeout(total=PATIENCE_S)
    key = {"Authorization": f"Bearer {caller.key}"}
    async with aiohttp.ClientSession(timeout=timeout, headers=key) as session:

        async def send_all(queue: list[Replay]) -> None:
            for replay in queue:
                query = f"?{replay.record['query']}" if replay.record["query"] else ""
                url = URL(f"{caller.house.url}{replay.record['path']}{query}", encoded=True)
                headers = {"Content-Type": replay.content_type} if replay.sent else {}
                async with (
                    turn,
                    session.request(
                        replay.record["method"], url, data=replay.sent or None, headers=headers
                    ) as answer,
                ):
                    replay.status, replay.request_id = answer.status, answer.headers["x-request-id"]
                    replay.body = await answer.read()

        await asyncio.gather(*[send_all(queue) for queue in queues.values()])


may_poll = threading.Event()


def lease_the_poller() -> int:
    """Keeps the gateway from asking after work: it would get answers that are meant for the calls.

    For a while only: a turn that lasts longer than the gateways' own counts for nothing.
    """
    from openai_app.models import Lease

    return Lease.objects.update(holder="a test", until=datetime.now(UTC) + timedelta(seconds=14))


def release_the_poller() -> None:
    from openai_app.models import Lease

    Lease.objects.update(until=datetime.now(UTC))


@pytest.fixture(scope="module")
def own_house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """Not that of the other tests: theirs is not to hear of all this work."""
    with house(tmp_path_factory.mktemp("house"), program=polling(GONE_AFTER_S=GONE_AFTER_S)) as opened:
        wait_for(lambda: opened.console.run(lease_the_poller))

        def keep_the_lease() -> None:
            while not may_poll.wait(1.0):
                opened.console.run(lease_the_poller)

        keeper = threading.Thread(target=keep_the_lease)
        keeper.start()
        yield opened
        may_poll.set()
        keeper.join()


@pytest.fixture(scope="module")
def traffic() -> tuple[list[Replay], Counter[str]]:
    """What can be replayed, and how many cannot, by reason."""
    replays, obstacles = [], Counter[str]()
    for found in calls():
        if isinstance(found, Replay):
            replays.append(found)
        else:
            obstacles[found] += 1
    return replays, obstacles


@pytest.fixture(scope="module")
def replays(own_house: House, traffic: tuple[list[Replay], Counter[str]]) -> list[Replay]:
    """All that can be replayed, replayed."""
    found, _ = traffic
    simulator = own_house.simulator
    caller = own_house.caller(9 * 10**15, is_superuser=True)
    for turn in range(3):
        now = [replay for replay in found if replay.turn == turn]
        uploads = [upload for replay in now for upload in (replay.upload(), replay.input_file()) if upload]
        for start in range(0, len(uploads), UPLOAD_AT_ONCE):
            simulator.record(*uploads[start : start + UPLOAD_AT_ONCE])
        asyncio.run(play(caller, now))
        assert simulator.control("GET", "recordings") == {"waiting": 0}
    holds = {hold["id"]: hold for hold in caller.holds()}
    entries = {entry["hold_id"]: entry for entry in caller.charges()}
    for replay in found:
        replay.hold = holds.get(replay.request_id, {})
        replay.entry = entries.get(replay.request_id, {})
    return found


def unlike(replays: list[Replay], is_right: Callable[[Replay], bool]) -> list[str]:
    """What does not meet the claim, briefly."""
    return [
        f"{each.record['method']} {each.target} recorded={each.recorded['status']} got={each.status} "
        f"charged={each.entry.get('units')} usage={each.record['usage']} hold={each.hold.get('reason')} "
        f"{each.body[:200]!r}"
        for each in replays
        if not is_right(each)
    ]


def test_each_answer_that_was_recorded_arrives_byte_for_byte(replays: list[Replay]) -> None:
    answered = [replay for replay in replays if replay.is_answered]
    assert len(answered) > 2_500
    assert unlike(answered, lambda each: (each.status, each.body) == each.expected()) == []


def test_each_refusal_that_was_recorded_arrives_and_costs_nothing(replays: list[Replay]) -> None:
    refused = [replay for replay in replays if not replay.is_answered]

    def is_right(replay: Replay) -> bool:
        if replay.recorded["status"] in (307, 401):
            # A redirection, or words about the operator's key: neither is for the caller.
            return replay.status == 502 and json.loads(replay.body)["error"]["code"] == "upstream_error"
        return (replay.status, replay.body) == replay.expected()

    assert unlike(refused, is_right) == []
    assert unlike(refused, lambda each: not each.entry) == []
    assert unlike(refused, lambda each: each.hold.get("state", "voided") == "voided") == []


def reported(replay: Replay) -> dict[str, int]:
    """Tokens and seconds by OpenAI's own numbers, those of images that a response had made included, and what
    its tools did that OpenAI charges by the call."""
    usage, calls = replay.record["usage"], dict.fromkeys(TOOL_CREDITS, 0)
    tokens = usage.get("prompt_tokens", usage.get("input_tokens")) or 0
    tokens += usage.get("completion_tokens", usage.get("output_tokens")) or 0
    if replay.operation.name == "createResponse":
        # Another event may come after the one with the whole response.
        *_, response = [each.get("response") or each for each in replay.answers() if "usage" in str(each)]
        told = response.get("tool_usage") or {}
        images = told.get("image_gen") or {}
        tokens += images.get("input_tokens", 0) + images.get("output_tokens", 0)
        output = response.get("output") or []
        kinds = Counter(item["type"] for item in output if not is_page_visit(item))
        tools = response.get("tools") or []
        # One that the caller named was paid for when it was made.
        named = {tool["container"] for tool in tools if isinstance(tool.get("container"), str)}
        containers = {item.get("container_id") for item in output} - {None} - named
        calls["web_search"] = (told.get("web_search") or {}).get("num_requests", kinds["web_search_call"])
        calls["file_search"] = kinds["file_search_call"]
        calls["code_interpreter"] = len(containers)
    return {"tokens": tokens, "seconds": usage.get("seconds") or 0, **calls}


def is_page_visit(item: Mapping[str, Any]) -> bool:
    """What belongs to a web search without being one."""
    return bool((item.get("action") or {}).get("type", "search") != "search")


def charged(entry: Mapping[str, Any]) -> dict[str, int]:
    tokens = sum(count for unit, count in entry["units"].items() if unit in TOKENS)
    calls = {unit: entry["units"].get(unit, 0) for unit in TOOL_CREDITS}
    return {"tokens": tokens, "seconds": entry["units"].get("second", 0), **calls}


def is_billed(replay: Replay) -> bool:
    """A token costs a credit, a call of OpenAI's tools a fixed number; what a second costs, rates say."""
    if not replay.entry or replay.entry["reason"] != charge.FINISHED:
        return False
    wanted = reported(replay)
    credits = wanted["tokens"] + sum(wanted[unit] * each for unit, each in TOOL_CREDITS.items())
    is_priced = bool(wanted["seconds"]) or -replay.entry["amount"] == credits
    return charged(replay.entry) == wanted and is_priced


def paid_at_once(replays: list[Replay]) -> list[Replay]:
    """What is not free, and over with its answer."""
    answered = [r for r in replays if r.is_answered and r.operation.meter.estimate is not None]
    return [replay for replay in answered if not replay.hold.get("awaits")]


def billed_at_once(replays: list[Replay]) -> list[Replay]:
    """Of these, what reports its usage."""
    return [replay for replay in paid_at_once(replays) if replay.record["usage"]]


def test_each_bill_is_the_usage_that_was_recorded(replays: list[Replay]) -> None:
    assert unlike(billed_at_once(replays), is_billed) == []


def test_an_answer_without_usage_costs_what_can_be_counted_or_the_whole_hold(replays: list[Replay]) -> None:
    silent = [replay for replay in paid_at_once(replays) if not replay.record["usage"]]

    def is_right(replay: Replay) -> bool:
        if replay.entry["reason"] == charge.NO_USAGE:
            return bool(-replay.entry["amount"] == replay.hold["amount"])
        # Images, characters, documents: none of them are tokens, but for those that search reads.
        return bool(replay.entry["reason"] == charge.FINISHED and replay.entry["units"])

    assert unlike(silent, is_right) == []


def ends(replays: list[Replay]) -> dict[str, set[int]]:
    """By the id of each run, batch and response: the tokens of it by its end, where somebody looked at it."""
    found: dict[str, set[int]] = defaultdict(set)
    looks = [r for r in replays if r.is_answered and r.operation.meter.estimate is None and r.operation.slots]
    for replay in looks:
        for answer in replay.answers() if replay.kind == "json" else ():
            for one in (answer, *(each for each in answer.get("data") or () if isinstance(each, dict))):
                later = LATER.get(str(one.get("object")))
                if later is not None and later.has_ended(one) and one.get("usage"):
                    found[one["id"]].add(one["usage"]["total_tokens"])
    return found


def work_of(replay: Replay) -> str:
    """The id of the work that went on after the answer, if any."""
    return str(replay.hold.get("awaits", "")).rpartition("/")[2]


def test_work_is_billed_by_its_end_where_that_was_recorded(replays: list[Replay]) -> None:
    known = ends(replays)
    ended = [replay for replay in replays if work_of(replay) in known]
    assert {replay.operation.name for replay in ended} >= {"createRun", "createBatch", "createResponse"}

    def is_right(replay: Replay) -> bool:
        entry = replay.entry
        # A stream that is read to its end tells it itself.
        ends_well = bool(entry) and entry["reason"] in (deferred.ENDED, charge.FINISHED)
        return ends_well and -entry["amount"] in known[work_of(replay)]

    assert unlike(ended, is_right) == []


def test_what_is_free_is_never_held_or_charged(replays: list[Replay]) -> None:
    free = [replay for replay in replays if replay.operation.meter.estimate is None]
    assert unlike(free, lambda each: not each.hold and not each.entry) == []


def test_nothing_stays_on_hold_and_the_ledger_adds_up(own_house: House, replays: list[Replay]) -> None:
    """Work of which nothing more was recorded is gone for the gateway, which then asks after it."""
    own_house.simulator.control("DELETE", "recordings")
    may_poll.set()
    own_house.console.run(release_the_poller)
    own_house.wait_until_settled()
    assert own_house.console.run(console.holds, state="open") == []
    assert "wrong" not in own_house.audit()


def test_the_figures_are_reported(
    replays: list[Replay],
    traffic: tuple[list[Replay], Counter[str]],
    record_property: Callable[[str, object], None],
) -> None:
    _, obstacles = traffic
    answered = [replay for replay in replays if replay.is_answered]
    with_usage = billed_at_once(replays)
    later = [replay for replay in answered if replay.hold.get("awaits")]
    bodies = sum((replay.status, replay.body) == replay.expected() for replay in answered)
    bills = sum(map(is_billed, with_usage))
    streams = sum(replay.kind == "sse" for replay in answered)
    known = ends(replays)
    ended = sum(work_of(replay) in known for replay in later)
    in_part = sum(replay.is_sent_in_part for replay in replays)
    whole = sum(replay.entry.get("reason") == charge.NO_USAGE for replay in answered)
    operations = len({replay.operation.name for replay in replays})
    lines = [
        f"Recorded calls of other endpoints: {len(replays):,} of {len(replays) + obstacles.total():,} "
        f"replayed, of {operations} operations.",
        f"  among them {streams:,} streams, {len(replays) - len(answered):,} refusals, "
        f"{in_part:,} requests with files or pictures of which only the beginning was recorded",
        f"  bodies as recorded: {bodies:,} of {len(answered):,}",
        f"  bills as recorded: {bills:,} of {len(with_usage):,}; "
        f"whole holds where no usage was recorded: {whole:,}",
        f"  work that went on after its answer: {len(later):,}; "
        f"billed by the usage at its end where that was recorded: {ended:,}",
        *[f"  not replayed: {count:,} ({reason})" for reason, count in obstacles.most_common()],
    ]
    record_property("figures", "\n".join(lines))
    assert (bodies, bills) == (len(answered), len(with_usage))
