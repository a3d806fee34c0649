"""Whatever a caller sends is read or refused, and no id in it is overlooked."""

import json
from typing import Any

import pytest
from django.core.files.uploadhandler import MemoryFileUploadHandler
from django.http.multipartparser import MultiPartParser
from django.test import RequestFactory
from hypothesis import given
from hypothesis import strategies as st

from common.errors import ApiError, BadRequest, KeyRejected
from common.tests.strategies import ODD_TEXTS, JsonMaker, cut, cuts, put_together
from openai_app.catalogue import CATALOGUE
from openai_app.metering.form import FormFile
from openai_app.owned import ownership
from openai_app.owned.objects import REFERENCES
from openai_app.request import request_body
from openai_app.request.credentials import digest_from
from openai_app.request.forms import FormReader, values_of
from openai_app.request.incoming import content_length, decompressed
from openai_app.tests.test_metering_hostile import FIELDS, WORDS

IDS = (
    *(
        "file-abcdefgh",
        "resp_0123456789",
        "conv_abcdef0123",
        "vs_abcdef01",
        "asst_abcdef01",
        "thread_abcdef01",
    ),
    *("cntr_abcdef01", "msg_abcdef01", "ft:gpt-4o:x::abc", "curie:ft-x-2023", "video_abcdef", "voice_abcdef"),
)
NAMES = (*FIELDS, *REFERENCES, "id", "tool_resources", "file_search", "metadata", "attributes")
MAKER = JsonMaker(NAMES, (*WORDS, *IDS, "item_reference", "file_id"))

# --- forms ------------------------------------------------------------------------------------------------

CONTENT_TYPE = "multipart/form-data; boundary=B"
DISPOSITION = b"Content-Disposition: form-data; name="
FORMS = put_together(
    *(b"--B", b"--B--", b"\r\n", b"\n", b"\r", b"--", b"B", DISPOSITION, b"a", b'"a"', b'"a[b]"', b'"a[]"'),
    *(
        b'"; filename="f"',
        b"; filename*=utf-8''f",
        b"; name*0=a; name*1*=b",
        b"Content-Type: text/plain",
        b": ",
    ),
    *(b"--B\r\n" + DISPOSITION + b'"model"\r\n\r\nwhisper-1\r\n', b"\r\n--B--\r\n", b"; name*" + b"9" * 5000),
)


def read(content_type: str, pieces: list[bytes]) -> dict[str, Any] | None:
    """The fields of a form; None for one that is refused."""
    try:
        reader = FormReader(content_type)
        for piece in pieces:
            reader.feed(piece)
        return reader.finish()
    except ApiError:
        return None


@given(FORMS, cuts())
def test_a_form_reads_the_same_however_its_bytes_are_cut(data: bytes, lengths: list[int]) -> None:
    at_once = read(CONTENT_TYPE, [data])
    assert read(CONTENT_TYPE, cut(data, lengths)) == at_once
    if at_once is not None:
        values_of(at_once)


@given(st.binary(max_size=200), FORMS)
def test_any_content_type_is_read_or_refused(header: bytes, data: bytes) -> None:
    read("multipart/form-data" + header.decode("latin-1"), [data])
    read("multipart/form-data; boundary=B" + header.decode("latin-1"), [data])


FIELD_NAMES = st.text(st.sampled_from("abcz[]-._ é"), min_size=1, max_size=6).map(str.strip).filter(bool)
PARTS = st.lists(st.tuples(FIELD_NAMES, st.booleans(), st.binary(max_size=60)), min_size=1, max_size=5)


@given(PARTS, cuts())
def test_a_form_is_read_as_django_reads_it(parts: list[tuple[str, bool, bytes]], lengths: list[int]) -> None:
    body = b""
    for name, is_file, content in parts:
        end = b'; filename="f"' if is_file else b""
        body += b"--B-o-U\r\n" + DISPOSITION + f'"{name}"'.encode() + end + b"\r\n\r\n" + content + b"\r\n"
    body += b"--B-o-U--\r\n"
    content_type = "multipart/form-data; boundary=B-o-U"
    ours: dict[str, list[Any]] = {}
    reader = FormReader(content_type)
    for piece in cut(body, lengths):
        reader.feed(piece)
    for name, value in reader.finish().items():
        values = value if isinstance(value, list) else [value]
        # Django keeps files apart from other fields.
        ours[name] = sorted(values, key=lambda one: isinstance(one, FormFile))
    assert ours == by_django(body, content_type)


def by_django(body: bytes, content_type: str) -> dict[str, list[Any]]:
    request = RequestFactory().post("/", body, content_type=content_type)
    handlers = [MemoryFileUploadHandler(request)]
    fields, files = MultiPartParser(request.META, request, handlers, "utf-8").parse()
    found: dict[str, list[Any]] = {}
    for name, values in fields.lists():
        found.setdefault(name.removesuffix("[]"), []).extend(values)
    uploaded: Any = files
    for name, values in uploaded.lists():
        for value in values:
            content = value.read()
            found.setdefault(name.removesuffix("[]"), []).append(FormFile("f", "", len(content), content))
    return found


