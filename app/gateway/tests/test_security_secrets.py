"""A gateway is used, misused and broken for a while; then nothing that it put out anywhere holds a secret."""

import base64
import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from http.cookiejar import CookieJar
from pathlib import Path
from urllib.parse import quote, urlencode

import pytest
from django.conf import settings
from psycopg2.extensions import parse_dsn
from websockets.exceptions import InvalidStatus

from gateway.tests import console
from gateway.tests.forwarder import Forwarder
from gateway.tests.leaks import leaks
from gateway.tests.running import MANAGE, database, environment, log_of
from openai_app.tests.harness import JSON, Caller, House, chat_body, house, wait_for
from openai_app.tests.sockets.upstream import dialled

ON_POSTGRESQL = settings.DATABASES["default"]["ENGINE"].endswith("postgresql")
OPERATOR = "olga@example.org"
DORA = "dora@example.org"


def made_up(name: str) -> str:
    """A secret like no other text: nothing of it is a word, and no prefix gives it away."""
    return f"q7Zx{name.encode().hex()[:8]}w9Kf{os.urandom(12).hex()}"


@dataclass
class Evidence:
    """The secrets that were at work, and all that was put out while they were, by where that was."""

    secrets: dict[str, str] = field(default_factory=dict)
    places: dict[str, str] = field(default_factory=dict)

    def answer(self, name: str, head: object, body: bytes, *, shows: str = "") -> None:
        """Keeps an answer. What it `shows` is for whoever asked, and is a secret from here on."""
        text = f"{head}\n{body.decode('latin-1')}"
        if shows:
            self.secrets[f"{name}'s secret"] = shows
            text = text.replace(shows, "")
        self.places[f"answer {len(self.places)}, {name}"] = text


