"""The counts against recorded calls, where the recordings are at hand."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from conftest import SHARED
from openai_app.metering import chat

PROJECT = Path(__file__).resolve().parents[3]
TRAFFIC = SHARED / "traffic"

pytestmark = pytest.mark.skipif(
    not (TRAFFIC / "open.jsonl.gz").exists(), reason="the recorded traffic is not at hand"
)


@pytest.fixture(scope="module")
def report() -> ModuleType:
    spec = importlib.util.spec_from_file_location("count_report", PROJECT / "bench" / "count_report.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def comparisons(report: ModuleType) -> list[Any]:
    found: list[Any] = report.compare(TRAFFIC)
    return found


def part(comparisons: list[Any], kinds: str, holds: Callable[[Any], bool]) -> float:
    group = [each for each in comparisons if each.kind.startswith(kinds)]
    assert len(group) > 100
    return sum(map(holds, group)) / len(group)


def test_plain_text_is_counted_exactly_in_98_of_100_recordings(comparisons: list[Any]) -> None:
    assert part(comparisons, "plain text", lambda each: each.error == 0) >= 0.98


def test_function_tools_are_counted_within_three_tokens_in_most_recordings(comparisons: list[Any]) -> None:
    assert part(comparisons, "function tools", lambda each: abs(each.error) <= 3) >= 0.95
    assert part(comparisons, "function tools", lambda each: abs(each.error) * 10 <= each.reported) >= 0.98


def test_json_schemas_are_counted_within_three_tokens_in_most_recordings(comparisons: list[Any]) -> None:
    assert part(comparisons, "json schemas", lambda each: abs(each.error) <= 3) >= 0.95


def test_the_report_has_a_row_for_each_kind(report: ModuleType, comparisons: list[Any]) -> None:
    rows = report.table(comparisons).splitlines()
    assert len(rows) == 2 + len({each.kind for each in comparisons}) + 1


def test_the_usage_read_from_each_recorded_answer_sums_to_its_total(report: ModuleType) -> None:
    checked = 0
    for record in report.recorded(TRAFFIC):
        if record["response"]["body_kind"] != "json" or record["response"]["truncated"]:
            continue
        answer = json.loads(record["response"]["body"])
        found = chat.usage(answer)
        assert found is not None
        assert sum(found.units.values()) == answer["usage"]["total_tokens"]
        checked += 1
    assert checked > 1_000
