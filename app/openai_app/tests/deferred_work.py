"""Work that goes on after its call was answered: begun by a caller, and what it truly used."""

import json
import uuid
from collections.abc import Callable, Mapping
from typing import Any

from openai_app.settlement import deferred
from openai_app.tests.harness import JSON, Caller, House

MODEL = "gpt-4o-mini"
HELLO = [{"role": "user", "content": "Hello!"}]
ASSISTANTS = {**JSON, "OpenAI-Beta": "assistants=v2"}
PREFIX = "/v1"


def post(caller: Caller, path: str, /, **fields: Any) -> Any:
    """What a successful call is answered with."""
    answer = caller.call("POST", PREFIX + path, json.dumps(fields).encode(), ASSISTANTS)
    assert answer.status in (200, 201), answer.body
    return answer.json


def get(caller: Caller, path: str) -> Any:
    answer = caller.call("GET", PREFIX + path, headers=ASSISTANTS)
    assert answer.status == 200, answer.body
    return answer.json


def form(
    fields: Mapping[str, str], files: Mapping[str, tuple[str, str, bytes]], *, files_first: bool = False
) -> tuple[bytes, dict[str, str]]:
    """A multipart form and its header; `files` are (file name, content type, content) by field."""
    boundary = uuid.uuid4().hex
    texts = [
        f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()
        for name, value in fields.items()
    ]
    contents = [
        f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"; filename="{file_name}"\r\n'
        f"Content-Type: {content_type}\r\n\r\n".encode()
        + content
        + b"\r\n"
        for name, (file_name, content_type, content) in files.items()
    ]
    parts = contents + texts if files_first else texts + contents
    body = b"".join(parts) + f"--{boundary}--\r\n".encode()
    return body, {"Content-Type": f"multipart/form-data; boundary={boundary}"}


def upload(caller: Caller, content: bytes, purpose: str, name: str = "file.jsonl") -> str:
    """The id of a file with this content."""
    body, header = form({"purpose": purpose}, {"file": (name, "application/octet-stream", content)})
    answer = caller.call("POST", f"{PREFIX}/files", body, header)
    assert answer.status == 200, answer.body
    file_id: str = answer.json["id"]
    return file_id


def lines_of(*requests: dict[str, Any], url: str = "/v1/chat/completions") -> bytes:
    """A batch's file."""
    return b"".join(
        json.dumps({"custom_id": f"line-{index}", "method": "POST", "url": url, "body": request}).encode()
        + b"\n"
        for index, request in enumerate(requests)
    )


def chats(count: int) -> list[dict[str, Any]]:
    """Requests of different lengths."""
    return [
        {
            "model": MODEL,
            "messages": [{"role": "user", "content": f"Number {index}" + " and on" * (index % 7)}],
            "max_tokens": 5 + index % 11,
        }
        for index in range(count)
    ]


# --- beginning ------------------------------------------------------------------------------------------


def begin_batch(caller: Caller, count: int = 3) -> str:
    file_id = upload(caller, lines_of(*chats(count)), "batch")
    batch = post(
        caller,
        "/batches",
        input_file_id=file_id,
        endpoint="/v1/chat/completions",
        completion_window="24h",
    )
    return str(batch["id"])


def begin_response(caller: Caller) -> str:
    return str(post(caller, "/responses", model=MODEL, input="Tell me a story.", background=True)["id"])


def new_thread(caller: Caller, **assistant: Any) -> tuple[str, str]:
    """Ids of a thread with a message, and of an assistant."""
    made = post(caller, "/assistants", **{"model": MODEL, "instructions": "Be brief.", **assistant})
    return str(post(caller, "/threads", messages=HELLO)["id"]), str(made["id"])


def begin_run(caller: Caller) -> str:
    thread_id, assistant_id = new_thread(caller)
    return str(post(caller, f"/threads/{thread_id}/runs", assistant_id=assistant_id)["id"])


