"""Bodies that are files: they stream through at constant memory, byte for byte, and no further than allowed.

`UPLOAD_MEGABYTES=512` has the uploads as large as OpenAI takes them.
"""

import hashlib
import os
import select
import socket
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from http.client import HTTPResponse
from typing import Any

import pytest

from openai_app.tests.deferred_work import form, get, post
from openai_app.tests.harness import HELLO, JSON, Answer, Caller, House, chat_body, house, wait_for
from openai_app.tests.sites import peak_bytes

MEGABYTE = 1024 * 1024
UPLOAD_BYTES = int(os.environ.get("UPLOAD_MEGABYTES", "48")) * MEGABYTE
AT_ONCE = 10
MOST_RESIDENT_BYTES = 200 * MEGABYTE
PIECE_BYTES = 256 * 1024
# The limit is 64 MB; what the sockets' buffers take besides differs from machine to machine.
NEVER_ALL_READ = 256 * MEGABYTE
BOUNDARY = "the-boundary-of-the-test"
FORM = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}
PNG = b"\x89PNG\r\n\x1a\n" + bytes.fromhex("0000000d49484452000001000000010008060000005c72a866")


@dataclass
class LargeForm:
    """A form with a file of `size` bytes, made as it is sent; the digests are there once it was."""

    size: int
    name: str = "file"
    fields: dict[str, str] = field(default_factory=lambda: {"purpose": "user_data"})
    of_file: Any = field(default_factory=hashlib.sha256)
    of_all: Any = field(default_factory=hashlib.sha256)

    def __post_init__(self) -> None:
        texts = "".join(
            f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
            for name, value in self.fields.items()
        )
        disposition = f'Content-Disposition: form-data; name="{self.name}"; filename="large.bin"'
        self.head = f"{texts}--{BOUNDARY}\r\n{disposition}\r\n\r\n".encode()
        self.tail = f"\r\n--{BOUNDARY}--\r\n".encode()

    @property
    def length(self) -> int:
        return len(self.head) + self.size + len(self.tail)

    def __iter__(self) -> Iterator[bytes]:
        for piece in (self.head, *self._content(), self.tail):
            self.of_all.update(piece)
            yield piece

    def _content(self) -> Iterator[bytes]:
        piece = os.urandom(PIECE_BYTES)
        for start in range(0, self.size, PIECE_BYTES):
            # Each is another, so that none can be lost or doubled unnoticed.
            one = (start.to_bytes(8, "big") + piece)[: min(PIECE_BYTES, self.size - start)]
            self.of_file.update(one)
            yield one


def send(caller: Caller, path: str, large: LargeForm, *, is_announced: bool = True) -> Answer:
    connection = caller.house.connect()
    try:
        length = {"Content-Length": str(large.length)} if is_announced else {}
        headers = {"Authorization": f"Bearer {caller.key}", **FORM, **length}
        connection.request("POST", path, iter(large), headers, encode_chunked=not is_announced)
        response = connection.getresponse()
        found = {name.lower(): value for name, value in response.getheaders()}
        return Answer(response.status, found, response.read())
    finally:
        connection.close()


def digest_of(caller: Caller, path: str) -> str:
    """The digest of what is downloaded, piece by piece."""
    digest = hashlib.sha256()
    with caller.open("GET", path) as response:
        assert response.status == 200
        while piece := response.read(PIECE_BYTES):
            digest.update(piece)
    return digest.hexdigest()


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """A gateway whose workers' memory nothing else has used."""
    with house(tmp_path_factory.mktemp("fresh")) as opened:
        yield opened


