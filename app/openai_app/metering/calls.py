"""What is paid for by the call, whatever it answers: searches of vector stores, containers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from balances.units import REQUEST
from balances.usage import Estimate, Usage


def estimate(_: dict[str, Any]) -> Estimate:
    return Estimate({REQUEST: 1}, ceiling=0)


def usage(_: Mapping[str, Any], __: dict[str, Any]) -> Usage:
    return Usage({REQUEST: 1})
