"""Where an event of a stream ends, however the bytes arrive."""

import pytest

from openai_app.answer import sse

ENDS = pytest.mark.parametrize("end", [b"\n\n", b"\r\n\r\n", b"\r\r", b"\n\r\n", b"\r\n\n"])


@ENDS
@pytest.mark.parametrize("size", [1, 2, 3, 5, 1000])
def test_whole_events_come_out_and_nothing_is_lost(end: bytes, size: int) -> None:
    events = [b"data: one" + end, b": comment" + end, b"event: x\ndata: two" + end]
    data = b"".join(events)
    buffer = sse.EventBuffer()
    came = [buffer.feed(data[start : start + size]) for start in range(0, len(data), size)]
    came.append(buffer.rest())
    assert b"".join(came) == data
    assert [event for part in came for event in sse.split(part)] == events


@pytest.mark.parametrize("end", [b"\n\n", b"\r\n\r\n"])
def test_an_event_comes_out_as_soon_as_its_last_byte_is_there(end: bytes) -> None:
    event = b"data: one" + end
    buffer = sse.EventBuffer()
    assert [buffer.feed(event[:-1]), buffer.feed(event[-1:])] == [b"", event]


def test_an_event_without_an_end_is_the_rest() -> None:
    buffer = sse.EventBuffer()
    assert buffer.feed(b"data: one\n\ndata: tw") == b"data: one\n\n"
    assert buffer.rest() == b"data: tw"
    assert buffer.rest() == b""


def test_an_event_beyond_the_bound_is_passed_on_in_pieces() -> None:
    buffer = sse.EventBuffer()
    assert buffer.feed(b"x" * sse.MAX_EVENT_BYTES) == b""
    assert buffer.feed(b"x") == b"x" * (sse.MAX_EVENT_BYTES + 1)


@pytest.mark.parametrize(
    ("event", "payload"),
    [
        (b"data: one\n\n", b"one"),
        (b"data:one\r\n\r\n", b"one"),
        (b"data:  one\n\n", b" one"),
        (b"data: one\ndata: two\n\n", b"one\ntwo"),
        (b"event: x\nid: 7\ndata: one\n\n", b"one"),
        (b": comment\n\n", b""),
        (b"data\n\n", b""),
    ],
)
def test_the_data_of_an_event_is_read_as_the_standard_says(event: bytes, payload: bytes) -> None:
    assert sse.payload(event) == payload


@pytest.mark.parametrize("data", [b"[DONE]", b"", b"[1]", b"{", b'"text"'])
def test_what_is_no_object_is_none(data: bytes) -> None:
    assert sse.parse(b"data: " + data + b"\n\n") is None
