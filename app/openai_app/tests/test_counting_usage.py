"""Reading the usage from an answer."""

from __future__ import annotations

from typing import Any

import pytest

from openai_app.metering import chat


def units(**usage: Any) -> dict[str, int]:
    found = chat.usage({"usage": usage})
    assert found is not None
    return dict(found.units)


def test_the_classes_are_disjoint_and_sum_to_the_total() -> None:
    found = chat.usage(
        {
            "usage": {
                "prompt_tokens": 100,
                "completion_tokens": 60,
                "total_tokens": 160,
                "prompt_tokens_details": {
                    "cached_tokens": 40,
                    "audio_tokens": 10,
                    "image_tokens": 7,
                    "cache_write_tokens": 5,
                },
                "completion_tokens_details": {"reasoning_tokens": 20, "audio_tokens": 15},
            }
        }
    )
    assert found is not None
    assert found.units == {
        "input": 43,
        "cached_input": 40,
        "audio_input": 10,
        "image_input": 7,
        "output": 25,
        "reasoning": 20,
        "audio_output": 15,
    }
    assert found.details == {"cache_write": 5}


def test_details_that_are_missing_or_odd_are_no_details() -> None:
    plain = {"input": 9, "output": 2}
    assert units(prompt_tokens=9, completion_tokens=2) == plain
    assert units(prompt_tokens=9, completion_tokens=2, prompt_tokens_details=None) == plain
    assert units(prompt_tokens=9, completion_tokens=2, prompt_tokens_details=[1]) == plain
    assert units(prompt_tokens=9, completion_tokens=2, prompt_tokens_details={"cached_tokens": "x"}) == plain
    assert units(prompt_tokens=9, completion_tokens=2, prompt_tokens_details={"cached_tokens": -4}) == plain


def test_details_never_make_a_class_negative() -> None:
    details = {"cached_tokens": 50, "audio_tokens": 50, "image_tokens": 50}
    assert units(prompt_tokens=9, completion_tokens=0, prompt_tokens_details=details) == {"audio_input": 9}
    written = {"reasoning_tokens": 50}
    assert units(completion_tokens=9, completion_tokens_details=written) == {"reasoning": 9}


@pytest.mark.parametrize("usage", [None, {}, [], "x", {"prompt_tokens": None}, {"total_tokens": 9}, 3])
def test_no_usage_is_told_from_usage_of_nothing(usage: object) -> None:
    assert chat.usage({"usage": usage}) is None
    assert chat.usage({}) is None
    assert units(prompt_tokens=0, completion_tokens=0) == {}
