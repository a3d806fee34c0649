"""Files and uploads, by the official client; what is sent in forms."""

from __future__ import annotations

import hashlib
import io
import os
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest
from openai import OpenAI

from simulator.forms import FormReader
from simulator.testing import SimulatorProcess

HEADERS = {"Authorization": "Bearer sk-alice-0001"}


def upload(client: OpenAI, data: bytes, purpose: Any = "user_data", name: str = "notes.txt") -> Any:
    return client.files.create(file=(name, data), purpose=purpose)


def test_a_file_comes_back_as_it_was_sent(client: OpenAI, simulator: SimulatorProcess) -> None:
    data = b'line\r\n--boundary?\r\n\x00\xff"' * 1000
    file = upload(client, data, name='ümläut "1".txt')
    assert (file.bytes, file.purpose, file.filename) == (len(data), "user_data", 'ümläut "1".txt')
    assert client.files.content(file.id).read() == data
    assert client.files.retrieve(file.id) == file
    body = simulator.journal()[0]["body"]
    assert body["purpose"] == "user_data"
    assert body["file"]["sha256"] == hashlib.sha256(data).hexdigest()
    assert body["file"]["bytes"] == len(data)


def test_a_deleted_file_is_gone(client: OpenAI) -> None:
    file = upload(client, b"x")
    assert client.files.delete(file.id).deleted
    for gone in (client.files.retrieve, client.files.content, client.files.delete):
        with pytest.raises(openai.NotFoundError, match=f"No such File object: {file.id}"):
            gone(file.id)


def test_files_are_listed_by_purpose_and_page_by_page(client: OpenAI) -> None:
    ids = [upload(client, b"x").id for _ in range(5)]
    other = upload(client, b"x", "batch")
    assert [file.id for file in client.files.list(purpose="user_data", limit=2)] == ids[::-1]
    assert [file.id for file in client.files.list(limit=2, order="asc")] == [*ids, other.id]
    assert [file.id for file in client.files.list(order="asc", after=ids[3])] == [ids[4], other.id]


@pytest.mark.parametrize(
    ("asked", "start", "end"), [("bytes=2-4", 2, 5), ("bytes=7-", 7, 10), ("bytes=-3", 7, 10)]
)
def test_a_range_of_a_file_is_read(
    client: OpenAI, simulator: SimulatorProcess, asked: str, start: int, end: int
) -> None:
    data = b"0123456789"
    address = f"{simulator.base_url}/files/{upload(client, data).id}/content"
    answer = httpx2.get(address, headers={**HEADERS, "Range": asked}, timeout=60)
    assert (answer.status_code, answer.content) == (206, data[start:end])
    assert answer.headers["content-range"] == f"bytes {start}-{end - 1}/10"
    beyond = {**HEADERS, "Range": "bytes=10-"}
    assert httpx2.get(address, headers=beyond, timeout=60).status_code == 416


def test_a_large_file_passes_at_constant_memory(tmp_path: Path) -> None:
    megabytes = 96
    with SimulatorProcess() as simulator:
        status = Path(f"/proc/{simulator.process.pid}/status")
        if not status.exists():
            pytest.skip("needs /proc")
        before = resident_kb(status)
        large = tmp_path / "large.bin"
        with large.open("wb") as file:
            for _ in range(megabytes):
                file.write(os.urandom(1_000_000))
        with OpenAI(base_url=simulator.base_url, api_key="sk-alice-0001") as client:
            made = client.files.create(file=large, purpose="user_data")
            digest = hashlib.sha256()
            with client.files.with_streaming_response.content(made.id) as answer:
                for piece in answer.iter_bytes():
                    digest.update(piece)
        assert digest.digest() == hashlib.sha256(large.read_bytes()).digest()
        assert resident_kb(status) - before < 30_000


def resident_kb(status: Path) -> int:
    return next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith("VmHWM"))


