"""Whatever JSON a call or its answer is made of, it is counted: no error, nothing below zero, soon."""

import base64
import json
import math
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from balances.rates import Book
from balances.sizing import size_hold
from balances.units import UNITS
from balances.usage import Estimate, Usage
from common.errors import ApiError
from common.tests.strategies import JsonMaker, put_together
from openai_app.metering import LATER, FormFile, batches, duration, fine_tuning, images
from openai_app.metering.models import Patches, Tiles
from openai_app.tests.test_metering_hostile import ENDPOINTS, FIELDS, METERS, WORDS

MAKER = JsonMaker(FIELDS, WORDS)
SOUNDS = put_together(
    *(
        b"RIFF\0\0\0\0WAVE",
        b"fmt \x10\0\0\0",
        b"data",
        b"fLaC",
        b"OggS",
        b"\x01vorbis",
        b"\0\0\0\0ftyp",
        b"mvhd",
    ),
    *(b"\x1aE\xdf\xa3", b"\x15I\xa9f", b"D\x89", b"*\xd7\xb1", b"ID3", b"\xff\xfb\x90", b"Xing", b"Info"),
    *(b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x7f" * 40, b"\x88", b"\xff" * 130),
)
FILES = st.builds(FormFile, st.just("a"), st.just(""), st.integers(0, 2**40), SOUNDS)
# PostgreSQL and JSON readers keep no larger ones.
MOST_UNITS = 2**53


def check_units(units: Any) -> None:
    for unit, count in units.items():
        assert unit in UNITS
        assert type(count) is int
        assert 0 <= count <= MOST_UNITS


def check_usage(usage: Usage | None) -> None:
    if usage is not None:
        check_units(usage.units)
        json.dumps(dict(usage.details))
        assert all(type(count) is int and abs(count) <= MOST_UNITS for count in usage.details.values())
        assert Book().price("gpt-4o", usage.units) >= 0


def check_estimate(estimate: Estimate) -> None:
    check_units(estimate.units)
    assert estimate.choices >= 1
    assert estimate.least_cap >= 1
    assert estimate.asked is None or estimate.asked >= 0
    for available in (0, 1_000, 2**53):
        for relaxed in (False, True):
            try:
                size = size_hold(estimate, Book().of("gpt-4o"), available, relaxed=relaxed)
            except ApiError:
                continue
            assert 0 <= size.amount <= available
            assert size.output_cap is None or size.output_cap >= estimate.least_cap


@given(st.sampled_from(sorted(METERS)), MAKER.objects(), st.none() | FILES)
def test_any_request_is_estimated(name: str, request: dict[str, Any], file: FormFile | None) -> None:
    meter = METERS[name]
    if file is not None:
        request.update(file=file, image=[file, file])
    if meter.estimate is not None:
        check_estimate(meter.estimate(request))
    assert isinstance(meter.rated_as(request), str)
    assert isinstance(meter.cap(request, 16), dict)
    assert isinstance(meter.ask_for_usage(request), dict)


@given(st.sampled_from(sorted(METERS)), MAKER.objects(), MAKER.objects(100))
def test_the_usage_of_any_answer_can_be_read(
    name: str, answer: dict[str, Any], request: dict[str, Any]
) -> None:
    meter = METERS[name]
    check_usage(meter.usage(answer, request))
    assert isinstance(meter.ends(answer), bool)
    assert all(isinstance(added, str) for _, added in meter.text(answer))


@given(st.sampled_from(sorted(LATER)), MAKER.objects())
def test_the_usage_of_any_finished_object_can_be_read(kind: str, found: dict[str, Any]) -> None:
    later = LATER[kind]
    check_usage(later.usage(found))
    assert isinstance(later.has_ended(found), bool)
    assert isinstance(later.rated_as(found), str)


def line_of(value: Any) -> bytes:
    try:
        return json.dumps(value).encode()
    except RecursionError:
        return b"[" * 2_000


@given(st.lists(MAKER.objects(120).map(line_of) | st.binary(max_size=20), max_size=5))
def test_any_lines_of_a_file_are_counted(lines: list[bytes]) -> None:
    for endpoint in ("", *ENDPOINTS):
        batch = {"endpoint": endpoint}
        output = batches.Output(batch, "")
        output.add(lines)
        check_usage(output.usage())
        check_estimate(batches.estimate_lines(lines, batch))
    check_estimate(fine_tuning.estimate_lines(lines, {}))


@given(SOUNDS, st.integers(0, 2**40))
def test_any_sound_has_a_length(head: bytes, size: int) -> None:
    seconds = duration.seconds(head, max(size, len(head)))
    assert 0 <= seconds <= 1e9
    assert 0 <= math.ceil(seconds * 1_000) <= MOST_UNITS


HEADS = put_together(
    *(b"\x89PNG\r\n\x1a\n", b"\0\0\0\rIHDR", b"GIF89a", b"RIFF\0\0\0\0WEBP", b"VP8X", b"VP8L", b"VP8 "),
    *(
        b"\xff\xd8",
        b"\xff\xc0",
        b"\xff\xe0\0\x10",
        b"\xff\xff",
        b"\0\0\0\0",
        b"\xff\xff\xff\xff",
        b"\0\0\0\1",
    ),
)
RULES = (Tiles(85, 170), Patches(1.0, 1536), Patches(2.46, 1536, original=6000, auto=300))


@given(HEADS, st.sampled_from(["low", "high", "auto", "original", None, 7]), st.sampled_from(RULES))
def test_no_image_costs_more_than_one_of_unknown_size(head: bytes, detail: object, rule: Any) -> None:
    url = "data:image/png;base64," + base64.b64encode(head).decode()
    assert 0 <= images.tokens(url, detail, rule) <= images.tokens("https://x", detail, rule)
