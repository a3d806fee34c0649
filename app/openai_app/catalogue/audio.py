"""Speech, transcription, translation, and voices made to order."""

from openai_app.catalogue.operation import BYTES, EVENTS, FORM, JSON, MEGABYTE, Operation, per_call
from openai_app.metering import SPEECH, TRANSCRIPTION
from openai_app.owned.objects import VOICE, VOICE_CONSENT

_TAG = "Audio"
_CONSENT = "/audio/voice_consents/{consent_id}"
# Subtitles and plain text, if the request asks for them.
_TEXT = "text/plain"
# OpenAI takes audio files of up to 25 MB; the rest is for the other fields.
_MOST_BYTES = 26 * MEGABYTE

OPERATIONS = (
    Operation(
        "createSpeech",
        "POST",
        "/audio/speech",
        _TAG,
        "Speak a text",
        meter=SPEECH,
        accepts=(JSON,),
        answers=(BYTES, EVENTS),
        example={"model": "gpt-4o-mini-tts", "input": "Hello!", "voice": "alloy"},
    ),
    Operation(
        "createTranscription",
        "POST",
        "/audio/transcriptions",
        _TAG,
        "Transcribe a recording",
        meter=TRANSCRIPTION,
        accepts=(FORM,),
        answers=(JSON, EVENTS, _TEXT),
        max_body_bytes=_MOST_BYTES,
        files=("file",),
        example={"model": "gpt-4o-transcribe"},
        aliases=("/audio/transcription",),
    ),
    Operation(
        "createTranslation",
        "POST",
        "/audio/translations",
        _TAG,
        "Translate a recording into English",
        meter=TRANSCRIPTION,
        accepts=(FORM,),
        answers=(JSON, _TEXT),
        max_body_bytes=_MOST_BYTES,
        files=("file",),
        example={"model": "whisper-1"},
        aliases=("/audio/translation",),
    ),
    Operation(
        "createVoiceConsent",
        "POST",
        "/audio/voice_consents",
        _TAG,
        "Upload a recording in which a speaker consents",
        accepts=(FORM,),
        files=("recording",),
        example={"name": "Jane Doe", "language": "en-US"},
        creates=VOICE_CONSENT,
    ),
    Operation(
        "listVoiceConsents",
        "GET",
        "/audio/voice_consents",
        _TAG,
        "List the recordings of consent",
        query=("after", "limit"),
        lists=VOICE_CONSENT,
    ),
    Operation("getVoiceConsent", "GET", _CONSENT, _TAG, "Retrieve a recording of consent"),
    Operation(
        "updateVoiceConsent",
        "POST",
        _CONSENT,
        _TAG,
        "Rename a recording of consent",
        accepts=(JSON,),
        example={"name": "Jane Doe"},
    ),
    Operation("deleteVoiceConsent", "DELETE", _CONSENT, _TAG, "Delete a recording of consent", deletes=True),
    Operation(
        "createVoice",
        "POST",
        "/audio/voices",
        _TAG,
        "Make a voice from a sample",
        meter=per_call("voice"),
        accepts=(FORM,),
        creates=VOICE,
        files=("audio_sample",),
        example={"name": "My voice", "consent": "cons_1234"},
    ),
)
