"""Whatever bytes a stream is made of, it reads the same however they are cut, and nothing of it is lost."""

import json
from collections.abc import Iterable, Iterator
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from common.tests.strategies import JsonMaker, cut, cuts, put_together
from openai_app import metering
from openai_app.answer import sse
from openai_app.answer.streaming import Stream
from openai_app.metering import Meter
from openai_app.tests.test_metering_hostile import FIELDS, METERS, WORDS

LINES = (
    b"data: ",
    b"data:",
    b"data",
    b"event: ",
    b"event: thread.run.created",
    b": comment",
    b"[DONE]",
    b" ",
)
ENDS = (b"\n", b"\r", b"\r\n", b"\n\n", b"\r\r", b"\r\n\r\n")
CHUNK = b'data: {"id":"a","object":"b","choices":[{"index":0,"delta":{"content":"hi"}}],"usage":null}\n\n'
USAGE = b'data: {"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":5,"total_tokens":8}}\n\n'
ENDED = (
    b'data: {"type":"response.completed","response":{"id":"r","object":"response","usage":{"input_tokens":3,'
)
ENDED += b'"output_tokens":5}}}\r\n\r\n'
FAILED = b'data: {"error":{"message":"m"}}\n\n'
STREAMS = put_together(*LINES, *ENDS, CHUNK, USAGE, ENDED, FAILED, b'{"usage":{', b'"error":{', b'"')
_MAKER = JsonMaker(FIELDS, WORDS)


def event_of(data: bytes, end: bytes) -> bytes:
    try:
        return b"data: " + json.dumps(_MAKER.object_of(data)).encode() + end
    except RecursionError:
        return b"data: " + b"[" * 2_000 + end


EVENTS = st.lists(st.builds(event_of, st.binary(max_size=100), st.sampled_from(ENDS)), max_size=5).map(
    b"".join
)


@given(STREAMS, cuts())
def test_events_come_out_whole_however_the_bytes_are_cut(data: bytes, lengths: list[int]) -> None:
    buffer = sse.EventBuffer()
    came = [buffer.feed(piece) for piece in cut(data, lengths)]
    came.append(buffer.rest())
    assert b"".join(came) == data
    assert list(payloads(came)) == by_the_standard(data)


def payloads(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """The data of the events that have any."""
    for piece in pieces:
        for event in sse.split(piece):
            if any(line.startswith(b"data:") for line in event.splitlines()):
                yield sse.payload(event)


def by_the_standard(data: bytes) -> list[bytes]:
    """The same, line by line as WHATWG HTML tells; the last event need not be ended by an empty line."""
    found: list[bytes] = []
    lines: list[bytes] = []
    for line in (*data.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n"), b""):
        if line.startswith(b"data:"):
            value = line[5:]
            lines.append(value[1:] if value.startswith(b" ") else value)
        elif not line and lines:
            found.append(b"\n".join(lines))
            lines = []
    return found


@given(st.sampled_from(sorted(METERS)), STREAMS | EVENTS, cuts(), st.booleans())
def test_a_stream_tells_the_same_however_its_bytes_are_cut(
    name: str, data: bytes, lengths: list[int], hide_usage: bool
) -> None:
    at_once = read(METERS[name], [data], hide_usage=hide_usage)
    assert read(METERS[name], cut(data, lengths), hide_usage=hide_usage) == at_once


def read(meter: Meter, pieces: Iterable[bytes], *, hide_usage: bool) -> tuple[Any, ...]:
    """All that a stream tells at its end."""
    stream = Stream(meter, {"model": "gpt-4o-mini"}, hide_usage=hide_usage)
    passed = [stream.take(piece) for piece in pieces]
    passed.append(stream.rest())
    tokens = stream.output_tokens()
    assert tokens >= 0
    return (
        list(payloads(passed)),
        stream.usage,
        stream.is_done,
        stream.has_failed,
        stream.has_begun,
        stream.take_objects(),
        tokens,
    )


@given(STREAMS, cuts())
def test_a_stream_passes_on_every_byte_unless_it_hides_its_usage(data: bytes, lengths: list[int]) -> None:
    stream = Stream(metering.CHAT, {"model": "gpt-4o-mini"}, hide_usage=False)
    assert b"".join([*(stream.take(piece) for piece in cut(data, lengths)), stream.rest()]) == data
