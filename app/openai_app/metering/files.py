"""What a PDF costs: the model gets its text and an image of each page (OpenAI's guide, File inputs).

Neither is known without rendering it, so this is a guess on the high side of the recorded ones.
"""

from __future__ import annotations

import base64
import binascii
import re

_PAGE = re.compile(rb"/Type\s*/Page(?!s)")
_TOKENS_PER_PAGE = 1_500
# Text comes compressed, among fonts and drawings.
_BYTES_PER_TOKEN = 60
# A file of which only the id is known.
_UNKNOWN = 5_000
# Pages are counted in so many bytes from the start, and the rest assumed to be alike.
_SAMPLE_BYTES = 1_048_575


def tokens(data: object) -> int:
    """Tokens of a file given as a data URL or in base64; of one that is elsewhere, an allowance."""
    if not isinstance(data, str):
        return _UNKNOWN
    start = data.find(",") + 1 if data.startswith("data:") else 0
    size = (len(data) - start) * 3 // 4
    encoded = data[start : start + _SAMPLE_BYTES // 3 * 4]
    try:
        sample = base64.b64decode(encoded + "=" * (-len(encoded) % 4))
    except (binascii.Error, ValueError):
        return size // 3
    pages = max(len(_PAGE.findall(sample)), 1) * max(size / max(len(sample), 1), 1)
    return int(pages * _TOKENS_PER_PAGE) + size // _BYTES_PER_TOKEN