def test_ten_large_uploads_and_downloads_at_once_take_no_memory(fresh: House, record_property: Any) -> None:
    alice = fresh.caller()
    before = peak_bytes(fresh)
    bodies = [LargeForm(UPLOAD_BYTES) for _ in range(AT_ONCE)]
    with ThreadPoolExecutor(AT_ONCE) as threads:
        answers = list(threads.map(lambda body: send(alice, "/v1/files", body), bodies))
        after = peak_bytes(fresh)
        assert {answer.status for answer in answers} == {200}
        paths = [f"/v1/files/{answer.json['id']}/content" for answer in answers]
        downloaded = list(threads.map(lambda path: digest_of(alice, path), paths))
    assert downloaded == [body.of_file.hexdigest() for body in bodies]
    uploads = [call for call in fresh.journal() if call["method"] == "POST"]
    assert {call["body_sha256"] for call in uploads} == {body.of_all.hexdigest() for body in bodies}
    figures = [round(peak / MEGABYTE) for peak in (before, after, peak_bytes(fresh))]
    record_property(
        "figures",
        f"{AT_ONCE} uploads of {UPLOAD_BYTES // MEGABYTE} MB at once: a worker had at most {figures[0]} MB "
        f"resident before, {figures[1]} MB after them, {figures[2]} MB after as many downloads",
    )
    assert peak_bytes(fresh) < MOST_RESIDENT_BYTES
    fresh.simulator.clear()


def test_a_file_is_uploaded_in_parts(gateway: House, alice: Caller) -> None:
    parts = [LargeForm(3 * MEGABYTE, "data", {}) for _ in range(3)]
    size = sum(part.size for part in parts)
    made = post(alice, "/uploads", filename="a.bin", bytes=size, purpose="user_data", mime_type="text/plain")
    path = f"/v1/uploads/{made['id']}/parts"
    # The second comes without its length being known.
    answers = [send(alice, path, part, is_announced=index != 1) for index, part in enumerate(parts)]
    ids = [answer.json["id"] for answer in answers]
    whole = post(alice, f"/uploads/{made['id']}/complete", part_ids=ids)["file"]
    assert alice.call("GET", f"/v1/files/{whole['id']}/content").headers["content-length"] == str(size)
    assert [file["id"] for file in get(alice, "/files")["data"]] == [whole["id"]]
    sent = [call["body_sha256"] for call in gateway.journal() if call["path"].endswith("/parts")]
    assert sent == [part.of_all.hexdigest() for part in parts]


# --- Limits ---------------------------------------------------------------------------------------------


def test_a_body_that_announces_too_much_is_refused_before_it_is_sent(gateway: House, alice: Caller) -> None:
    head = request_head(alice, "/v1/files", f"content-length: {513 * MEGABYTE + 1}", "expect: 100-continue")
    with gateway.connected() as connection:
        connection.sendall(head)
        response = HTTPResponse(connection)
        response.begin()
        answer = Answer(response.status, {}, response.read())
    assert answer.status == 413
    assert answer.error["type"] == "invalid_request_error"
    assert gateway.journal() == []


@pytest.mark.parametrize("path", ["/v1/uploads/{}/parts", "/v1/audio/translations", "/v1/chat/completions"])
def test_a_body_that_grows_too_large_is_refused_on_its_way(gateway: House, alice: Caller, path: str) -> None:
    made = post(alice, "/uploads", filename="a", bytes=1, purpose="user_data", mime_type="text/plain")
    header = JSON if path.endswith("completions") else FORM
    head = request_head(alice, path.format(made["id"]), "transfer-encoding: chunked", header=header)
    first = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="data"; filename="x"\r\n\r\n'.encode()
    sent, came = 0, b""
    with gateway.connected() as connection:
        connection.sendall(head + chunk(first))
        piece = chunk(bytes(PIECE_BYTES))
        while not came and sent < NEVER_ALL_READ:
            readable, writable, _ = select.select([connection], [connection], [], 30)
            assert readable or writable
            if readable:
                came = connection.recv(65_536)
            elif writable:
                connection.sendall(piece)
                sent += PIECE_BYTES
        while came and b"}}" not in came and (more := connection.recv(65_536)):
            came += more
    assert came.startswith(b"HTTP/1.1 413 "), came
    assert b'"invalid_request_error"' in came
    assert sent < NEVER_ALL_READ
    assert [call["path"] for call in gateway.journal()] == ["/v1/uploads"]
    assert alice.account()["held"] == 0


@pytest.mark.parametrize("path", ["/v1/images/edits", "/v1/videos/edits", "/v1/containers/{}/files"])
def test_json_is_no_larger_where_forms_may_be(gateway: House, alice: Caller, path: str) -> None:
    container = post(alice, "/containers", name="c")["id"]
    head = request_head(alice, path.format(container), f"content-length: {65 * MEGABYTE}", header=JSON)
    with gateway.connected() as connection:
        connection.sendall(head)
        assert connection.recv(65_536).startswith(b"HTTP/1.1 413 ")
    assert [call["path"] for call in gateway.journal()] == ["/v1/containers"]


