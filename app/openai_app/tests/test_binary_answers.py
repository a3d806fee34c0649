"""Answers that are no JSON: they pass as they are, in parts where a part was asked for, and are paid for."""

import json
import os
from collections.abc import Iterator
from http.client import IncompleteRead
from pathlib import Path
from urllib.request import Request, urlopen

import pytest

from openai_app.settlement import charge
from openai_app.tests.deferred_work import form, get, post, upload
from openai_app.tests.harness import Answer, Caller, House, house, wait_for
from openai_app.tests.raw_upstream import Connection, RawUpstream
from openai_app.tests.test_uploads import wave

SPEECH = {"model": "tts-1", "input": "Good morning, Größe.", "voice": "alloy"}


def direct(house: House, method: str, path: str, body: bytes | None, headers: dict[str, str]) -> Answer:
    """The same call past the gateway."""
    request = Request(house.simulator.base_url + path, body, {"Authorization": "Bearer any", **headers})
    request.method = method
    with urlopen(request) as answer:
        shown = {name.lower(): value for name, value in answer.headers.items()}
        return Answer(answer.status, shown, answer.read())


# --- Files ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "start", "end"),
    [("bytes=0-99", 0, 100), ("bytes=100000-", 100_000, 300_000), ("bytes=-7", 299_993, 300_000)],
)
def test_a_part_of_a_file_is_answered(alice: Caller, asked: str, start: int, end: int) -> None:
    content = os.urandom(300_000)
    file_id = upload(alice, content, "user_data")
    answer = alice.call("GET", f"/v1/files/{file_id}/content", headers={"Range": asked})
    assert answer.status == 206
    assert answer.headers["content-range"] == f"bytes {start}-{end - 1}/300000"
    assert answer.headers["content-length"] == str(end - start)
    assert answer.headers["accept-ranges"] == "bytes"
    assert answer.body == content[start:end]


def test_a_part_that_is_not_there_is_refused_in_openais_shape(alice: Caller) -> None:
    file_id = upload(alice, b"short", "user_data")
    answer = alice.call("GET", f"/v1/files/{file_id}/content", headers={"Range": "bytes=10-"})
    assert answer.status == 416
    assert answer.error["message"]


def test_a_file_keeps_its_name_type_and_length(gateway: House, alice: Caller) -> None:
    content = bytes(range(256)) * 100
    file_id = upload(alice, content, "user_data", "report.pdf")
    path = f"/files/{file_id}/content"
    through, past = alice.call("GET", f"/v1{path}"), direct(gateway, "GET", path, None, {})
    assert through.body == past.body == content
    for name in ("content-type", "content-disposition", "content-length", "accept-ranges"):
        assert through.headers[name] == past.headers[name]
    assert not {"set-cookie", "openai-organization"} & through.headers.keys()


def test_a_file_of_json_is_not_taken_for_an_answer(gateway: House, alice: Caller) -> None:
    """Nor is what stands in it taken for things that came into being."""
    content = json.dumps({"id": "file-not_hers_at_all", "object": "file", "usage": {}}).encode()
    file_id = upload(alice, content, "user_data", "file.json")
    assert alice.call("GET", f"/v1/files/{file_id}/content").body == content
    assert [file["id"] for file in get(alice, "/files")["data"]] == [file_id]
    assert alice.charges() == []


@pytest.mark.parametrize("fault", ["reset_after=0", "close_after=0"])
def test_a_download_that_breaks_off_is_seen_to_be_incomplete(
    gateway: House, alice: Caller, fault: str
) -> None:
    file_id = upload(alice, bytes(3_000_000), "user_data")
    path = f"/v1/files/{file_id}/content"
    gateway.simulator.fault(fault, path=path)
    with alice.open("GET", path) as response, pytest.raises((IncompleteRead, ConnectionError)):
        response.read()


def test_who_leaves_a_download_ends_it_upstream(gateway: House, alice: Caller) -> None:
    file_id = upload(alice, bytes(8_000_000), "user_data")
    path = f"/v1/files/{file_id}/content"
    gateway.simulator.fault("chunk_delay=0.2", path=path)
    with alice.open("GET", path) as response:
        assert response.read(10)
    wait_for(lambda: [call["state"] for call in gateway.journal() if call["path"] == path] == ["cut"])


# --- Films ----------------------------------------------------------------------------------------------


def test_a_film_is_answered_whole_and_in_parts(gateway: House) -> None:
    alice = gateway.caller(1_000_000)
    video = post(alice, "/videos", model="sora-2", prompt="A calm sea.", seconds="4")["id"]
    path = f"/videos/{video}/content"
    assert alice.call("GET", f"/v1{path}").status == 404
    gateway.simulator.finish()
    alice.settled()
    whole = alice.call("GET", f"/v1{path}")
    assert whole.headers["content-type"] == "video/mp4"
    assert whole.body == direct(gateway, "GET", path, None, {}).body
    part = alice.call("GET", f"/v1{path}", headers={"Range": "bytes=4-7"})
    assert (part.status, part.body) == (206, b"ftyp")
    assert part.headers["content-range"] == f"bytes 4-7/{len(whole.body)}"
    picture = alice.call("GET", f"/v1{path}?variant=thumbnail")
    assert picture.headers["content-type"] == "image/webp"
    assert len(alice.charges()) == 1


