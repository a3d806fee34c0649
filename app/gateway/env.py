"""The environment, parsed strictly: each variable is read once, by `settings`, through an `Environment`.

A value that cannot be understood raises `ImproperlyConfigured` with the variable's name, the form that is
wanted and the value that was found. Values that may hold a secret are never repeated in a message.
"""

import os
import secrets
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from django.core.exceptions import ImproperlyConfigured, ValidationError
from django.core.validators import validate_email
from dotenv import dotenv_values

# Read from `.env` as well as from the real environment, which wins.
DEFAULT_ENV_FILE: Final = ".env"
# SQLite waits this long for another process's transaction before it gives up; the data plane less long.
SQLITE_BUSY_TIMEOUT_S: Final = 20
# A PostgreSQL host that does not answer must fail a request, not hold it for the kernel's two minutes: the
# least that libpq takes, to find the host again soon. Connections whose other end is gone without a word end.
POSTGRESQL_BOUNDS: Final = {
    "connect_timeout": "2",
    "tcp_user_timeout": "5000",
    "keepalives_idle": "5",
    "keepalives_interval": "2",
    "keepalives_count": "3",
}

# What Django's own check of a production environment asks for (security.W009).
SECRET_KEY_CHARACTERS: Final = 50
SECRET_KEY_VARIETY: Final = 5

_TRUE: Final = frozenset({"true", "1", "yes", "on"})
_FALSE: Final = frozenset({"false", "0", "no", "off"})


class Environment:
    """Typed access to variables; an empty string counts as unset."""

    def __init__(self, values: Mapping[str, str], *, root: Path) -> None:
        """`root` is what relative paths in values are relative to."""
        self._values = values
        self._root = root

    @classmethod
    def load(cls, root: Path) -> "Environment":
        """The process's environment over the file `.env` in `root` (`ENV_FILE` names another file)."""
        path = root / (os.environ.get("ENV_FILE") or DEFAULT_ENV_FILE)
        # No interpolation: a password may contain a dollar sign.
        from_file = dotenv_values(path, interpolate=False) if path.is_file() else {}
        return cls({**{k: v for k, v in from_file.items() if v}, **_without_empty(os.environ)}, root=root)

    def text(self, name: str, default: str = "") -> str:
        """The value without surrounding white space, or `default`."""
        return self._values.get(name, "").strip() or default

    def boolean(self, name: str, *, default: bool) -> bool:
        """true/false, 1/0, yes/no or on/off in any case."""
        raw = self.text(name).lower()
        if not raw:
            return default
        if raw not in _TRUE | _FALSE:
            raise ImproperlyConfigured(f"{name}: want true or false, got {raw!r}")
        return raw in _TRUE

    def integer(self, name: str, *, default: int, least: int, most: int) -> int:
        """A decimal number from `least` to `most`."""
        raw = self.text(name)
        if not raw:
            return default
        if not (raw.isascii() and raw.isdigit()) or not least <= int(raw[:20]) <= most:
            raise ImproperlyConfigured(f"{name}: want a whole number from {least} to {most}, got {raw!r}")
        return int(raw)

    def limit(self, name: str, *, most: int) -> int | None:
        """A decimal number from 1 to `most`; None when there is none."""
        return self.integer(name, default=0, least=1, most=most) or None

    def words(self, name: str, default: tuple[str, ...] = ()) -> list[str]:
        """A list separated by commas."""
        raw = self.text(name)
        return [word.strip() for word in raw.split(",") if word.strip()] if raw else list(default)

    def origins(self, name: str) -> list[str]:
        """A list of origins such as `https://gateway.example.org`, separated by commas."""
        found = self.words(name)
        for origin in found:
            parts = urlsplit(origin)
            if parts.scheme not in ("http", "https") or not parts.netloc or parts.path:
                raise ImproperlyConfigured(f"{name}: want origins like https://host, got {origin!r}")
        return found

    def email(self, name: str) -> str:
        """An e-mail address, or an empty string."""
        raw = self.text(name)
        try:
            if raw:
                validate_email(raw)
        except ValidationError:
            raise ImproperlyConfigured(f"{name}: want an e-mail address, got {raw!r}") from None
        return raw

    def header(self, name: str) -> str:
        """A value that will be sent in an HTTP header: visible ASCII characters only. Never repeated."""
        raw = self.text(name)
        if not all("!" <= character <= "~" for character in raw):
            raise ImproperlyConfigured(f"{name}: want visible ASCII characters without spaces")
        return raw

    def http_url(self, name: str) -> str:
        """An absolute http or https address without a trailing slash, or an empty string."""
        raw = self.text(name).rstrip("/")
        if not raw:
            return ""
        parts = _split_url(name, raw)
        if parts.username or parts.password:
            raise ImproperlyConfigured(f"{name}: want an address without user name and password")
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
            raise ImproperlyConfigured(f"{name}: want an address like https://host/v1, got {raw!r}")
        return raw

    def path(self, name: str, default: str = "") -> Path | None:
        """A path, relative ones under the project's root; None when neither it nor `default` is given."""
        raw = self.text(name, default)
        return self._root / Path(raw).expanduser() if raw else None

    def database(self, name: str, *, default: Path) -> dict[str, Any]:
        """Django's description of the database at `postgresql://…` or `sqlite:///path` (`default`: a file).

        A PostgreSQL address is read by libpq itself, so percent-encoding, sockets (`?host=/run/postgresql`)
        and every connection option (`?sslmode=verify-full`) mean what they mean to psql. A SQLite path is
        relative to the project's root; an absolute one has four slashes.
        """
        raw = self.text(name)
        if not raw:
            return _sqlite(default)
        scheme, separator, rest = raw.partition("://")
        if separator and scheme in ("postgres", "postgresql"):
            return _postgresql(name, raw)
        if separator and scheme == "sqlite" and len(rest) > 1 and rest[0] == "/" and "?" not in rest:
            path = unquote(rest[1:])
            if path == ":memory:":
                raise ImproperlyConfigured(f"{name}: want a file, the workers share the database")
            return _sqlite(self._root / path)
        raise ImproperlyConfigured(
            f"{name}: want postgresql://user:password@host:5432/name or sqlite:///path"
        )