class Exercise:
    """What people and accidents do to a gateway."""

    def __init__(self, served: House, evidence: Evidence) -> None:
        self.house = served
        self.evidence = evidence
        self.alice = served.caller(name="alice")
        evidence.secrets["a key"] = self.alice.key

    def call(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        key: str | None = None,
        headers: Mapping[str, str] = JSON,
        shows: str = "",
    ) -> int:
        """One call; `shows` names the field of a secret in its answer."""
        caller = Caller(self.house, 0, self.alice.key if key is None else key, 0)
        sent = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        answer = caller.call(method, path, sent, headers)
        found = answer.json[shows] if shows and answer.status < 300 else ""
        name = f"{method} {path.partition('?')[0]}"
        self.evidence.answer(name, answer.headers, answer.body, shows=found)
        return answer.status

    def last_shown(self) -> str:
        return list(self.evidence.secrets.values())[-1]

    def people(self) -> None:
        """Log-ins, right and wrong; users and keys that come and go."""
        secrets = self.evidence.secrets
        credentials = {"email": OPERATOR, "password": secrets["the superuser's password"]}
        assert self.call("POST", "/api/user/auth", credentials, shows="token") == 200
        token = self.last_shown()
        new = {"email": DORA, "password": secrets["a password"]}
        assert self.call("POST", "/api/user/create", new, key=token) == 201
        assert self.call("POST", "/api/user/auth", new, shows="token") == 200
        doras = self.last_shown()
        assert self.call("POST", "/api/keys", {"name": "x"}, key=doras, shows="secret") == 201
        listed = Caller(self.house, 0, doras, 0).call("GET", "/api/keys").json["results"]
        assert self.call("POST", f"/api/keys/{listed[0]['id']}/rotate", key=doras, shows="secret") == 200
        assert self.call("PATCH", "/api/user/me", {"password": secrets["a new password"]}, key=doras) == 200
        self.call("PATCH", "/api/user/me", {"password": secrets["a new password"], "email": 7}, key=doras)
        for path in ("/api/keys", "/api/user/me", "/api/balance", "/api/balance/entries", "/api/usage"):
            assert self.call("GET", path, key=doras) == 200
        for path in ("/api/users", "/api/users/1", "/api/balance/1"):
            assert self.call("GET", path, key=token) == 200

    def mistakes(self) -> None:
        """Secrets where they do not belong, and calls that make no sense."""
        mistyped = self.evidence.secrets["a mistyped password"]
        stray = self.evidence.secrets["a stray key"]
        assert self.call("POST", "/api/user/auth", {"email": OPERATOR, "password": mistyped}) == 400
        assert self.call("POST", "/api/user/auth", {"password": mistyped}) == 400
        for body in (f'{{"password": "{mistyped}"'.encode(), f'["{mistyped}"]'.encode()):
            assert self.call("POST", "/api/user/auth", body) == 400
            assert self.call("POST", "/v1/chat/completions", body) == 400
        for headers in (
            {"Authorization": f"Basic {stray}"},
            {"Authorization": stray},
            {"Cookie": f"sessionid={stray}"},
        ):
            for path in ("/v1/models", "/api/balance"):
                assert self.call("GET", path, key="", headers={"Authorization": "", **headers}) == 401
        for path in ("/v1/models", "/api/balance"):
            assert self.call("GET", path, key=stray) == 401
            assert self.call("GET", f"{path}?api_key={stray}") in (200, 401)
        evil = {"Host": f"{stray}.example", "X-Api-Key": stray}
        assert self.call("GET", "/api/balance", headers=evil) == 400
        self.call("GET", "/v1/files", headers={"X-Long": stray * 3000})
        for path in ("/v1/realtime", "/v1/realtime?model=gpt-realtime"):
            protocols = ("realtime", f"openai-insecure-api-key.{stray}")
            with pytest.raises(InvalidStatus), dialled(self.house, path, {}, protocols):
                pass

    def calls(self) -> None:
        """Calls that succeed, and an upstream that fails in all ways and tells what it should not."""
        assert self.call("POST", "/v1/chat/completions", chat_body()) == 200
        for does in ("", "status=400", "status=401", "status=403", "status=429", "status=500"):
            for stream in (False, True):
                self.call("POST", "/v1/chat/completions", chat_body(does, stream=stream))
        for does in ("reset", "html", "malformed", "truncate_after=20", "error_after=2"):
            self.call("POST", "/v1/chat/completions", chat_body(does))
        told = {n: v for n, v in self.evidence.secrets.items() if n.startswith("the upstream's")}
        for stream in (False, True):
            error = json.dumps({"error": {"message": f"No: {told}", "type": "x", "param": None}})
            body = f"data: {error}\n\n" if stream else error
            kind = "text/event-stream" if stream else "application/json"
            for status in (200, 400, 401, 503) if stream else (400, 401, 503):
                answer = {
                    "status": status,
                    "body": body,
                    "headers": {"content-type": kind, "x-key": str(told)},
                }
                request = json.loads(chat_body(**({"stream": True} if stream else {})))
                self.house.simulator.record({"request": request, **answer})
                self.call("POST", "/v1/chat/completions", chat_body(**({"stream": True} if stream else {})))

    def admin(self) -> None:
        """An operator's browser, all over the admin."""
        jar = CookieJar()
        browser = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(jar))

        def visit(path: str, **form: str) -> str:
            body = urlencode(form).encode() if form else None
            request = urllib.request.Request(self.house.url + path, body, {"Referer": self.house.url + path})
            try:
                with browser.open(request) as answer:
                    page: bytes = answer.read()
            except urllib.error.HTTPError as error:
                page = error.read()
            self.evidence.places[f"page {len(self.evidence.places)}, {path}"] = page.decode()
            return page.decode()

        visit("/admin/login/")
        token = next(cookie.value for cookie in jar if cookie.name == "csrftoken")
        wrong = {"username": OPERATOR, "csrfmiddlewaretoken": str(token)}
        visit("/admin/login/", **wrong, password=self.evidence.secrets["a mistyped password"])
        visit("/admin/login/", **wrong, password=self.evidence.secrets["the superuser's password"])
        session = next(cookie.value for cookie in jar if cookie.name == "sessionid")
        self.evidence.secrets["a session"] = str(session)
        assert "Users" in visit("/admin/")
        for model in ("users/user", "users/apikey", "balances/account", "balances/entry", "balances/rate"):
            visit(f"/admin/{model}/")
            visit(f"/admin/{model}/1/change/")
        for path in ("balances/hold/?state=all", "openai_app/upstreamobject/", "users/user/1/history/"):
            visit(f"/admin/{path}")
        visit(f"/admin/users/user/?{quote('bogus' + self.evidence.secrets['a stray key'])}=1")

    def accidents(self) -> None:
        """Defects that leave tracebacks, a worker that is killed, and an operator who looks around."""
        run = self.house.console.run
        run(console.change_key, self.alice.key_id, allowed_models=7)
        self.call("POST", "/v1/chat/completions", chat_body())
        run(console.change_key, self.alice.key_id, allowed_models=[])
        run(rename, "users_apikey", "users_apikey_away")
        try:
            for path in ("/v1/models", "/api/balance"):
                assert self.call("GET", path) >= 500
            self.call("POST", "/v1/chat/completions", chat_body())
        finally:
            run(rename, "users_apikey_away", "users_apikey")
        run(rename, "balances_account", "balances_account_away")
        try:
            assert self.call("GET", "/api/balance") >= 500
        finally:
            run(rename, "balances_account_away", "balances_account")
        os.kill(descendants(self.house.gateway.process.pid)[-1], signal.SIGKILL)
        wait_for(lambda: self.alice.chat().status == 200)
        for path in (
            "/healthz",
            "/readyz",
            "/metrics",
            "/api/docs",
            "/api/schema",
            "/api/nothing",
            "/nothing",
        ):
            self.call("GET", path, key="")
        self.evidence.places["the audit"] = self.house.audit()

    def outage(self, cable: Forwarder) -> None:
        cable.cut()
        wait_for(lambda: self.alice.chat().status == 503)
        for method, path in (("GET", "/readyz"), ("GET", "/api/balance"), ("GET", "/admin/login/")):
            self.call(method, path)
        self.call("POST", "/api/user/auth", {"email": DORA, "password": self.evidence.secrets["a password"]})
        cable.mend()
        wait_for(lambda: self.alice.chat().status == 200)


