"""`manage.py serve`, as `make run` starts it: from nothing to a paid-for call, and to a clean end."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg2
import pytest
from django.conf import settings

from gateway.provision import START_CREDITS
from gateway.tests.running import MANAGE, Gateway, database, environment, log_of, running

pytestmark = pytest.mark.xdist_group("serve")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, dict[str, str]]]:
    """A data folder and a database, both empty at first, which the gateways of this file share."""
    with database() as variables:
        yield tmp_path_factory.mktemp("serve") / "data", variables


@pytest.fixture(scope="module")
def first(place: tuple[Path, dict[str, str]]) -> Iterator[Gateway]:
    """The gateway's first start in an empty place."""
    data_dir, variables = place
    with running(data_dir, WEB_CONCURRENCY="2", **variables) as gateway:
        yield gateway


def paste(commands: list[str], **variables: str) -> list[Any]:
    """The JSON documents that the commands print, pasted one after the other into one bash."""
    done = subprocess.run(
        ["bash", "-s"],
        input="\n".join(commands),
        env={"PATH": os.environ["PATH"], **variables},
        text=True,
        capture_output=True,
        check=True,
    )
    assert done.stderr == ""
    found, rest = [], done.stdout.strip()
    while rest:
        document, end = json.JSONDecoder().raw_decode(rest)
        found.append(document)
        rest = rest[end:].strip()
    return found


def until_refused(url: str) -> None:
    """Returns once nobody listens at the address any more."""
    host, _, port = url.removeprefix("http://").partition(":")
    while True:
        try:
            socket.create_connection((host, int(port))).close()
        except ConnectionRefusedError:
            return
        time.sleep(0.05)


def get(url: str, **headers: str) -> Any:
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers)) as answer:
        return json.load(answer)


def token_of(gateway: Gateway) -> str:
    login = gateway.commands[0]
    (printed,) = paste([login, 'echo "\\"$TOKEN\\""'])
    assert isinstance(printed, str)
    return printed


def test_the_pasted_commands_get_a_token_see_the_balance_and_make_a_paid_call(first: Gateway) -> None:
    assert len(first.commands) == 3
    balance, answer, after = paste([*first.commands, first.commands[1]])
    assert answer["object"] == "chat.completion"
    assert balance["available"] == balance["balance"]
    assert after["balance"] == balance["balance"] - answer["usage"]["total_tokens"]
    assert after["held"] == 0


def test_the_credentials_that_were_made_up_are_printed(first: Gateway) -> None:
    assert "Superuser made: admin@example.com" in first.printed
    assert re.search(r"Its password, shown this once: \S{12,}\n", first.printed)


def test_it_says_that_the_simulator_answers(first: Gateway) -> None:
    assert "the simulator: no OPENAI_API_KEY and no OPENAI_BASE_URL is set" in first.printed


def test_the_first_balance_is_an_entry_with_a_reason(first: Gateway) -> None:
    history = get(f"{first.url}/api/balance/entries", Authorization=f"Bearer {token_of(first)}")
    oldest = history["results"][-1]
    assert (oldest["amount"], oldest["reason"]) == (START_CREDITS, "The first superuser's start balance")


def test_metrics_of_all_workers_are_answered_together(first: Gateway) -> None:
    with urllib.request.urlopen(f"{first.url}/metrics") as answer:
        assert b"# TYPE" in answer.read()


@pytest.mark.parametrize("path", ["/api/docs", "/api/docs/", "/api/schema", "/api/schema/", "/admin/login/"])
def test_the_pages_are_served(first: Gateway, path: str) -> None:
    with urllib.request.urlopen(first.url + path) as answer:
        assert answer.status == 200


def test_what_the_pages_need_comes_from_here(first: Gateway) -> None:
    for path in ("/api/docs", "/admin/login/"):
        with urllib.request.urlopen(first.url + path) as answer:
            page = answer.read().decode()
        needed = re.findall(r'(?:src|<link[^>]*href)="([^"]+)"', page)
        assert needed
        for address in needed:
            assert address.startswith("/"), address
            with urllib.request.urlopen(first.url + address) as answer:
                assert answer.status == 200


def test_a_head_without_end_is_refused(first: Gateway) -> None:
    host, _, port = first.url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nx-long: " + b"a" * 200_000)
        assert connection.recv(100).startswith(b"HTTP/1.1 400 ")


