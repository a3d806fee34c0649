"""A realtime session: a hold stands before a response can begin, whether it is asked for or not.

When speech ends OpenAI may answer by itself, so from the first sound on, while nothing is being answered, a
hold stands for the answer to come; its bound is set for the whole session, since no request carries it. What
is heard is transcribed by another model at another rate, so that has holds of its own.

A response that begins without a hold after all (it was taken for refused, or OpenAI did not wait) gets one at
once, and the session ends if the balance does not cover it.

Sources: OpenAI's guides "Realtime conversations", "Voice activity detection" and "Managing costs", and the
schemas RealtimeClientEvent and RealtimeServerEvent of its description.
"""

import asyncio
import secrets
from collections import Counter, deque
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from balances.operations import Granted
from balances.units import AUDIO_INPUT, INPUT
from balances.usage import Estimate
from common.errors import (
    ApiError,
    BadRequest,
    InsufficientBalance,
    PermissionDenied,
    RateLimited,
    Unavailable,
)
from openai_app.catalogue import Operation
from openai_app.metering import TRANSCRIPTION, FormFile, Meter, realtime, transcription
from openai_app.metering.reading import amount, mapping, string
from openai_app.metering.realtime import HEARD_PER_SECOND, REALTIME, Settings
from openai_app.services import Services
from openai_app.sockets.charge import Holds, SocketCharge
from openai_app.sockets.turns import Event, Inject, Turns, unknown_event

# A hold covers so much more speech than has been heard; a longer speech renews it.
HEARD_AHEAD_S = 10.0
_CONFIGURE = frozenset({"session.update", "transcription_session.update"})
_CONFIGURED = frozenset(
    {"session.created", "session.updated", "transcription_session.created", "transcription_session.updated"}
)
# These refer to things outside of the session; the ids in all others are the session's own.
_REFERRING = _CONFIGURE | {"conversation.item.create", "response.create"}
_KNOWN = _REFERRING | {
    "conversation.item.delete",
    "conversation.item.retrieve",
    "conversation.item.truncate",
    "input_audio_buffer.append",
    "input_audio_buffer.clear",
    "input_audio_buffer.commit",
    "output_audio_buffer.clear",
    "response.cancel",
}
_ITEM_MADE = frozenset({"conversation.item.added", "conversation.item.created"})
_TRANSCRIBED = "conversation.item.input_audio_transcription"
#: Transcribes while a session goes on: its usage is read as that of a file, its deltas are the session's.
_TRANSCRIBING = Meter(estimate=None, usage=TRANSCRIPTION.usage, text=realtime.transcribed)


