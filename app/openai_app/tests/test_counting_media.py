"""Images, recordings and files in a chat."""

from __future__ import annotations

import base64
import struct
from typing import Any

import pytest

from openai_app.metering import audio, chat, files, images
from openai_app.metering.models import find


def url(head: bytes) -> str:
    return "data:image/x;base64," + base64.b64encode(head + bytes(40)).decode()


def png(width: int, height: int) -> str:
    return url(b"\x89PNG\r\n\x1a\n\x00\x00\x00\x0dIHDR" + struct.pack(">II", width, height))


def gif(width: int, height: int) -> str:
    return url(b"GIF89a" + struct.pack("<HH", width, height))


def jpeg(width: int, height: int) -> str:
    thumbnail = b"\xff\xe1" + struct.pack(">H", 40_002) + b"\xff\xc0" * 20_000
    return url(b"\xff\xd8" + thumbnail + b"\xff\xc0\x00\x11\x08" + struct.pack(">HH", height, width))


def webp(width: int, height: int) -> str:
    return url(b"RIFF\x00\x00\x00\x00WEBPVP8 " + bytes(10) + struct.pack("<HH", width, height))


def webp_lossless(width: int, height: int) -> str:
    bits = (width - 1) | (height - 1) << 14
    return url(b"RIFF\x00\x00\x00\x00WEBPVP8L" + bytes(4) + b"\x2f" + struct.pack("<I", bits))


def webp_extended(width: int, height: int) -> str:
    size = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    return url(b"RIFF\x00\x00\x00\x00WEBPVP8X" + bytes(8) + size)


def cost(model: str, image: str, detail: str | None = None) -> int:
    return images.tokens(image, detail, find(model).family.image)


@pytest.mark.parametrize(
    ("model", "width", "height", "detail", "tokens"),
    [
        # OpenAI's guide, Images and vision: its examples.
        ("gpt-4o", 1024, 1024, "high", 765),
        ("gpt-4o", 2048, 4096, "high", 1105),
        ("gpt-4o", 4096, 8192, "low", 85),
        # As reported for recorded calls and in OpenAI's forum.
        ("gpt-4o", 640, 480, None, 425),
        ("gpt-4o-mini", 640, 480, "auto", 14_167),
        ("gpt-4o-mini", 256, 256, None, 8_500),
        ("gpt-5", 640, 480, None, 350),
        ("gpt-4.1-mini", 640, 480, None, 488),
        ("gpt-4.1-nano", 128, 128, "auto", 41),
        ("gpt-4.1-nano", 128, 64, "low", 21),
        ("o4-mini", 640, 480, None, 517),
        ("o4-mini", 128, 64, "high", 15),
        ("gpt-5-nano", 16, 16, None, 3),
        ("o3", 128, 64, "high", 225),
    ],
)
def test_an_image_costs_what_openai_says(
    model: str, width: int, height: int, detail: str | None, tokens: int
) -> None:
    assert cost(model, png(width, height), detail) == tokens


def test_an_image_of_too_many_patches_is_shrunk_as_in_the_guide() -> None:
    assert cost("gpt-4.1-mini", png(1800, 2400)) == int(1452 * 1.62) + 2


@pytest.mark.parametrize("write", [png, gif, jpeg, webp, webp_lossless, webp_extended])
def test_the_size_is_read_from_each_format(write: Any) -> None:
    assert cost("gpt-4o", write(1024, 600)) == 85 + 4 * 170
    assert cost("gpt-4o", write(600, 300)) == 85 + 2 * 170


@pytest.mark.parametrize(
    "image", ["https://example.com/a.png", "data:image/png;base64,AAAA", "data:", "", None]
)
def test_an_image_of_unknown_size_costs_the_most_it_can(image: Any) -> None:
    assert cost("gpt-4o", image) == 85 + 8 * 170
    assert cost("gpt-4o", image, "low") == 85
    assert cost("gpt-4.1-mini", image) == int(1536 * 1.62) + 2


def test_images_count_as_input_between_the_texts_around_them() -> None:
    part = {"type": "image_url", "image_url": {"url": png(640, 480)}}
    text = {"type": "text", "text": "What is this?"}
    body = {"model": "gpt-4o", "messages": [{"role": "user", "content": [text, part, text]}]}
    assert chat.estimate(body).units == {"input": 7 + 4 + 425 + 4}


def wav(seconds: float, declared: int | None = None) -> str:
    data = bytes(int(seconds * 48_000) // 2 * 2)
    header = b"RIFF\xff\xff\xff\xffWAVEfmt " + struct.pack("<IHHIIHH", 16, 1, 1, 24_000, 48_000, 2, 16)
    size = len(data) if declared is None else declared
    return base64.b64encode(header + b"data" + struct.pack("<I", size) + data).decode()


def test_a_recording_costs_ten_tokens_a_second() -> None:
    assert audio.tokens(wav(3.75)) == 37
    assert audio.tokens(wav(3.75, declared=0xFFFFFFFF)) == 37


def test_an_mp3_is_as_long_as_its_bit_rate_says() -> None:
    """A recorded MP3 of 69,120 bytes at 128 kbit/s was billed at 43 tokens."""
    frames = b"\xff\xf3\xc4\xc4" + bytes(69_116)
    assert audio.tokens(base64.b64encode(frames).decode()) == 43
    tagged = b"ID3\x04\x00\x00\x00\x00\x00\x10" + bytes(16) + frames
    assert audio.tokens(base64.b64encode(tagged).decode()) == 43


def test_a_recording_is_a_class_of_its_own() -> None:
    part = {"type": "input_audio", "input_audio": {"data": wav(2), "format": "wav"}}
    body = {"model": "gpt-audio", "messages": [{"role": "user", "content": [part]}]}
    assert chat.estimate(body).units == {"input": 11, "audio_input": 20}


def test_a_pdf_costs_by_its_pages() -> None:
    page = b"<< /Type /Page /Parent 1 0 R >>\n"
    one, three = (base64.b64encode(b"%PDF-1.7 << /Type /Pages >>" + page * n).decode() for n in (1, 3))
    assert files.tokens(three) > 2.5 * files.tokens(one) > 1_000
    assert files.tokens("data:application/pdf;base64," + one) == files.tokens(one)
    assert files.tokens(None) > 0
