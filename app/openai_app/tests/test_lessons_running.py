"""What kept operators of other gateways awake, and must not here; see docs/lessons.md.

A database that goes away is `test_database_away`'s, the long look at memory `make soak`'s.
"""

import asyncio
import os
import shutil
import subprocess
import sys
import threading
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
import psycopg2
import pytest
from django.conf import settings

from gateway.tests.running import MANAGE, database, environment, running
from gateway.tests.test_serve import paste
from gateway.turns import DJANGO_AT_ONCE
from openai_app.owned.records import THREADS
from openai_app.tests.harness import JSON, PATIENCE_S, Caller, House, chat_body, house
from openai_app.tests.test_parallel_calls import statuses_of

IS_SQLITE = settings.DATABASES["default"]["ENGINE"].endswith("sqlite3")
on_postgresql = pytest.mark.skipif(
    IS_SQLITE, reason="SQLite counts no clients: run it with DATABASE_URL naming a PostgreSQL server."
)
WORKERS = 2
# The ledger's thread, those of the records, and Django's.
CONNECTIONS_OF_A_WORKER = 1 + THREADS + DJANGO_AT_ONCE
# What PostgreSQL counts at most: a backend that ends is counted for a moment longer.
COUNTED_OF_A_WORKER = CONNECTIONS_OF_A_WORKER + 2


# --- connections to the database ------------------------------------------------------------------------


async def everything_at_once(callers: list[Caller], rounds: int) -> Counter[int]:
    """Statuses of calls that need the ledger, the records and Django, all callers at once in each round."""
    timeout = aiohttp.ClientTimeout(total=PATIENCE_S)
    connector = aiohttp.TCPConnector(limit=0)
    targets = (("POST", "/v1/chat/completions"), ("GET", "/v1/files"), ("GET", "/api/balance"))
    async with aiohttp.ClientSession(timeout=timeout, connector=connector) as session:

        async def call(caller: Caller, method: str, path: str) -> int:
            headers = {"Authorization": f"Bearer {caller.key}", **JSON}
            body = chat_body(max_tokens=5) if method == "POST" else None
            url = f"{caller.house.url}{path}"
            async with session.request(method, url, data=body, headers=headers) as answer:
                await answer.read()
                return answer.status

        statuses: Counter[int] = Counter()
        for _ in range(rounds):
            calls = [call(caller, *target) for caller in callers for target in targets]
            statuses.update(await asyncio.gather(*calls))
        return statuses


def connections_of(worker: int) -> int:
    """How many connections to the database a process has open."""
    found = 0
    for number in os.listdir(f"/proc/{worker}/fd"):
        try:
            target = os.readlink(f"/proc/{worker}/fd/{number}")
        except FileNotFoundError:
            continue  # It was closed just now.
        found += target.endswith("/tollgate.sqlite3")
    return found


def clients_of(url: str) -> int:
    """How many clients of a PostgreSQL database there are."""
    with psycopg2.connect(url, dbname="postgres") as connection, connection.cursor() as cursor:
        name = urlsplit(url).path.removeprefix("/")
        cursor.execute("SELECT count(*) FROM pg_stat_activity WHERE datname = %s", [name])
        (count,) = cursor.fetchone() or (0,)
    connection.close()
    return int(count)


def test_each_worker_has_a_small_bounded_number_of_connections_whatever_the_load(tmp_path: Path) -> None:
    """Two hundred callers of everything that needs the database, and streams that last, need no more."""
    highest, is_over = 0, threading.Event()
    with house(tmp_path, workers=WORKERS) as busy:
        url = "" if IS_SQLITE else database_of(busy)

        def watch() -> None:
            nonlocal highest
            while not is_over.wait(0.02):
                each = max(map(connections_of, busy.gateway.workers)) if IS_SQLITE else clients_of(url)
                highest = max(highest, each)

        callers = [busy.caller() for _ in range(20)]
        watcher = threading.Thread(target=watch)
        watcher.start()
        try:
            with callers[0].chat_stream("tokens=50 stall=60 stall_after=5") as response:
                assert response.readline().startswith(b"data: ")
                statuses = asyncio.run(everything_at_once(callers * 3, 4))
        finally:
            is_over.set()
            watcher.join()
    # Django asks to come again rather than to open more.
    assert statuses.keys() <= {200, 503}
    assert statuses[200] >= 2 * 4 * 60
    # The console is a client, too.
    most = CONNECTIONS_OF_A_WORKER if IS_SQLITE else WORKERS * COUNTED_OF_A_WORKER + 1
    assert 0 < highest <= most


