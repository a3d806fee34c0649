"""Images, audio, moderations and videos, by the official client."""

from __future__ import annotations

import base64
import json
from typing import Any

import httpx2
import openai
import pytest
from openai import OpenAI

from simulator import audio
from simulator.testing import SimulatorProcess

HEADERS = {"Authorization": "Bearer sk-alice-0001"}
# The client says so of Sora, of translations and of variations.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
# One second and a half of silence.
SOUND = ("sound.wav", audio.wav(72_000), "audio/wav")


def test_a_gpt_image_reports_the_tokens_of_its_size_and_quality(
    client: OpenAI, simulator: SimulatorProcess
) -> None:
    answer = client.images.generate(
        model="gpt-image-1", prompt="A cat", n=2, quality="high", size="1024x1536"
    )
    assert answer.data is not None
    assert answer.usage is not None
    assert base64.b64decode(answer.data[1].b64_json or "").startswith(b"\x89PNG")
    assert (answer.usage.input_tokens, answer.usage.output_tokens) == (2, 2 * 6240)
    assert simulator.journal()[0]["usage"] == answer.usage.to_dict()


def test_images_are_edited_from_several_others(client: OpenAI) -> None:
    answer = client.images.edit(model="gpt-image-1", image=[b"png one", b"png two"], prompt="A cat")
    assert answer.usage is not None
    assert answer.usage.input_tokens_details.image_tokens == 2 * 194


def test_an_image_is_streamed_in_ever_better_parts(client: OpenAI, simulator: SimulatorProcess) -> None:
    generated = client.images.generate(model="gpt-image-1", prompt="A cat", partial_images=2, stream=True)
    events: list[Any] = list(generated)
    assert [event.type for event in events] == ["image_generation.partial_image"] * 2 + [
        "image_generation.completed"
    ]
    assert events[-1].usage.output_tokens == 1056 + 200
    edited = client.images.edit(model="gpt-image-1", image=b"png", prompt="A cat", stream=True)
    assert [event.type for event in edited] == ["image_edit.completed"]
    assert [call["usage_reported"] for call in simulator.journal()] == [True, True]


def test_a_dall_e_image_has_no_usage_but_the_journal_counts_it(
    client: OpenAI, simulator: SimulatorProcess
) -> None:
    answer = client.images.generate(model="dall-e-3", prompt="A cat", size="1792x1024", quality="hd")
    varied = client.images.create_variation(image=b"png", n=2, response_format="b64_json")
    assert answer.usage is None
    assert answer.data is not None
    assert varied.data is not None
    assert str(answer.data[0].url).startswith("https://")
    assert len(varied.data) == 2
    assert [call["usage"]["images"] for call in simulator.journal()] == [1, 2]
    with pytest.raises(openai.BadRequestError):
        client.images.generate(prompt="A cat", n=0)


def test_speech_is_sound_paid_by_characters_or_tokens(client: OpenAI, simulator: SimulatorProcess) -> None:
    for model in ("tts-1", "gpt-4o-mini-tts"):
        speech = client.audio.speech.create(model=model, voice="alloy", input="Hello!", response_format="wav")
        assert speech.response.headers["content-type"] == "audio/wav"
        assert speech.read().startswith(b"RIFF")
    usages = [call["usage"] for call in simulator.journal()]
    assert usages[0] == {"characters": 6}
    assert usages[1]["total_tokens"] == usages[1]["input_tokens"] + usages[1]["output_tokens"]


def test_speech_is_streamed_with_its_usage(simulator: SimulatorProcess) -> None:
    body = {"model": "gpt-4o-mini-tts", "voice": "alloy", "input": "Hello!", "stream_format": "sse"}
    answer = httpx2.post(f"{simulator.base_url}/audio/speech", headers=HEADERS, json=body, timeout=60)
    events = [json.loads(line[6:]) for line in answer.text.splitlines() if line]
    assert [event["type"] for event in events] == ["speech.audio.delta"] * 2 + ["speech.audio.done"]
    assert events[-1]["usage"] == simulator.journal()[0]["usage"]