def test_a_second_start_on_the_same_port_says_what_is_wrong(
    first: Gateway, place: tuple[Path, dict[str, str]]
) -> None:
    port = first.url.rpartition(":")[2]
    refused = subprocess.run(
        [sys.executable, MANAGE, "serve", "--demo"],
        env=environment(place[0], **{**place[1], "PORT": port}),
        capture_output=True,
        text=True,
        check=False,
    )
    assert refused.returncode == 1
    assert refused.stderr.startswith(f"CommandError: Cannot listen on HOST '127.0.0.1', PORT {port}: ")


def test_a_second_start_changes_nothing_and_prints_no_credentials(
    first: Gateway, place: tuple[Path, dict[str, str]]
) -> None:
    data_dir, variables = place
    token = token_of(first)
    before = get(f"{first.url}/api/balance", Authorization=f"Bearer {token}")
    key = (data_dir / "secret_key").read_bytes()
    with running(data_dir, **variables) as second:
        assert "password, shown" not in second.printed
        assert "Superuser made" not in second.printed
        assert get(f"{second.url}/api/balance", Authorization=f"Bearer {token}") == before
        password = re.search(r"shown this once: (\S+)", first.printed)
        assert password
        # The commands work just the same for who knows the password.
        balance, answer = paste(second.commands, DJANGO_SUPERUSER_PASSWORD=password[1])
        assert balance == before
        assert answer["object"] == "chat.completion"
    assert (data_dir / "secret_key").read_bytes() == key


def test_a_signal_lets_open_streams_finish_and_leaves_nothing_on_hold(tmp_path: Path) -> None:
    with database() as variables:
        with running(tmp_path / "data", **variables) as gateway:
            token = token_of(gateway)
            request = urllib.request.Request(
                f"{gateway.url}/v1/chat/completions",
                data=json.dumps(
                    {
                        "model": "gpt-4o-mini",
                        "stream": True,
                        "messages": [
                            {"role": "user", "content": "Hello! [[simulate:tokens=30,chunk_delay=0.05]]"}
                        ],
                    }
                ).encode(),
                headers={"Authorization": f"Bearer {token}", "Content-Type": "application/json"},
            )
            with urllib.request.urlopen(request) as stream:
                assert stream.readline().startswith(b"data: ")
                gateway.process.send_signal(signal.SIGTERM)
                assert stream.read().endswith(b"data: [DONE]\n\n")
            assert gateway.process.wait() == 0
        with running(tmp_path / "data", **variables) as gateway:
            balance = get(f"{gateway.url}/api/balance", Authorization=f"Bearer {token}")
    assert balance["held"] == 0
    assert balance["balance"] < START_CREDITS


def test_ctrl_c_ends_it_cleanly_and_the_simulator_with_it(tmp_path: Path) -> None:
    with running(tmp_path / "data") as gateway:
        upstream = re.search(r"upstream: http://127.0.0.1:(\d+)/v1", gateway.printed)
        assert upstream
        assert gateway.stop(signal.SIGINT) == 0
        until_refused(gateway.url)
        until_refused(f"http://127.0.0.1:{upstream[1]}")


def test_workers_do_not_outlive_a_server_that_was_killed(tmp_path: Path) -> None:
    with running(tmp_path / "data") as gateway:
        gateway.stop(signal.SIGKILL)
        until_refused(gateway.url)


def test_with_credentials_given_none_are_printed_and_the_commands_take_the_password_from_the_shell(
    tmp_path: Path,
) -> None:
    given = {
        "DJANGO_SUPERUSER_EMAIL": "Alice@example.com",
        "DJANGO_SUPERUSER_PASSWORD": 'it\'s a "secret" & $more',
    }
    with running(tmp_path / "data", **given) as gateway:
        assert given["DJANGO_SUPERUSER_PASSWORD"] not in gateway.printed
        balance, answer = paste(gateway.commands, **given)
    assert balance["balance"] == START_CREDITS
    assert answer["object"] == "chat.completion"


def test_with_an_upstream_of_ones_own_the_start_is_the_same_three_commands(
    first: Gateway, tmp_path: Path
) -> None:
    upstream = re.search(r"upstream: (http\S+/v1)", first.printed)
    assert upstream
    with running(tmp_path / "data", OPENAI_BASE_URL=upstream[1], OPENAI_API_KEY="sk-of-the-operator") as own:
        assert "the simulator" not in own.printed
        assert "sk-of-the-operator" not in own.printed
        assert len(own.commands) == 3
        balance, answer = paste(own.commands)
    assert balance["balance"] == START_CREDITS
    assert answer["object"] == "chat.completion"


