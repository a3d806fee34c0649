"""Looks for secrets in whatever a gateway put out, however they may be written there."""

import base64
import json
from collections.abc import Iterator, Mapping
from urllib.parse import quote, quote_plus


def leaks(secrets: Mapping[str, str], places: Mapping[str, str | bytes]) -> list[str]:
    """Which secret stands in which place, as "name in place": in clear, escaped, or in base64."""
    found = []
    for place, content in places.items():
        text = content if isinstance(content, str) else content.decode("latin-1")
        for name, secret in secrets.items():
            assert len(secret) >= 8, f"{name} is too short to be looked for"
            if any(form in text for form in _forms(secret)):
                found.append(f"{name} in {place}")
    return found


def _forms(secret: str) -> Iterator[str]:
    yield secret
    yield quote(secret, safe="")
    yield quote_plus(secret)
    yield json.dumps(secret)[1:-1]
    yield repr(secret)[1:-1]
    raw = secret.encode()
    yield raw.decode("latin-1")
    yield raw.hex()
    # Wherever it begins within a longer text that was encoded as a whole.
    for before in range(3):
        encoded = base64.b64encode(bytes(before) + raw).decode()
        start, end = -(-before * 8 // 6), (before + len(raw)) * 8 // 6
        for form in (encoded, base64.urlsafe_b64encode(bytes(before) + raw).decode()):
            yield form[start:end]
