"""The caller's key, as OpenAI's clients and the older ones of this API send it."""

from collections.abc import Iterable

from common.errors import KeyRejected
from users.models import digest_of

_SCHEMES = frozenset({"bearer", "token"})


def digest_from(headers: Iterable[tuple[bytes, bytes]]) -> str:
    """The digest of the key in `Authorization: Bearer …` or `Token …`. Raises KeyRejected without one."""
    found = [value for name, value in headers if name == b"authorization"]
    if len(found) != 1:
        raise KeyRejected(
            "You didn't provide an API key. Send it as a header: 'Authorization: Bearer YOUR_KEY'."
        )
    scheme, _, secret = found[0].decode("latin-1").strip().partition(" ")
    if scheme.lower() not in _SCHEMES or not secret.strip():
        raise KeyRejected("The Authorization header must read 'Bearer YOUR_KEY' or 'Token YOUR_KEY'.")
    return digest_of(secret.strip())
