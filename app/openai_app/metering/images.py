"""What an image costs, by the tile and patch rules of OpenAI's guide (Images and vision)."""

from __future__ import annotations

import base64
import binascii
import math
import struct

from .models import Patches, Tiles

# Enough of a file for its size: the size of a JPEG stands behind its metadata, which may hold a thumbnail.
_HEADER_BYTES = 262_144
_MOST_TILES = 8


def tokens(url: object, detail: object, rule: Tiles | Patches) -> int:
    """Tokens of one image; what is not a data URL of a known format costs the most that its detail can."""
    size = _size(url) if isinstance(url, str) and url.startswith("data:") else None
    if isinstance(rule, Tiles):
        tiles = 0 if detail == "low" else _MOST_TILES if size is None else _tiles(*size)
        return rule.base + tiles * rule.tile
    budget = rule.budget
    if detail == "original":
        budget = rule.original or budget
    elif detail not in ("low", "high"):
        budget = rule.auto or budget
    patches = budget if size is None else min(_patches(*size, budget), budget)
    return math.floor(patches * rule.multiplier + rule.rounding) + rule.frame


def _tiles(width: int, height: int) -> int:
    """Squares of 512 pixels, once the image fits into 2048 x 2048 and its shorter side into 768."""
    scale = min(1.0, 2048 / max(width, height), 768 / min(width, height))
    return math.ceil(round(width * scale, 6) / 512) * math.ceil(round(height * scale, 6) / 512)


def _patches(width: int, height: int, budget: int) -> int:
    """Squares of 32 pixels, the image shrunk until they are no more than the budget."""
    patches = math.ceil(width / 32) * math.ceil(height / 32)
    if patches <= budget:
        return patches
    ratio = math.sqrt(32 * 32 * budget / (width * height))
    columns, rows = width * ratio / 32, height * ratio / 32
    ratio *= min(math.floor(columns) / columns, math.floor(rows) / rows)
    if ratio <= 0:
        return budget
    return math.ceil(round(width * ratio / 32, 6)) * math.ceil(round(height * ratio / 32, 6))


def _size(url: str) -> tuple[int, int] | None:
    """Width and height in pixels, read from the head of a base64 data URL."""
    start = url.find(",") + 1
    end = start + _HEADER_BYTES * 4 // 3
    encoded = url[start : start + (end - start) // 4 * 4]
    try:
        head = base64.b64decode(encoded + "=" * (-len(encoded) % 4))
    except (binascii.Error, ValueError):
        return None
    try:
        size = _png(head) or _gif(head) or _webp(head) or _jpeg(head)
    except (struct.error, IndexError):
        return None
    return size if size and min(size) > 0 else None


def _png(head: bytes) -> tuple[int, int] | None:
    if head[:8] != b"\x89PNG\r\n\x1a\n":
        return None
    width, height = struct.unpack(">II", head[16:24])
    return width, height


def _gif(head: bytes) -> tuple[int, int] | None:
    if head[:4] != b"GIF8":
        return None
    width, height = struct.unpack("<HH", head[6:10])
    return width, height


def _webp(head: bytes) -> tuple[int, int] | None:
    if head[:4] != b"RIFF" or head[8:12] != b"WEBP":
        return None
    kind = head[12:16]
    if kind == b"VP8X":
        return int.from_bytes(head[24:27], "little") + 1, int.from_bytes(head[27:30], "little") + 1
    if kind == b"VP8L":
        bits = int.from_bytes(head[21:25], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    width, height = struct.unpack("<HH", head[26:30])
    return width & 0x3FFF, height & 0x3FFF


def _jpeg(head: bytes) -> tuple[int, int] | None:
    if head[:2] != b"\xff\xd8":
        return None
    position = 2
    while position + 9 <= len(head):
        if head[position] != 0xFF:
            return None
        marker = head[position + 1]
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width = struct.unpack(">HH", head[position + 5 : position + 9])
            return width, height
        if marker == 0xFF:
            position += 1
        elif marker == 0x01 or 0xD0 <= marker <= 0xD8:
            position += 2
        else:
            position += 2 + max(int.from_bytes(head[position + 2 : position + 4], "big"), 2)
    return None
