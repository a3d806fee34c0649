"""OpenAI's answer on its way to the caller: whole, as a stream of events, or as mere bytes."""

from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Any

import orjson

from balances.operations import Posted
from balances.writer import Answer
from common.asgi import JSON, Headers
from common.errors import Unavailable, UpstreamFailed
from openai_app.answer.parked import park
from openai_app.answer.reply import Reply, error_event
from openai_app.answer.streaming import Stream
from openai_app.http.response import Response
from openai_app.settlement.charge import BROKEN, Charge
from openai_app.upstream import failure, is_json, refusal, response_headers

# What is told of every object that an answer speaks of, before the caller hears of it.
Seen = Callable[[Mapping[str, Any]], Awaitable[None]]
# What is told of an answer that something is not there.
Missed = Callable[[Response, bytes], Awaitable[None]]


async def pass_refusal(
    response: Response, reply: Reply, charge: Charge | None, missed: Missed | None = None
) -> int:
    """Answers OpenAI's error in OpenAI's shape; a call that was refused costs nothing."""
    # Before anything is awaited: whoever leaves meanwhile pays nothing either.
    posting = charge.refused() if charge is not None else None
    body = await read_answer(response)
    if missed is not None and response.status == 404:
        await missed(response, body)
    status, shown = refusal(response.status, response.content_type, body)
    headers = [header for header in response_headers(response) if header[0] != b"content-type"]
    if posting is not None:
        headers += await settled(posting)
    if status >= 500 and not any(name == b"retry-after" for name, _ in headers):
        headers.append((b"retry-after", b"1"))
    await reply.whole(status, [JSON, *headers], shown)
    return status


async def pass_answer(response: Response, reply: Reply, charge: Charge | None, seen: Seen | None) -> int:
    """Answers a JSON object, byte for byte, once it is paid for and what it created is recorded."""
    body = await read_answer(response)
    is_free_of_objects = charge is None and (not body or _is_other_json(response, body))
    parsed = {} if is_free_of_objects else parse_answer(response, body)
    headers = response_headers(response)
    if seen is not None:
        try:
            await seen(parsed)
        except Exception:
            # The caller gets no answer, but OpenAI has done its work: it is paid for, and not done again.
            if charge is not None:
                try:
                    await _keep_answer(response, reply, charge, parsed, body)
                finally:
                    if not charge.awaits:
                        charge.answered(parsed)
            raise
    if charge is not None:
        try:
            await _keep_answer(response, reply, charge, parsed, body)
        finally:
            # OpenAI has done its work, and the answer is kept, even where this is cut off.
            posting = charge.defer() if charge.awaits else charge.answered(parsed)
        told = await settled(posting)
        headers += remaining(charge) if charge.awaits or not told else told
    answer = await park(body)
    # The reader may take its time, and what was parsed is larger still.
    del body, parsed
    await reply.whole(response.status, headers, answer)
    return response.status


async def pass_stream(
    response: Response, reply: Reply, charge: Charge, stream: Stream, seen: Seen | None
) -> int:
    """Passes events as they come. The last one goes out when the charge is in, so that whoever has read it
    sees the new balance; a stream that OpenAI breaks off ends with an error event."""
    headers = [*response_headers(response), (b"cache-control", b"no-cache"), *remaining(charge)]
    await reply.start(response.status, headers)
    reply.sends_events = True
    last, is_whole = b"", True
    try:
        async for data in response:
            events = stream.take(data)
            if seen is not None:
                for found in stream.take_objects():
                    await seen(found)
            if stream.is_done:
                await _keep_stream(reply, charge, stream, events)
                await _settle_stream(charge)
            if events:
                await reply.piece(events)
        last = stream.rest()
    except OSError as error:
        # What came of an unfinished event would garble this one.
        last, is_whole = error_event(failure(error)), False
    if is_whole:
        await _keep_stream(reply, charge, stream, last)
    await _settle_stream(charge)
    await reply.end(last)
    return response.status


async def pass_bytes(response: Response, reply: Reply, charge: Charge | None) -> int:
    """Passes whatever it is as it comes, such as speech, a file or events that cost nothing.

    The last of an answer of known length goes out when the charge is in.
    """
    headers, left = response_headers(response), response.length
    if left is not None:
        headers.append((b"content-length", str(left).encode()))
    if charge is not None:
        headers += remaining(charge)
    await reply.start(response.status, headers)
    last = b""
    try:
        async for data in response:
            if left is not None:
                left -= len(data)
            if left == 0:
                last = data
            else:
                if charge is not None:
                    charge.has_passed = True
                await reply.piece(data)
    except OSError as error:
        if charge is not None and charge.has_passed:
            # The caller has it. Were it free, one could read nearly all, and stop until OpenAI gives up.
            charge.cut(BROKEN)
        # The answer is left incomplete, and the connection with it: the caller sees that it broke off.
        raise failure(error) from error
    if charge is not None:
        try:
            if reply.claim is not None:
                await reply.claim.finish(last, charge.outlook({}))
        finally:
            posting = charge.answered({})
        await settled(posting)
    await reply.end(last)
    return response.status


async def _keep_answer(
    response: Response, reply: Reply, charge: Charge, parsed: Mapping[str, Any], body: bytes
) -> None:
    """Has an answer in one piece kept for its repetition, unless it tells of an error."""
    if reply.claim is not None and not isinstance(parsed.get("error"), dict):
        reply.claim.begin(response.status, response_headers(response))
        await reply.claim.finish(body, charge.outlook(parsed))


async def _keep_stream(reply: Reply, charge: Charge, stream: Stream, last: bytes) -> None:
    """Has a stream's answer kept for its repetition, unless it came to nothing or to an error."""
    is_finished = stream.is_done or stream.usage is not None or bool(charge.awaits)
    if reply.claim is not None and is_finished and not stream.has_told_error:
        await reply.claim.finish(last, charge.outlook(None))


async def _settle_stream(charge: Charge) -> None:
    posting = charge.stream_ended()
    if posting is not None:
        await settled(posting)


def remaining(charge: Charge) -> Headers:
    """What a metered answer says that goes out before its charge is known: what the hold leaves."""
    return [(b"x-balance-remaining", str(charge.available).encode())]


async def settled(posting: Answer) -> Headers:
    """Waits for a charge and answers its headers: none while the database is away and the charge is owed."""
    try:
        posted = await posting
    except Unavailable:
        return []
    assert isinstance(posted, Posted)
    return [
        (b"x-balance-charged", str(posted.charged).encode()),
        (b"x-balance-remaining", str(posted.available).encode()),
    ]


async def read_answer(response: Response) -> bytes:
    """A whole answer. Raises UpstreamFailed or UpstreamTimedOut when it breaks off."""
    try:
        return await response.read()
    except OSError as error:
        raise failure(error) from error


def _is_other_json(response: Response, body: bytes) -> bool:
    """Whether an answer is JSON but no object, as OpenAI describes files: nothing is learned from it."""
    if not is_json(response.content_type) or body.lstrip()[:1] == b"{":
        return False
    with suppress(orjson.JSONDecodeError):
        orjson.loads(body)
        return True
    return False


def parse_answer(response: Response, body: bytes) -> dict[str, Any]:
    """An answer's JSON object. Raises UpstreamFailed for anything else, such as a proxy's page."""
    if is_json(response.content_type):
        with suppress(orjson.JSONDecodeError):
            parsed = orjson.loads(body)
            if isinstance(parsed, dict):
                return parsed
    raise UpstreamFailed("OpenAI answered with something that is no JSON object.")