def rename(table: str, name: str) -> None:
    """Run in the console."""
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute(f"ALTER TABLE {table} RENAME TO {name}")


def dump() -> str:
    """All that the database holds. Run in the console."""
    from django.db import connection

    rows = []
    with connection.cursor() as cursor:
        for table in connection.introspection.table_names(cursor):
            cursor.execute(f'SELECT * FROM "{table}"')
            rows += [f"{table}: {row!r}" for row in cursor.fetchall()]
    return "\n".join(rows)


def descendants(pid: int) -> list[int]:
    """The processes that a process has started, and theirs."""
    found = []
    # Those may end while they are looked at.
    with suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            with suppress(OSError):
                for child in (task / "children").read_text().split():
                    found += [int(child), *descendants(int(child))]
    return found


def titles(pid: int) -> str:
    """What everyone on the machine can see of a process and of those it has started."""
    lines = []
    for each in (pid, *descendants(pid)):
        shown = Path(f"/proc/{each}")
        lines += [(shown / name).read_text().replace("\0", " ") for name in ("cmdline", "comm", "status")]
    return "\n".join(lines)


def given() -> dict[str, str]:
    """The operator's secrets, by the variables that they are given in."""
    return {
        "OPENAI_API_KEY": made_up("key"),
        "OPENAI_ORGANIZATION": made_up("organization"),
        "OPENAI_PROJECT": made_up("project"),
        "SECRET_KEY": made_up("sessions") + made_up("sessions"),
        "DJANGO_SUPERUSER_EMAIL": OPERATOR,
        "DJANGO_SUPERUSER_PASSWORD": made_up("operator"),
    }