def test_whisper_is_paid_by_the_second_of_the_file(client: OpenAI, simulator: SimulatorProcess) -> None:
    answer: Any = client.audio.transcriptions.create(model="whisper-1", file=SOUND)
    assert answer.usage.to_dict() == {"type": "duration", "seconds": 2}
    verbose: Any = client.audio.transcriptions.create(
        model="whisper-1", file=SOUND, response_format="verbose_json"
    )
    assert (float(verbose.duration), verbose.segments[0].text) == (1.5, answer.text)
    translated = client.audio.translations.create(
        model="whisper-1", file=SOUND, prompt="[[simulate: seconds=61]]"
    )
    assert translated.text == answer.text
    assert [call["usage"]["seconds"] for call in simulator.journal()] == [2, 2, 61]


@pytest.mark.parametrize(
    ("shape", "start"),
    [("text", "The quick"), ("srt", "1\n00:00:00,000 --> 00:00:01,500\nThe"), ("vtt", "WEBVTT\n\n00:00")],
)
def test_a_transcription_is_plain_text_when_asked_for(client: OpenAI, shape: Any, start: str) -> None:
    answer: Any = client.audio.transcriptions.create(model="whisper-1", file=SOUND, response_format=shape)
    assert answer.startswith(start)


def test_a_streamed_transcription_ends_with_its_tokens(client: OpenAI, simulator: SimulatorProcess) -> None:
    events: list[Any] = list(
        client.audio.transcriptions.create(model="gpt-4o-transcribe", file=SOUND, stream=True)
    )
    deltas = [event.delta for event in events if event.type == "transcript.text.delta"]
    assert "".join(deltas) == events[-1].text
    assert events[-1].usage.input_token_details.audio_tokens == 15
    assert events[-1].usage.to_dict() == simulator.journal()[0]["usage"]


def test_moderations_are_free(client: OpenAI, simulator: SimulatorProcess) -> None:
    answer = client.moderations.create(input=["A cat", "I will kill it"])
    assert [result.flagged for result in answer.results] == [False, True]
    assert simulator.journal()[0]["usage"] is None


def test_a_video_is_work_paid_by_the_second(client: OpenAI, simulator: SimulatorProcess) -> None:
    video = client.videos.create(prompt="A cat", seconds="8")
    assert video.status == "queued"
    with pytest.raises(openai.NotFoundError, match="not ready"):
        client.videos.download_content(video.id)
    assert client.videos.retrieve(video.id).status == "in_progress"
    simulator.finish(video.id)
    ended = client.videos.retrieve(video.id)
    assert (ended.status, ended.progress, ended.seconds) == ("completed", 100, "8")
    data = client.videos.download_content(video.id).read()
    assert data[4:8] == b"ftyp"
    assert len(data) == 800_000
    remixed = client.videos.remix(video.id, prompt="A dog")
    assert (remixed.remixed_from_video_id, remixed.seconds) == (video.id, "8")
    simulator.finish(remixed.id, status="failed")
    assert client.videos.retrieve(remixed.id).error is not None
    work = [(c["object_id"], c["outcome"], c["usage"]) for c in simulator.journal() if c["kind"] == "video"]
    assert work == [
        (video.id, "completed", {"seconds": 8.0, "size": "720x1280"}),
        (remixed.id, "failed", None),
    ]
    assert [one.id for one in client.videos.list()] == [remixed.id, video.id]
    assert client.videos.delete(video.id).deleted


def test_voices_need_consent(simulator: SimulatorProcess) -> None:
    def post(path: str, data: dict[str, str]) -> Any:
        return httpx2.post(
            f"{simulator.base_url}/audio/{path}",
            headers=HEADERS,
            data=data,
            files={"recording": b"x"},
            timeout=60,
        )

    assert post("voices", {"name": "v", "consent": "cons_none"}).status_code == 404
    consent = post("voice_consents", {"name": "c", "language": "en"}).json()
    assert post("voices", {"name": "v", "consent": consent["id"]}).json()["object"] == "audio.voice"
