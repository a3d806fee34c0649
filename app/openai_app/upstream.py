"""OpenAI, or what speaks its API at `OPENAI_BASE_URL`: reached with the operator's key, not the caller's."""

import asyncio
import logging
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any
from urllib.parse import quote, urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp
import orjson
from yarl import URL

from common.errors import ApiError, RateLimited, UpstreamFailed, UpstreamTimedOut, error_body
from openai_app.answer.hiding import hide_in_refusal
from openai_app.circuit import Circuit
from openai_app.http.client import HttpClient
from openai_app.http.connection import Body
from openai_app.http.response import ConnectTimeoutError, DisconnectedError, NotConnectedError, Response

log = logging.getLogger(__name__)

# An idle connection is dropped before the servers in front of OpenAI would drop it: one that is closed just
# as it is used again loses a call.
KEEP_ALIVE_S = 15.0
CONNECT_TIMEOUT_S = 10.0
# OpenAI's SDKs wait ten minutes for an answer; so does the gateway between two pieces of one.
READ_TIMEOUT_S = 600.0
# A failed connection has sent nothing, so it alone may be tried again.
CONNECT_ATTEMPTS = 2
CONNECT_PAUSE_S = 0.2
# A WebSocket's other end is asked for a sign of life this often, and has half of it to give one.
SOCKET_HEARTBEAT_S = 60.0
# The other end may take so long to answer a close frame.
SOCKET_CLOSE_S = 2.0
# The largest message on a WebSocket, in either direction: a little more than OpenAI takes of sound at once.
MAX_FRAME_BYTES = 16 * 1024 * 1024

IDEMPOTENCY_KEY = b"idempotency-key"
# What of a caller's headers OpenAI is shown: what the API reference gives a meaning to, and the SDKs' own.
_PASSED_ON = frozenset(
    {
        b"content-type",
        b"accept",
        b"openai-beta",
        b"range",
        b"user-agent",
        b"x-client-request-id",
        IDEMPOTENCY_KEY,
    }
)
_PASSED_ON_PREFIX = b"x-stainless-"
# What of the upstream's headers the caller is shown. Limits, cookies and the organization are the operator's.
_PASSED_BACK = frozenset(
    {
        b"content-type",
        b"accept-ranges",
        b"content-disposition",
        b"content-language",
        b"content-range",
        b"openai-model",
        b"openai-processing-ms",
        b"openai-version",
        b"retry-after",
        b"retry-after-ms",
        b"x-should-retry",
    }
)