def test_a_large_body_of_a_stranger_is_not_read(gateway: House) -> None:
    stranger = Caller(gateway, 0, "sk-nobody", 0)
    head = request_head(stranger, "/v1/files", f"content-length: {100 * MEGABYTE}")
    with gateway.connected() as connection:
        connection.sendall(head)
        assert connection.recv(65_536).startswith(b"HTTP/1.1 401 ")


def test_who_asks_first_is_told_to_go_on(gateway: House, alice: Caller) -> None:
    body, header = form({"purpose": "user_data"}, {"file": ("a.txt", "text/plain", b"x" * 100_000)})
    head = request_head(
        alice, "/v1/files", f"content-length: {len(body)}", "expect: 100-continue", header=header
    )
    with gateway.connected() as connection:
        connection.sendall(head)
        assert connection.recv(65_536).startswith(b"HTTP/1.1 100 ")
        connection.sendall(body)
        assert connection.recv(65_536).startswith(b"HTTP/1.1 200 ")


def request_head(caller: Caller, path: str, *lines: str, header: dict[str, str] = FORM) -> bytes:
    content_type = header["Content-Type"]
    given = [f"POST {path} HTTP/1.1", "host: x", f"authorization: Bearer {caller.key}"]
    return "\r\n".join([*given, f"content-type: {content_type}", *lines, "", ""]).encode()


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


# --- Clients that leave ---------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/v1/files", "/v1/images/edits", "/v1/audio/transcriptions"])
def test_a_client_that_leaves_during_its_upload_leaves_nothing(
    gateway: House, alice: Caller, path: str
) -> None:
    large = LargeForm(8 * MEGABYTE)
    left = gateway.metric("tollgate_calls_total", status="499")
    with gateway.connected() as connection:
        connection.sendall(request_head(alice, path, f"content-length: {large.length}"))
        for index, piece in enumerate(large):
            if index == 10:
                break
            connection.sendall(piece)
    # Clients of earlier tests may be seen to have left only now.
    wait_for(lambda: gateway.metric("tollgate_calls_total", status="499") > left)
    assert gateway.journal() == []
    assert get(alice, "/files")["data"] == []
    assert alice.holds() == []
    assert alice.account()["held"] == 0
    assert alice.chat().status == 200


def test_a_client_that_does_not_read_its_download_does_not_fill_the_memory(
    fresh: House, record_property: Any
) -> None:
    alice = fresh.caller()
    answer = send(alice, "/v1/files", LargeForm(UPLOAD_BYTES))
    request = f"GET /v1/files/{answer.json['id']}/content HTTP/1.1\r\nhost: x\r\n"
    lazy = []
    for _ in range(AT_ONCE):
        connection = stack_connection(fresh)
        connection.sendall(f"{request}authorization: Bearer {alice.key}\r\n\r\n".encode())
        lazy.append(connection)
    for connection in lazy:
        assert connection.recv(1) == b"H"
    # The workers have had all the time they need for another download.
    digest_of(alice, f"/v1/files/{answer.json['id']}/content")
    for connection in lazy:
        connection.close()
    assert peak_bytes(fresh) < MOST_RESIDENT_BYTES
    fresh.simulator.clear()


def stack_connection(house: House) -> socket.socket:
    host, _, port = house.url.rpartition("/")[2].partition(":")
    return socket.create_connection((host, int(port)), timeout=60)


# --- Forms that are read on the way ---------------------------------------------------------------------


def test_a_recording_may_come_before_the_name_of_its_model(gateway: House, alice: Caller) -> None:
    sound = wave(3)
    body, header = form(
        {"model": "whisper-1", "response_format": "verbose_json"},
        {"file": ("a.wav", "audio/wav", sound)},
        files_first=True,
    )
    answer = alice.call("POST", "/v1/audio/transcriptions", body, header)
    assert answer.status == 200
    (charge,) = alice.charges()
    assert charge["model"] == "whisper-1"
    assert charge["units"] == {"second": 3}
    assert gateway.journal()[-1]["body_sha256"] == hashlib.sha256(body).hexdigest()