def secret_key(given: str, *, kept_in: Path, must_be_given: bool = False) -> str:
    """The key that signs sessions: `given`, else the one kept in a file, which is made at the first call.

    Several hosts behind one address need the same key: there it `must_be_given`, and no weak one is taken.
    """
    if given:
        if must_be_given and is_weak(given):
            raise ImproperlyConfigured(f"SECRET_KEY: want {SECRET_KEY_CHARACTERS} random characters or more")
        return given
    if must_be_given:
        raise ImproperlyConfigured(
            "SECRET_KEY: must be set where BEHIND_TLS_PROXY is, the same on all hosts. To make one: "
            "python3 -c 'import secrets; print(secrets.token_urlsafe(50))'"
        )
    try:
        return _private_text(kept_in)
    except FileNotFoundError:
        pass
    except OSError as error:
        raise ImproperlyConfigured(f"SECRET_KEY is not set and {kept_in} cannot be read: {error}") from None
    draft = kept_in.with_name(f"{kept_in.name}.{os.getpid()}")
    try:
        kept_in.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(secrets.token_urlsafe(50))
        # A link appears whole or not at all: of two processes that start at once, one key wins for both.
        try:
            os.link(draft, kept_in)
        except FileExistsError:
            pass
        draft.unlink()
        return _private_text(kept_in)
    except OSError as error:
        raise ImproperlyConfigured(f"SECRET_KEY is not set and {kept_in} cannot be made: {error}") from None


def is_weak(key: str) -> bool:
    """Whether a key of sessions could be guessed, as far as Django's own check can tell."""
    return len(key) < SECRET_KEY_CHARACTERS or len(set(key)) < SECRET_KEY_VARIETY


def _private_text(path: Path) -> str:
    """A secret from a file. Raises ImproperlyConfigured for one that others can read or that is cut off."""
    with path.open(encoding="ascii") as file:
        text = file.read()
        if stat.S_IMODE(os.fstat(file.fileno()).st_mode) & 0o077:
            raise ImproperlyConfigured(f"SECRET_KEY: others can read {path}; remove it, a new one is made")
    if len(text) < SECRET_KEY_CHARACTERS:
        raise ImproperlyConfigured(f"SECRET_KEY: {path} is cut off; remove it, a new one is made")
    return text


def _without_empty(values: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in values.items() if value.strip()}


def _split_url(name: str, raw: str) -> Any:
    try:
        parts = urlsplit(raw)
        _ = parts.port
    except ValueError:
        raise ImproperlyConfigured(f"{name}: want an address like https://host/v1") from None
    return parts


def _sqlite(path: Path) -> dict[str, Any]:
    return {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": str(path),
        "OPTIONS": {
            "timeout": SQLITE_BUSY_TIMEOUT_S,
            # A deferred transaction that turns into a writer fails at once when another one wrote meanwhile.
            "transaction_mode": "IMMEDIATE",
            # WAL lets readers go on beside the writer; FULL makes a commit survive a power cut.
            "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;",
        },
    }


def _postgresql(name: str, raw: str) -> dict[str, Any]:
    import psycopg2  # imported here: SQLite needs none of it
    from psycopg2.extensions import parse_dsn

    try:
        options = parse_dsn(raw)
    except psycopg2.ProgrammingError:
        # libpq's message repeats parts of the address, and so perhaps of the password.
        raise ImproperlyConfigured(f"{name}: want postgresql://user:password@host:5432/name") from None
    if not options.get("dbname"):
        raise ImproperlyConfigured(f"{name}: want the database's name at the end of the address")
    return {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": options.pop("dbname"),
        "USER": options.pop("user", ""),
        "PASSWORD": options.pop("password", ""),
        "HOST": options.pop("host", ""),
        "PORT": options.pop("port", ""),
        "OPTIONS": {**POSTGRESQL_BOUNDS, **options},
        # Under ASGI each request has its own thread, so a connection that is kept is never used again.
        "CONN_MAX_AGE": 0,
        "CONN_HEALTH_CHECKS": True,
    }
