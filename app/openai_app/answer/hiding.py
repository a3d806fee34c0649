"""The operator's secrets and the names of the account, taken out of what OpenAI says of failures."""

import re
from functools import cache

from django.conf import settings

HIDDEN = b"[hidden]"
# Ids of organizations, projects, users and keys, as OpenAI writes them into messages, some of them masked.
_NAMES = rb"\b(?:org-|proj_|sk-|user-)[A-Za-z0-9_*.\-]{4,}"
# The same where a model's text may stand beside: no word of a language is as long.
_LONG_NAMES = rb"\b(?:org-[A-Za-z0-9]{16,}|proj_[A-Za-z0-9]{16,}|sk-(?!tg-)[A-Za-z0-9_*.\-]{16,})"
# A secret of another service may look like anything; one that is shorter may be a word.
LEAST_CHARACTERS = 12
_ERROR = re.compile(rb'"error"\s*:\s*\{')


def hide_in_refusal(body: bytes) -> bytes:
    """An error object without any name of the account."""
    return _pattern(_NAMES).sub(HIDDEN, body)


def hide_in_event(event: bytes) -> bytes:
    """An event of a stream or of a socket as it is, but without those names if it tells of an error."""
    return _pattern(_LONG_NAMES).sub(HIDDEN, event) if _ERROR.search(event) else event


@cache
def _pattern(names: bytes) -> re.Pattern[bytes]:
    own = (settings.OPENAI_API_KEY, settings.OPENAI_ORGANIZATION, settings.OPENAI_PROJECT)
    secrets = [re.escape(value.encode()) for value in own if len(value) >= LEAST_CHARACTERS]
    return re.compile(b"|".join([*secrets, names]))