@pytest.mark.parametrize("size", [1_000, 300_000, 5_000_000])
def test_a_form_that_waits_for_its_fields_passes_byte_for_byte(
    gateway: House, alice: Caller, size: int
) -> None:
    picture = PNG + os.urandom(size)
    body, header = form(
        {"model": "gpt-image-1", "prompt": "Größer ✨", "size": "1024x1024"},
        {"image[]": ("ä.png", "image/png", picture), "mask": ("m.png", "image/png", picture)},
        files_first=True,
    )
    answer = alice.call("POST", "/v1/images/edits", body, header)
    assert answer.status == 200, answer.body
    (call,) = gateway.journal()
    assert (call["body_bytes"], call["body_sha256"]) == (len(body), hashlib.sha256(body).hexdigest())
    assert len(alice.charges()) == 1


BROKEN = {
    "no boundary": ("multipart/form-data", b"--x\r\n\r\n"),
    "another boundary": ("multipart/form-data; boundary=y", b'--x\r\nA: b\r\n\r\n"\r\n--x--\r\n'),
    "no end": (
        "multipart/form-data; boundary=x",
        b'--x\r\nContent-Disposition: form-data; name="model"\r\n\r\nwhisper-1\r\n',
    ),
    "no form": ("multipart/form-data; boundary=x", b'{"model": "whisper-1"}'),
    "empty": ("multipart/form-data; boundary=x", b""),
}


@pytest.mark.parametrize("path", ["/v1/audio/transcriptions", "/v1/images/edits", "/v1/files"])
@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_form_is_refused(gateway: House, alice: Caller, kind: str, path: str) -> None:
    content_type, body = BROKEN[kind]
    answer = alice.call("POST", path, body, {"Content-Type": content_type})
    assert answer.status == 400
    assert answer.error["type"] == "invalid_request_error"
    assert alice.account()["held"] == 0
    assert alice.charges() == []
    assert get(alice, "/files")["data"] == []


# --- Compressed bodies ----------------------------------------------------------------------------------


def packed(data: bytes, encoding: str) -> bytes:
    bits = zlib.MAX_WBITS + (16 if encoding.endswith("gzip") else 0)
    packer = zlib.compressobj(9, wbits=bits)
    return packer.compress(data) + packer.flush()


@pytest.mark.parametrize("encoding", ["gzip", "x-gzip", "deflate", "GZIP", "identity"])
def test_a_body_may_be_compressed(gateway: House, alice: Caller, encoding: str) -> None:
    for words in (1, 20_000):
        body = chat_body(messages=[{"role": "user", "content": "Hello! " * words}], max_tokens=5)
        sent = body if encoding == "identity" else packed(body, encoding.lower())
        answer = alice.call("POST", "/v1/chat/completions", sent, {**JSON, "Content-Encoding": encoding})
        assert answer.status == 200, answer.body
    plain, long = gateway.journal()
    assert plain["body"]["messages"] == [{"role": "user", "content": "Hello! "}]
    assert "content-encoding" not in plain["headers"]
    assert long["body_bytes"] > 140_000
    charged = [-charge["amount"] for charge in alice.charges()]
    assert charged == [call["usage"]["total_tokens"] for call in (plain, long)]


@pytest.mark.parametrize(
    ("encoding", "body", "status"),
    [
        ("gzip", packed(bytes(65 * MEGABYTE), "gzip"), 413),
        ("deflate", packed(bytes(256 * MEGABYTE), "deflate"), 413),
        ("gzip", packed(packed(bytes(65 * MEGABYTE), "gzip"), "gzip"), 400),
        ("gzip", packed(b'{"model": "x"}', "gzip")[:-3], 400),
        ("gzip", b"no gzip at all", 400),
        ("gzip", b"", 400),
        ("br", b"\x0b\x02\x80{}\x03", 400),
        ("gzip, gzip", packed(b"{}", "gzip"), 400),
    ],
    ids=["bomb", "larger bomb", "bomb in a parcel", "cut", "plain", "empty", "brotli", "twice"],
)
def test_a_body_that_cannot_or_should_not_be_unpacked_is_refused(
    gateway: House, alice: Caller, encoding: str, body: bytes, status: int
) -> None:
    answer = alice.call("POST", "/v1/chat/completions", body, {**JSON, "Content-Encoding": encoding})
    assert answer.status == status
    assert answer.error["type"] == "invalid_request_error"
    assert gateway.journal() == []
    assert alice.holds() == []