@pytest.fixture(scope="module")
def evidence(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Evidence]:
    """The exercise, run once."""
    folder, variables, found = tmp_path_factory.mktemp("secrets"), given(), Evidence()
    for name, variable in (
        ("the upstream's key", "OPENAI_API_KEY"),
        ("the upstream's organization", "OPENAI_ORGANIZATION"),
        ("the upstream's project", "OPENAI_PROJECT"),
        ("the key of sessions", "SECRET_KEY"),
        ("the superuser's password", "DJANGO_SUPERUSER_PASSWORD"),
    ):
        found.secrets[name] = variables[variable]
    for name in ("a password", "a new password", "a mistyped password", "a stray key"):
        found.secrets[name] = made_up(name[2:])
    with ExitStack() as stack:
        cable = None
        if ON_POSTGRESQL:
            url = stack.enter_context(database())["DATABASE_URL"]
            cable = stack.enter_context(Forwarder(url))
            password = parse_dsn(url).get("password") or made_up("database")
            head, _, tail = cable.url.partition("@")
            user = head.removeprefix("postgresql://").partition(":")[0]
            variables["DATABASE_URL"] = f"postgresql://{user}:{quote(password, safe='')}@{tail}"
            if len(password) >= 8:
                found.secrets["the database's password"] = password
        else:
            # An empty one: the superuser is to be made with the password from above.
            variables["DATABASE_URL"] = f"sqlite:///{folder}/data/tollgate.sqlite3"
        served = stack.enter_context(house(folder, workers=2, **variables))
        exercise = Exercise(served, found)
        exercise.people()
        exercise.mistakes()
        exercise.calls()
        exercise.admin()
        exercise.accidents()
        if cable is not None:
            exercise.outage(cable)
        found.places["the processes"] = titles(served.gateway.process.pid)
        found.places["the database"] = served.console.run(dump)
        served.gateway.stop()
        assert served.gateway.process.stdout is not None
        found.places["standard output"] = served.gateway.printed + served.gateway.process.stdout.read()
        found.places["the log"] = log_of(folder / "data").read_text()
        for path in folder.rglob("*"):
            if path.is_file():
                found.places[f"the file {path.name}"] = path.read_bytes().decode("latin-1")
        yield found


def test_no_secret_is_in_logs_answers_pages_metrics_processes_files_or_the_database(
    evidence: Evidence, record_property: Callable[[str, object], None]
) -> None:
    looked_through = sum(map(len, evidence.places.values()))
    record_property(
        "figures",
        f"{len(evidence.secrets)} secrets looked for in {len(evidence.places)} places, "
        f"{looked_through / 1e6:.1f} million characters.",
    )
    assert leaks(evidence.secrets, evidence.places) == []


def test_the_exercise_went_where_secrets_might_have_come_out(evidence: Evidence) -> None:
    log = evidence.places["the log"]
    assert "Traceback (most recent call last)" in log
    assert "the upstream refuses OPENAI_API_KEY" in log
    assert "a Host header named none of ALLOWED_HOSTS" in log
    assert "users_apikey: " in evidence.places["the database"]
    assert "manage.py serve" in evidence.places["the processes"]
    assert len(evidence.secrets) >= 13
    assert len(evidence.places) >= 80


@pytest.mark.parametrize("written", ["{}", "x%3d{}", '"{}"', "Bearer {}"])
def test_a_secret_is_found_wherever_it_stands(written: str) -> None:
    secret = made_up("found")
    assert leaks({"it": secret}, {"here": written.format(secret), "there": "nothing"}) == ["it in here"]


@pytest.mark.parametrize("before", ["", "a", "ab", "user:"])
def test_a_secret_is_found_in_base64(before: str) -> None:
    secret = made_up("found")
    encoded = base64.b64encode(f"{before}{secret} and more".encode()).decode()
    assert leaks({"it": secret}, {"here": encoded}) == ["it in here"]
    assert leaks({"it": secret}, {"here": base64.b64encode(b"something else altogether")}) == []


def test_a_database_that_refuses_at_the_start_is_told_without_its_password(tmp_path: Path) -> None:
    password = made_up("database")
    url = f"postgresql://tollgate:{password}@127.0.0.1:1/tollgate"
    for command in ("serve", "audit", "sweep", "check"):
        ended = subprocess.run(
            [sys.executable, MANAGE, command, *(["--demo"] if command == "serve" else [])],
            env=environment(tmp_path / "data", DATABASE_URL=url),
            capture_output=True,
            text=True,
            check=False,
        )
        assert ended.returncode != 0 or command == "check"
        assert leaks({"it": password}, {"out": ended.stdout, "err": ended.stderr}) == []
