"""The body of a call: read so far as metering and ownership need it, and forwarded as it came."""

import asyncio
import hashlib
import tempfile
import zlib
from collections.abc import AsyncIterator, Mapping
from concurrent.futures import Executor
from typing import IO, Any

from common.asgi import ClientLeftError, Headers, Receive, read_body, too_large
from common.errors import ApiError, BadRequest
from openai_app.catalogue import Operation
from openai_app.catalogue.operation import FORM, JSON, MAX_JSON_BYTES
from openai_app.owned import ownership
from openai_app.request import request_body
from openai_app.request.forms import FormReader, values_of

# Reading and counting a body up to this size takes less time than handing it to a thread and back.
INLINE_BYTES = 8 * 1024
# A form larger than this waits on disk until all of its fields are known.
FORM_IN_MEMORY_BYTES = 256 * 1024
PIECE_BYTES = 64 * 1024
# The digest of a body above this takes longer than handing it to a thread and back.
DIGEST_INLINE_BYTES = 256 * 1024

Payload = bytes | AsyncIterator[bytes]


class Incoming:
    """A call's body. `fields` are those of its JSON object or form; a body passed on unread has none."""

    def __init__(self) -> None:
        self.fields: dict[str, Any] = {}
        self._raw = b""
        self._spool: IO[bytes] | None = None
        self._stream: AsyncIterator[bytes] | None = None
        #: Why a body that streams through broke off.
        self.error: ApiError | ClientLeftError | None = None
        self._form_digest: hashlib._Hash | None = None

    @property
    def may_mention_ids(self) -> bool:
        """Whether `fields` is worth looking through for ids."""
        return self._spool is not None or ownership.may_mention(self._raw)

    @property
    def mentioning(self) -> Any:
        """What is looked through for ids: the JSON object, or all that a form's fields can be taken for."""
        return self.fields if self._spool is None else values_of(self.fields)

    @property
    def size(self) -> int:
        """Bytes of a JSON body."""
        return len(self._raw)

    def payload(self, written: Mapping[str, Any]) -> Payload:
        """What is forwarded: the bytes as they came, with `written` set in a JSON object."""
        if self._stream is not None:
            return self._stream
        if self._spool is not None:
            return _pieces(self._spool)
        return request_body.write_into(self._raw, self.fields, written)

    async def digest(self, threads: Executor) -> bytes:
        """Tells what was sent from anything else: a form by its parts, for its boundary is another each time.

        A form's is known only if `read` was told so. A body that streams through has none.
        """
        if self._form_digest is not None:
            return self._form_digest.digest()
        if len(self._raw) <= DIGEST_INLINE_BYTES:
            return hashlib.sha256(self._raw).digest()
        whole = await asyncio.get_running_loop().run_in_executor(threads, hashlib.sha256, self._raw)
        return whole.digest()

    def close(self) -> None:
        if self._spool is not None:
            self._spool.close()

    @classmethod
    async def read(
        cls,
        receive: Receive,
        headers: Headers,
        operation: Operation,
        threads: Executor,
        *,
        with_digest: bool = False,
    ) -> "Incoming":
        """Reads the body. Raises BadRequest, PayloadTooLarge, ClientLeftError.

        `with_digest`: its `digest` will be asked for.
        The large files that cost nothing are not read here at all: they stream through.
        """
        incoming = cls()
        content_type, encoding = _header(headers, b"content-type"), _header(headers, b"content-encoding")
        kind = _kind_of(content_type)
        if operation.accepts and kind not in operation.accepts:
            raise _unsupported(content_type, operation)
        is_json = kind != FORM and not operation.streams_body
        most_bytes = min(operation.max_body_bytes, MAX_JSON_BYTES) if is_json else operation.max_body_bytes
        length = content_length(headers)
        if length is not None and length > most_bytes:
            raise too_large(most_bytes)
        if is_json:
            raw = await read_body(receive, most_bytes)
            if is_packed(headers):
                raw = await asyncio.get_running_loop().run_in_executor(
                    threads, decompressed, raw, encoding, most_bytes
                )
            await incoming._read_json(raw, operation, threads)
            return incoming
        pieces = _checked(receive, most_bytes)
        if is_packed(headers):
            pieces = _unpacked(pieces, _unpacker(encoding), most_bytes)
        if operation.streams_body:
            incoming._stream = incoming._noting_errors(pieces)
        else:
            incoming._form_digest = hashlib.sha256(b"form") if with_digest else None
            await incoming._read_form(pieces, content_type, operation)
        return incoming

    async def _noting_errors(self, pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """What is raised here while the body is sent is told by the HTTP client in words of its own."""
        try:
            async for piece in pieces:
                yield piece
        except (ApiError, ClientLeftError) as error:
            self.error = error
            raise

    async def _read_json(self, raw: bytes, operation: Operation, threads: Executor) -> None:
        self._raw = raw
        needs_model = operation.meter.needs_model and "engine_id" not in operation.slots
        if not raw and not needs_model:
            return
        if len(raw) <= INLINE_BYTES:
            self.fields = request_body.parse(raw, needs_model=needs_model)
        else:
            self.fields = await asyncio.get_running_loop().run_in_executor(
                threads, lambda: request_body.parse(raw, needs_model=needs_model)
            )

    async def _read_form(self, pieces: AsyncIterator[bytes], content_type: str, operation: Operation) -> None:
        reader = FormReader(content_type, digest=self._form_digest)
        # It must outlive this method; `close` ends it.
        self._spool = tempfile.SpooledTemporaryFile(FORM_IN_MEMORY_BYTES)  # noqa: SIM115
        async for piece in pieces:
            reader.feed(piece)
            self._spool.write(piece)
        self.fields = reader.finish()
        self._spool.seek(0)


def _kind_of(content_type: str) -> str:
    """What a body is read as. Whatever is no form is JSON, as some clients call it otherwise, or nothing."""
    media_type = content_type.partition(";")[0].strip().lower()
    is_form = media_type.startswith("multipart/") or media_type == "application/x-www-form-urlencoded"
    return media_type if is_form else JSON


def _unsupported(content_type: str, operation: Operation) -> BadRequest:
    """What OpenAI says of a body that cannot be read, and so could not be metered."""
    accepted = " or ".join(f"'{each}'" for each in operation.accepts)
    named = content_type.partition(";")[0].strip()[:100]
    return BadRequest(
        f"Unsupported content type: '{named}'. This API method only accepts {accepted} requests, but you "
        f"specified the header 'Content-Type: {named}'. Please try again with a supported content type.",
        code="unsupported_content_type",
    )


def content_length(headers: Headers) -> int | None:
    """How many bytes the caller announced; None without a usable word."""
    announced = _header(headers, b"content-length")
    # Python refuses to convert thousands of digits; no body is so long.
    return int(announced) if announced.isdecimal() and len(announced) < 20 else None


def is_packed(headers: Headers) -> bool:
    """Whether the body is compressed: it may be a thousand times as large as it comes."""
    return _header(headers, b"content-encoding").lower() not in ("", "identity")


def decompressed(raw: bytes, encoding: str, most_bytes: int) -> bytes:
    """The body that `Content-Encoding: gzip` or `deflate` packed; never more than `most_bytes` of it."""
    unpacker = _unpacker(encoding)
    try:
        body = unpacker.decompress(raw, most_bytes)
    except zlib.error as error:
        raise BadRequest(f"The body is not {encoding}: {error}.") from None
    if unpacker.unconsumed_tail:
        raise too_large(most_bytes)
    if not unpacker.eof:
        raise BadRequest(f"The {encoding} body is not complete.")
    return body


def _unpacker(encoding: str) -> "zlib._Decompress":
    if encoding.lower() not in ("gzip", "x-gzip", "deflate"):
        raise BadRequest(f"The content encoding {encoding!r} is not supported; send gzip, deflate or none.")
    return zlib.decompressobj(wbits=zlib.MAX_WBITS | 32)


async def _unpacked(
    pieces: AsyncIterator[bytes], unpacker: "zlib._Decompress", most_bytes: int
) -> AsyncIterator[bytes]:
    """What `decompressed` gives of a body, as it comes."""
    size = 0
    async for packed in pieces:
        while True:
            try:
                piece = unpacker.decompress(packed, PIECE_BYTES)
            except zlib.error as error:
                raise BadRequest(f"The body is not what its content encoding says: {error}.") from None
            if not piece:
                break
            packed = unpacker.unconsumed_tail
            size += len(piece)
            if size > most_bytes:
                raise too_large(most_bytes)
            yield piece
            # A small piece may hold very much: others have their turn in between.
            await asyncio.sleep(0)
    if not unpacker.eof:
        raise BadRequest("The compressed body is not complete.")


async def _checked(receive: Receive, most_bytes: int) -> AsyncIterator[bytes]:
    size = 0
    while True:
        message = await receive()
        if message["type"] != "http.request":
            raise ClientLeftError
        piece: bytes = message.get("body", b"")
        size += len(piece)
        if size > most_bytes:
            raise too_large(most_bytes)
        if piece:
            yield piece
        if not message.get("more_body"):
            return


async def _pieces(spool: IO[bytes]) -> AsyncIterator[bytes]:
    while piece := spool.read(PIECE_BYTES):
        yield piece


def _header(headers: Headers, wanted: bytes) -> str:
    return next((value.decode("latin-1").strip() for name, value in headers if name == wanted), "")
