"""A field of a form that is given more often than OpenAI reads it would be used without being paid for."""

import pytest

from openai_app.tests.deferred_work import form
from openai_app.tests.harness import Answer, Caller, House
from openai_app.tests.test_uploads import BOUNDARY, FORM, wave

TRANSCRIPTIONS = "/v1/audio/transcriptions"


def send(caller: Caller, path: str, *parts: tuple[str, str | bytes]) -> Answer:
    """Sends a form with these fields, in this order; bytes are a file."""
    body = b""
    for name, value in parts:
        file_name = '; filename="a.wav"' if isinstance(value, bytes) else ""
        content = value if isinstance(value, bytes) else value.encode()
        head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"{file_name}\r\n\r\n'
        body += head.encode() + content + b"\r\n"
    return caller.call("POST", path, body + f"--{BOUNDARY}--\r\n".encode(), FORM)


@pytest.mark.parametrize("names", [("file", "file"), ("file[]",), ("file[0]",), ("file", "file[]")], ids=str)
def test_a_recording_that_comes_twice_is_not_transcribed(
    gateway: House, alice: Caller, names: tuple[str, ...]
) -> None:
    files = [(name, wave(3)) for name in names]
    answer = send(alice, TRANSCRIPTIONS, ("model", "whisper-1"), ("response_format", "text"), *files)
    assert (answer.status, answer.error["type"]) == (400, "invalid_request_error")
    assert gateway.journal() == []
    assert alice.holds() == []


@pytest.mark.parametrize("path", [TRANSCRIPTIONS, "/v1/images/edits", "/v1/images/variations", "/v1/videos"])
@pytest.mark.parametrize("names", [("model", "model"), ("model", "model[]"), ("model[]",)], ids=str)
def test_a_model_is_named_once(gateway: House, alice: Caller, path: str, names: tuple[str, ...]) -> None:
    models = [(name, "whisper-1") for name in names]
    answer = send(alice, path, *models, ("prompt", "A hat"), ("file", wave(3)), ("image", wave(1)))
    assert (answer.status, answer.error["type"]) == (400, "invalid_request_error")
    assert gateway.journal() == []
    assert alice.holds() == []


def test_lists_and_objects_of_a_form_pass_as_clients_send_them(gateway: House, alice: Caller) -> None:
    fields = [
        ("model", "gpt-4o-transcribe"),
        ("include[]", "logprobs"),
        ("chunking_strategy[type]", "server_vad"),
        ("chunking_strategy[threshold]", "0.5"),
        ("timestamp_granularities[]", "word"),
        ("timestamp_granularities[]", "segment"),
    ]
    assert send(alice, TRANSCRIPTIONS, *fields, ("file", wave(2))).status == 200
    pictures = [("image[]", b"\x89PNG\r\n\x1a\n1"), ("image[]", b"\x89PNG\r\n\x1a\n2")]
    answer = send(alice, "/v1/images/edits", ("model", "gpt-image-1"), ("prompt", "A hat"), *pictures)
    assert answer.status == 200, answer.body
    reference = ("input_reference[image_url]", "https://example.com/otter.png")
    assert send(alice, "/v1/videos", ("prompt", "Snow"), reference).status == 200
    gateway.simulator.finish()
    alice.settled()
    assert len(alice.charges()) == 3


def test_the_official_client_sends_lists_and_objects(alice: Caller) -> None:
    with alice.client() as client:
        client.audio.transcriptions.create(
            file=("a.wav", wave(2)),
            model="gpt-4o-transcribe",
            include=["logprobs"],
            chunking_strategy={"type": "server_vad", "threshold": 0.5},
            timestamp_granularities=["word", "segment"],
        )
        pictures = [(f"{name}.png", b"\x89PNG\r\n\x1a\n") for name in "ab"]
        client.images.edit(model="gpt-image-1", prompt="A hat", image=pictures, mask=pictures[0])
    assert len(alice.charges()) == 2


def test_a_recording_without_a_files_name_is_held_for_all_the_same(gateway: House, alice: Caller) -> None:
    body, header = form({"model": "whisper-1", "response_format": "text", "file": "x" * 20_000}, {})
    alice.call("POST", TRANSCRIPTIONS, body, header)
    (hold,) = alice.holds()
    assert hold["amount"] >= 10
