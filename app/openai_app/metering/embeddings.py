"""Embeddings: only what is read costs. Source: OpenAI's API reference, "Create embeddings"."""

from __future__ import annotations

from typing import Any

from balances.units import INPUT
from balances.usage import Estimate

from .prompts import count_texts
from .reading import string


def estimate(request: dict[str, Any]) -> Estimate:
    tokens, _ = count_texts(request.get("input"), string(request.get("model")))
    return Estimate({INPUT: tokens}, ceiling=0)
