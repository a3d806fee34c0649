"""Reading multipart/form-data as it arrives, at constant memory (RFC 7578)."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

import orjson

from simulator.blobs import Blob

MOST_FIELD_BYTES = 20_000_000  # more than any text that OpenAI takes; files have no limit here
MOST_HEAD_BYTES = 16_384
PARAMETER = re.compile(rb';\s*([\w*]+)=(?:"((?:[^"\\]|\\.)*)"|([^;\s]*))')


@dataclass(slots=True)
class FilePart:
    filename: str
    content_type: str | None
    blob: Blob = field(default_factory=Blob)

    def document(self) -> dict[str, Any]:
        return {
            "filename": self.filename,
            "content_type": self.content_type,
            "bytes": self.blob.size,
            "sha256": self.blob.sha256,
        }


@dataclass(slots=True)
class Form:
    """Fields by name, without the `[]` of lists; whatever came more than once, or with `[]`, is a list."""

    fields: dict[str, Any] = field(default_factory=dict)
    files: dict[str, list[FilePart]] = field(default_factory=dict)

    def add_text(self, name: str, value: str) -> None:
        bare = name.removesuffix("[]")
        if bare in self.fields:
            known = self.fields[bare]
            self.fields[bare] = [*known, value] if isinstance(known, list) else [known, value]
        else:
            self.fields[bare] = [value] if name.endswith("[]") else value

    def file(self, name: str) -> FilePart | None:
        parts = self.files.get(name)
        return parts[0] if parts else None

    def as_json(self) -> bytes:
        """The form as the journal, the directives and the recordings see it."""
        files = {name: [part.document() for part in parts] for name, parts in self.files.items()}
        flat = {name: parts[0] if len(parts) == 1 else parts for name, parts in files.items()}
        return orjson.dumps({**self.fields, **flat})


class FormError(ValueError):
    """The body is no multipart/form-data."""


class FormReader:
    """Feed it the body piece by piece, and end it; then `form` has what was in it.

    Attributes:
        error: what is wrong with the body; empty if nothing is.
        size, digest: of the raw body, whatever is wrong with it.
    """

    def __init__(self, content_type: bytes) -> None:
        self.form = Form()
        self.error = ""
        self.size = 0
        self.digest = hashlib.sha256()
        boundary = _parameters(content_type).get("boundary")
        if not boundary:
            self.error = "no boundary"
        self._delimiter = b"\r\n--" + (boundary or "").encode("latin-1")
        self._rest = b"\r\n"  # the first delimiter has no line before it
        self._name = ""
        self._file: FilePart | None = None
        self._text = bytearray()
        self._in_part = False
        self.complete = False

    def feed(self, data: bytes) -> None:
        self.size += len(data)
        self.digest.update(data)
        if self.error:
            return
        try:
            self._read(data)
        except FormError as error:
            self.error = str(error)

    def end(self) -> None:
        if not self.complete and not self.error:
            self.error = "the form has no end"

    def _read(self, data: bytes) -> None:
        self._rest += data
        while not self.complete:
            at = self._rest.find(self._delimiter)
            if at < 0:
                keep = len(self._delimiter) - 1
                if self._in_part and len(self._rest) > keep:
                    self._content(self._rest[:-keep])
                    self._rest = self._rest[-keep:]
                return
            after = self._rest[at + len(self._delimiter) :]
            if after.startswith(b"--"):
                self._end_part(self._rest[:at])
                self.complete = True
                self._rest = b""
                return
            head, found, body = after.partition(b"\r\n\r\n")
            if not found:
                if len(after) > MOST_HEAD_BYTES:
                    raise FormError("the head of a part is too long")
                if self._in_part:
                    self._end_part(self._rest[:at])
                    self._rest = self._rest[at:]
                return
            self._end_part(self._rest[:at])
            self._begin_part(head)
            self._rest = body

    def _begin_part(self, head: bytes) -> None:
        names: dict[str, str] = {}
        content_type: str | None = None
        for line in head.split(b"\r\n"):
            header, _, value = line.partition(b":")
            match header.strip().lower():
                case b"content-disposition":
                    names = _parameters(value)
                case b"content-type":
                    content_type = value.strip().decode("latin-1")
        if "name" not in names:
            raise FormError("a part has no name")
        self._name = names["name"]
        filename = names.get("filename*") or names.get("filename")
        self._file = None if filename is None else FilePart(filename, content_type)
        self._text.clear()
        self._in_part = True

    def _content(self, data: bytes) -> None:
        if self._file is not None:
            self._file.blob.write(data)
            return
        self._text += data
        if len(self._text) > MOST_FIELD_BYTES:
            raise FormError("a field is too long")

    def _end_part(self, data: bytes) -> None:
        if not self._in_part:
            return
        self._in_part = False
        self._content(data)
        if self._file is not None:
            self.form.files.setdefault(self._name.removesuffix("[]"), []).append(self._file)
        else:
            self.form.add_text(self._name, self._text.decode("utf-8", "replace"))


def _parameters(value: bytes) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, quoted, plain in PARAMETER.findall(value):
        # Browsers and httpx write a quote as %22, others as a backslash and a quote.
        text = (quoted.replace(b'\\"', b'"').replace(b"%22", b'"') or plain).decode("utf-8", "replace")
        if name.endswith(b"*"):
            text = unquote(text.rpartition("''")[2])
        found[name.decode().lower()] = text
    return found