class Upstream:
    """One pool of connections for each serving process; made on its event loop, `close`d at its end."""

    def __init__(self, base_url: str, *, api_key: str, organization: str = "", project: str = "") -> None:
        """`base_url` as OpenAI's SDK takes it, without a slash at its end; operations' paths are appended."""
        self._base_url = base_url
        # Usage is read from the answer on its way: it must not be compressed.
        self._headers = {"accept-encoding": "identity"}
        if api_key:
            self._headers["authorization"] = f"Bearer {api_key}"
        if organization:
            self._headers["openai-organization"] = organization
        if project:
            self._headers["openai-project"] = project
        self._targets: dict[str, str] = {}
        self.circuit = Circuit()
        proxy = _proxy_for(base_url)
        self._http = HttpClient(
            base_url,
            [(name.encode("latin-1"), value.encode("latin-1")) for name, value in self._headers.items()],
            connect_timeout_s=CONNECT_TIMEOUT_S,
            read_timeout_s=READ_TIMEOUT_S,
            keep_alive_s=KEEP_ALIVE_S,
            proxy=proxy,
            when_connected=self.circuit.connected,
        )
        # For WebSockets.
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(
                total=None,
                connect=CONNECT_TIMEOUT_S,
                sock_connect=CONNECT_TIMEOUT_S,
                sock_read=READ_TIMEOUT_S,
            ),
            skip_auto_headers=("user-agent", "content-type", "accept"),
            middlewares=(_refuse_redirects,),
            proxy=proxy,
        )

    async def close(self) -> None:
        await self._http.close()
        await self._session.close()

    async def send(
        self,
        method: str,
        path: str,
        query: bytes,
        headers: Iterable[tuple[bytes, bytes]],
        body: Body,
        when_sent: Callable[[], None] = lambda: None,
        caller: str | None = None,
    ) -> Response:
        """The upstream's answer, its body still unread; whoever gets it closes it.

        `when_sent` is told when the request goes out: until there is a connection, nothing has. `caller` is
        whose circuit opens when the calls of one are lost.
        Raises UpstreamFailed or UpstreamTimedOut when there is no answer; at once while the circuit is open.
        """
        target = self._target(path, query)
        sent = _passed_on(headers).items()
        # The length of a whole body is counted anew: something may have been written into it.
        length = None if isinstance(body, bytes) else _content_length(headers)
        with self.circuit.admit(caller):
            for attempt in range(1, CONNECT_ATTEMPTS + 1):
                try:
                    response = await self._http.request(method, target, sent, body, length, when_sent)
                except NotConnectedError as error:
                    if attempt == CONNECT_ATTEMPTS or isinstance(error, ConnectTimeoutError):
                        self.circuit.not_connected()
                        raise failure(error) from error
                    await asyncio.sleep(CONNECT_PAUSE_S)
                except OSError as error:
                    if isinstance(error, DisconnectedError):
                        self.circuit.lost(caller)
                    raise failure(error) from error
                else:
                    self.circuit.answered(caller)
                    return response
        raise AssertionError("unreachable")

    async def connect_socket(
        self,
        path: str,
        query: bytes,
        headers: Iterable[tuple[bytes, bytes]],
        protocols: Collection[str],
        caller: str | None = None,
    ) -> aiohttp.ClientWebSocketResponse:
        """A WebSocket; whoever gets it closes it.

        Raises aiohttp.WSServerHandshakeError when the upstream refuses; UpstreamFailed, UpstreamTimedOut, at
        once while the circuit is open.
        """
        passed = _passed_on(headers)
        # It would be shared by all users, and a handshake is not repeated.
        passed.pop(IDEMPOTENCY_KEY, None)
        with self.circuit.admit(caller):
            try:
                opened = await self._session.ws_connect(
                    URL(self._base_url + self._target(path, query), encoded=True),
                    headers={
                        **{n.decode("latin-1"): v.decode("latin-1") for n, v in passed.items()},
                        **self._headers,
                    },
                    protocols=protocols,
                    heartbeat=SOCKET_HEARTBEAT_S,
                    timeout=aiohttp.ClientWSTimeout(ws_close=SOCKET_CLOSE_S),
                    max_msg_size=MAX_FRAME_BYTES,
                )
            except aiohttp.WSServerHandshakeError:
                self.circuit.answered(caller)
                raise
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                if isinstance(error, aiohttp.ClientConnectorError | aiohttp.ConnectionTimeoutError):
                    self.circuit.not_connected()
                elif isinstance(error, aiohttp.ServerDisconnectedError | aiohttp.ClientOSError):
                    self.circuit.lost(caller)
                raise failure(error) from error
        self.circuit.answered(caller)
        return opened

    def _target(self, path: str, query: bytes) -> str:
        target = self._targets.get(path)
        if target is None:
            target = quote(path, safe=SAFE)
            # Paths hold callers' ids: keep only so many.
            if len(self._targets) < 1_000:
                self._targets[path] = target
        return f"{target}?{quote(query, safe=_SAFE_IN_QUERY)}" if query else target


def _passed_on(headers: Iterable[tuple[bytes, bytes]]) -> dict[bytes, bytes]:
    passed: dict[bytes, bytes] = {}
    for name, value in headers:
        if name in _PASSED_ON or name.startswith(_PASSED_ON_PREFIX):
            # Of a header that stands twice the first: that is the one by which the gateway read the body.
            passed.setdefault(name, value)
    return passed


