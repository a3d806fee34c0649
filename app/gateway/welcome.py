"""What `manage.py serve` prints once the gateway answers: where it is and three commands to paste."""

import http.client
import os
import shlex
import sys
import time
from dataclasses import dataclass
from typing import Final

from django.conf import settings
from django.http.request import validate_host

from gateway.provision import Superuser

READY_WITHIN_S: Final = 60
POLL_EVERY_S: Final = 0.05
ALL_ADDRESSES: Final = "0.0.0.0"  # noqa: S104  # nosec B104


@dataclass(frozen=True)
class Address:
    """Where a person on this machine reaches the gateway."""

    host: str
    port: int

    @classmethod
    def of_listener(cls, name: tuple[str, int]) -> "Address":
        """From a bound socket's name; all interfaces include this machine's own."""
        host, port = name[:2]
        return cls({ALL_ADDRESSES: "127.0.0.1", "::": "::1"}.get(host, host), port)

    @property
    def url(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"


def public_url(address: Address) -> str:
    """Where Django answers: a name from ALLOWED_HOSTS, if it does not answer at the address itself."""
    if not settings.BEHIND_TLS_PROXY and validate_host(address.host, settings.ALLOWED_HOSTS):
        return address.url
    names = [name for name in settings.ALLOWED_HOSTS if name[0] not in ".*"]
    name = names[0] if names else address.host
    return f"https://{name}" if settings.BEHIND_TLS_PROXY else f"http://{name}:{address.port}"


def print_when_ready(address: Address, text: str) -> None:
    """Prints `text` as soon as /readyz says yes, from a process of its own that then ends.

    It is forked before the server starts, because a server's process must not have threads when it forks.
    """
    server = os.getpid()
    sys.stdout.flush()
    if os.fork():
        return
    try:
        give_up_at = time.monotonic() + READY_WITHIN_S
        while os.getppid() == server and time.monotonic() < give_up_at:
            if _is_ready(address):
                sys.stdout.write(text)
                sys.stdout.flush()
                break
            time.sleep(POLL_EVERY_S)
    finally:
        # Without the clean-up that belongs to the process this one was forked from.
        os._exit(0)


def _is_ready(address: Address) -> bool:
    connection = http.client.HTTPConnection(address.host, address.port, timeout=5)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == http.HTTPStatus.OK
    except OSError:
        return False
    finally:
        connection.close()


def text(address: Address, superuser: Superuser | None, *, upstream: str) -> str:
    """The lines to print. Only credentials that were made up just now appear in them."""
    url = public_url(address)
    lines = ["", f"Tollgate serves at {address.url} (upstream: {upstream})"]
    lines += [f"  API    {url}/api/docs", f"  admin  {url}/admin/", ""]
    if superuser is None:
        return "\n".join([*lines, "No superuser can log in; `manage.py createsuperuser` makes one.", "", ""])
    if superuser.email_was_made_up:
        lines.append(f"Superuser made: {superuser.email}")
    if superuser.made_up_password:
        lines += [f"Its password, shown this once: {superuser.made_up_password}", ""]
    lines += ["To try it, paste into a shell:", "", *_commands(url, superuser), "", ""]
    return "\n".join(lines)


def _commands(url: str, superuser: Superuser) -> list[str]:
    if superuser.made_up_password:
        password = shlex.quote(f"password={superuser.made_up_password}")
    else:
        password = (
            '"password=${DJANGO_SUPERUSER_PASSWORD:?set it to the password of ' + superuser.email + '}"'
        )
    email = shlex.quote(f"email={superuser.email}")
    bearer = '-H "Authorization: Bearer $TOKEN"'
    json = "-H 'Content-Type: application/json'"
    chat = '{"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Hello!"}]}'
    return [
        f"TOKEN=$(curl -sS {url}/api/user/auth --data-urlencode {email} --data-urlencode {password}"
        """ | sed 's/.*"token": *"\\([^"]*\\)".*/\\1/')""",
        f"curl -sS {url}/api/balance {bearer}",
        f"curl -sS {url}/v1/chat/completions {bearer} {json} -d '{chat}'",
    ]