def test_a_superuser_who_was_there_before_the_first_start_is_granted_nothing(tmp_path: Path) -> None:
    email = "alice@example.com"
    given = {"DJANGO_SUPERUSER_EMAIL": email, "DJANGO_SUPERUSER_PASSWORD": "correct horse battery"}
    with database() as variables:
        for command in (["migrate"], ["createsuperuser", "--noinput", "--email", email]):
            subprocess.run(
                [sys.executable, MANAGE, *command, "--verbosity", "0"],
                env=environment(tmp_path / "data", **variables, **given),
                check=True,
            )
        with running(tmp_path / "data", **variables, **given) as gateway:
            (balance,) = paste(gateway.commands[:2], **given)
    assert balance["balance"] == 0


def test_a_weak_key_and_a_weak_password_are_taken_with_a_warning(tmp_path: Path) -> None:
    given = {"SECRET_KEY": "only-mine", "DJANGO_SUPERUSER_PASSWORD": "4711471"}
    with running(tmp_path / "data", **given) as gateway:
        balance, answer = paste(gateway.commands, **given)
        log = log_of(tmp_path / "data").read_text()
    assert balance["balance"] == START_CREDITS
    assert answer["object"] == "chat.completion"
    assert log.count("SECRET_KEY is weak") == 1
    (of_password,) = [line for line in log.splitlines() if "DJANGO_SUPERUSER_PASSWORD" in line]
    assert "too short" in of_password
    assert "entirely numeric" in of_password
    for secret in given.values():
        assert secret not in log + gateway.printed


def test_without_an_upstream_and_without_demo_it_refuses_to_start(tmp_path: Path) -> None:
    refused = subprocess.run(
        [sys.executable, MANAGE, "serve"],
        env=environment(tmp_path / "data"),
        capture_output=True,
        text=True,
        check=False,
    )
    assert refused.returncode == 1
    assert refused.stderr.startswith("CommandError: No upstream is set: give OPENAI_API_KEY")


@pytest.mark.skipif(
    settings.DATABASES["default"]["ENGINE"].endswith("sqlite3"), reason="a file does not go away"
)
def test_a_database_that_goes_away_amid_the_migrations_is_one_line(tmp_path: Path) -> None:
    with (
        database() as variables,
        closing(psycopg2.connect(variables["DATABASE_URL"])) as connection,
        connection.cursor() as cursor,
    ):
        connection.autocommit = True
        starting = subprocess.Popen(
            [sys.executable, MANAGE, "serve", "--demo"],
            env=environment(tmp_path / "data", **variables),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        while starting.poll() is None:
            cursor.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database()"
                " AND pid <> pg_backend_pid() AND to_regclass('django_migrations') IS NOT NULL"
            )
        _, errors = starting.communicate()
    # What the server says to a connection that is only being made, libpq writes out by itself.
    told = [line for line in errors.splitlines() if not line.startswith("FATAL: ")]
    assert starting.returncode == 1
    assert told[0].startswith("CommandError: The database does not answer: ")
    assert len(told) == 1


def test_a_mistake_in_the_environment_is_one_line(tmp_path: Path) -> None:
    refused = subprocess.run(
        [sys.executable, MANAGE, "serve"],
        env=environment(tmp_path / "data", DEBUG="perhaps"),
        capture_output=True,
        text=True,
        check=False,
    )
    assert refused.returncode == 1
    assert refused.stderr == "manage.py: DEBUG: want true or false, got 'perhaps'\n"


def test_a_production_environment_passes_djangos_own_checks(tmp_path: Path) -> None:
    variables = {
        "SECRET_KEY": "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ",
        "ALLOWED_HOSTS": "gateway.example.org",
        "BEHIND_TLS_PROXY": "true",
        "OPENAI_API_KEY": "sk-x",
    }
    checked = subprocess.run(
        [sys.executable, "-W", "error", MANAGE, "check", "--deploy", "--fail-level", "WARNING"],
        env=environment(tmp_path / "data", **variables),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (checked.returncode, checked.stderr) == (0, "")