@pytest.mark.parametrize("encoding", ["gzip", "x-gzip", "deflate"])
@pytest.mark.parametrize("size", [100, 3_000_000])
def test_a_form_may_be_compressed(gateway: House, alice: Caller, encoding: str, size: int) -> None:
    content = os.urandom(size // 2) + bytes(size // 2)
    fields = {"purpose": "user_data", "prompt": "A hat", "model": "gpt-image-1"}
    for path, name in (("/v1/files", "file"), ("/v1/images/edits", "image")):
        body, header = form(fields, {name: ("a.png", "image/png", content)})
        sent = packed(body, encoding)
        answer = alice.call("POST", path, sent, {**header, "Content-Encoding": encoding})
        assert answer.status == 200, answer.body
        call = gateway.journal()[-1]
        assert (call["body_bytes"], call["body_sha256"]) == (len(body), hashlib.sha256(body).hexdigest())
        assert "content-encoding" not in call["headers"]
    assert len(alice.charges()) == 1


@pytest.mark.parametrize("path", ["/v1/files", "/v1/audio/transcriptions"])
@pytest.mark.parametrize("kind", ["cut", "plain", "brotli"])
def test_a_form_that_cannot_be_unpacked_is_refused(
    gateway: House, alice: Caller, path: str, kind: str
) -> None:
    body, header = form({"purpose": "user_data", "model": "whisper-1"}, {"file": ("a", "text/plain", b"a")})
    sent = {"cut": packed(body, "gzip")[:-3], "plain": body, "brotli": b"\x0b\x02\x80{}\x03"}[kind]
    encoding = "br" if kind == "brotli" else "gzip"
    answer = alice.call("POST", path, sent, {**header, "Content-Encoding": encoding})
    assert (answer.status, answer.error["type"]) == (400, "invalid_request_error")
    assert get(alice, "/files")["data"] == []
    assert alice.holds() == []


def test_a_form_that_unpacks_to_more_than_it_may_is_refused(gateway: House, alice: Caller) -> None:
    body, header = form({"model": "whisper-1"}, {"file": ("a", "audio/wav", bytes(27 * MEGABYTE))})
    headers = {**header, "Content-Encoding": "gzip"}
    answer = alice.call("POST", "/v1/audio/transcriptions", packed(body, "gzip"), headers)
    assert answer.status == 413
    assert gateway.journal() == []


def test_the_packed_form_of_a_stranger_is_not_read(gateway: House) -> None:
    stranger = Caller(gateway, 0, "sk-nobody", 0)
    head = request_head(stranger, "/v1/images/edits", "content-length: 1000", "content-encoding: gzip")
    with gateway.connected() as connection:
        connection.sendall(head)
        assert connection.recv(65_536).startswith(b"HTTP/1.1 401 ")


def test_the_workers_survive_many_bombs_at_once(fresh: House) -> None:
    alice = fresh.caller()
    bomb = packed(bytes(128 * MEGABYTE), "gzip")
    headers = {**JSON, "Content-Encoding": "gzip"}
    workers = fresh.gateway.workers
    with ThreadPoolExecutor(AT_ONCE) as threads:
        answers = threads.map(
            lambda _: alice.call("POST", "/v1/chat/completions", bomb, headers).status, range(AT_ONCE)
        )
        assert set(answers) == {413}
    assert fresh.gateway.workers == workers
    assert alice.call("POST", "/v1/chat/completions", chat_body(messages=HELLO)).status == 200


def wave(seconds: int) -> bytes:
    """Silence, 8,000 samples of 2 bytes a second."""
    size = 16_000 * seconds
    head = b"RIFF" + (36 + size).to_bytes(4, "little") + b"WAVEfmt \x10\x00\x00\x00\x01\x00\x01\x00"
    return (
        head + bytes.fromhex("401f0000803e000002001000") + b"data" + size.to_bytes(4, "little") + bytes(size)
    )
