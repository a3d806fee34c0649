"""The environment is read strictly, and a mistake is named without its secrets."""

import os
import stat
from pathlib import Path

import pytest
from django.core.exceptions import ImproperlyConfigured

from gateway.env import POSTGRESQL_BOUNDS, Environment, secret_key

ROOT = Path("/project")


def env(**values: str) -> Environment:
    return Environment(values, root=ROOT)


@pytest.mark.parametrize("raw", ["true", "True", "1", "yes", "on"])
def test_a_yes_in_any_usual_spelling_is_true(raw: str) -> None:
    assert env(DEBUG=raw).boolean("DEBUG", default=False) is True


@pytest.mark.parametrize("raw", ["false", "FALSE", "0", "no", "off"])
def test_a_no_in_any_usual_spelling_is_false(raw: str) -> None:
    assert env(DEBUG=raw).boolean("DEBUG", default=True) is False


def test_anything_else_is_refused_with_the_name_the_form_and_the_value() -> None:
    with pytest.raises(ImproperlyConfigured, match=r"DEBUG: want true or false, got 'maybe'"):
        env(DEBUG="maybe").boolean("DEBUG", default=False)


def test_an_empty_value_counts_as_unset() -> None:
    assert env(PORT=" ").integer("PORT", default=8000, least=0, most=65535) == 8000
    assert env(DEBUG="").boolean("DEBUG", default=True) is True
    assert env(ALLOWED_HOSTS="").words("ALLOWED_HOSTS", default=("localhost",)) == ["localhost"]


@pytest.mark.parametrize("raw", ["80 00", "65536", "-1", "8e3", "0x50", "٨٠", "9" * 400])
def test_a_port_that_is_no_port_is_refused(raw: str) -> None:
    with pytest.raises(ImproperlyConfigured, match="PORT: want a whole number from 0 to 65535"):
        env(PORT=raw).integer("PORT", default=8000, least=0, most=65535)


def test_a_list_is_separated_by_commas_and_may_be_spaced() -> None:
    assert env(ALLOWED_HOSTS="a.example, b.example ,").words("ALLOWED_HOSTS") == ["a.example", "b.example"]


@pytest.mark.parametrize("raw", ["example.org", "ftp://example.org", "https://example.org/path"])
def test_an_origin_needs_its_scheme_and_no_path(raw: str) -> None:
    with pytest.raises(ImproperlyConfigured, match="CSRF_TRUSTED_ORIGINS: want origins like"):
        env(CSRF_TRUSTED_ORIGINS=raw).origins("CSRF_TRUSTED_ORIGINS")


def test_a_key_that_could_break_a_header_is_refused_and_not_repeated() -> None:
    with pytest.raises(ImproperlyConfigured, match="OPENAI_API_KEY: want visible ASCII") as refusal:
        env(OPENAI_API_KEY="sk-secret\r\nX-Evil: 1").header("OPENAI_API_KEY")
    assert "secret" not in str(refusal.value)


def test_an_address_loses_its_trailing_slash() -> None:
    assert env(U="https://example.org/v1/").http_url("U") == "https://example.org/v1"


@pytest.mark.parametrize(
    "raw",
    ["example.org/v1", "ftp://example.org", "https://", "https://h/v1?x=1", "http://h:x/v1", "http://[::1"],
)
def test_an_address_that_is_none_is_refused(raw: str) -> None:
    with pytest.raises(ImproperlyConfigured, match="OPENAI_BASE_URL: want an address like https://host/v1"):
        env(OPENAI_BASE_URL=raw).http_url("OPENAI_BASE_URL")


def test_an_address_with_a_password_is_refused_and_not_repeated() -> None:
    with pytest.raises(ImproperlyConfigured, match="without user name and password") as refusal:
        env(OPENAI_BASE_URL="https://me:secret@host/v1").http_url("OPENAI_BASE_URL")
    assert "secret" not in str(refusal.value)


def test_an_email_address_must_be_one() -> None:
    assert env(E="a@example.com").email("E") == "a@example.com"
    with pytest.raises(ImproperlyConfigured, match="E: want an e-mail address, got 'admin'"):
        env(E="admin").email("E")


def test_without_a_database_address_a_sqlite_file_is_used() -> None:
    database = env().database("DATABASE_URL", default=Path("/data/tollgate.sqlite3"))
    assert database["ENGINE"] == "django.db.backends.sqlite3"
    assert database["NAME"] == "/data/tollgate.sqlite3"
    assert database["OPTIONS"]["transaction_mode"] == "IMMEDIATE"
    assert "synchronous=FULL" in database["OPTIONS"]["init_command"]


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("sqlite:///data/mine.sqlite3", "/project/data/mine.sqlite3"),
        ("sqlite:////var/lib/mine.sqlite3", "/var/lib/mine.sqlite3"),
        ("sqlite:///with%20space.sqlite3", "/project/with space.sqlite3"),
    ],
)
def test_a_sqlite_path_is_relative_to_the_project_unless_it_has_four_slashes(url: str, path: str) -> None:
    assert env(DATABASE_URL=url).database("DATABASE_URL", default=Path("x"))["NAME"] == path


