"""What the fuzz tests draw their inputs from; `make fuzz` runs the same tests for as long as is wished."""

from collections.abc import Iterator, Sequence
from typing import Any

from hypothesis import strategies as st

# Where readers go wrong: the ends of ranges, what is almost a number, what breaks out of a line.
ODD_TEXTS = (
    "",
    " ",
    "\x00",
    "\n",
    "\u2028",
    "\ufeff",
    "٣",
    "𝟙",
    "é",
    "😀",
    '"',
    "\\",
    "%00",
    "../",
    "9" * 5000,
)
ODD_NUMBERS = (0, -1, 1, 2**31, 2**53, 2**63 - 1, 2**63, 2**64, 2**70, -(2**70), 1e308, -1e308, 0.5, 1e-9)


class JsonMaker:
    """Makes a JSON value of any bytes: many times as fast as drawing one."""

    def __init__(self, names: Sequence[str], words: Sequence[str]) -> None:
        self._names = tuple(names)
        self._words = (*words, *ODD_TEXTS)

    def objects(self, most_bytes: int = 400) -> st.SearchStrategy[dict[str, Any]]:
        """Objects, rich in these names of fields and these texts."""
        return st.binary(max_size=most_bytes).map(self.object_of)

    def values(self, most_bytes: int = 400) -> st.SearchStrategy[Any]:
        """Any values likewise."""
        return st.binary(max_size=most_bytes).map(lambda data: self._value(iter(data)))

    def object_of(self, data: bytes) -> dict[str, Any]:
        rest = iter(data)
        found = {}
        for choice in rest:
            found[self._name(choice, rest)] = self._value(rest)
        return found

    def _name(self, choice: int, rest: Iterator[int]) -> str:
        return self._text(rest) if choice == 255 else self._names[choice % len(self._names)]

    def _value(self, rest: Iterator[int]) -> Any:
        choice = next(rest, None)
        if choice is None:
            return None
        kind, argument = choice % 8, choice // 8
        if kind == 0:
            return (None, True, False, [], {}, "")[argument % 6]
        if kind == 1:
            return argument
        if kind == 2:
            return ODD_NUMBERS[argument % len(ODD_NUMBERS)]
        if kind == 3:
            return self._text(rest)
        if kind == 4:
            return [self._value(rest) for _ in range(argument % 5)]
        if kind == 5 and argument == 31:
            return _nested(next(rest, 0) * 8)
        if kind == 5:
            return bytes(next(rest, 0) for _ in range(argument)).decode("utf-8", "replace")
        return {self._name(next(rest, 0), rest): self._value(rest) for _ in range(argument % 6)}

    def _text(self, rest: Iterator[int]) -> str:
        return self._words[next(rest, 0) % len(self._words)]


def _nested(depth: int) -> Any:
    value: Any = {}
    for level in range(depth):
        value = [value] if level % 2 else {"a": value}
    return value


def put_together(*parts: bytes, most: int = 40) -> st.SearchStrategy[bytes]:
    """Bytes that are made of these parts, and of anything in between."""
    return st.lists(st.sampled_from(parts) | st.binary(max_size=6), max_size=most).map(b"".join)


def cuts() -> st.SearchStrategy[list[int]]:
    """Lengths of the pieces that bytes come in: see `cut`."""
    return st.lists(st.integers(1, 40), max_size=30)


def cut(data: bytes, lengths: Sequence[int]) -> list[bytes]:
    """The pieces of `data`, the last one of whatever length is left."""
    pieces, start = [], 0
    for length in lengths:
        pieces.append(data[start : start + length])
        start += length
    return [piece for piece in (*pieces, data[start:]) if piece]
