"""How long a recording is, told by the head of its file."""

import io
import struct
import wave

import pytest

from openai_app.metering.duration import seconds


def a_wav(length_s: float) -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setnchannels(1)
        writer.setsampwidth(2)
        writer.setframerate(16_000)
        writer.writeframes(b"\0\0" * int(length_s * 16_000))
    return file.getvalue()


def an_mp4(scale: int, length: int, *, wide: bool = False) -> bytes:
    times = struct.pack(">QQIQ", 0, 0, scale, length) if wide else struct.pack(">IIII", 0, 0, scale, length)
    return b"\0\0\0\x18ftypM4A \0\0\0\0" + b"\0\0\0\0moov\0\0\0\0mvhd" + bytes([wide, 0, 0, 0]) + times


def a_flac(rate: int, samples: int) -> bytes:
    packed = (rate << 44 | 1 << 41 | 15 << 36 | samples).to_bytes(8, "big")
    return b"fLaC\0\0\0\x22" + bytes(10) + packed


def an_ogg_page(samples: int, body: bytes) -> bytes:
    return b"OggS\0\0" + struct.pack("<q", samples) + bytes(12) + b"\1" + bytes([len(body)]) + body


def an_mp3_frame(tag: bytes = b"") -> bytes:
    """MPEG-1 layer III, 128 kbit/s, 44.1 kHz."""
    return (b"\xff\xfb\x90\x00" + bytes(32) + tag).ljust(417, b"\0")


def a_webm(milliseconds: float) -> bytes:
    info = b"\x2a\xd7\xb1\x83\x0f\x42\x40" + b"\x44\x89\x88" + struct.pack(">d", milliseconds)
    return b"\x1a\x45\xdf\xa3" + bytes(20) + b"\x15\x49\xa9\x66" + bytes([0x80 | len(info)]) + info


def test_a_wav_file_tells_its_length() -> None:
    file = a_wav(2.5)
    assert seconds(file[:100], len(file)) == 2.5


@pytest.mark.parametrize("claimed", [0, 0xFFFFFFFF, 0x7FFFFFFF])
def test_a_wav_file_whose_length_was_not_known_is_as_long_as_it_is_large(claimed: int) -> None:
    file = bytearray(a_wav(2.5))
    at = file.index(b"data") + 4
    file[at : at + 4] = struct.pack("<I", claimed)
    assert seconds(bytes(file), len(file)) == 2.5


def test_an_mp3_file_with_a_xing_tag_tells_its_frames() -> None:
    frame = an_mp3_frame(b"Xing" + struct.pack(">II", 1, 1000))
    assert seconds(frame, 10**9) == pytest.approx(1000 * 1152 / 44_100)


def test_an_mp3_file_without_one_is_as_long_as_its_bitrate_says() -> None:
    tag = b"ID3\4\0\0" + bytes([0, 0, 1, 0]) + bytes(128)
    size = 16_000 * 10 + len(tag)
    assert seconds(tag + an_mp3_frame(), size) == 10


@pytest.mark.parametrize("wide", [False, True])
def test_an_m4a_file_tells_its_length(wide: bool) -> None:
    assert seconds(an_mp4(1_000, 61_500, wide=wide), 10**6) == 61.5


def test_a_flac_file_tells_its_samples() -> None:
    assert seconds(a_flac(48_000, 48_000 * 90), 10**6) == 90


def test_an_ogg_file_is_judged_by_the_pages_at_its_beginning() -> None:
    head = (
        an_ogg_page(0, b"OpusHead" + bytes(11))
        + an_ogg_page(0, b"OpusTags")
        + an_ogg_page(48_000, bytes(200))
    )
    assert seconds(head, len(head) * 30) == 30


def test_a_webm_file_tells_its_length() -> None:
    assert seconds(a_webm(12_345), 10**6) == pytest.approx(12.345)


@pytest.mark.parametrize(
    "head",
    [
        b"",
        b"no recording",
        an_mp4(0, 5),
        a_flac(0, 5),
        a_webm(float("nan")),
        a_webm(float("inf")),
        b"\x1a\x45\xdf\xa3 of a browser, without a length",
        b"\0\0\0\x18ftypM4A with its index at the end",
        b"RIFF\0\0\0\0WAVE",
        b"ID3\4\0\0\x7f\x7f\x7f\x7f",
    ],
)
def test_what_does_not_tell_is_taken_for_the_longest_it_can_sensibly_be(head: bytes) -> None:
    assert seconds(head, 60_000) == 30