def training_file(caller: Caller) -> str:
    example = {"messages": [*HELLO, {"role": "assistant", "content": "Good day to you."}]}
    return upload(caller, b"".join(json.dumps(example).encode() + b"\n" for _ in range(10)), "fine-tune")


def begin_job(caller: Caller) -> str:
    job = post(
        caller, "/fine_tuning/jobs", model="gpt-4o-mini-2024-07-18", training_file=training_file(caller)
    )
    return str(job["id"])


def begin_fine_tune(caller: Caller) -> str:
    return str(post(caller, "/fine-tunes", model="davinci", training_file=training_file(caller))["id"])


def begin_video(caller: Caller) -> str:
    return str(post(caller, "/videos", model="sora-2", prompt="A calm sea.", seconds="8")["id"])


def begin_eval_run(caller: Caller) -> str:
    made = post(
        caller,
        "/evals",
        name="Sums",
        data_source_config={"type": "custom", "item_schema": {"type": "object", "properties": {}}},
        testing_criteria=[
            {
                "type": "string_check",
                "name": "equal",
                "input": "{{sample.output_text}}",
                "operation": "eq",
                "reference": "{{item.sum}}",
            }
        ],
    )
    run = post(
        caller,
        f"/evals/{made['id']}/runs",
        data_source={
            "type": "completions",
            "model": MODEL,
            "input_messages": {"type": "template", "template": HELLO},
            "source": {
                "type": "file_content",
                "content": [{"item": {"sum": str(number)}} for number in range(4)],
            },
        },
    )
    return str(run["id"])


#: By the `object` that each is.
BEGIN: Mapping[str, Callable[[Caller], str]] = {
    "batch": begin_batch,
    "response": begin_response,
    "thread.run": begin_run,
    "fine_tuning.job": begin_job,
    "fine-tune": begin_fine_tune,
    "video": begin_video,
    "eval.run": begin_eval_run,
}


# --- the truth ------------------------------------------------------------------------------------------


def units_of(usage: Mapping[str, Any] | None) -> dict[str, int]:
    """What the simulator says was used, in the ledger's units."""
    told = usage or {}
    units = {
        "input": told.get("prompt_tokens", told.get("input_tokens", 0)),
        "output": told.get("completion_tokens", told.get("output_tokens", 0)),
        "training": told.get("trained_tokens", 0),
        "second": int(told.get("seconds", 0)),
    }
    return {unit: count for unit, count in units.items() if count}


def truth(house: House) -> dict[str, dict[str, int]]:
    """What all work that has ended reported, by id; the turns of a run together."""
    found: dict[str, dict[str, int]] = {}
    for line in house.simulator.journal():
        if line["kind"] != "call":
            so_far = found.setdefault(line["object_id"], {})
            # The oldest API of fine-tuning tells nobody what was used.
            for unit, count in units_of(line["usage"]).items() if line["kind"] != "fine-tune" else ():
                so_far[unit] = so_far.get(unit, 0) + count
    return found


def charged(caller: Caller) -> dict[str, dict[str, int]]:
    """What was charged, by the id of the work. Fails if anything was charged twice, or corrected.

    Work that reported no usage, for which its hold was charged, has no units.
    """
    holds = {hold["id"]: hold for hold in caller.holds()}
    found: dict[str, dict[str, int]] = {}
    for entry in caller.charges():
        assert entry["kind"] == "charge"
        hold = holds[entry["hold_id"]]
        work_id = hold["awaits"].rpartition("/")[2]
        assert work_id not in found
        was_told = entry["reason"] == deferred.ENDED
        assert entry["amount"] == -(price(entry) if was_told else hold["amount"]), entry
        found[work_id] = entry["units"]
    return found


def price(entry: Mapping[str, Any]) -> int:
    """What the units of an entry cost at its rate, in whole credits."""
    micro_credits: int = sum(entry["rate"][unit] * count for unit, count in entry["units"].items())
    return -(-micro_credits // 1_000_000)
