"""Multipart forms, read while they pass: their fields, and what is known of their files.

Source: RFC 7578. The bytes themselves go on as they came; nothing is put together again.
"""

import hashlib
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from email.message import Message
from typing import Any

import orjson
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser

from common.errors import BadRequest
from openai_app.metering.form import FormFile

# Fields that are not files are prompts and settings.
MAX_FIELD_BYTES = 1024 * 1024
MAX_PARTS = 1_000
# The same of all fields of a form together: they are kept in memory.
MAX_FIELDS_BYTES = 8 * 1024 * 1024
# How much of a file is kept: enough for the headers of sounds and pictures.
HEAD_BYTES = 64 * 1024
# The same of all files of a form together; what comes after goes by its size alone.
ALL_HEADS_BYTES = 1024 * 1024
# Names of fields and of files, and content types, are short.
MAX_PART_HEADERS_BYTES = 16 * 1024
# No id, nor an object with one in it, is longer.
MOST_ID_BYTES = 1024

# The price and the way of the answer are read from these: of several values OpenAI might go by another one.
HAVE_ONE_VALUE = frozenset(
    {
        *("file", "input_fidelity", "model", "n", "partial_images", "prompt", "quality", "response_format"),
        *("seconds", "size", "stream", "stream_format"),
    }
)


@dataclass
class _Part:
    headers: list[tuple[str, str]] = field(default_factory=list)
    data: bytearray = field(default_factory=bytearray)
    size: int = 0
    headers_bytes: int = 0
    name: str = ""
    file_name: str | None = None
    content_type: str = ""
    #: Of its name, its file's name, its type and its data.
    digest: "hashlib._Hash | None" = None


