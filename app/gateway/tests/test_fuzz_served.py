"""A running gateway under calls that nobody would write: no error, no exception, no unexplained credit.

`make fuzz` goes on with `fuzz_…` for as long as is wished; here each goes a few steps.
"""

import random
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from gateway.tests import console
from gateway.tests.running import log_of
from openai_app.tests.harness import House, house, wait_for

CREDITS = 10**9
# What schemas cannot tell: passwords that are too simple, ids that must exist. And lists pass over a `limit`
# that is no number.
LEFT_OUT = "positive_data_acceptance,negative_data_rejection"
# The whole of the API, and for whom: the account at OpenAI is shared, so a superuser sees what others have.
PLANES = ("^/api/", "^/v1/")
GENERATED = re.compile(r"(\d+) generated")


@contextmanager
def unharmed(folder: Path) -> Iterator[House]:
    """A gateway that must have logged no exception, and whose ledger must add up, at the end of the block."""
    with house(folder) as opened:
        yield opened
        logged = log_of(folder / "data").read_text()
        assert "Traceback" not in logged, logged[-5_000:]
        # A host that is not served is refused, and told of.
        errors = [line for line in logged.splitlines() if " ERROR " in line and "DisallowedHost" not in line]
        assert not errors, errors[:20]
        # What goes on at the upstream, such as a batch, is waited for as long as it takes.
        wait_for(lambda: not opened.console.run(console.holds, state="open", awaits=""))
        opened.audit()


def fuzz_api(gateway: House, seconds: float, seed: int, folder: Path) -> int:
    """Calls all that /api/schema describes, as a user, as a superuser, as nobody; answers how often."""
    keys = [gateway.caller(CREDITS).key, gateway.caller(CREDITS, is_superuser=True).key, ""]
    share = f"--max-time={max(1, round(seconds / len(keys) / len(PLANES)))}"
    options = [share, "--phases=examples,coverage,fuzzing,stateful", "--continue-on-failure"]
    return sum(
        call_described(gateway, key, plane, seed, folder, *options) for key in keys for plane in PLANES
    )


def call_described(gateway: House, key: str, paths: str, seed: int, folder: Path, *options: str) -> int:
    """Runs schemathesis over some of the description; answers how many calls it made."""
    command = [
        *(sys.executable, "-m", "schemathesis.cli", "run", f"{gateway.url}/api/schema"),
        *("--include-path-regex", paths, "--seed", str(seed), "--generation-database=none", "--no-color"),
        *("--exclude-checks", LEFT_OUT, "--warnings=off", "--request-timeout=60", *options),
        *(("--header", f"Authorization: Bearer {key}") if key else ()),
    ]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, errors="replace", check=False)
    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr[-5_000:]
    found = GENERATED.search(done.stdout)
    assert found, done.stdout
    return int(found[1])


METHODS = (b"GET", b"POST", b"PUT", b"OPTIONS", b"HEAD", b"get", b"\xff", b"G ET", b"CONNECT", b"PRI")
PATHS = (
    *(b"/v1/models", b"/v1/chat/completions", b"/api/balance", b"/api/user/me", b"/healthz", b"/readyz"),
    *(b"/api/schema", b"/admin/login/", b"/v1/models/%00", b"/v1/files/%ff%fe", b"*", b"http://x/v1/models"),
    *(
        b"//v1/models",
        b"/v1/../v1/models",
        b"/\xff",
        b"/v1/models?\xff=%zz",
        b"/api/keys?limit=%00&offset=-1",
    ),
    *(b"/v1/threads/%00/runs/\xc3\xa9", b"/api/balance/entries?cursor=%00&user=all", b"/%2e%2e/v1/models"),
)
HOSTS = (
    *(
        b"127.0.0.1",
        b"localhost:1",
        b"x",
        b"",
        b"[::1]",
        b"[",
        b"evil.example",
        b"a@127.0.0.1",
        b"127.0.0.1:x",
    ),
    *(
        b"\xff",
        b"127.0.0.1\x00",
        b"'; DROP TABLE users_user; --",
        b"a" * 5_000,
        b"127.0.0.1, x",
        b"%00",
        b"\xc2\x85",
    ),
)
SECRETS = (
    *(
        b"",
        b"sk-",
        b"sk-tg-",
        b"' OR '1'='1",
        b"\x00",
        b"\xff\xfe",
        b"a" * 20_000,
        b"%00",
        b"\xc2\x85",
        b"\t",
    ),
    *(
        b"{key}",
        b"{key} ",
        b" {key}",
        b"{key},{key}",
        b"{key}\x00",
        b'"{key}"',
        b"{key}\xa0",
        b"\\",
        b"x y z",
    ),
)
SCHEMES = (
    b"Bearer ",
    b"bearer ",
    b"Token ",
    b"Basic ",
    b"",
    b"Bearer",
    b"Bearer\t",
    b"B\xc3\xa9arer ",
    b"Bearer  ",
)
OTHERS = (
    *(
        b"Content-Length: 2",
        b"Content-Length: -1",
        b"Content-Length: 99999999999999999999",
        b"Content-Length: 1_0",
    ),
    *(
        b"Transfer-Encoding: chunked",
        b"Transfer-Encoding: x",
        b"Content-Type: multipart/form-data; boundary=B",
    ),
    *(
        b"Content-Type: multipart/form-data",
        b"Content-Encoding: gzip",
        b"Expect: 100-continue",
        b"Cookie: \xff=1",
    ),
    *(
        b"X-Forwarded-For: \xff",
        b"X-Forwarded-Host: evil",
        b"X-Forwarded-Proto: x",
        b"Upgrade: websocket",
        b": x",
    ),
    *(
        b"Connection: upgrade",
        b"Connection: close",
        b"Idempotency-Key: \xff\x00",
        b"Range: bytes=\xff",
        b"\x00",
    ),
    *(
        b"Content-Type: application/json",
        b"Content-Type: \xff",
        b"Accept: \xff",
        b"Referer: \xff",
        b"Origin: \xff",
    ),
)
BODIES = (
    b"",
    b"{}",
    b'{"model":"gpt-4o-mini","messages":[]}',
    b"--B\r\n\r\n\r\n--B--\r\n",
    b"0\r\n\r\n",
    b"\xff",
)
CHAT = b'{"model":"gpt-4o-mini","messages":[{"role":"user","content":"Hello!"}]}'
SOUND = (
    (b"GET", b"/v1/models", b""),
    (b"GET", b"/api/balance", b""),
    (b"GET", b"/api/keys", b""),
    (b"POST", b"/v1/chat/completions", CHAT),
)
STATUS = re.compile(rb"HTTP/1\.[01] (\d{3}) ")


