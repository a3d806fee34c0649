"""Every operation of the catalogue, through the gateway and straight to a server that answers by OpenAI's
description: the same answer, and a request in which the description finds no fault."""

import json
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from http.client import HTTPConnection
from typing import Any
from urllib.parse import urlencode, urlsplit

import openai
import pytest

from openai_app.catalogue import CATALOGUE, Operation
from openai_app.catalogue.operation import EVENTS, FORM
from openai_app.catalogue.operation import JSON as JSON_TYPE
from openai_app.metering import CHAT, COMPLETIONS, RUNS, SPEECH
from openai_app.owned.objects import SLOT_KINDS
from openai_app.tests import client_methods, description, mock
from openai_app.tests.attacks import OFFERED, form_of, kinds_in, new_ids, request_of
from openai_app.tests.harness import PATIENCE_S, Caller, house
from openai_app.tests.mock import Mock

pytestmark = [
    pytest.mark.skipif(not mock.IS_AT_HAND, reason=mock.REASON),
    pytest.mark.xdist_group("every operation"),
]

DESCRIBED = [row for row in OFFERED if description.FILE.exists() and description.described(row)]
REFUSED = [row for row in CATALOGUE if row.refused]
IDS = new_ids()
# What says how an answer is to be read.
# By this header the requests of a test are told from those of others.
MARK = "X-Client-Request-Id"
TOLD = ("content-type", "content-disposition", "content-range")


def rows(operations: list[Operation]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("row", operations, ids=[row.name for row in operations])


@dataclass(frozen=True)
class Told:
    """An answer, as far as it must be the same."""

    status: int
    headers: Mapping[str, str | None]
    body: bytes


@dataclass
class Sides:
    """The gateway with the mock behind it, and the mock itself."""

    mock: Mock
    operator: Caller
    mark: str = ""

    @property
    def gateway_url(self) -> str:
        return f"{self.operator.house.url}/v1"

    def by_http(
        self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] = {}
    ) -> tuple[Told, Told]:
        """The answers of the gateway and of the mock to the same request."""
        sent = {**headers, MARK: self._new_mark()}
        through = _fetch(self.gateway_url, self.operator.key, method, path, body, sent)
        return through, _fetch(self.mock.url, self.operator.key, method, path, body, sent)

    def by_client(self, name: str, arguments: Mapping[str, Any]) -> tuple[Told, Told]:
        given = {**arguments, "extra_headers": {MARK: self._new_mark()}}
        through = _ask(self.gateway_url, self.operator.key, name, given)
        return through, _ask(self.mock.url, self.operator.key, name, given)

    def _new_mark(self) -> str:
        self.mark = uuid.uuid4().hex
        return self.mark

    def assert_requests_were_the_same(self) -> None:
        """What the mock was sent by the gateway is valid, and what it was sent straight."""
        forwarded, straight = self.mock.next(self.mark), self.mock.next(self.mark)
        assert forwarded["diagnostics"] == []
        for part in ("method", "path", "query", "body"):
            assert forwarded["request"].get(part) == straight["request"].get(part)


def _fetch(
    url: str, key: str, method: str, path: str, body: bytes | None, headers: Mapping[str, str]
) -> Told:
    address = urlsplit(url)
    connection = HTTPConnection(address.hostname or "", address.port, timeout=PATIENCE_S)
    try:
        sent = {"Authorization": f"Bearer {key}", **headers}
        connection.request(method, address.path + path, body, sent)
        response = connection.getresponse()
        told = {name: response.getheader(name) for name in TOLD}
        return Told(response.status, told, response.read())
    finally:
        connection.close()


def _ask(url: str, key: str, name: str, arguments: Mapping[str, Any]) -> Told:
    with openai.OpenAI(base_url=url, api_key=key, max_retries=0, timeout=PATIENCE_S) as client:
        holder, _, method = name.rpartition(".")
        raw = getattr(client_methods.find(client, holder).with_raw_response, method)(**arguments)
        response = raw.http_response
        told = {name: response.headers.get(name) for name in TOLD}
        return Told(response.status_code, told, response.read())


@pytest.fixture(scope="module")
def sides(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sides]:
    with (
        mock.running() as server,
        house(tmp_path_factory.mktemp("every"), workers=1, upstream=server.url) as opened,
    ):
        # Operators may speak of every id; of a balance so large nothing is capped.
        yield Sides(server, opened.caller(10**15, name="olga", is_superuser=True))