class FormReader:
    """Fed with a body's pieces; afterwards `fields` has the form as a dict.

    A field given several times, or named `name[]`, is a list. Raises BadRequest for what is no form, and for
    one of `HAVE_ONE_VALUE` that has more.
    """

    def __init__(self, content_type: str, *, digest: "hashlib._Hash | None" = None) -> None:
        """`digest` is fed with what the parts say, whatever the boundary between them is."""
        boundary = _parameters(f"form-data; {content_type.partition(';')[2]}").get("boundary", "")
        if not boundary:
            raise BadRequest("The content type multipart/form-data must name its boundary.")
        self.fields: dict[str, Any] = {}
        self._part = _Part()
        self._parts = 0
        self._heads_bytes = 0
        self._fields_bytes = 0
        self._name = self._value = b""
        self._is_complete = False
        self._digest = digest
        # Parsers differ in what they make of anything before it.
        self._must_begin = b"--" + boundary.encode("latin-1", "replace")
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._begin,
                "on_header_field": self._header_name,
                "on_header_value": self._header_value,
                "on_header_end": self._header_end,
                "on_headers_finished": self._headers_finished,
                "on_part_data": self._data,
                "on_part_end": self._end,
                "on_end": self._complete,
            },
        )

    def feed(self, data: bytes) -> None:
        if self._must_begin:
            expected, self._must_begin = self._must_begin[: len(data)], self._must_begin[len(data) :]
            if not data.startswith(expected):
                raise BadRequest("The multipart form must begin with its boundary.")
        try:
            self._parser.write(data)
        except FormParserError as error:
            raise BadRequest(f"The body is no multipart form: {error}.") from None

    def finish(self) -> dict[str, Any]:
        """The fields, once all has been fed. Raises BadRequest for a form that is not complete."""
        if not self._is_complete:
            raise BadRequest("The multipart form ends before its last boundary.")
        return self.fields

    def _begin(self) -> None:
        self._parts += 1
        if self._parts > MAX_PARTS:
            raise BadRequest(f"The form has more than {MAX_PARTS} parts.")
        self._part = _Part()

    def _header_name(self, data: bytes, start: int, end: int) -> None:
        self._count_header(end - start)
        self._name += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._count_header(end - start)
        self._value += data[start:end]

    def _count_header(self, more_bytes: int) -> None:
        self._part.headers_bytes += more_bytes
        if self._part.headers_bytes > MAX_PART_HEADERS_BYTES:
            raise BadRequest(f"The headers of a part of the form exceed {MAX_PART_HEADERS_BYTES} bytes.")

    def _header_end(self) -> None:
        name, value = self._name.decode("latin-1").lower(), self._value.decode("utf-8", "replace")
        self._part.headers.append((name, value))
        self._name = self._value = b""

    def _headers_finished(self) -> None:
        headers = dict(self._part.headers)
        if len(headers) != len(self._part.headers):
            raise BadRequest("A part of the form has the same header twice.")
        disposition = _parameters(headers.get("content-disposition", ""))
        self._part.name = disposition.get("name", "")
        self._part.file_name = disposition.get("filename")
        self._part.content_type = headers.get("content-type", "")
        self._refuse_more_than_one_value(self._part.name)
        if self._digest is not None:
            said = [self._part.name, self._part.file_name, self._part.content_type]
            self._part.digest = hashlib.sha256(repr(said).encode("utf-8", "backslashreplace") + b"\n")

    def _refuse_more_than_one_value(self, name: str) -> None:
        # Some servers drop a bracket in front.
        field_name, bracket, _ = name.lstrip("[ ").partition("[")
        field_name = field_name.rstrip("] ")
        if field_name not in HAVE_ONE_VALUE:
            return
        if bracket or field_name != name:
            raise BadRequest(f"The field {field_name!r} takes one value; {name[:60]!r} is another name.")
        if name in self.fields:
            raise BadRequest(f"The field {name!r} stands twice in your form.")

    def _data(self, data: bytes, start: int, end: int) -> None:
        part = self._part
        part.size += end - start
        if part.digest is not None:
            part.digest.update(data[start:end])
        is_file = part.file_name is not None
        if not is_file and part.size > MAX_FIELD_BYTES:
            raise BadRequest(f"The field {part.name!r} is larger than {MAX_FIELD_BYTES} bytes.")
        if not is_file:
            self._fields_bytes += end - start
            if self._fields_bytes > MAX_FIELDS_BYTES:
                raise BadRequest(f"The fields of the form are larger than {MAX_FIELDS_BYTES} bytes.")
            part.data += data[start:end]
        elif (room := min(HEAD_BYTES - len(part.data), ALL_HEADS_BYTES - self._heads_bytes)) > 0:
            kept = data[start : min(end, start + room)]
            part.data += kept
            self._heads_bytes += len(kept)

    def _end(self) -> None:
        part = self._part
        if self._digest is not None and part.digest is not None:
            self._digest.update(part.digest.digest())
        value: Any = part.data.decode("utf-8", "replace")
        if part.file_name is not None:
            value = FormFile(part.file_name, part.content_type, part.size, bytes(part.data))
        name = part.name.removesuffix("[]")
        if name in self.fields:
            known = self.fields[name]
            self.fields[name] = [*known, value] if isinstance(known, list) else [known, value]
        else:
            self.fields[name] = [value] if part.name.endswith("[]") else value

    def _complete(self) -> None:
        self._is_complete = True


def values_of(fields: Mapping[str, Any]) -> list[Any]:
    """What a server may make of a form's fields: `a[b]` is `b` within `a`, and JSON is what it says."""
    found = []
    for name, held in fields.items():
        value: Any = [_json_of(one) for one in held] if isinstance(held, list) else _json_of(held)
        for one in held if isinstance(held, list) else [held]:
            if isinstance(one, FormFile) and one.size <= MOST_ID_BYTES:
                # Not a file but an id, perhaps, for a server that does not mind its name.
                found.append(_json_of(one.head.decode("latin-1")))
        for part in reversed(re.findall(r"[^\[\]]+", name)):
            value = {part: value}
        found.append(value)
    return found


def _json_of(value: Any) -> Any:
    if isinstance(value, str) and value.lstrip()[:1] in ("{", "["):
        with suppress(orjson.JSONDecodeError):
            return orjson.loads(value)
    return value


def _parameters(header: str) -> dict[str, str]:
    """The parameters of a header such as Content-Disposition, quoting and RFC 2231 included.

    Raises BadRequest for one that stands twice: OpenAI might go by the other. Names of files often do, as
    `filename` and `filename*`, and do not matter.
    """
    message = Message()
    message["content-disposition"] = header
    found = message.get_params(failobj=[], header="content-disposition")
    names = [str(name).lower() for name, _ in found if str(name).lower() != "filename"]
    if len(set(names)) != len(names):
        raise BadRequest("A header of the form has the same parameter twice.")
    return {str(name).lower(): _text(value) for name, value in found}


def _text(value: str | tuple[str | None, str | None, str]) -> str:
    return value if isinstance(value, str) else value[2]
