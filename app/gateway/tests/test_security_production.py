"""A gateway as it serves in production, behind a proxy that ends TLS: what browsers and strangers learn."""

import http.client
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlencode, urlsplit

import pytest

from gateway.tests.running import MANAGE, Gateway, database, environment, running

HOST = "gateway.example.org"
PASSWORD = "correct horse battery"
PRODUCTION = {
    "SECRET_KEY": "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ",
    "ALLOWED_HOSTS": HOST,
    "BEHIND_TLS_PROXY": "true",
    "DJANGO_SUPERUSER_EMAIL": "olga@example.org",
    "DJANGO_SUPERUSER_PASSWORD": PASSWORD,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("production")


@pytest.fixture(scope="module")
def gateway(folder: Path) -> Iterator[Gateway]:
    with database() as variables, running(folder / "data", **PRODUCTION, **variables) as gateway:
        yield gateway


class Answer:
    def __init__(self, response: http.client.HTTPResponse) -> None:
        self.status = response.status
        self.body = response.read().decode()
        self.headers = response.headers

    @property
    def cookies(self) -> dict[str, str]:
        """The attributes of each cookie that is set."""
        found = {}
        for cookie in self.headers.get_all("Set-Cookie") or []:
            name, _, rest = cookie.partition("=")
            found[name] = rest
        return found


def ask(
    gateway: Gateway,
    method: str,
    path: str,
    body: str | None = None,
    *,
    scheme: str = "https",
    **headers: str,
) -> Answer:
    """As the proxy would pass it on; in `headers` an underscore stands for a hyphen."""
    address = urlsplit(gateway.url)
    assert address.hostname
    connection = http.client.HTTPConnection(address.hostname, address.port)
    try:
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, path, body, {"Host": HOST, "X-Forwarded-Proto": scheme, **given})
        return Answer(connection.getresponse())
    finally:
        connection.close()


@pytest.mark.parametrize(
    "path", ["/admin/login/", "/api/docs", "/api/balance", "/api/nothing", "/nothing", "/"]
)
def test_every_answer_of_the_control_plane_carries_the_headers_that_guard_browsers(
    gateway: Gateway, path: str
) -> None:
    headers = ask(gateway, "GET", path).headers
    assert headers["Strict-Transport-Security"] == "max-age=31536000"
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
    assert headers["X-Frame-Options"] == "DENY"
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "same-origin"
    assert headers["Cross-Origin-Opener-Policy"] == "same-origin"
    assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
    assert "no-store" in headers["Cache-Control"]
    assert headers["Server"] is None
    assert not [name for name in headers if name.lower().startswith("access-control-")]


def test_what_comes_without_tls_is_sent_to_it(gateway: Gateway) -> None:
    for path in ("/admin/login/", "/api/balance"):
        answer = ask(gateway, "GET", path, scheme="http")
        assert (answer.status, answer.headers["Location"]) == (301, f"https://{HOST}{path}")


def test_cookies_are_for_this_host_for_tls_and_for_no_script(gateway: Gateway) -> None:
    page = ask(gateway, "GET", "/admin/login/")
    token = page.cookies["__Host-csrftoken"].partition(";")[0]
    form = {"username": "olga@example.org", "password": PASSWORD, "csrfmiddlewaretoken": token}
    answer = ask(
        gateway,
        "POST",
        "/admin/login/",
        urlencode(form),
        Cookie=f"__Host-csrftoken={token}",
        Referer=f"https://{HOST}/admin/login/",
        Content_Type="application/x-www-form-urlencoded",
    )
    assert answer.status == 302
    assert set(answer.cookies) == {"__Host-csrftoken", "__Host-sessionid"}
    for cookie in answer.cookies.values():
        attributes = [each.strip().lower() for each in cookie.split(";")[1:]]
        assert {"secure", "httponly", "samesite=lax", "path=/"} <= set(attributes)
        assert not [each for each in attributes if each.startswith("domain")]
    session = answer.cookies["__Host-sessionid"].partition(";")[0]
    assert ask(gateway, "GET", "/admin/", Cookie=f"__Host-sessionid={session}").status == 200