def fuzz_headers(gateway: House, seconds: float, seed: int, folder: Path, most: int = 10**9) -> int:
    """Sends requests with odd heads over bare connections; answers how many."""
    dice, until = random.Random(seed), time.monotonic() + seconds
    key = gateway.caller(CREDITS).key.encode()
    count, seen = 0, set()
    while count < most and time.monotonic() < until:
        count += 1
        request = a_request(dice, key)
        with gateway.connected() as connection:
            answer = all_of(connection, request)
        statuses = [int(status) for status in STATUS.findall(answer)]
        assert all(status < 500 for status in statuses), (request, answer[:1_000])
        seen.update(statuses)
    # They are odd, but not so odd that nothing gets through.
    assert seen >= {200, 400, 401, 404}, seen
    return count


def a_request(dice: random.Random, key: bytes) -> bytes:
    """A request that is sound but for some of its parts."""
    odd = dice.sample(("method", "path", "host", "key", "others", "body"), dice.randrange(1, 4))
    method, path, body = dice.choice(SOUND)
    method = pick(dice, METHODS) if "method" in odd else method
    path = pick(dice, PATHS) if "path" in odd else path
    lines = [b"%b %b HTTP/1.1" % (method, path)]
    if "host" in odd:
        lines += [b"Host: " + pick(dice, HOSTS) for _ in range(dice.choice((1, 1, 1, 0, 2)))]
    else:
        lines.append(b"Host: 127.0.0.1")
    if "key" in odd:
        for _ in range(dice.choice((1, 1, 1, 0, 2))):
            secret = pick(dice, SECRETS).replace(b"{key}", key)
            lines.append(b"Authorization: " + pick(dice, SCHEMES) + secret)
    else:
        lines.append(b"Authorization: Bearer " + key)
    if "others" in odd:
        lines += [pick(dice, OTHERS) for _ in range(dice.randrange(1, 4))]
    if "body" in odd:
        body = dice.choice(BODIES)
    else:
        lines.append(b"Content-Length: %d" % len(body))
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def pick(dice: random.Random, choices: tuple[bytes, ...]) -> bytes:
    """One of the choices, sometimes with a byte more."""
    chosen = bytearray(dice.choice(choices))
    if dice.random() < 0.1:
        chosen.insert(dice.randrange(len(chosen) + 1), dice.randrange(256))
    return bytes(chosen)


def all_of(connection: socket.socket, request: bytes) -> bytes:
    """What is answered to a request after which nothing more comes."""
    answer = b""
    try:
        connection.sendall(request)
        connection.shutdown(socket.SHUT_WR)
        while piece := connection.recv(65_536):
            answer += piece
    except ConnectionError:
        # It may close before it has read all of what it refuses.
        pass
    return answer


FEW = ("--phases=fuzzing", "--max-examples=1", "--no-shrink")


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with unharmed(tmp_path_factory.mktemp("fuzzed")) as opened:
        yield opened


def test_a_few_calls_of_the_control_plane_go_as_it_is_described(gateway: House, tmp_path: Path) -> None:
    key = gateway.caller(CREDITS, is_superuser=True).key
    assert call_described(gateway, key, PLANES[0], 1, tmp_path, *FEW) > 10


def test_a_few_calls_of_the_data_plane_go_as_it_is_described(gateway: House, tmp_path: Path) -> None:
    key = gateway.caller(CREDITS).key
    assert call_described(gateway, key, "^/v1/(chat|responses|files|audio)", 1, tmp_path, *FEW) > 10


def test_odd_heads_of_requests_are_answered_or_refused(gateway: House, tmp_path: Path) -> None:
    assert fuzz_headers(gateway, 600, 1, tmp_path, most=300) == 300
