"""The rates that come with the gateway: nothing that is not a token is free, and siblings cost alike."""

import pytest

from balances.models import MICRO
from balances.rates import Book

pytestmark = pytest.mark.django_db


@pytest.mark.parametrize(
    ("model", "used", "credits"),
    [
        ("gpt-4o", {"input": 3, "cached_input": 1, "output": 2}, 6),
        ("gpt-image-1", {"image_output": 1_056}, 1_056),
        ("dall-e-2/256x256", {"image": 1}, 1_600),
        ("dall-e-2/1024x1024", {"image": 2}, 4_000),
        ("dall-e-3/1024x1024/standard", {"image": 1}, 4_000),
        ("dall-e-3/1024x1024/hd", {"image": 1}, 8_000),
        ("dall-e-3/1792x1024/standard", {"image": 1}, 8_000),
        ("dall-e-3/1792x1024/hd", {"image": 1}, 12_000),
        ("tts-1", {"character": 100}, 150),
        ("tts-1-hd-1106", {"character": 100}, 300),
        ("gpt-4o-mini-tts-2025-12-15", {"character": 100}, 300),
        ("whisper-1", {"second": 60}, 600),
        ("sora-2/1280x720", {"second": 4}, 40_000),
        ("sora-2-pro/1280x720", {"second": 4}, 120_000),
        ("sora-2-pro/1792x1024", {"second": 4}, 200_000),
        ("vector_store_search", {"request": 1}, 250),
        ("container", {"request": 1}, 3_000),
    ],
)
def test_a_call_costs_what_the_table_says(model: str, used: dict[str, int], credits: int) -> None:
    assert Book.load().price(model, used) == credits


def test_what_has_no_rate_is_not_free() -> None:
    prices = Book.load().of("a-model-of-next-year")
    assert min(prices.values()) >= MICRO