# --- Speech ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["mp3", "opus", "aac", "flac", "wav", "pcm"])
def test_speech_passes_byte_for_byte_and_is_paid_by_the_character(
    gateway: House, alice: Caller, kind: str
) -> None:
    body = json.dumps({**SPEECH, "response_format": kind}).encode()
    headers = {"Content-Type": "application/json"}
    through = alice.call("POST", "/v1/audio/speech", body)
    past = direct(gateway, "POST", "/audio/speech", body, headers)
    assert through.status == 200
    assert through.body == past.body
    assert through.headers["content-type"] == past.headers["content-type"]
    (charged,) = alice.charges()
    assert charged["units"] == {"character": len(str(SPEECH["input"]))}
    assert alice.account()["held"] == 0


def test_speech_in_events_passes_and_is_paid_by_what_is_reported(gateway: House, alice: Caller) -> None:
    fields = {**SPEECH, "model": "gpt-4o-mini-tts", "stream_format": "sse"}
    answer = alice.call("POST", "/v1/audio/speech", json.dumps(fields).encode())
    assert answer.status == 200
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert b'"speech.audio.done"' in answer.body
    (charged,) = alice.charges()
    (call,) = gateway.journal()
    assert sum(charged["units"].values()) == call["usage"]["input_tokens"] + call["usage"]["output_tokens"]


# --- Texts ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/audio/transcriptions", "/audio/translations"])
@pytest.mark.parametrize("kind", ["text", "srt", "vtt"])
def test_a_text_of_a_recording_passes_and_is_paid_by_the_second(
    gateway: House, alice: Caller, kind: str, path: str
) -> None:
    body, header = form(
        {"model": "whisper-1", "response_format": kind}, {"file": ("a.wav", "audio/wav", wave(7))}
    )
    through = alice.call("POST", f"/v1{path}", body, header)
    past = direct(gateway, "POST", path, body, header)
    assert through.status == 200
    assert through.body == past.body
    assert through.headers["content-type"] == past.headers["content-type"]
    assert not through.headers["content-type"].startswith("application/json")
    (charged,) = alice.charges()
    assert charged["units"] == {"second": 7}
    assert alice.account()["held"] == 0


def test_a_recording_in_text_that_breaks_off_is_not_charged_as_whole(gateway: House, alice: Caller) -> None:
    body, header = form(
        {"model": "whisper-1", "response_format": "srt"}, {"file": ("a.wav", "audio/wav", wave(2))}
    )
    gateway.simulator.fault("status=500")
    answer = alice.call("POST", "/v1/audio/transcriptions", body, header)
    assert answer.status == 500
    assert alice.charges() == []
    assert alice.account()["held"] == 0


# --- What breaks off ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def breaking() -> Iterator[RawUpstream]:
    opened = RawUpstream()
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def broken_house(tmp_path_factory: pytest.TempPathFactory, breaking: RawUpstream) -> Iterator[House]:
    folder: Path = tmp_path_factory.mktemp("breaking")
    with house(folder, workers=1, upstream=breaking.base_url) as opened:
        yield opened


def _speech_call() -> tuple[str, bytes, dict[str, str]]:
    return "/v1/audio/speech", json.dumps(SPEECH).encode(), {"Content-Type": "application/json"}


def _text_call() -> tuple[str, bytes, dict[str, str]]:
    fields = {"model": "whisper-1", "response_format": "srt"}
    return "/v1/audio/transcriptions", *form(fields, {"file": ("a.wav", "audio/wav", wave(7))})


_SPEECH_UNITS, _TEXT_UNITS = {"character": len(str(SPEECH["input"]))}, {"second": 7}


@pytest.mark.parametrize(
    ("call", "units"), [(_speech_call(), _SPEECH_UNITS), (_text_call(), _TEXT_UNITS)], ids=["speech", "text"]
)
@pytest.mark.parametrize("length", [b"content-length: 1000000", b"transfer-encoding: chunked"])
@pytest.mark.parametrize("piece", [b"x" * 100_000, b""], ids=["some", "nothing"])
def test_bytes_that_break_off_cost_their_input_unless_nothing_had_come(
    broken_house: House,
    breaking: RawUpstream,
    call: tuple[str, bytes, dict[str, str]],
    units: dict[str, int],
    length: bytes,
    piece: bytes,
) -> None:
    alice = broken_house.caller()

    def serve(connection: Connection) -> None:
        connection.send(b"HTTP/1.1 200 OK\r\ncontent-type: audio/mpeg\r\n" + length + b"\r\n\r\n")
        if piece:
            connection.send(piece if b"length" in length else b"%x\r\n%s\r\n" % (len(piece), piece))

    with breaking.serving(serve), alice.open("POST", *call) as response:
        assert response.status == 200
        with pytest.raises((IncompleteRead, ConnectionError)):
            response.read()
    alice.settled()
    (hold,) = alice.holds()
    if piece:
        assert (hold["state"], hold["reason"]) == ("posted", charge.BROKEN)
        assert [charged["units"] for charged in alice.charges()] == [{**units, "output": 0}]
    else:
        assert (hold["state"], hold["reason"]) == ("voided", charge.FAILED)
        assert alice.charges() == []
    broken_house.audit()
