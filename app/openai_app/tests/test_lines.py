"""The lines of files at OpenAI, read in as much memory as the longest takes."""

import random
from collections.abc import AsyncIterator

import pytest

from openai_app.answer import lines
from openai_app.answer.lines import LineTooLongError, lines_of


async def pieces_of(data: bytes, sizes: random.Random) -> AsyncIterator[bytes]:
    while data:
        size = sizes.randrange(1, 12)
        yield data[:size]
        data = data[size:]


@pytest.mark.parametrize(
    "content", [b"", b"a", b"a\n", b"a\nb", b"\n\n", b"a\n\nbc\r\nlonger than any piece is\n", b"\nlast one"]
)
async def test_lines_are_the_same_in_whatever_pieces_they_come(content: bytes) -> None:
    for seed in range(20):
        found = [line async for some in lines_of(pieces_of(content, random.Random(seed))) for line in some]
        assert [line for line in found if line] == [line for line in content.split(b"\n") if line]


async def test_a_file_without_lines_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "MAX_LINE_BYTES", 1_000)
    given = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal given
        while True:
            given += 1
            yield b"x" * 100

    with pytest.raises(LineTooLongError):
        async for _ in lines_of(endless()):
            pass
    assert given == 11
