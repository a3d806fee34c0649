"""A gateway with the simulator behind it, and people who call it. Everything between them is real."""

import itertools
import json
import re
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import openai

from gateway.tests import console
from gateway.tests.console import Console
from gateway.tests.running import MANAGE, Gateway, environment, provisioned, running, running_as
from openai_app.settlement.deferred import POLLER
from simulator.testing import SimulatorProcess

OPERATORS_KEY = "sk-operator-of-the-gateway-XyZw"
# Nothing takes so long on the slowest machine; it only keeps a failure from hanging the tests.
PATIENCE_S = 60
JSON = {"Content-Type": "application/json"}
HELLO: list[dict[str, Any]] = [{"role": "user", "content": "Hello!"}]

_SERVE = """
from django.core.management import execute_from_command_line
import os, sys
os.environ["DJANGO_SETTINGS_MODULE"] = "gateway.settings"
execute_from_command_line(["manage.py", *sys.argv[1:]])
"""
# The counters of the workers forbid that the module is imported any earlier.
_POLL = """
from gateway.worker import Worker
begin = Worker.init_process
def init_process(worker):
    from openai_app.settlement import deferred
    vars(deferred).update({bounds!r})
    begin(worker)
Worker.init_process = init_process
"""
# Tests leave work behind that the simulator then forgets: a second is long enough for it to be gone.
GONE_AFTER_S = 1.0
_names = itertools.count(1)


@dataclass(frozen=True)
class Answer:
    """An HTTP answer, read whole; header names in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> dict[str, Any]:
        """The error object, which every refusal must carry."""
        error: dict[str, Any] = self.json["error"]
        assert error.keys() == {"message", "type", "param", "code"}
        return error

    @property
    def request_id(self) -> str:
        return self.headers["x-request-id"]


@dataclass
class Caller:
    """A user with a key."""

    house: "House"
    id: int
    key: str
    key_id: int

    def client(self, **options: Any) -> openai.OpenAI:
        """The official client, told nothing but the address and the key. It is to be closed."""
        return openai.OpenAI(**self._options(options))

    def async_client(self, **options: Any) -> openai.AsyncOpenAI:
        return openai.AsyncOpenAI(**self._options(options))

    def _options(self, options: dict[str, Any]) -> dict[str, Any]:
        return {
            "base_url": f"{self.house.url}/v1",
            "api_key": self.key,
            "max_retries": 0,
            "timeout": PATIENCE_S,
            **options,
        }

    def call(
        self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] = JSON
    ) -> Answer:
        """Calls any path and reads the answer whole."""
        with self.open(method, path, body, headers) as response:
            return Answer(response.status, _headers(response), response.read())

    @contextmanager
    def open(
        self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] = JSON
    ) -> Iterator[HTTPResponse]:
        """The answer as it comes; the connection is closed at the end of the block."""
        connection = self.house.connect()
        try:
            connection.request(method, path, body, {"Authorization": f"Bearer {self.key}", **headers})
            yield connection.getresponse()
        finally:
            connection.close()

    def chat(self, does: str = "", /, **fields: Any) -> Answer:
        """A chat completion; `does` are directives for the simulator."""
        return self.call("POST", "/v1/chat/completions", chat_body(does, **fields))

    @contextmanager
    def chat_stream(self, does: str = "", /, **fields: Any) -> Iterator[HTTPResponse]:
        body = chat_body(does, stream=True, **fields)
        with self.open("POST", "/v1/chat/completions", body) as response:
            yield response

    def account(self) -> dict[str, int]:
        """`balance`, `held`, `available`, as the API shows them to the user."""
        shown: dict[str, int] = self.call("GET", "/api/balance").json
        return shown

    def balance(self) -> int:
        return self.account()["balance"]

    def charges(self) -> list[dict[str, Any]]:
        """The user's entries, oldest first, less the first balance."""
        found = self.house.console.run(console.entries, account_id=self.id)
        return [entry for entry in found if entry["kind"] != "set"]

    def holds(self, **criteria: Any) -> list[dict[str, Any]]:
        return self.house.console.run(console.holds, account_id=self.id, **criteria)

    def hold_of(self, answer: Answer) -> dict[str, Any]:
        (hold,) = self.holds(id=answer.request_id)
        return hold

    def settled(self) -> dict[str, int]:
        """The account once nothing is on hold: what a client that left does not wait for."""
        wait_for(lambda: self.account()["held"] == 0)
        return self.account()


