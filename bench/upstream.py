"""A stand-in for OpenAI that costs as little as it can: a fixed chat completion of 29 tokens.

Its streams come as fast as they are read. It is not the simulator, because that counts and keeps a journal,
and would be the slowest link of the chain. Prints the port it listens on.
"""

import asyncio
import gc
import json
import sys
from typing import cast

import uvloop

EVENTS_IN_A_STREAM = 68
COMPLETION_ID = "chatcmpl-B9MBs8CjcvOU2jLn4n570S5qMJKcT"
CREATED = 1741569952
MODEL = "gpt-4o-mini-2024-07-18"
USAGE = {
    "prompt_tokens": 19,
    "completion_tokens": 10,
    "total_tokens": 29,
    "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
    "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0},
}


def answer() -> bytes:
    """The completion of the API reference's example, with its head."""
    body = json.dumps(
        {
            "id": COMPLETION_ID,
            "object": "chat.completion",
            "created": CREATED,
            "model": MODEL,
            "choices": [
                {
                    "index": 0,
                    "message": {
                        "role": "assistant",
                        "content": "Hello! How can I assist you today?",
                        "refusal": None,
                        "annotations": [],
                    },
                    "logprobs": None,
                    "finish_reason": "stop",
                }
            ],
            "usage": USAGE,
            "service_tier": "default",
        },
        indent=2,
    ).encode()
    head = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    return head.encode() + body


def stream() -> list[bytes]:
    """`EVENTS_IN_A_STREAM` events, each in a chunk of its own; the last are usage and `[DONE]`."""
    common = {"id": COMPLETION_ID, "object": "chat.completion.chunk", "created": CREATED, "model": MODEL}

    def choice(delta: dict[str, str], finish: str | None = None) -> str:
        choices = [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}]
        return json.dumps({**common, "choices": choices, "usage": None}, separators=(",", ":"))

    events = [choice({"role": "assistant", "content": ""})]
    events += [choice({"content": " word"})] * (EVENTS_IN_A_STREAM - 4)
    events += [choice({}, "stop"), json.dumps({**common, "choices": [], "usage": USAGE}), "[DONE]"]
    chunks = [f"data: {event}\n\n".encode() for event in events]
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
    return [head, *(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks), b"0\r\n\r\n"]


ANSWER = answer()
STREAM = b"".join(stream())


class Connection(asyncio.Protocol):
    """One keep-alive connection whose client waits for each answer before it asks again."""

    transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are no subclasses of asyncio's.
        self.transport = cast(asyncio.Transport, transport)
        self.received = b""

    def data_received(self, data: bytes) -> None:
        self.received += data
        head, blank, body = self.received.partition(b"\r\n\r\n")
        if not blank:
            return
        _, _, length = head.lower().partition(b"content-length:")
        if len(body) < int(length.split(b"\r\n", 1)[0] or b"0"):
            return
        self.transport.write(STREAM if b'"stream":true' in body else ANSWER)
        self.received = b""


async def serve() -> None:
    server = await asyncio.get_running_loop().create_server(Connection, "127.0.0.1", 0, backlog=1024)
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    gc.freeze()
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve())
