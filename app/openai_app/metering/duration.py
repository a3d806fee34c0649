"""How long a recording is, read from the first bytes of its file.

Sources: the formats' own descriptions: RIFF WAVE, MPEG audio frames with the Xing tag, FLAC (RFC 9639), Ogg
(RFC 3533), ISO base media files (MP4, M4A) and Matroska (RFC 9559; WebM is a subset).
"""

from __future__ import annotations

import math
import struct

# What cannot be read is taken for speech at 16 kbit/s, the lowest that people send: Opus in a messenger.
_LOWEST_BYTES_PER_SECOND = 2_000
# Thirty years: what a file claims beyond it is nonsense, which must still fit into the ledger's columns.
_MOST_SECONDS = 1e9
_OPUS_RATE = 48_000
_UNKNOWN_LENGTH = 0xFFFFFFFF
# Of MPEG audio, layer III: kbit/s by the index in a frame's head, for version 1 and for 2 and 2.5.
_BITRATES_1 = (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)
_BITRATES_2 = (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)
_SAMPLE_RATES = (44_100, 48_000, 32_000)
# Version 1, 2 and 2.5 by the bits that say so, with what each divides the sample rate by.
_RATE_DIVISORS = {3: 1, 2: 2, 0: 4}


def seconds(head: bytes, size: int) -> float:
    """Seconds of a recording of `size` bytes; where `head` does not tell, the most it can sensibly be."""
    for read in (_wav, _flac, _ogg, _mp4, _webm, _mp3):
        try:
            found = read(head, size)
        except (struct.error, IndexError, ZeroDivisionError):
            found = None
        if found is not None and math.isfinite(found) and found > 0:
            return min(found, _MOST_SECONDS)
    return size / _LOWEST_BYTES_PER_SECOND


def _wav(head: bytes, size: int) -> float | None:
    if head[:4] != b"RIFF" or head[8:12] != b"WAVE":
        return None
    position, rate = 12, 0
    while position + 8 <= len(head):
        kind, length = (
            head[position : position + 4],
            int.from_bytes(head[position + 4 : position + 8], "little"),
        )
        position += 8
        if kind == b"fmt ":
            rate = int.from_bytes(head[position + 8 : position + 12], "little")
        elif kind == b"data":
            # A recorder that writes while it records does not know the length, or claims too much.
            known = length not in (0, _UNKNOWN_LENGTH)
            return min(length if known else size, size - position) / rate
        position += length + length % 2
    return None


def _flac(head: bytes, _: int) -> float | None:
    if head[:4] != b"fLaC":
        return None
    # STREAMINFO comes first: the rate in 20 bits at byte 10 of it, the samples in 36 bits at byte 13.
    rate = int.from_bytes(head[18:21], "big") >> 4
    samples = int.from_bytes(head[21:26], "big") & 0xFFFFFFFFF
    return samples / rate


def _ogg(head: bytes, size: int) -> float | None:
    """From the last page within the head: the whole is that much longer as it is larger."""
    if head[:4] != b"OggS":
        return None
    rate = int.from_bytes(head[40:44], "little") if head[29:35] == b"vorbis" else _OPUS_RATE
    page = head.rfind(b"OggS", 0, len(head) - 14)
    while page > 0:
        samples = int.from_bytes(head[page + 6 : page + 14], "little", signed=True)
        if samples > 0:
            # The position counts the samples to the end of the page, whose start is known.
            following = head.find(b"OggS", page + 4)
            end = following if following > 0 else min(len(head), size)
            return samples / rate * size / end
        page = head.rfind(b"OggS", 0, page)
    return None


def _mp4(head: bytes, _: int) -> float | None:
    if head[4:8] != b"ftyp":
        return None
    at = head.find(b"mvhd") + 4
    if at < 4:
        return None
    # Version 1 has times of 64 bits.
    if head[at] == 1:
        scale, length = struct.unpack(">IQ", head[at + 20 : at + 32])
    else:
        scale, length = struct.unpack(">II", head[at + 12 : at + 20])
    return float(length / scale)


def _webm(head: bytes, _: int) -> float | None:
    """The Duration of the Info element, in units of its TimestampScale; recorders in browsers write none."""
    if head[:4] != b"\x1a\x45\xdf\xa3":
        return None
    info = head.find(b"\x15\x49\xa9\x66")
    duration = head.find(b"\x44\x89", info) if info >= 0 else -1
    if duration < 0:
        return None
    wide = head[duration + 2] & 0x0F == 8
    (ticks,) = struct.unpack(">d" if wide else ">f", head[duration + 3 : duration + (11 if wide else 7)])
    scale = head.find(b"\x2a\xd7\xb1", info, info + 200)
    length = head[scale + 3] & 0x7F if scale >= 0 else 0
    nanoseconds = int.from_bytes(head[scale + 4 : scale + 4 + length], "big") if scale >= 0 else 1_000_000
    return float(ticks * nanoseconds / 1e9)


def _mp3(head: bytes, size: int) -> float | None:
    """From the number of frames in the Xing tag, else as if the first frame's bitrate were that of all."""
    start = 0
    if head[:3] == b"ID3":
        # Seven bits a byte.
        start = 10 + (head[6] << 21 | head[7] << 14 | head[8] << 7 | head[9])
    for at in range(start, len(head) - 4):
        if head[at] == 0xFF and head[at + 1] & 0xE6 == 0xE2:
            break
    else:
        return None
    version, bitrate, rate = head[at + 1] >> 3 & 3, head[at + 2] >> 4, head[at + 2] >> 2 & 3
    if version not in _RATE_DIVISORS or bitrate in (0, 15) or rate == 3:
        return None
    is_first = version == 3
    for tag in (b"Xing", b"Info"):
        found = head.find(tag, at, at + 200)
        if found > 0 and head[found + 7] & 1:
            frames = int.from_bytes(head[found + 8 : found + 12], "big")
            return frames * (1152 if is_first else 576) * _RATE_DIVISORS[version] / _SAMPLE_RATES[rate]
    kilobits = (_BITRATES_1 if is_first else _BITRATES_2)[bitrate]
    return (size - start) / (kilobits * 125)