def path_of(row: Operation) -> str:
    slots = {slot: IDS[kind.name] for slot, kind in kinds_in(row.path).items()}
    return row.path.format(**{**slots, **({"model": "gpt-4o-mini"} if "model" in slots else {})})


def query_of(row: Operation) -> str:
    """A query with all parameters that the description knows."""
    asked = {}
    for operation in description.described(row)[:1]:
        for parameter in operation.get("parameters", ()):
            if parameter["in"] == "query":
                asked[parameter["name"]] = _sample(parameter.get("schema", {}))
    asked.pop("stream", None)
    return urlencode({name: value for name, value in asked.items() if value is not None})


def _sample(schema: Any) -> str | None:
    schema = description.resolved(schema)
    for part in (part for word in ("anyOf", "oneOf", "allOf") for part in schema.get(word, ())):
        if (found := _sample(part)) is not None:
            return found
    if "enum" in schema:
        return str(schema["enum"][0])
    if schema.get("type") == "array":
        return _sample(schema["items"])
    return {"integer": "2", "string": "x_12345678", "boolean": "false"}.get(schema.get("type", ""))


# --- By HTTP ------------------------------------------------------------------------------------------------


def named_model(row: Operation) -> dict[str, Any]:
    """A run takes its assistant's model, which the gateway does not know, and so bounds its output."""
    return {"model": "gpt-4o-mini"} if row.meter is RUNS else {}


def streaming(row: Operation) -> dict[str, Any]:
    """What asks for a stream, with its usage, so that the gateway need not ask for it."""
    if row.meter is SPEECH:
        return {"stream_format": "sse"}
    if row.meter in (CHAT, COMPLETIONS):
        return {"stream": True, "stream_options": {"include_usage": True}}
    return {"stream": True}


@rows(DESCRIBED)
def test_a_call_is_answered_as_without_the_gateway(row: Operation, sides: Sides) -> None:
    bodies: list[tuple[bytes | None, dict[str, str]]] = []
    if JSON_TYPE in row.accepts or not row.accepts:
        bodies.append(request_of(row, **named_model(row)))
    if FORM in row.accepts:
        bodies.append(form_of(row))
    if EVENTS in row.answers and JSON_TYPE in row.accepts:
        body, headers = request_of(row, **named_model(row), **streaming(row))
        bodies.append((body, {**headers, "Accept": EVENTS}))
    for body, headers in bodies:
        through, straight = sides.by_http(row.method, path_of(row), body, headers)
        assert through == straight
        assert straight.status < 300
        sides.assert_requests_were_the_same()


@rows([row for row in DESCRIBED if row.query])
def test_a_query_arrives_whole(row: Operation, sides: Sides) -> None:
    body, headers = request_of(row, **named_model(row))
    through, straight = sides.by_http(row.method, f"{path_of(row)}?{query_of(row)}", body, headers)
    assert through == straight
    assert straight.status < 300
    sides.assert_requests_were_the_same()


# --- By the official client ---------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@rows([row for row in DESCRIBED if client_methods.method_for(row)])
def test_the_official_client_is_answered_as_without_the_gateway(row: Operation, sides: Sides) -> None:
    slots = {slot: IDS[kind.name] for slot, kind in kinds_in(row.path).items()}
    arguments = {**client_methods.arguments(row, slots), **named_model(row)}
    through, straight = sides.by_client(client_methods.method_for(row), arguments)
    assert through == straight
    assert straight.status < 300
    sides.assert_requests_were_the_same()


# --- What is refused ----------------------------------------------------------------------------------------


@rows(REFUSED)
def test_what_is_refused_does_not_reach_the_server(row: Operation, sides: Sides) -> None:
    path = row.path.format(
        **{slot: IDS[SLOT_KINDS[slot].name] if slot in SLOT_KINDS else "x_1" for slot in row.slots}
    )
    headers = {"Content-Type": JSON_TYPE, MARK: uuid.uuid4().hex}
    told = _fetch(sides.gateway_url, sides.operator.key, row.method, path, b"{}", headers)
    assert told.status == 403
    assert json.loads(told.body)["error"]["code"] == "operation_not_offered"
    _fetch(sides.mock.url, "none", "GET", "/models", None, headers)
    assert sides.mock.next(headers[MARK])["request"]["path"] == "/models"
