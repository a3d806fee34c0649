"""The paths of calls, and those that a server behind the gateway might read as others than it does."""

import re
from urllib.parse import unquote

from common.errors import NotFound

PREFIXES = ("/v1/", "/api/openai/", "/modules/openai/")

# Nothing else in a path that people write needs a second look.
_SUSPECT = re.compile(r"//|[.%;\\]")
# Each decoding takes its time, and a path may be encoded as often as its length allows.
MOST_DECODINGS = 8


def path_below_prefix(path: str) -> str:
    """The path as the catalogue lists it, without a slash at its end. Raises NotFound."""
    for prefix in PREFIXES:
        if path.startswith(prefix):
            below = path[len(prefix) - 1 :].removesuffix("/")
            if below and climbs(below):
                break
            return below
    raise NotFound(f"Unknown request URL: {path}.", code="unknown_url")


def climbs(path: str) -> bool:
    """Whether some reading of a decoded path leaves a segment of it: `..`, `.` or nothing at all.

    Servers are known to decode once more, to take a backslash for a slash, to drop what follows a semicolon,
    and to trim what is no character. Behind one of those a model's name would reach what the catalogue does
    not list, with the operator's key.
    """
    if not path.isprintable():
        return True
    if _SUSPECT.search(path) is None:
        return False
    for _ in range(MOST_DECODINGS):
        decoded = unquote(path)
        if decoded == path:
            break
        path = decoded
    else:
        return True
    segments = path.replace("\\", "/").split("/")[1:]
    return not path.isprintable() or any(
        segment.partition(";")[0].strip() in ("", ".", "..") for segment in segments
    )
