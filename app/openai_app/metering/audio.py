"""What recorded speech costs: a token for each tenth of a second (OpenAI's guide, Realtime costs)."""

from __future__ import annotations

import base64
import binascii

_TOKENS_PER_SECOND = 10
# A part of audio is framed by this many tokens of text; measured.
FRAME = 4
# Audio whose length cannot be read is taken for speech at 32 kbit/s, less than people usually send.
_BYTES_PER_SECOND = 4_000
# An earlier answer in audio, named by its id only, is taken for 20 seconds.
UNKNOWN = 200

_HEADER_BYTES = 8_192
_BITRATES_1 = (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)
_BITRATES_2 = (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)
_SAMPLE_RATES = (44_100, 48_000, 32_000)


def tokens(data: object) -> int:
    """Tokens of one recording, given in base64."""
    if not isinstance(data, str):
        return 0
    data = data[data.find(",") + 1 :] if data.startswith("data:") else data
    size = len(data) * 3 // 4
    seconds = _wav(data, size) or _mp3(data, size) or size / _BYTES_PER_SECOND
    return int(seconds * _TOKENS_PER_SECOND)


def _bytes(data: str, start: int, length: int) -> bytes:
    """``length`` bytes from ``start`` of what is given in base64."""
    first = start // 3 * 4
    encoded = data[first : first + (length // 3 + 2) * 4]
    try:
        return base64.b64decode(encoded + "=" * (-len(encoded) % 4))[start % 3 :][:length]
    except (binascii.Error, ValueError):
        return b""


def _wav(data: str, size: int) -> float | None:
    head = _bytes(data, 0, _HEADER_BYTES)
    if head[:4] != b"RIFF" or head[8:12] != b"WAVE":
        return None
    position, rate = 12, 0
    while position + 8 <= len(head):
        kind = head[position : position + 4]
        length = int.from_bytes(head[position + 4 : position + 8], "little")
        position += 8
        if kind == b"fmt ":
            rate = int.from_bytes(head[position + 8 : position + 12], "little")
        elif kind == b"data":
            # A recorder that streams does not know the length when it writes the header.
            known = length if 0 < length < 0x7FFFFFFF else size - position
            return known / rate if rate else None
        position += length + length % 2
    return None


def _mp3(data: str, size: int) -> float | None:
    head = _bytes(data, 0, 10)
    start = 0
    if head[:3] == b"ID3" and len(head) == 10:
        start = 10 + (head[6] << 21 | head[7] << 14 | head[8] << 7 | head[9])
    head = _bytes(data, start, _HEADER_BYTES)
    frame = next(
        (at for at in range(max(len(head) - 4, 0)) if head[at] == 0xFF and head[at + 1] & 0xE6 == 0xE2), None
    )
    if frame is None:
        return None
    first = head[frame + 1] & 0x18 == 0x18
    bitrate, rate = head[frame + 2] >> 4, head[frame + 2] >> 2 & 3
    if bitrate in (0, 15) or rate == 3:
        return None
    sample_rate = _SAMPLE_RATES[rate] / (1 if first else 2 if head[frame + 1] & 0x10 else 4)
    for tag in (b"Xing", b"Info"):
        at = head.find(tag, frame, frame + 200)
        if at > 0 and head[at + 7] & 1:
            frames = int.from_bytes(head[at + 8 : at + 12], "big")
            return frames * (1152 if first else 576) / sample_rate
    return (size - start) * 8 / ((_BITRATES_1 if first else _BITRATES_2)[bitrate] * 1000)
