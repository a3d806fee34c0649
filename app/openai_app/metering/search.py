"""Search in documents with the engines of 2021, an endpoint that OpenAI has ended and older clients know.

Source: OpenAI's help centre of that time, "How are tokens of a search counted?".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from balances.units import INPUT
from balances.usage import Estimate, Usage

from .prompts import count_texts
from .reading import items, string

# A search within an uploaded file looks at so many documents (max_rerank of the reference, by default).
_DOCUMENTS_OF_A_FILE = 200
_TOKENS_OF_A_DOCUMENT = 500
_FRAME = 10


def estimate(request: dict[str, Any]) -> Estimate:
    """The documents, and for each of them and once more the query with 10 tokens."""
    model = string(request.get("model"))
    documents = items(request.get("documents"))
    if documents:
        tokens, number = count_texts(documents, model)
    else:
        number = _DOCUMENTS_OF_A_FILE
        tokens = number * _TOKENS_OF_A_DOCUMENT
    query, _ = count_texts(request.get("query"), model)
    return Estimate({INPUT: tokens + (number + 1) * (query + _FRAME)}, ceiling=0)


def usage(_: Mapping[str, Any], request: dict[str, Any]) -> Usage:
    """Those searches report nothing: what was counted."""
    return Usage(estimate(request).units)
