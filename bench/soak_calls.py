"""The kinds of calls of the soak, and how often each is drawn."""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any

import aiohttp

from soak_load import CALL_S, SOCKET_KEYS, Busy, Kind, Load, Unexpected

SLOW_FILE_BYTES = 4_000_000
SLOW_BYTES_A_SECOND = 400_000
TOOL = {
    "type": "function",
    "function": {
        "name": "look_up",
        "parameters": {"type": "object", "properties": {"q": {"type": "string"}}},
    },
}

KINDS: list[Kind] = []


def kind(weight: int, calls: int = 1) -> Callable[[Callable[[Load], Awaitable[None]]], None]:
    def add(run: Callable[[Load], Awaitable[None]]) -> None:
        KINDS.append(Kind(weight, calls, run.__name__, run))

    return add


# --- chat -------------------------------------------------------------------------------------------------


@kind(300)
async def chat(load: Load) -> None:
    """The yardstick of latency: always the same call, now and then also past the gateway."""
    body = _chat("Hello! [[simulate:tokens=12]]")
    began = time.perf_counter()
    await load.ask("POST", "/v1/chat/completions", key=load.key(), metered=True, json=body)
    load.tally.latencies_s.append(time.perf_counter() - began)


@kind(30)
async def direct(load: Load) -> None:
    """What the machine and the upstream take by themselves just now."""
    began = time.perf_counter()
    url = f"{load.upstream_url}/v1/chat/completions"
    body = _chat("Hello! [[simulate:tokens=12]]")
    async with load.session.post(url, json=body, headers={"Authorization": "Bearer any"}) as answer:
        await answer.read()
    load.tally.direct_s.append(time.perf_counter() - began)


@kind(60)
async def long_chat(load: Load) -> None:
    words = " ".join(load.chance.choices(("one", "two", "a third", "été", "世界"), k=2_000))
    body = _chat(f"{words} [[simulate:tokens=40]]")
    await load.ask("POST", "/v1/chat/completions", key=load.key(), metered=True, json=body)


@kind(30)
async def tools(load: Load) -> None:
    body = {**_chat("Look it up [[simulate:tools=1]]"), "tools": [TOOL]}
    await load.ask("POST", "/v1/chat/completions", key=load.key(), metered=True, json=body)


@kind(120)
async def stream(load: Load) -> None:
    fields = {"stream": True, "stream_options": {"include_usage": True}}
    body = {**_chat("Tell me more [[simulate:tokens=60 chunk_delay=0.002]]"), **fields}
    await load.ask("POST", "/v1/chat/completions", key=load.key(), metered=True, json=body)


@kind(30)
async def stream_with_tools(load: Load) -> None:
    fields = {"stream": True, "stream_options": {"include_usage": True}, "tools": [TOOL]}
    body = {**_chat("Look it up [[simulate:tools=2]]"), **fields}
    await load.ask("POST", "/v1/chat/completions", key=load.key(), metered=True, json=body)


@kind(40)
async def left_stream(load: Load) -> None:
    """The client goes in the middle of a stream."""
    body = {**_chat("Tell me all [[simulate:tokens=200 chunk_delay=0.01]]"), "stream": True}
    load.tally.calls += 1
    load.tally.left += 1
    headers = {"Authorization": f"Bearer {load.key()}"}
    answer = await load.session.post(f"{load.url}/v1/chat/completions", json=body, headers=headers)
    with suppress(aiohttp.ClientError):
        for _ in range(load.chance.randrange(20)):
            await answer.content.readany()
    answer.close()


@kind(20)
async def left_at_once(load: Load) -> None:
    """The client goes before the first byte of an answer."""
    load.tally.calls += 1
    load.tally.left += 1
    body = _chat("Think [[simulate:delay=0.2 tokens=20]]")
    with suppress(TimeoutError):
        async with asyncio.timeout(load.chance.uniform(0.001, 0.15)):
            headers = {"Authorization": f"Bearer {load.key()}"}
            async with load.session.post(f"{load.url}/v1/chat/completions", json=body, headers=headers) as it:
                await it.read()


@kind(20, 2)
async def repeated(load: Load) -> None:
    """A call with an Idempotency-Key, and another one repeated."""
    body = _chat(f"Once only {load.chance.random()} [[simulate:tokens=15]]")
    key, own = load.key(), f"soak-{load.chance.getrandbits(128):032x}"
    headers = {"Idempotency-Key": own}
    await load.ask("POST", "/v1/chat/completions", key=key, metered=True, json=body, headers=headers)
    load.repeatable.append((key, own, body))
    key, own, body = load.chance.choice(load.repeatable)
    headers = {"Idempotency-Key": own}
    await load.ask("POST", "/v1/chat/completions", key=key, metered=True, json=body, headers=headers)