# --- JSON -------------------------------------------------------------------------------------------------

JSON_TEXTS = put_together(
    *(
        b"{",
        b"}",
        b"[",
        b"]",
        b":",
        b",",
        b'"',
        b"\\",
        b"\\u0022",
        b"\\ud800",
        b"\\u006d",
        b"1",
        b"-",
        b"1e999",
    ),
    *(b'"model":"gpt-4o-mini"', b'"n":1', b'"\\u006e":2', b'"max_tokens":7', b" ", b"null", b'"input":"\\""'),
    *(b'{"model":"gpt-4o-mini",', b'"a":', b'"a":{"a":1,"a":2}', b"[" * 300, b"]" * 300, b"9" * 400, b"\xff"),
)


@given(JSON_TEXTS | MAKER.objects().map(lambda value: json_of(value)), st.booleans())
def test_a_json_body_is_read_as_it_stands_or_refused(body: bytes, needs_model: bool) -> None:
    try:
        fields = request_body.parse(body, needs_model=needs_model)
    except ApiError:
        return
    assert fields == json.loads(body, object_pairs_hook=without_repetition, parse_int=orjsons_int)
    for written in ({}, {"max_tokens": 16}, {"max_tokens": 16, "stream_options": {"include_usage": True}}):
        sent = request_body.write_into(body, fields, written)
        assert request_body.parse(sent, needs_model=needs_model) == {**fields, **written}


def json_of(value: Any) -> bytes:
    try:
        return json.dumps(value).encode()
    except RecursionError:
        return b"[" * 2_000


def without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    assert len({name for name, _ in pairs}) == len(pairs), "a name stood twice"
    return dict(pairs)


def orjsons_int(digits: str) -> int | float:
    """Beyond 64 bits orjson reads a number as a double."""
    number = int(digits[:400]) if len(digits) < 400 else 2**70
    return number if -(2**63) <= number < 2**64 else float(digits)


@given(st.binary(max_size=300), st.sampled_from(["gzip", "x-gzip", "deflate", "br", "GZIP", "é"]))
def test_a_packed_body_is_unpacked_within_its_bound_or_refused(data: bytes, encoding: str) -> None:
    try:
        assert len(decompressed(data, encoding, 1_000)) <= 1_000
    except ApiError:
        pass


# --- ids --------------------------------------------------------------------------------------------------


@given(
    st.sampled_from(CATALOGUE),
    st.sampled_from((*IDS, *ODD_TEXTS)),
    st.binary(max_size=80) | st.sampled_from([b"after=file-abcdefgh", b"thread_id=thread_abcdef01&a=%00"]),
    MAKER.objects(),
)
def test_the_ids_of_any_call_can_be_listed(
    operation: Any, slot: str, query: bytes, fields: dict[str, Any]
) -> None:
    for mention in ownership.mentions(operation, dict.fromkeys(operation.slots, slot), query, fields):
        assert isinstance(mention.object_id, str)
    operation.refusal(fields)


@given(MAKER.objects(), st.binary(min_size=1, max_size=60), st.booleans())
def test_an_id_is_found_however_its_characters_are_escaped(
    fields: dict[str, Any], dice: bytes, escapes: bool
) -> None:
    body = json_of(fields)
    if escapes:
        body = escaped(body, dice)
    try:
        read_fields = request_body.parse(body, needs_model=False)
    except BadRequest:
        return
    mentioned = [m for m in ownership.mentions(CATALOGUE[0], {}, b"", read_fields) if m.object_id in IDS]
    assert not mentioned or ownership.may_mention(body)


def escaped(body: bytes, dice: bytes) -> bytes:
    """The same JSON text with some letters of its strings written by their numbers."""
    text, found, is_string, at = body.decode(), [], False, 0
    while at < len(text):
        character = text[at]
        if character == "\\":
            length = 6 if text[at + 1] == "u" else 2
            found.append(text[at : at + length])
            at += length
            continue
        is_string ^= character == '"'
        is_escaped = is_string and character != '"' and dice[at % len(dice)] & 1
        found.append(f"\\u{ord(character):04x}" if is_escaped else character)
        at += 1
    return "".join(found).encode()


# --- headers ----------------------------------------------------------------------------------------------

KEYS = put_together(
    b"Bearer", b"bearer ", b"Token ", b" ", b"sk-tg-", b"\x85", b"\xa0", b"\xff", b",", b"\x00"
)


@given(st.lists(KEYS, max_size=3))
def test_any_authorization_header_gives_a_digest_or_is_refused(values: list[bytes]) -> None:
    try:
        assert len(digest_from([(b"authorization", value) for value in values])) == 64
    except KeyRejected:
        pass


@pytest.mark.filterwarnings("error")
@given(st.binary(max_size=30) | st.sampled_from([b"1" * 5000, b"-1", b"+1", b"1_0", "٣".encode(), b"\xb2"]))
def test_any_announced_length_is_a_number_or_none(value: bytes) -> None:
    length = content_length([(b"content-length", value)])
    assert length is None or length >= 0
