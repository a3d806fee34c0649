"""Multipart forms as the gateway reads them while they pass."""

from typing import Any

import pytest

from common.errors import BadRequest
from openai_app.catalogue import CATALOGUE, Operation
from openai_app.catalogue.operation import FORM
from openai_app.metering.form import FormFile
from openai_app.request import forms
from openai_app.request.forms import FormReader

BOUNDARY = "a-boundary"
CONTENT_TYPE = f"multipart/form-data; boundary={BOUNDARY}"


def part(disposition: str, content: bytes, *headers: str) -> bytes:
    lines = [f"--{BOUNDARY}", f"Content-Disposition: form-data; {disposition}", *headers, "", ""]
    return "\r\n".join(lines).encode() + content + b"\r\n"


def form_of(*parts: bytes) -> bytes:
    return b"".join(parts) + f"--{BOUNDARY}--\r\n".encode()


def read(body: bytes, *, step: int = 0, content_type: str = CONTENT_TYPE) -> dict[str, Any]:
    """The fields of a form that comes in pieces of `step` bytes, or at once."""
    reader = FormReader(content_type)
    for start in range(0, len(body), step or len(body)):
        reader.feed(body[start : start + (step or len(body))])
    return reader.finish()


MIXED = form_of(
    part('name="model"', b"whisper-1"),
    part('name="file"; filename="a \\"b\\".wav"', b"\r\n--a-bound\r\n" * 3, "Content-Type: audio/wav"),
    part('name="timestamp_granularities[]"', b"word"),
    part('name="timestamp_granularities[]"', b"segment"),
    part('name="prompt"', "Größe 😀".encode()),
    part('name="empty"', b""),
)


@pytest.mark.parametrize("step", [0, 1, 2, 3, 7, 64, 100])
def test_a_form_reads_the_same_however_it_is_cut(step: int) -> None:
    assert read(MIXED, step=step) == {
        "model": "whisper-1",
        "file": FormFile('a "b".wav', "audio/wav", 39, b"\r\n--a-bound\r\n" * 3),
        "timestamp_granularities": ["word", "segment"],
        "prompt": "Größe 😀",
        "empty": "",
    }


def test_a_name_with_brackets_is_a_list_even_alone() -> None:
    assert read(form_of(part('name="include[]"', b"logprobs"))) == {"include": ["logprobs"]}


def test_a_name_that_comes_twice_is_a_list() -> None:
    body = form_of(*(part('name="image"; filename="x"', content) for content in (b"1", b"22", b"333")))
    assert [image.size for image in read(body)["image"]] == [1, 2, 3]


@pytest.mark.parametrize(
    "names",
    [
        ("file", "file"),
        ("model", "prompt", "model"),
        ("model[]",),
        ("model", "model[]"),
        ("model[0]",),
        ("model[name]",),
        ("[model]",),
        ("size", "size[]"),
    ],
    ids=str,
)
def test_a_field_that_takes_one_value_is_refused_with_more(names: tuple[str, ...]) -> None:
    for end in ("", '; filename="f"'):
        with pytest.raises(BadRequest, match=r"stands twice in your form|takes one value"):
            read(form_of(*(part(f'name="{name}"{end}', b"x") for name in names)))


def test_a_list_may_be_spelt_as_clients_do() -> None:
    for names in ("image", "image"), ("image[]", "image[]"), ("image", "image[]"):
        assert read(form_of(*(part(f'name="{name}"', b"x") for name in names))) == {"image": ["x", "x"]}
    assert len(read(form_of(part('name="image[0]"', b"x"), part('name="image[1]"', b"y")))) == 2


def test_an_object_is_sent_by_its_parts() -> None:
    parts = {"chunking_strategy[type]": "server_vad", "chunking_strategy[threshold]": "0.5"}
    assert read(form_of(*(part(f'name="{name}"', text.encode()) for name, text in parts.items()))) == parts