@pytest.mark.parametrize("scheme", ["postgres", "postgresql"])
def test_a_postgresql_address_is_read_with_its_percent_encoding_and_options(scheme: str) -> None:
    url = f"{scheme}://me%40home:p%2Fw%25d@db.example:6543/my%20db?sslmode=verify-full&application_name=x"
    database = env(DATABASE_URL=url).database("DATABASE_URL", default=Path("x"))
    assert {key: database[key] for key in ("NAME", "USER", "PASSWORD", "HOST", "PORT")} == {
        "NAME": "my db",
        "USER": "me@home",
        "PASSWORD": "p/w%d",
        "HOST": "db.example",
        "PORT": "6543",
    }
    assert database["OPTIONS"] == {
        **POSTGRESQL_BOUNDS,
        "sslmode": "verify-full",
        "application_name": "x",
    }


def test_a_postgresql_server_behind_a_socket_is_named_by_its_folder() -> None:
    url = "postgresql://tollgate@/tollgate?host=/var/run/postgresql"
    database = env(DATABASE_URL=url).database("DATABASE_URL", default=Path("x"))
    assert (database["HOST"], database["USER"], database["NAME"]) == (
        "/var/run/postgresql",
        "tollgate",
        "tollgate",
    )


@pytest.mark.parametrize(
    "url",
    [
        "mysql://me:secret@host/name",
        "secret",
        "sqlite://secret.sqlite3",
        "sqlite:///",
        "sqlite:///:memory:",
        "sqlite:///secret?mode=ro",
        "postgresql://me:secret@host",
        "postgresql://me:secret%zz@host/name",
        "postgresql://me:secret@host/name?unknown=secret",
        "postgresql:/me:secret@host/name",
    ],
)
def test_a_database_address_that_cannot_be_read_is_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(ImproperlyConfigured, match="DATABASE_URL: want ") as refusal:
        env(DATABASE_URL=url).database("DATABASE_URL", default=Path("x"))
    assert "secret" not in str(refusal.value)
    assert refusal.value.__cause__ is None


@pytest.mark.parametrize(("raw", "limit"), [("", None), (" ", None), ("1", 1), ("500", 500)])
def test_a_limit_is_a_number_or_unset(raw: str, limit: int | None) -> None:
    assert env(PARALLEL_CALLS=raw).limit("PARALLEL_CALLS", most=500) == limit


@pytest.mark.parametrize("raw", ["0", "-1", "501", "1.5", "none", "unlimited"])
def test_a_limit_of_nothing_is_refused(raw: str) -> None:
    with pytest.raises(ImproperlyConfigured, match="PARALLEL_CALLS: want a whole number from 1 to 500"):
        env(PARALLEL_CALLS=raw).limit("PARALLEL_CALLS", most=500)


def test_the_real_environment_wins_over_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".env").write_text("PORT=1\nHOST=0.0.0.0\nSECRET_KEY='a$b'\nDEBUG=\n# PORT=3\n")
    monkeypatch.delenv("ENV_FILE")
    monkeypatch.setenv("PORT", "2")
    monkeypatch.setenv("HOST", "")
    found = Environment.load(tmp_path)
    assert (found.text("PORT"), found.text("HOST"), found.text("SECRET_KEY")) == ("2", "0.0.0.0", "a$b")


def test_a_secret_key_is_made_once_and_kept_for_its_owner_only(tmp_path: Path) -> None:
    kept_in = tmp_path / "new" / "secret_key"
    made = secret_key("", kept_in=kept_in)
    assert len(made) >= 50
    assert stat.S_IMODE(kept_in.stat().st_mode) == 0o600
    assert secret_key("", kept_in=kept_in) == made
    assert os.listdir(kept_in.parent) == ["secret_key"]


def test_a_given_secret_key_is_used_and_nothing_is_written(tmp_path: Path) -> None:
    given = "0123456789" * 5
    assert secret_key(given, kept_in=tmp_path / "secret_key", must_be_given=True) == given
    assert os.listdir(tmp_path) == []


def test_a_secret_key_that_cannot_be_kept_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ImproperlyConfigured, match=r"SECRET_KEY is not set and .* cannot be"):
        secret_key("", kept_in=tmp_path / "file" / "secret_key")


@pytest.mark.parametrize("given", ["given", "0123456789" * 4, "a" * 60])
def test_a_secret_key_that_can_be_guessed_is_refused_and_not_repeated(tmp_path: Path, given: str) -> None:
    with pytest.raises(ImproperlyConfigured, match="SECRET_KEY: want 50 random characters") as refusal:
        secret_key(given, kept_in=tmp_path / "secret_key", must_be_given=True)
    assert given not in str(refusal.value)
    # Where it is for this host alone, that is the operator's choice.
    assert secret_key(given, kept_in=tmp_path / "secret_key") == given


def test_a_secret_key_that_must_be_given_is_not_made_up(tmp_path: Path) -> None:
    with pytest.raises(ImproperlyConfigured, match="SECRET_KEY: must be set where BEHIND_TLS_PROXY is"):
        secret_key("", kept_in=tmp_path / "secret_key", must_be_given=True)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("content", "mode"), [("0123456789" * 6, 0o644), ("0123456789" * 6, 0o620), ("", 0o600)]
)
def test_a_kept_secret_key_that_others_can_read_or_that_is_cut_off_is_refused(
    tmp_path: Path, content: str, mode: int
) -> None:
    kept_in = tmp_path / "secret_key"
    kept_in.write_text(content)
    kept_in.chmod(mode)
    with pytest.raises(ImproperlyConfigured, match=r"SECRET_KEY: .* remove it"):
        secret_key("", kept_in=kept_in)