@dataclass
class House:
    """A running gateway, the simulator that is its upstream, and a way into its database."""

    gateway: Gateway
    simulator: SimulatorProcess
    console: Console
    url: str = field(init=False)

    def __post_init__(self) -> None:
        self.url = self.gateway.url

    def connect(self) -> HTTPConnection:
        address = urlsplit(self.url)
        assert address.hostname
        return HTTPConnection(address.hostname, address.port, timeout=PATIENCE_S)

    @contextmanager
    def connected(self) -> Iterator[socket.socket]:
        """A bare connection, for what no client would send."""
        address = urlsplit(self.url)
        with socket.create_connection((address.hostname, address.port), timeout=PATIENCE_S) as connection:
            yield connection

    def caller(self, credits: int = 100_000, *, name: str = "user", **traits: Any) -> Caller:
        """A new user with a key and `credits`; `traits` are those of `console.add_user`."""
        person = self.console.run(console.add_user, f"{name}{next(_names)}", credits, **traits)
        return Caller(self, *person)

    def metric(self, name: str, **labels: str) -> float:
        """The sum of a metric's samples with these labels, as /metrics shows it."""
        answer = Caller(self, 0, "", 0).call("GET", "/metrics")
        total = 0.0
        for line in answer.body.decode().splitlines():
            found = re.fullmatch(rf"{name}(?:\{{(.*)\}})? (\S+)", line)
            if found and all(f'{label}="{value}"' in (found[1] or "") for label, value in labels.items()):
                total += float(found[2])
        return total

    def audit(self) -> str:
        """What `manage.py audit` prints. Raises CommandError when the ledger does not add up."""
        return self.console.run(console.command, "audit")

    def journal(self) -> list[dict[str, Any]]:
        """What the simulator served to callers, once none of it is under way any more."""
        return _of_callers(self.simulator.journal())

    def wait_until_settled(self) -> None:
        """Until nothing is on hold: clients that left did not wait for it."""
        wait_for(lambda: not self.console.run(console.holds, state="open"))

    def wait_for_a_call(self) -> None:
        """Until the simulator is asked for something by a caller."""
        wait_for(lambda: _of_callers(self.simulator.control("GET", "journal?limit=1000000")["calls"]))


def _of_callers(calls: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Those lines of a journal that are not the poller's, who asks at any moment."""
    poller = POLLER.decode()
    return [call for call in calls if call["headers"].get("user-agent") != poller]


def give_up_deferred_work() -> None:
    """Releases all that waits for the end of work; for the console."""
    from balances import ledger
    from balances.models import Hold
    from balances.operations import Void

    left = Hold.objects.filter(state=Hold.State.OPEN).exclude(awaits="")
    if given_up := [Void(hold.id.hex, hold.account_id, "Left by a test.") for hold in left]:
        ledger.apply(given_up)


@contextmanager
def house(
    folder: Path,
    *,
    workers: int = 2,
    upstream: str | None = None,
    program: str | None = None,
    **variables: str,
) -> Iterator[House]:
    """Starts a gateway of `workers` processes, on a database of the kind under test.

    `program` is run first: Python that sets other bounds than the usual, for tests that wait for them.
    """
    data_dir = folder / "data"
    with SimulatorProcess() as simulator, _database(data_dir, variables) as database_variables:
        given = {
            "WEB_CONCURRENCY": str(workers),
            "OPENAI_BASE_URL": upstream or simulator.base_url,
            "OPENAI_API_KEY": OPERATORS_KEY,
            "DJANGO_SUPERUSER_PASSWORD": "of no use here",
            **database_variables,
            **variables,
        }
        command = [sys.executable, "-c", f"{program or ''}\n{_SERVE}", "serve", "--demo"]
        with (
            running_as(command, data_dir, {"PYTHONPATH": str(MANAGE.parent), **given})
            if program
            else running(data_dir, **given) as gateway,
            Console(environment(data_dir, **given)) as beside,
        ):
            yield House(gateway, simulator, beside)


def _database(data_dir: Path, given: Mapping[str, str]) -> AbstractContextManager[Mapping[str, str]]:
    """A database of the house's own, unless it is given one, or has one from before."""
    file = data_dir / "tollgate.sqlite3"
    return nullcontext({}) if "DATABASE_URL" in given or file.exists() else provisioned(file)


def polling(**bounds: float) -> str:
    """A program for `house`: these constants of `settlement.deferred` are others."""
    return _POLL.format(bounds=bounds)


@contextmanager
def port_of_nobody() -> Iterator[int]:
    """A port at which nobody listens, and which nobody else is given as long as the block runs.

    Whoever names it may listen there all the same: servers bind a port "again" after their restart.
    """
    with socket.socket() as bound:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(("127.0.0.1", 0))
        port: int = bound.getsockname()[1]
        yield port


def chat_body(does: str = "", /, **fields: Any) -> bytes:
    """A request for a chat completion, with directives for the simulator in the last message."""
    messages = fields.pop("messages", HELLO)
    if does:
        *before, last = messages
        messages = [*before, {**last, "content": f"{last['content']} [[simulate:{does}]]"}]
    return json.dumps({"model": "gpt-4o-mini", "messages": messages, **fields}).encode()


def raw_request(caller: Caller, body: bytes, path: str = "/v1/chat/completions") -> bytes:
    """A call as the bytes that go over a connection."""
    return (
        f"POST {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {caller.key}\r\n"
        f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    ).encode() + body


def wait_for(condition: Callable[[], object], *, within_s: float = PATIENCE_S) -> None:
    """Until it is so. Raises AssertionError when it never is."""
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def events_of(body: bytes) -> list[Any]:
    """The JSON of a stream's events; `[DONE]` as that text."""
    data = [event.partition(b"data: ")[2] for event in body.split(b"\n\n") if event]
    return ["[DONE]" if each == b"[DONE]" else json.loads(each) for each in data]


def text_of(body: bytes) -> str:
    """The text of a stream's first choice."""
    parts = []
    for event in events_of(body):
        for choice in event["choices"] if isinstance(event, dict) else ():
            if choice["index"] == 0:
                parts.append(choice["delta"].get("content") or "")
    return "".join(parts)


def _headers(response: HTTPResponse) -> dict[str, str]:
    return {name.lower(): value for name, value in response.getheaders()}