async def _refuse_redirects(
    request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
) -> aiohttp.ClientResponse:
    """For aiohttp, which follows a handshake's redirection: only the operator says where calls go.

    Raises aiohttp.WSServerHandshakeError.
    """
    response = await handler(request)
    if 300 <= response.status < 400:
        response.close()
        raise aiohttp.WSServerHandshakeError(
            response.request_info, response.history, status=response.status, message="A redirection."
        )
    return response


def _content_length(headers: Iterable[tuple[bytes, bytes]]) -> int | None:
    """How long a body is that is sent as it came; None if its caller has not told, or it came compressed."""
    announced = b""
    for name, value in headers:
        if name == b"content-length":
            announced = announced or value
        elif name == b"content-encoding" and value.strip().lower() not in (b"", b"identity"):
            return None
    return int(announced) if announced.isdigit() else None


def _proxy_for(base_url: str) -> str | None:
    """The proxy that the environment names for an address: the operator's wish.

    aiohttp's own `trust_env` reads it for each request anew, and ~/.netrc with it, both in threads, which
    takes longer than the request; and a password found there would collide with the operator's key.
    """
    parts = urlsplit(base_url)
    if proxy_bypass(parts.netloc):
        return None
    return getproxies().get(parts.scheme)


# What RFC 3986 allows in a path besides letters and digits; everything else is percent-encoded again.
SAFE = "/:@!$&'()*+,;=~-._"
# A query is passed as it came, less what no request line may hold.
_SAFE_IN_QUERY = SAFE + '%?"<>[]\\^`{|}'


def response_headers(response: Response) -> list[tuple[bytes, bytes]]:
    """What of the upstream's headers the caller may see."""
    return [header for header in response.headers if header[0] in _PASSED_BACK]


def failure(error: BaseException) -> ApiError:
    """What the caller is told when the upstream could not be reached or broke off."""
    log.warning("upstream failed: %s: %s", type(error).__name__, error)
    if isinstance(error, TimeoutError):
        return UpstreamTimedOut("OpenAI did not answer in time. Try again.")
    return UpstreamFailed("OpenAI could not be reached, or broke off its answer. Try again.")


def refusal(status: int, content_type: str, body: bytes) -> tuple[int, bytes]:
    """The upstream's refusal as the caller gets it: status and JSON body, in OpenAI's shape.

    OpenAI's own errors pass as they are, less the names of the operator's account. A 401 speaks of the
    operator's key, never of the caller's.
    """
    if status == 401:
        log.error("the upstream refuses OPENAI_API_KEY: the operator must replace it")
        failed = UpstreamFailed("The gateway's own access to OpenAI was refused. Tell its operator.")
        return failed.status, failed.as_bytes()
    if 300 <= status < 400:
        failed = UpstreamFailed("OpenAI answered with a redirection, which the gateway does not follow.")
        return failed.status, failed.as_bytes()
    told = _told(body) if is_json(content_type) else None
    if isinstance(told, Mapping) and isinstance(told.get("message"), str):
        return status, hide_in_refusal(body)
    log.warning("upstream answered %d with a body that is no error object (%s)", status, content_type)
    if status == 429:
        kind, code = RateLimited.type, RateLimited.code
    else:
        kind = "invalid_request_error" if status < 500 else "upstream_error"
        code = f"upstream_{status}"
    message = f"OpenAI answered with status {status} and no explanation."
    if isinstance(told, str) and told:
        message = told
    return status, hide_in_refusal(orjson.dumps(error_body(message, type=kind, code=code)))


def is_json(content_type: str) -> bool:
    return content_type.partition(";")[0].strip().lower() == "application/json"


def _told(body: bytes) -> Any:
    """What a JSON body gives as its error; None for none."""
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    return value.get("error") if isinstance(value, Mapping) else None