def database_of(opened: House) -> str:
    """The address of a gateway's PostgreSQL database."""
    return opened.console.run(os.getenv, "DATABASE_URL", "")


@contextmanager
def limited(url: str, clients: int) -> Iterator[str]:
    """The database with a role for which it takes only so many clients; the address for it."""
    role = f"tollgate_{uuid.uuid4().hex}"
    name = urlsplit(url).path.removeprefix("/")
    execute(url, f"CREATE ROLE {role} LOGIN CONNECTION LIMIT {clients}")
    execute(url, f"ALTER DATABASE {name} OWNER TO {role}")
    host = urlsplit(url).netloc.rpartition("@")[2]
    try:
        yield f"postgresql://{role}@{host}/{name}"
    finally:
        execute(url, f"ALTER DATABASE {name} OWNER TO CURRENT_USER")
        execute(url, f"REASSIGN OWNED BY {role} TO CURRENT_USER", name)
        execute(url, f"DROP OWNED BY {role}", name)
        execute(url, f"DROP ROLE {role}")


def execute(url: str, statement: str, name: str = "postgres") -> None:
    connection = psycopg2.connect(url, dbname=name)
    connection.autocommit = True
    try:
        with connection.cursor() as cursor:
            cursor.execute(statement)
    finally:
        connection.close()


@on_postgresql
def test_a_server_with_few_clients_to_spare_never_has_too_many_already(tmp_path: Path) -> None:
    """As many as the bound says, and the console's one: nobody is told that there is no database."""
    with database() as variables:
        try:
            execute(variables["DATABASE_URL"], "SELECT 1")
            opened = limited(variables["DATABASE_URL"], WORKERS * COUNTED_OF_A_WORKER + 1)
            with opened as url, house(tmp_path, workers=WORKERS, DATABASE_URL=url) as tight:
                callers = [tight.caller() for _ in range(20)]
                statuses = asyncio.run(statuses_of(callers * 10, chat_body(max_tokens=5)))
                mixed = asyncio.run(everything_at_once(callers * 3, 2))
                log = (tmp_path / "data.log").read_text()
        except psycopg2.errors.InsufficientPrivilege:
            pytest.skip("This PostgreSQL user may not make a role with a limit.")
    assert Counter(statuses) == {200: 200}
    assert mixed.keys() <= {200, 503}
    assert "too many" not in log


# --- a start without a network --------------------------------------------------------------------------

GUARD = """
import os, sys
def guard(event, arguments):
    if event == "socket.connect":
        address = arguments[1]
        is_near = not isinstance(address, tuple) or address[0].startswith("127.") or address[0] in ("::1", "")
    elif event == "socket.getaddrinfo":
        address = arguments[0]
        is_near = address in (None, "localhost", b"localhost") or str(address)[:4] in ("127.", "b'12", "::1")
    elif event == "urllib.Request":
        address = arguments[0]
        is_near = "//127." in address or "//localhost" in address
    else:
        return
    if not is_near:
        with open(os.environ["REACHED_OUT"], "a") as told:
            told.write(f"{event} {address}\\n")
        raise OSError(f"no network: {address}")
sys.addaudithook(guard)
"""


def test_nothing_is_downloaded_at_the_start_nor_by_the_first_call(tmp_path: Path) -> None:
    """Every attempt of any process of the gateway to reach another machine is noted, and fails."""
    hooks = tmp_path / "hooks"
    hooks.mkdir()
    (hooks / "sitecustomize.py").write_text(GUARD)
    told = tmp_path / "told"
    with (
        database() as variables,
        running(tmp_path / "data", PYTHONPATH=str(hooks), REACHED_OUT=str(told), **variables) as gateway,
    ):
        _, answer = paste(gateway.commands[:1] + gateway.commands[1:3])
    assert answer["usage"]["total_tokens"] > 0
    assert not told.exists(), told.read_text()
    # The guard would have told.
    probe = "import socket; socket.create_connection(('192.0.2.1', 9))"
    variables = {**environment(tmp_path / "data"), "PYTHONPATH": str(hooks), "REACHED_OUT": str(told)}
    assert subprocess.run([sys.executable, "-c", probe], env=variables, stderr=subprocess.DEVNULL).returncode
    assert "192.0.2.1" in told.read_text()