def test_an_upload_in_parts_becomes_a_file(client: OpenAI) -> None:
    upload = client.uploads.create(bytes=6, filename="a.txt", mime_type="text/plain", purpose="assistants")
    parts = [client.uploads.parts.create(upload.id, data=io.BytesIO(data)) for data in (b"abc", b"def")]
    done = client.uploads.complete(upload.id, part_ids=[part.id for part in parts])
    assert done.file is not None
    assert client.files.content(done.file.id).read() == b"abcdef"
    with pytest.raises(openai.BadRequestError, match="status completed"):
        client.uploads.cancel(upload.id)


def test_an_upload_is_refused_when_its_size_is_not_as_announced_or_it_was_cancelled(client: OpenAI) -> None:
    upload = client.uploads.create(bytes=9, filename="a.txt", mime_type="text/plain", purpose="assistants")
    part = client.uploads.parts.create(upload.id, data=b"abc")
    with pytest.raises(openai.BadRequestError, match="3 bytes"):
        client.uploads.complete(upload.id, part_ids=[part.id])
    other = client.uploads.create(bytes=3, filename="a.txt", mime_type="text/plain", purpose="assistants")
    with pytest.raises(openai.NotFoundError):  # the part is another upload's
        client.uploads.complete(other.id, part_ids=[part.id])
    assert client.uploads.cancel(upload.id).status == "cancelled"


def test_an_unknown_purpose_is_refused(client: OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="'world_domination' is not one of"):
        upload(client, b"x", "world_domination")


def test_directives_faults_and_recordings_work_with_forms(
    client: OpenAI, simulator: SimulatorProcess
) -> None:
    with pytest.raises(openai.InternalServerError):
        client.files.create(file=b"x", purpose="user_data", extra_body={"note": "[[simulate: status=500]]"})
    upload(client, b"[[simulate: status=500]]")  # in a file it is none
    simulator.record(
        {
            "path": "/v1/files",
            "request": {
                "purpose": "batch",
                "file": {
                    "filename": "a.jsonl",
                    "content_type": "application/octet-stream",
                    "bytes": 1,
                    "sha256": hashlib.sha256(b"x").hexdigest(),
                },
            },
            "headers": {"content-type": "application/json"},
            "body": '{"id": "file-recorded"}',
        }
    )
    sent = {"file": ("a.jsonl", b"x", "application/octet-stream")}
    answer = httpx2.post(
        f"{simulator.base_url}/files", headers=HEADERS, data={"purpose": "batch"}, files=sent, timeout=60
    )
    assert answer.json() == {"id": "file-recorded"}


def test_a_broken_form_is_refused(simulator: SimulatorProcess) -> None:
    headers = {**HEADERS, "content-type": "multipart/form-data; boundary=b"}
    address = f"{simulator.base_url}/files"
    answer = httpx2.post(address, headers=headers, content=b"--b\r\n\r\n", timeout=60)
    assert answer.status_code == 400
    assert "multipart" in answer.json()["error"]["message"]


@pytest.mark.parametrize("step", [1, 2, 3, 7, 1000])
def test_a_form_reads_the_same_however_it_is_cut(step: int) -> None:
    raw = (
        b'preamble\r\n--B\r\nContent-Disposition: form-data; name="a"\r\n\r\none\r\n--B\r\n'
        b'Content-Disposition: form-data; name="b[]"\r\n\r\ntwo\r\n--B\r\n'
        b'Content-Disposition: form-data; name="f"; filename="x"; filename*=UTF-8\'\'%C3%A4\r\n'
        b"Content-Type: text/x\r\n\r\n\r\n--\r\n-B\r\n--B--\r\nepilogue"
    )
    reader = FormReader(b'multipart/form-data; boundary="B"')
    for start in range(0, len(raw), step):
        reader.feed(raw[start : start + step])
    assert reader.complete
    assert reader.form.fields == {"a": "one", "b": ["two"]}
    file = reader.form.file("f")
    assert file is not None
    assert (file.filename, file.content_type, file.blob.read()) == ("ä", "text/x", b"\r\n--\r\n-B")


def test_a_form_needs_a_boundary() -> None:
    reader = FormReader(b"multipart/form-data")
    reader.feed(b"--\r\n")
    assert reader.error == "no boundary"
