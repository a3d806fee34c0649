"""How OpenAI says that something does not exist."""

from collections.abc import Mapping
from contextlib import suppress

from common.errors import UpstreamFailed
from openai_app.answer.passing import parse_answer
from openai_app.http.response import Response


def is_missing(response: Response, body: bytes) -> bool:
    """Whether it is OpenAI that says so: a 404 may be that of a proxy, which knows nothing of it."""
    if response.status != 404:
        return False
    with suppress(UpstreamFailed):
        error = parse_answer(response, body).get("error")
        return isinstance(error, Mapping) and isinstance(error.get("message"), str)
    return False