class Asked(dict[str, Any]):
    """A request that notes which of its fields are read."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def get(self, name: str, default: Any = None) -> Any:
        self.names.add(name)
        return default


# Images may be several, and each counts.
@pytest.mark.parametrize("row", [row for row in CATALOGUE if FORM in row.accepts], ids=lambda row: row.name)
def test_whatever_a_form_is_charged_by_has_one_value(row: Operation) -> None:
    request = Asked()
    if row.meter.estimate is not None:
        row.meter.estimate(request)
        row.meter.usage({}, request)
        row.meter.rated_as(request)
    assert request.names - {"image", "image[]", "images"} <= forms.HAVE_ONE_VALUE


def test_files_may_come_before_and_after_the_fields() -> None:
    model, file = part('name="model"', b"m"), part('name="file"; filename="f"', b"content")
    assert read(form_of(model, file)) == read(form_of(file, model))


@pytest.mark.parametrize(
    "name",
    [
        'filename="r\xe9sum\xe9.txt"',
        "filename=plain.txt",
        "filename*=utf-8''r%C3%A9sum%C3%A9.txt",
        "filename=\"a.txt\"; filename*=utf-8''b.txt",
        'filename=""',
    ],
)
def test_a_part_with_a_file_name_of_whatever_spelling_is_a_file(name: str) -> None:
    (file,) = read(form_of(part(f'name="file"; {name}', b"content"))).values()
    assert isinstance(file, FormFile)
    assert file.size == 7


def test_the_boundary_may_be_quoted() -> None:
    body = form_of(part('name="a"', b"b"))
    assert read(body, content_type=f'multipart/form-data; charset=x; boundary="{BOUNDARY}"') == {"a": "b"}


def test_of_a_large_file_only_the_head_is_kept() -> None:
    content = bytes(range(256)) * 4096
    (file,) = read(form_of(part('name="file"; filename="f"', content)), step=10_000).values()
    assert file.size == len(content)
    assert file.head == content[: forms.HEAD_BYTES]


def test_of_many_files_no_more_is_kept_than_of_a_few() -> None:
    content = bytes(forms.HEAD_BYTES + 1)
    images = read(form_of(*[part('name="image"; filename="f"', content)] * 100), step=65_536)["image"]
    assert {image.size for image in images} == {len(content)}
    assert sum(len(image.head) for image in images) == forms.ALL_HEADS_BYTES


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"--",
        b"hello",
        b'{"model": "whisper-1"}',
        MIXED[:-4],
        MIXED[: len(MIXED) // 2],
        MIXED.replace(b"--a-boundary--", b"--another--"),
        b"--another\r\n" + MIXED,
        b"\r\n" + MIXED,
        MIXED[2:],
        b"\r\n" + MIXED[2:],
        f"--{BOUNDARY}\r\nno header\r\n\r\nx\r\n--{BOUNDARY}--\r\n".encode(),
        f"--{BOUNDARY}\r\nBad\x00Name: x\r\n\r\nx\r\n--{BOUNDARY}--\r\n".encode(),
        f"--{BOUNDARY}--\r\n".encode()[:3],
    ],
)
def test_what_is_no_form_is_refused(body: bytes) -> None:
    with pytest.raises(BadRequest):
        read(body, step=5)


@pytest.mark.parametrize("step", [0, 1, 2, 1_000])
def test_a_form_begins_with_its_boundary_however_it_is_cut(step: int) -> None:
    with pytest.raises(BadRequest, match="begin with its boundary"):
        read(b"\r\n" + MIXED[2:], step=step)


@pytest.mark.parametrize("content_type", ["multipart/form-data", "multipart/form-data; boundary="])
def test_a_form_must_name_its_boundary(content_type: str) -> None:
    with pytest.raises(BadRequest, match="boundary"):
        FormReader(content_type)


def test_a_field_that_is_no_file_is_bounded() -> None:
    whole = part('name="prompt"', bytes(forms.MAX_FIELD_BYTES))
    assert len(read(form_of(whole))["prompt"]) == forms.MAX_FIELD_BYTES
    with pytest.raises(BadRequest, match="'prompt' is larger"):
        read(form_of(part('name="prompt"', bytes(forms.MAX_FIELD_BYTES + 1))), step=65_536)


def test_the_number_of_parts_is_bounded() -> None:
    one = part('name="include"', b"b")
    assert len(read(form_of(*[one] * forms.MAX_PARTS))["include"]) == forms.MAX_PARTS
    with pytest.raises(BadRequest, match="more than"):
        read(form_of(*[one] * (forms.MAX_PARTS + 1)))


@pytest.mark.parametrize("header", ["X-Long: " + "x" * 20_000, "X" * 20_000 + ": x"])
def test_the_headers_of_a_part_are_bounded(header: str) -> None:
    with pytest.raises(BadRequest):
        read(form_of(part('name="a"', b"b", header)), step=1_000)
    with pytest.raises(BadRequest):
        read(form_of(part('name="a"', b"b", *[f"X-{number}: y" for number in range(4_000)])), step=1_000)