# --- other metered calls ----------------------------------------------------------------------------------


@kind(60)
async def embeddings(load: Load) -> None:
    body = {"model": "text-embedding-3-small", "input": ["The food was delicious."] * 4, "dimensions": 256}
    await load.ask("POST", "/v1/embeddings", key=load.key(), metered=True, json=body)


@kind(40, 2)
async def responses(load: Load) -> None:
    """A response, and one that goes on from it, as a stream."""
    key = load.key()
    body: dict[str, Any] = {"model": "gpt-4o-mini", "input": "Hello! [[simulate:tokens=20]]"}
    first = json.loads(await load.ask("POST", "/v1/responses", key=key, metered=True, json=body))
    body |= {"previous_response_id": first["id"], "stream": True}
    await load.ask("POST", "/v1/responses", key=key, metered=True, json=body)


@kind(4, 3)
async def background(load: Load) -> None:
    """Work that goes on after its answer; its charge is made when it has ended."""
    key = load.key()
    does = "[[simulate:tokens=20 finish_after=0.3]]"
    body = {"model": "gpt-4o-mini", "input": f"Take your time {does}", "background": True}
    begun = json.loads(await load.ask("POST", "/v1/responses", key=key, metered=True, json=body))
    await asyncio.sleep(1.0)
    await load.ask("GET", f"/v1/responses/{begun['id']}", key=key)
    await load.ask("DELETE", f"/v1/responses/{begun['id']}", key=key)


@kind(20)
async def speech(load: Load) -> None:
    body = {"model": "tts-1", "voice": "alloy", "input": "A few words to be spoken, " * 8}
    await load.ask("POST", "/v1/audio/speech", key=load.key(), metered=True, json=body)


@kind(15)
async def transcription(load: Load) -> None:
    form = aiohttp.FormData()
    form.add_field("model", "whisper-1")
    form.add_field("prompt", "[[simulate:seconds=3]]")
    form.add_field("file", bytes(60_000), filename="sound.mp3", content_type="audio/mpeg")
    await load.ask("POST", "/v1/audio/transcriptions", key=load.key(), metered=True, data=form)


@kind(10)
async def moderation(load: Load) -> None:
    await load.ask("POST", "/v1/moderations", key=load.key(), json={"input": "I want to be kind."})


# --- files and lists --------------------------------------------------------------------------------------


@kind(20, 4)
async def files(load: Load) -> None:
    key, content = load.key(), bytes(load.chance.randrange(10_000, 600_000))
    id = await _upload(load, key, content)
    got = await load.ask("GET", f"/v1/files/{id}/content", key=key)
    if len(got) != len(content):
        raise Unexpected(f"{len(got)} of {len(content)} bytes")
    await load.ask("GET", "/v1/files?limit=5", key=key)
    await load.ask("DELETE", f"/v1/files/{id}", key=key)


@kind(3, 3)
async def slow_reader(load: Load) -> None:
    """A file is read much more slowly than the upstream sends it."""
    key = load.key()
    id = await _upload(load, key, bytes(SLOW_FILE_BYTES))
    load.tally.calls += 1
    url, got = f"{load.url}/v1/files/{id}/content", 0
    async with load.slow_session.get(url, headers={"Authorization": f"Bearer {key}"}) as answer:
        async for data in answer.content.iter_any():
            got += len(data)
            await asyncio.sleep(len(data) / SLOW_BYTES_A_SECOND)
    if got != SLOW_FILE_BYTES:
        raise Unexpected(f"{got} of {SLOW_FILE_BYTES} bytes")
    await load.ask("DELETE", f"/v1/files/{id}", key=key)


@kind(8, 5)
async def threads(load: Load) -> None:
    key, beta = load.key(), {"OpenAI-Beta": "assistants=v2"}
    thread = json.loads(await load.ask("POST", "/v1/threads", key=key, json={}, headers=beta))
    path = f"/v1/threads/{thread['id']}"
    said = {"role": "user", "content": "Hello!"}
    for _ in range(2):
        await load.ask("POST", f"{path}/messages", key=key, json=said, headers=beta)
    await load.ask("GET", f"{path}/messages", key=key, headers=beta)
    await load.ask("DELETE", path, key=key, headers=beta)


@kind(10)
async def models(load: Load) -> None:
    await load.ask("GET", "/v1/models", key=load.key())


# --- what is refused --------------------------------------------------------------------------------------


@kind(15)
async def refused_by_the_upstream(load: Load) -> None:
    does, expect = load.chance.choice(
        (("status=400", 400), ("status=429 retry_after=1", 429), ("no-such-directive", 400))
    )
    body = _chat(f"Fail [[simulate:{does}]]")
    await load.ask("POST", "/v1/chat/completions", key=load.key(), expect=(expect,), json=body)


