"""What a call is measured in: the ledger's own words, so that both sides mean the same."""

from balances.units import AUDIO_INPUT, AUDIO_OUTPUT, CACHED_INPUT, INPUT, OUTPUT
from balances.units import TOKENS as TOKEN_UNITS
from balances.usage import Estimate, Usage

__all__ = [
    "AUDIO_INPUT",
    "AUDIO_OUTPUT",
    "CACHED_INPUT",
    "INPUT",
    "OUTPUT",
    "TOKEN_UNITS",
    "Estimate",
    "Usage",
]