class RealtimeTurns(Turns):
    operation = Operation(
        "connectRealtime", "GET", "/realtime", "Realtime", "Open a realtime session over a WebSocket"
    )

    def __init__(
        self, services: Services, caller: Granted, holds: Holds, inject: Inject, settings: Settings
    ) -> None:
        super().__init__(services, caller, holds, inject)
        self._settings = settings
        self._is_configured = False
        #: Both directions may come to place the hold of the next answer.
        self._turn = asyncio.Lock()
        #: What OpenAI was last told to be the most output of a response; None: no bound.
        self._limit: int | None = None
        #: Units of the conversation when it was last read, and of what came to it since then.
        self._read: Counter[str] = Counter()
        self._added: Counter[str] = Counter()
        self._asked: deque[SocketCharge] = deque()
        self._working: dict[str, SocketCharge] = {}
        self._added_before: dict[str, Counter[str]] = {}
        self._standing = _Standing()
        self._transcript = _Standing()
        self._transcripts: dict[str, SocketCharge] = {}
        self._has_heard = False
        self._is_speaking = False
        self._speech_began_ms = 0
        #: Sound that has been sent and belongs to no item yet.
        self._buffered_s = 0.0

    @property
    def is_working(self) -> bool:
        return bool(self._working or self._asked)

    def error_event(self, error: ApiError, cause: Mapping[str, Any]) -> Event:
        shown = {**error.as_dict()["error"], "event_id": cause.get("event_id")}
        return {"type": "error", "event_id": f"event_{secrets.token_hex(10)}", "error": shown}

    # --- what the client sends ----------------------------------------------------------------------------

    async def sending(self, event: Event, size: int) -> Event:
        kind = string(event.get("type"))
        if kind not in _KNOWN:
            raise unknown_event(kind, _KNOWN)
        if kind in _REFERRING:
            await self.check(realtime.without_sound(event))
        if kind in _CONFIGURE:
            return await self._configure(event, size)
        if kind == "conversation.item.create":
            listed = [event.get("item")]
            self._own.add(string(mapping(event.get("item")).get("id")))
            self._added += await self._count(size, lambda: realtime.read_by(listed, self._settings))
        elif kind == "input_audio_buffer.append":
            await self._hear(realtime.heard_seconds(event.get("audio"), self._settings))
        elif kind == "input_audio_buffer.clear":
            self._buffered_s = 0.0
        elif kind == "response.create":
            return await self._ask(event, size)
        return event

    async def _configure(self, event: Event, size: int) -> Event:
        session = mapping(event.get("session"))
        model = session.get("model")
        if isinstance(model, str) and model != self._settings.model:
            raise BadRequest("The model of a session cannot be changed.", param="session.model")
        self._is_configured = True
        if event["type"] == "transcription_session.update":
            self._settings.kind = "transcription"
        self._settings.update(session)
        self._settings.ask(session)
        await self._count(size, lambda: self._settings.fixed_tokens)
        self._drop_unneeded()
        name = next((n for n in ("max_output_tokens", "max_response_output_tokens") if n in session), None)
        if name is None:
            return event
        cap = self._standing.charge.output_cap if self._standing.charge is not None else None
        self._limit = self._settings.asked if cap is None else min(cap, self._settings.asked or cap)
        if self._limit == self._settings.asked:
            return event
        return {**event, "session": {**session, name: self._limit}}

    async def _hear(self, seconds: float) -> None:
        """Sees to it that what may come of more sound is covered."""
        settings = self._settings
        self._has_heard = True
        # Silence is not kept where turns are detected.
        self._buffered_s = seconds + (
            self._buffered_s if self._is_speaking or not settings.detects_turns else 0.0
        )
        if settings.transcribed_by and not self._transcript.covers(self._buffered_s):
            try:
                await self._stand_for_transcript()
            except InsufficientBalance:
                # Of a small balance a response may hold all; then the transcript is charged when it is there.
                if not self.is_working and self._standing.charge is None:
                    raise
        await self._stand()

    async def _ask(self, event: Event, size: int) -> Event:
        """Holds what a response that is asked for may cost, and bounds it where it must be."""
        params = mapping(event.get("response"))
        given, own = params.get("input"), {n: params[n] for n in ("instructions", "tools") if n in params}
        read = self._conversation()
        if isinstance(given, list):
            # Something else than the conversation is read, but for the items that it refers to.
            if not any(mapping(item).get("type") == "item_reference" for item in given):
                read = Counter({INPUT: 0 if own else self._settings.fixed_tokens})
            read += await self._count(size, lambda: realtime.read_by(given, self._settings))
        if own:
            read[INPUT] += await self._count(size, lambda: realtime.count_items([], own))
        estimate = realtime.estimate(self._settings, params, read)
        async with self._turn:
            self._lay_down(self._standing)
            placed = await self._holds.place(self._settings.model, estimate, REALTIME, event.get("event_id"))
            placed.is_sent = True
            self._asked.append(placed)
        if placed.output_cap is None:
            return event
        return {**event, "response": {**params, "max_output_tokens": placed.output_cap}}

    # --- holds for what is not asked for -------------------------------------------------------------------

    async def _stand(self) -> None:
        """Places the hold for an answer that comes by itself, and bounds the session accordingly."""
        settings = self._settings
        if settings.kind != "realtime" or not settings.answers_by_itself:
            return
        async with self._turn:
            # Only one answer is given at a time.
            if self.is_working or self._standing.covers(self._buffered_s):
                return
            self._lay_down(self._standing)
            seconds = self._buffered_s + HEARD_AHEAD_S
            placed = await self._holds.place(settings.model, self._estimate_of_answer(seconds), REALTIME)
            placed.stand_by()
            self._standing = _Standing(placed, seconds)
        wanted = settings.asked if placed.output_cap is None else placed.output_cap
        if wanted != self._limit:
            self._limit = wanted
            await self._inject(settings.limit(wanted))

    def _estimate_of_answer(self, heard_s: float) -> Estimate:
        read = self._conversation()
        read[AUDIO_INPUT] += round((heard_s - self._buffered_s) * HEARD_PER_SECOND)
        return realtime.estimate(self._settings, {}, read)

    async def _stand_for_transcript(self) -> None:
        self._lay_down(self._transcript)
        seconds, model = self._buffered_s + HEARD_AHEAD_S, self._settings.transcribed_by
        placed = await self._holds.place(model, _of_speech(model, seconds), _TRANSCRIBING)
        placed.stand_by()
        self._transcript = _Standing(placed, seconds)

    def _lay_down(self, standing: "_Standing") -> None:
        if standing.charge is not None:
            self._holds.drop(standing.charge)
        standing.charge = None

    def _drop_unneeded(self) -> None:
        if not self._settings.answers_by_itself:
            self._lay_down(self._standing)
        if not self._settings.transcribed_by:
            self._lay_down(self._transcript)

    def _conversation(self) -> Counter[str]:
        """Units that a response would read now."""
        read = self._read or Counter({INPUT: self._settings.fixed_tokens})
        heard = Counter({AUDIO_INPUT: round(self._buffered_s * HEARD_PER_SECOND)})
        return read + self._added + heard

    # --- what OpenAI sends ----------------------------------------------------------------------------------

    async def received(self, event: Event, size: int) -> None:
        kind = string(event.get("type"))
        if kind == "response.created":
            await self._begin(string(mapping(event.get("response")).get("id")))
        elif kind == "response.done":
            await self._finish(event)
        elif kind in _CONFIGURED:
            self._configured(kind, mapping(event.get("session")))
            await self._count(size, lambda: self._settings.fixed_tokens)
        elif kind in _ITEM_MADE:
            self._own.add(string(mapping(event.get("item")).get("id")))
        elif kind == "error":
            await self._fail(mapping(event.get("error")).get("event_id"))
        elif kind in ("input_audio_buffer.speech_started", "input_audio_buffer.speech_stopped"):
            self._follow_speech(event)
        elif kind == "input_audio_buffer.committed":
            await self._commit(string(event.get("item_id")))
        elif kind.startswith(_TRANSCRIBED):
            await self._transcribe(kind, event)
        elif working := self._working.get(string(event.get("response_id"))):
            working.note(event)
            working.spoken_tokens += realtime.spoken_tokens(event, self._settings)

    async def passed(self) -> None:
        """What has been said while OpenAI answered may be answered next."""
        if self._has_heard and self._standing.charge is None:
            # Without the database, or at a limit, the hold is asked for again with the next sound.
            with suppress(Unavailable, RateLimited):
                await self._stand()

    async def _begin(self, response_id: str) -> None:
        async with self._turn:
            if self._asked:
                placed = self._asked.popleft()
            elif self._standing.charge is not None:
                placed, self._standing = self._standing.charge, _Standing()
            else:
                placed = await self._begin_late()
            self._holds.begin(placed)
            self._working[response_id] = placed
        self._added_before[response_id] = self._added.copy()

    async def _begin_late(self) -> SocketCharge:
        estimate = self._estimate_of_answer(self._buffered_s)
        placed, refusal = await self._holds.place_late(self._settings.model, estimate, REALTIME)
        if refusal is not None:
            self._holds.begin(placed)
            raise refusal
        return placed

    async def _finish(self, event: Event) -> None:
        response = mapping(event.get("response"))
        response_id = string(response.get("id"))
        if response_id not in self._working:
            await self._begin(response_id)
        placed, before = self._working.pop(response_id), self._added_before.pop(response_id)
        # One that is answered apart leaves the conversation as it was.
        if response.get("conversation_id", "") is not None and realtime.usage(event, {}) is not None:
            self._read, self._added = realtime.left_in_conversation(event), self._added - before
        await self._holds.end(placed, event)

    def _configured(self, kind: str, session: Mapping[str, Any]) -> None:
        if kind.endswith("created") and self._is_configured:
            return
        if kind.startswith("transcription"):
            self._settings.kind = "transcription"
        self._settings.update(session)
        if self._settings.kind not in ("realtime", "transcription"):
            raise PermissionDenied(
                f"Sessions of the kind {self._settings.kind!r} report no usage and are not offered.",
                code="operation_not_offered",
            )
        self._drop_unneeded()

    async def _fail(self, event_id: object) -> None:
        """Releases the response that an error refuses. Without an id it may be meant for another event; if
        the response begins all the same, it gets a hold then."""
        named = next((one for one in self._asked if one.event_id == event_id), None)
        if named is not None:
            self._asked.remove(named)
            await self._holds.release(named)

    def _follow_speech(self, event: Event) -> None:
        if "audio_start_ms" in event:
            self._is_speaking, self._speech_began_ms = True, amount(event["audio_start_ms"])
        elif "audio_end_ms" in event:
            self._buffered_s = max(amount(event["audio_end_ms"]) - self._speech_began_ms, 0) / 1000

    async def _commit(self, item_id: str) -> None:
        """What was heard is an item now, and is being transcribed."""
        seconds, self._buffered_s, self._is_speaking = self._buffered_s, 0.0, False
        self._added[AUDIO_INPUT] += round(seconds * HEARD_PER_SECOND)
        if self._settings.transcribed_by:
            placed, self._transcript = self._transcript.charge, _Standing()
            await self._begin_transcript(item_id, placed, seconds)

    async def _begin_transcript(self, item_id: str, placed: SocketCharge | None, seconds: float) -> None:
        model = self._settings.transcribed_by
        if placed is None:
            placed, _ = await self._holds.place_late(model, _of_speech(model, seconds), _TRANSCRIBING)
        placed.measured(_of_speech(model, seconds))
        self._holds.begin(placed)
        self._transcripts[item_id] = placed

    async def _transcribe(self, kind: str, event: Event) -> None:
        item_id = string(event.get("item_id"))
        if item_id not in self._transcripts:
            if not kind.endswith(".completed"):
                return
            await self._begin_transcript(item_id, None, 0.0)
        placed = self._transcripts[item_id]
        if kind.endswith(".completed"):
            del self._transcripts[item_id]
            await self._holds.end(placed, event)
        elif kind.endswith(".failed"):
            del self._transcripts[item_id]
            await self._holds.release(placed)
        else:
            placed.note(event)


class _Standing:
    """A hold for what may come, and how many seconds of speech it covers."""

    def __init__(self, charge: SocketCharge | None = None, seconds: float = 0.0) -> None:
        self.charge = charge
        self._seconds = seconds

    def covers(self, seconds: float) -> bool:
        return self.charge is not None and seconds <= self._seconds


def _of_speech(model: str, seconds: float) -> Estimate:
    return transcription.estimate({"model": model, "file": FormFile("", "", 0, b"", seconds=seconds)})