@kind(15)
async def refused_by_the_gateway(load: Load) -> None:
    """Names that were never seen before: nothing may keep them."""
    random_name = f"{load.chance.getrandbits(64):x}"
    key = load.key()
    match load.chance.randrange(6):
        case 0:
            body = _chat("Hello!")
            await load.ask(
                "POST", "/v1/chat/completions", key=f"sk-tg-{random_name}", expect=(401,), json=body
            )
        case 1:
            await load.ask("GET", f"/v1/{random_name}", key=key, expect=(404,))
        case 2:
            await load.ask("GET", f"/v1/files/file-{random_name}", key=key, expect=(404,))
        case 3:
            body = {**_chat("Hello!"), "model": f"gpt-{random_name}"}
            await load.ask("POST", "/v1/chat/completions", key=key, expect=(404,), json=body)
        case 4:
            await load.ask("POST", "/v1/chat/completions", key=key, expect=(400,), data=random_name)
        case _:
            # The operator of a soak has a key, and no credits.
            body = _chat("Hello!")
            await load.ask("POST", "/v1/chat/completions", key=load.operator_key, expect=(402,), json=body)


# --- the control plane ------------------------------------------------------------------------------------


@kind(15, 4)
async def own_pages(load: Load) -> None:
    key = load.key()
    for path in ("/api/balance", "/api/balance/entries?limit=20", "/api/usage", "/api/keys"):
        await load.ask("GET", path, key=key)


@kind(4, 3)
async def new_key(load: Load) -> None:
    key = load.operator_key
    made = json.loads(await load.ask("POST", "/api/keys", key=key, expect=(201,), json={"name": "soak"}))
    await load.ask("GET", "/v1/models", key=made["secret"])
    await load.ask("DELETE", f"/api/keys/{made['id']}", key=key, expect=(204,))


@kind(4, 2)
async def grant(load: Load) -> None:
    account = json.loads(await load.ask("GET", "/api/balance", key=load.key()))
    path, body = f"/api/balance/{account['user']}/grant", {"amount": 1_000, "reason": "a present"}
    await load.ask("POST", path, key=load.operator_key, expect=(200, 201), json=body)


@kind(5, 3)
async def operators_pages(load: Load) -> None:
    for path in ("/healthz", "/readyz", "/metrics"):
        await load.ask("GET", path, key=load.operator_key)


@kind(1)
async def wrong_password(load: Load) -> None:
    form = {"email": f"{load.chance.getrandbits(64):x}@example.com", "password": "wrong"}
    await load.ask("POST", "/api/user/auth", key="", expect=(400, 401, 429), data=form)


# --- WebSockets -------------------------------------------------------------------------------------------


@kind(6, 4)
async def socket_of_responses(load: Load) -> None:
    asks = {"type": "response.create", "model": "gpt-4o-mini", "input": "Hello! [[simulate:tokens=20]]"}
    await _talk(load, "/v1/responses", [], asks, "response.completed")


@kind(6, 4)
async def socket_of_realtime(load: Load) -> None:
    said = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Hello!"}]}
    first = [{"type": "conversation.item.create", "item": said}]
    asks = {"type": "response.create", "response": {"output_modalities": ["text"]}}
    await _talk(load, "/v1/realtime?model=gpt-realtime", first, asks, "response.done")


async def _talk(
    load: Load, path: str, first: Sequence[dict[str, Any]], asks: dict[str, Any], ends: str
) -> None:
    """Three turns; now and then the client leaves without waiting for the last one."""
    load.tally.calls += 4
    key = load.chance.choice(load.keys[:SOCKET_KEYS])
    headers = {"Authorization": f"Bearer {key}"}
    timeout = aiohttp.ClientWSTimeout(ws_close=CALL_S)
    async with load.session.ws_connect(load.url + path, headers=headers, timeout=timeout) as talk:
        for _ in range(3):
            for event in (*first, asks):
                await talk.send_json(event)
            if load.chance.random() < 0.1:
                load.tally.turns_left += 1
                return
            async with asyncio.timeout(CALL_S):
                while (event := await talk.receive_json())["type"] != ends:
                    if event["type"] == "error":
                        if event["error"]["code"] == "service_unavailable":
                            raise Busy
                        raise Unexpected(str(event)[:200])
            load.tally.turns += 1


# --- pieces -----------------------------------------------------------------------------------------------


def _chat(text: str) -> dict[str, Any]:
    return {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": text}]}


async def _upload(load: Load, key: str, content: bytes) -> str:
    form = aiohttp.FormData()
    form.add_field("purpose", "user_data")
    form.add_field("file", content, filename="notes.bin", content_type="application/octet-stream")
    made = json.loads(await load.ask("POST", "/v1/files", key=key, data=form))
    return str(made["id"])