# Runs the gateway and what it prints to be pasted in a network of its own, in which there is nobody else.
ALONE = """
import fcntl, socket, struct, subprocess, sys
with socket.socket() as any_socket:
    # SIOCSIFFLAGS with IFF_UP: a new network's own address is not up yet.
    fcntl.ioctl(any_socket, 0x8914, struct.pack("16sh14x", b"lo", 1))
serve = subprocess.Popen([sys.executable, *sys.argv[1:]], stdout=subprocess.PIPE, text=True)
commands = []
for line in serve.stdout:
    if "curl " in line:
        commands.append(line)
    if "/v1/chat/completions" in line:
        break
print(subprocess.run(["bash", "-s"], input="\\n".join(commands), text=True, capture_output=True).stdout)
serve.terminate()
sys.exit(serve.wait())
"""


def test_two_commands_work_on_a_machine_without_a_network(tmp_path: Path) -> None:
    """SQLite, the simulator, a token, the balance and a paid call, with nothing but a loopback."""
    isolated = ["unshare", "-rn"]
    if not shutil.which("unshare") or subprocess.run([*isolated, "true"], check=False).returncode:
        pytest.skip("A network of its own needs unshare(1) and the right to use it.")
    done = subprocess.run(
        [*isolated, sys.executable, "-c", ALONE, str(MANAGE), "serve", "--demo"],
        env=environment(tmp_path / "data"),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert '"total_tokens"' in done.stdout


# --- memory ---------------------------------------------------------------------------------------------

CALLS = 1_200
# Four times what was measured; a leak of 20 kB a call, such as a body that is kept, is above it.
MOST_GROWTH_KB = 24 * 1024


def resident_kb(process: int) -> int:
    for line in Path(f"/proc/{process}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    raise AssertionError("Linux tells no VmRSS")


def test_memory_and_descriptors_do_not_grow_with_the_calls(tmp_path: Path) -> None:
    """The short look: JSON, streams, refusals and failures, bodies of 20 kB. `make soak` is the long one."""
    said = [{"role": "user", "content": "word " * 4_000}]
    with house(tmp_path, workers=1) as served:
        rich, poor = served.caller(10**9), served.caller(0)
        (worker,) = served.gateway.workers

        def load(calls: int) -> None:
            for stream in (False, True):
                served.simulator.clear()
                served.simulator.fault("status=500", times=calls // 8)
                served.simulator.fault("tokens=50", times=None)
                body = chat_body(stream=stream, messages=said)
                for _ in range(calls // 80):
                    statuses = asyncio.run(statuses_of([rich] * 30 + [poor] * 10, body))
                    assert set(statuses) <= {200, 402, 500}
            served.wait_until_settled()

        load(CALLS // 2)
        before_kb, files = resident_kb(worker), len(os.listdir(f"/proc/{worker}/fd"))
        load(CALLS)
        assert served.gateway.workers == [worker]
        grown_kb = resident_kb(worker) - before_kb
        assert grown_kb < MOST_GROWTH_KB
        # A few are kept for the next calls, as connections to the upstream.
        assert len(os.listdir(f"/proc/{worker}/fd")) <= files + 40


# --- the benchmark --------------------------------------------------------------------------------------


@pytest.mark.skipif(not IS_SQLITE, reason="It measures on both databases in one run.")
@pytest.mark.skipif(not IS_SQLITE, reason="It makes databases of its own: once is enough.")
def test_the_benchmark_is_repeatable_by_anybody_with_metering_on() -> None:
    """`make bench -- --quick`: one command, which tells the hardware and holds charges against answers."""
    done = subprocess.run(
        [sys.executable, settings.ROOT / "bench" / "run.py", "--quick"],
        env={name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    hardware, packages, *_ = done.stdout.splitlines()
    assert "core" in hardware
    assert "Linux" in hardware
    assert "Python" in hardware
    assert "uvicorn" in packages
    assert "Tollgate, SQLite" in done.stdout
    assert "charged; the audit is clean." in done.stdout
    assert "0 failed" in done.stdout