def test_a_form_that_another_site_sends_is_refused(gateway: Gateway) -> None:
    token = ask(gateway, "GET", "/admin/login/").cookies["__Host-csrftoken"].partition(";")[0]
    form = {"username": "olga@example.org", "password": PASSWORD, "csrfmiddlewaretoken": token}
    for origin in (
        {"Referer": "https://evil.example/"},
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {},
    ):
        answer = ask(
            gateway,
            "POST",
            "/admin/login/",
            urlencode(form),
            Cookie=f"__Host-csrftoken={token}",
            Content_Type="application/x-www-form-urlencoded",
            **origin,
        )
        assert answer.status == 403


@pytest.mark.parametrize("host", ["evil.example", "gateway.example.org.evil.example", "127.0.0.1", "x y", ""])
def test_pages_answer_to_no_other_name(gateway: Gateway, host: str) -> None:
    for path in ("/admin/login/", "/api/user/auth", "/"):
        answer = ask(gateway, "GET", path, Host=host, X_Forwarded_Host=HOST)
        assert answer.status == 400
        assert "evil" not in answer.body


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/metrics"])
def test_what_operators_ask_tells_strangers_of_nobody(gateway: Gateway, path: str) -> None:
    answer = ask(gateway, "GET", path)
    assert answer.status == 200
    for told in ("olga", "@", "sk-", "gpt-", HOST, "127.0.0.1", "postgres", "sqlite", str(MANAGE.parent)):
        assert told not in answer.body


@pytest.mark.parametrize(
    "path",
    [
        "/static/../gateway/settings.py",
        "/static/%2e%2e/%2e%2e/manage.py",
        "/static/..%2f..%2fmanage.py",
        "/static//etc/passwd",
        "/static/%2fetc%2fpasswd",
        "/.env",
        "/data/secret_key",
        "/static/admin/",
    ],
)
def test_no_file_is_served_but_the_static_ones(gateway: Gateway, path: str) -> None:
    answer = ask(gateway, "GET", path)
    assert answer.status in (301, 302, 404)
    assert "root:" not in answer.body
    assert "DJANGO" not in answer.body


def test_an_error_shows_nothing_of_the_inside(gateway: Gateway) -> None:
    answers = [
        ask(gateway, "GET", "/nothing"),
        ask(gateway, "GET", "/api/nothing"),
        ask(gateway, "POST", "/api/user/auth", "{", Content_Type="application/json"),
        ask(gateway, "POST", "/api/user/auth", "x", Content_Type="multipart/form-data; boundary="),
        ask(gateway, "POST", "/admin/login/", "x=" + "y" * 1000),
        ask(gateway, "GET", "/v1/nothing"),
    ]
    for answer in answers:
        assert 400 <= answer.status < 500
        for told in ("Traceback", "settings", ".py", "django.", str(MANAGE.parent)):
            assert told not in answer.body


def test_what_is_written_is_readable_to_its_user_only(gateway: Gateway, folder: Path) -> None:
    data = folder / "data"
    # With another database there may be nothing to write.
    for path in (data, *data.rglob("*")) if data.exists() else ():
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path


def test_the_environment_of_its_processes_is_readable_to_its_user_only(gateway: Gateway) -> None:
    shown = Path(f"/proc/{gateway.process.pid}/environ")
    assert stat.S_IMODE(shown.stat().st_mode) == 0o400
    assert shown.stat().st_uid == os.geteuid()


def test_behind_a_proxy_it_does_not_start_without_a_key_for_sessions(tmp_path: Path) -> None:
    given = {name: value for name, value in PRODUCTION.items() if name != "SECRET_KEY"}
    refused = subprocess.run(
        [sys.executable, MANAGE, "serve", "--demo"],
        env=environment(tmp_path / "data", **given),
        capture_output=True,
        text=True,
        check=False,
    )
    assert refused.returncode == 1
    assert refused.stderr.startswith("manage.py: SECRET_KEY: must be set where BEHIND_TLS_PROXY is")
    assert len(refused.stderr.splitlines()) == 1
