"""What a call is measured in: the ledger's own words, so that both sides mean the same."""

from balances.units import (
    AUDIO_INPUT,
    AUDIO_OUTPUT,
    CACHED_INPUT,
    IMAGE_INPUT,
    INPUT,
    OUTPUT,
    REASONING,
)
from balances.units import TOKENS as TOKEN_UNITS
from balances.usage import Estimate, Usage

__all__ = [
    "AUDIO_INPUT",
    "AUDIO_OUTPUT",
    "CACHED_INPUT",
    "IMAGE_INPUT",
    "INPUT",
    "OUTPUT",
    "REASONING",
    "TOKEN_UNITS",
    "Estimate",
    "Usage",
]
