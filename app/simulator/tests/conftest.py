from __future__ import annotations

from collections.abc import Iterator

import pytest
from openai import OpenAI

from simulator.testing import SimulatorProcess


@pytest.fixture(scope="session")
def process() -> Iterator[SimulatorProcess]:
    with SimulatorProcess() as running:
        yield running


@pytest.fixture
def simulator(process: SimulatorProcess) -> SimulatorProcess:
    """A running simulator without memories."""
    process.clear()
    return process


@pytest.fixture
def client(simulator: SimulatorProcess) -> Iterator[OpenAI]:
    """The official client, which refuses answers that are not of its types."""
    with OpenAI(
        base_url=simulator.base_url,
        api_key="sk-alice-0001",
        max_retries=0,
        timeout=60,
        _strict_response_validation=True,
    ) as opened:
        yield opened


@pytest.fixture
def lenient(simulator: SimulatorProcess) -> Iterator[OpenAI]:
    """The official client as people use it, where its own types contradict what OpenAI sends."""
    with OpenAI(base_url=simulator.base_url, api_key="sk-alice-0001", max_retries=0, timeout=60) as opened:
        yield opened
