"""Each operation of the clients that were there before, called as they call it.

They are the django-openai module, the OpenAI Token-Balance API, node-red-openai, Openai.ex and Kosha's OpenAI
connector. They differ in prefixes, slashes at the end, names in the singular, `Token` in place of `Bearer`,
forms whose values are all texts, bodies that are empty, and in an assistants' API of the first version.
"""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from conftest import SHARED
from openai_app.tests.deferred_work import MODEL, begin_fine_tune, begin_job, form, get, new_thread, post
from openai_app.tests.deferred_work import upload as upload_file
from openai_app.tests.harness import HELLO, Answer, Caller, House, events_of, wait_for

SEED = SHARED / "seed-operations.md"
V1 = {"OpenAI-Beta": "assistants=v1"}
JSON = {"Content-Type": "application/json"}
PNG = b"\x89PNG\r\n\x1a\n" + bytes.fromhex("0000000d49484452000001000000010008060000005c72a866")
# A second of silence.
WAV = (
    b"RIFF\x64\x3e\x00\x00WAVEfmt \x10\x00\x00\x00\x01\x00\x01\x00\x40\x1f\x00\x00\x80\x3e\x00\x00\x02\x00"
    b"\x10\x00data\x40\x3e\x00\x00" + bytes(0x3E40)
)

# What a row's path and body speak of, made by the caller before.
Make = Callable[[Caller], Mapping[str, str]]


def nothing(_: Caller) -> Mapping[str, str]:
    return {}


def a_file(caller: Caller) -> Mapping[str, str]:
    return {"file_id": upload_file(caller, b'{"a": 1}\n', "assistants")}


def a_training_file(caller: Caller) -> Mapping[str, str]:
    example = {"messages": [*HELLO, {"role": "assistant", "content": "Hello."}]}
    content = b"".join(json.dumps(example).encode() + b"\n" for _ in range(10))
    return {"file_id": upload_file(caller, content, "fine-tune")}


def a_fine_tune(caller: Caller) -> Mapping[str, str]:
    return {"fine_tune_id": begin_fine_tune(caller)}


def a_job(caller: Caller) -> Mapping[str, str]:
    return {"job_id": begin_job(caller)}


def a_tuned_model(caller: Caller) -> Mapping[str, str]:
    job_id = begin_job(caller)
    caller.house.simulator.finish(job_id)
    return {"model_id": get(caller, f"/fine_tuning/jobs/{job_id}")["fine_tuned_model"]}


def an_assistant(caller: Caller) -> Mapping[str, str]:
    return {"assistant_id": new_thread(caller)[1]}


def an_assistant_and_a_file(caller: Caller) -> Mapping[str, str]:
    return {**an_assistant(caller), **a_file(caller)}


def an_assistants_file(caller: Caller) -> Mapping[str, str]:
    made = an_assistant_and_a_file(caller)
    post(caller, f"/assistants/{made['assistant_id']}/files", file_id=made["file_id"])
    return made


def a_thread(caller: Caller) -> Mapping[str, str]:
    thread_id, assistant_id = new_thread(caller)
    return {"thread_id": thread_id, "assistant_id": assistant_id}


def a_message(caller: Caller) -> Mapping[str, str]:
    made = {**a_thread(caller), **a_file(caller)}
    messages = f"/threads/{made['thread_id']}/messages"
    message = post(caller, messages, role="user", content="See there.", file_ids=[made["file_id"]])
    return {**made, "message_id": message["id"]}


def a_run(caller: Caller) -> Mapping[str, str]:
    made = a_thread(caller)
    run = post(caller, f"/threads/{made['thread_id']}/runs", assistant_id=made["assistant_id"])
    return {**made, "run_id": run["id"]}


def a_finished_run(caller: Caller) -> Mapping[str, str]:
    made = a_run(caller)
    caller.house.simulator.finish(made["run_id"])
    steps = get(caller, f"/threads/{made['thread_id']}/runs/{made['run_id']}/steps")["data"]
    return {**made, "step_id": steps[0]["id"]}


def a_run_that_waits(caller: Caller) -> Mapping[str, str]:
    tool = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}
    thread_id, assistant_id = new_thread(caller, tools=[tool])
    runs = f"/threads/{thread_id}/runs"
    run = post(caller, runs, assistant_id=assistant_id, additional_instructions="[[simulate:tools=1]]")
    caller.house.simulator.finish(run["id"])
    waiting = get(caller, f"{runs}/{run['id']}")
    (call,) = waiting["required_action"]["submit_tool_outputs"]["tool_calls"]
    return {"thread_id": thread_id, "run_id": run["id"], "call_id": call["id"]}


@dataclass(frozen=True)
class Row:
    """An operation; `body` may be a JSON object with `{slots}` in its texts, or (fields, files) of a form."""

    method: str
    path: str
    body: Any = None
    make: Make = nothing
    #: The `object` that the answer is, or "" where it has none.
    answers: str = ""
    #: Whether a charge, or a hold for later, must come of it.
    is_metered: bool = False
    #: How the django-openai module spells it, and the Token-Balance API; below their prefixes.
    module: str = ""
    balance_api: str = ""
    headers: Mapping[str, str] = field(default_factory=lambda: V1)

    def __str__(self) -> str:
        return f"{self.method} {self.path}"


CHAT = {"model": MODEL, "messages": HELLO}
EDIT = {"model": "text-davinci-edit-001", "input": "What day of the wek is it?", "instruction": "Fix it"}
RUN = "/threads/{thread_id}/runs/{run_id}"
PICTURE = ("picture.png", "image/png", PNG)
SOUND = ("sound.wav", "audio/wav", WAV)
OUTPUTS = {"tool_outputs": [{"tool_call_id": "{call_id}", "output": "Sunny"}]}

ROWS = (
    Row("GET", "/models", answers="list", module="models/", balance_api="models/"),
    Row("GET", "/models/gpt-4o-mini", answers="model", module="models/{}/", balance_api="models/{}/"),
    Row("DELETE", "/models/{model_id}", make=a_tuned_model, answers="model"),
    Row("GET", "/engines", answers="list", module="engines/"),
    Row("GET", "/engines/davinci", answers="engine", module="engines/{}/"),
    Row(
        "POST",
        "/engines/davinci/completions",
        {"prompt": "Say this is a test", "max_tokens": 7},
        answers="text_completion",
        is_metered=True,
    ),
    Row(
        "POST",
        "/engines/ada/search",
        {"documents": ["White House", "hospital", "school"], "query": "the president"},
        answers="list",
        is_metered=True,
    ),
    Row(
        "POST",
        "/chat/completions",
        CHAT,
        answers="chat.completion",
        is_metered=True,
        module="chat/completions/",
        balance_api="chat/completions/",
    ),
    Row(
        "POST",
        "/completions",
        {"model": "gpt-3.5-turbo-instruct", "prompt": "Once upon a time"},
        answers="text_completion",
        is_metered=True,
        module="completion/",
    ),
    Row("POST", "/edits", EDIT, answers="edit", is_metered=True, module="edits/"),
    Row(
        "POST",
        "/images/edits",
        ({"prompt": "A red hat", "n": "1", "size": "256x256"}, {"image": PICTURE}),
        is_metered=True,
    ),
    Row(
        "POST",
        "/images/generations",
        {"prompt": "A red hat", "n": 1, "size": "256x256"},
        is_metered=True,
        module="images/generations/",
    ),
    Row("POST", "/images/variations", ({"n": "1", "size": "256x256"}, {"image": PICTURE}), is_metered=True),
    Row(
        "POST",
        "/embeddings",
        {"model": "text-embedding-ada-002", "input": "The food was delicious."},
        answers="list",
        is_metered=True,
    ),
    Row(
        "POST",
        "/audio/transcriptions",
        ({"model": "whisper-1", "temperature": "0"}, {"file": SOUND}),
        is_metered=True,
        module="audio/transcription/",
    ),
    Row(
        "POST",
        "/audio/translations",
        ({"model": "whisper-1", "response_format": "json"}, {"file": SOUND}),
        is_metered=True,
        module="audio/translation/",
    ),
    Row("POST", "/moderations", {"input": "I want to kill them."}),
    Row("GET", "/files", answers="list", make=a_file),
    Row(
        "POST",
        "/files",
        ({"purpose": "fine-tune"}, {"file": ("data.jsonl", "application/jsonl", b'{"a": 1}\n')}),
        answers="file",
    ),
    Row("DELETE", "/files/{file_id}", make=a_file, answers="file"),
    Row("GET", "/files/{file_id}", make=a_file, answers="file"),
    Row("GET", "/fine-tunes", make=a_fine_tune, answers="list"),
    Row(
        "POST",
        "/fine-tunes",
        {"training_file": "{file_id}", "model": "curie"},
        make=a_training_file,
        answers="fine-tune",
        is_metered=True,
    ),
    Row("GET", "/fine-tunes/{fine_tune_id}", make=a_fine_tune, answers="fine-tune"),
    Row("GET", "/fine-tunes/{fine_tune_id}/events", make=a_fine_tune, answers="list"),
    Row("GET", "/fine_tuning/jobs", make=a_job, answers="list"),
    Row(
        "POST",
        "/fine_tuning/jobs",
        {"training_file": "{file_id}", "model": "gpt-3.5-turbo"},
        make=a_training_file,
        answers="fine_tuning.job",
        is_metered=True,
    ),
    Row("GET", "/fine_tuning/jobs/{job_id}", make=a_job, answers="fine_tuning.job"),
    Row("GET", "/fine_tuning/jobs/{job_id}/events", make=a_job, answers="list"),
    Row("GET", "/assistants", make=an_assistant, answers="list"),
    Row("POST", "/assistants", {"model": MODEL, "name": "Tutor"}, answers="assistant"),
    Row("DELETE", "/assistants/{assistant_id}", make=an_assistant, answers="assistant.deleted"),
    Row("GET", "/assistants/{assistant_id}", make=an_assistant, answers="assistant"),
    Row("POST", "/assistants/{assistant_id}", {"name": "Coach"}, make=an_assistant, answers="assistant"),
    Row("GET", "/assistants/{assistant_id}/files", make=an_assistants_file, answers="list"),
    Row(
        "POST",
        "/assistants/{assistant_id}/files",
        {"file_id": "{file_id}"},
        make=an_assistant_and_a_file,
        answers="assistant.file",
    ),
    Row(
        "DELETE",
        "/assistants/{assistant_id}/files/{file_id}",
        make=an_assistants_file,
        answers="assistant.file.deleted",
    ),
    Row(
        "GET",
        "/assistants/{assistant_id}/files/{file_id}",
        make=an_assistants_file,
        answers="assistant.file",
    ),
    Row("GET", "/threads", make=a_thread, answers="list"),
    Row("POST", "/threads", {}, answers="thread"),
    Row(
        "POST",
        "/threads/runs",
        {"assistant_id": "{assistant_id}", "thread": {"messages": HELLO}},
        make=an_assistant,
        answers="thread.run",
        is_metered=True,
    ),
    Row("DELETE", "/threads/{thread_id}", make=a_thread, answers="thread.deleted"),
    Row("GET", "/threads/{thread_id}", make=a_thread, answers="thread"),
    Row("POST", "/threads/{thread_id}", {"metadata": {"a": "b"}}, make=a_thread, answers="thread"),
    Row("GET", "/threads/{thread_id}/messages", make=a_message, answers="list"),
    Row(
        "POST",
        "/threads/{thread_id}/messages",
        {"role": "user", "content": "Go on."},
        make=a_thread,
        answers="thread.message",
    ),
    Row("GET", "/threads/{thread_id}/messages/{message_id}", make=a_message, answers="thread.message"),
    Row(
        "POST",
        "/threads/{thread_id}/messages/{message_id}",
        {"metadata": {"a": "b"}},
        make=a_message,
        answers="thread.message",
    ),
    Row("GET", "/threads/{thread_id}/messages/{message_id}/files", make=a_message, answers="list"),
    Row(
        "GET",
        "/threads/{thread_id}/messages/{message_id}/files/{file_id}",
        make=a_message,
        answers="thread.message.file",
    ),
    Row("GET", "/threads/{thread_id}/runs", make=a_run, answers="list"),
    Row(
        "POST",
        "/threads/{thread_id}/runs",
        {"assistant_id": "{assistant_id}"},
        make=a_thread,
        answers="thread.run",
        is_metered=True,
    ),
    Row("GET", RUN, make=a_run, answers="thread.run"),
    Row("POST", RUN, {"metadata": {"a": "b"}}, make=a_run, answers="thread.run"),
    Row("GET", f"{RUN}/steps", make=a_finished_run, answers="list"),
    Row("GET", f"{RUN}/steps/{{step_id}}", make=a_finished_run, answers="thread.run.step"),
    Row("POST", f"{RUN}/submit_tool_outputs", OUTPUTS, make=a_run_that_waits, answers="thread.run"),
)
CANCELS = (
    Row("POST", "/fine-tunes/{fine_tune_id}/cancel", make=a_fine_tune, answers="fine-tune"),
    Row("POST", "/fine_tuning/jobs/{job_id}/cancel", make=a_job, answers="fine_tuning.job"),
    Row("POST", f"{RUN}/cancel", make=a_run, answers="thread.run"),
)


@pytest.fixture
def alice(gateway: House) -> Caller:
    """A user with enough for images."""
    return gateway.caller(1_000_000, name="alice")


def filled(value: Any, made: Mapping[str, str]) -> Any:
    """A JSON value with what was made in place of the slots in its texts."""
    if isinstance(value, str):
        return made.get(value[1:-1], value) if value.startswith("{") else value
    if isinstance(value, list):
        return [filled(each, made) for each in value]
    if isinstance(value, dict):
        return {name: filled(held, made) for name, held in value.items()}
    return value


def paid_for(caller: Caller) -> int:
    """Calls that are paid for, or will be: in one look, for the poller may settle one between two."""
    return sum(hold["state"] != "voided" for hold in caller.holds())


def call(caller: Caller, row: Row, path: str, headers: Mapping[str, str] = V1) -> Answer:
    """Calls the row by this path with its body, after what it speaks of has been made."""
    made = row.make(caller)
    before = paid_for(caller)
    body: bytes | None = None
    content_type: dict[str, str] = {}
    if isinstance(row.body, tuple):
        body, content_type = form(*row.body)
    elif row.body is not None:
        body, content_type = json.dumps(filled(row.body, made)).encode(), JSON
    answer = caller.call(row.method, path.format(**made), body, {**content_type, **headers})
    assert answer.status == 200, answer.body
    assert paid_for(caller) - before == (1 if row.is_metered else 0)
    if row.answers:
        assert answer.json["object"] == row.answers
    else:
        assert "object" not in answer.json
    for slot, value in made.items():
        is_changed = row.method == "POST" and "metadata" in (row.body or {})
        if row.path.endswith(f"{{{slot}}}") and (row.method == "GET" or is_changed):
            assert answer.json["id"] == value
    return answer


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_an_operation_is_called_by_openais_own_path(alice: Caller, row: Row) -> None:
    call(alice, row, f"/v1{row.path}")


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_an_operation_is_called_with_a_slash_at_the_end_and_a_token(alice: Caller, row: Row) -> None:
    call(alice, row, f"/v1{row.path}/", {**V1, "Authorization": f"Token {alice.key}"})


@pytest.mark.parametrize("row", [row for row in ROWS if row.module], ids=str)
def test_the_django_openai_module_calls_by_its_own_spelling(alice: Caller, row: Row) -> None:
    path = f"/modules/openai/{row.module}".replace("{}", row.path.rpartition("/")[2])
    token = {"Authorization": f"Token {alice.key}"}
    call(alice, row, path, token)
    # Whether its clients write the slash or not.
    call(alice, row, path.removesuffix("/"), token)


@pytest.mark.parametrize("row", [row for row in ROWS if row.balance_api], ids=str)
def test_the_token_balance_api_is_called_by_its_own_spelling(alice: Caller, row: Row) -> None:
    path = f"/api/openai/{row.balance_api}".replace("{}", row.path.rpartition("/")[2])
    call(alice, row, path, {"Authorization": f"Token {alice.key}"})


@pytest.mark.parametrize("body", [None, b"", b"{}"], ids=["no-body", "empty", "braces"])
@pytest.mark.parametrize("row", CANCELS, ids=str)
def test_work_is_cancelled_with_an_empty_body_or_braces(alice: Caller, row: Row, body: bytes | None) -> None:
    made = row.make(alice)
    answer = alice.call("POST", f"/v1{row.path}".format(**made), body, {**JSON, **V1})
    assert answer.status == 200, answer.body
    assert answer.json["object"] == row.answers
    assert answer.json["status"] in ("cancelled", "cancelling")


@pytest.mark.skipif(not SEED.exists(), reason="the table of the reference systems is not at hand")
def test_every_operation_of_the_reference_systems_is_called() -> None:
    # These two have tests of their own below.
    apart = ["POST /audio/speech", "GET /files/{file_id}/content"]
    called = [*apart, *map(str, (*ROWS, *CANCELS))]
    table = SEED.read_text()
    offered = re.findall(r"^\| (GET|POST|DELETE) \| /v1(/\S+) \|", table, re.MULTILINE)
    assert len(offered) == len(called) == 62
    for method, path in offered:
        pattern = f"{method} " + re.sub(r"\{\w+\}", "[^/]+", path)
        assert any(re.fullmatch(pattern, each) for each in called), pattern


# --- Answers that are no JSON ---------------------------------------------------------------------------


def test_speech_is_answered_as_bytes(gateway: House, alice: Caller) -> None:
    body = json.dumps({"model": "tts-1", "input": "Good morning.", "voice": "alloy"}).encode()
    answer = alice.call("POST", "/v1/audio/speech", body)
    assert answer.status == 200
    assert answer.headers["content-type"].startswith("audio/")
    assert answer.body
    (charge,) = alice.charges()
    assert charge["units"] == {"character": len("Good morning.")}


def test_a_files_content_is_answered_as_it_was_sent(alice: Caller) -> None:
    content = bytes(range(256)) * 10
    file_id = upload_file(alice, content, "assistants")
    for path in (f"/v1/files/{file_id}/content", f"/v1/files/{file_id}/content/"):
        answer = alice.call("GET", path, headers={"Authorization": f"Token {alice.key}"})
        assert (answer.status, answer.body) == (200, content)


def test_events_of_a_fine_tune_are_a_list_or_a_stream(gateway: House, alice: Caller) -> None:
    fine_tune = begin_fine_tune(alice)
    events = f"/v1/fine-tunes/{fine_tune}/events"
    listed = alice.call("GET", f"{events}?stream=false").json
    assert [event["object"] for event in listed["data"]] == ["fine-tune-event"]
    gateway.simulator.finish(fine_tune)
    streamed = alice.call("GET", f"{events}?stream=true")
    assert streamed.headers["content-type"].startswith("text/event-stream")
    *told, last = events_of(streamed.body)
    assert told[0] == listed["data"][0]
    assert last == "[DONE]"
    alice.settled()


def test_who_stops_following_a_fine_tunes_events_ends_the_call_upstream(
    gateway: House, alice: Caller
) -> None:
    fine_tune = begin_fine_tune(alice)
    path = f"/v1/fine-tunes/{fine_tune}/events"
    connection = gateway.connect()
    connection.request("GET", f"{path}?stream=true", headers={"Authorization": f"Bearer {alice.key}"})

    def state() -> list[str]:
        calls = gateway.simulator.control("GET", "journal?limit=1000")["calls"]
        return [call["state"] for call in calls if call["path"] == path]

    wait_for(lambda: state() == ["open"])
    connection.close()
    wait_for(lambda: state() == ["cut"])


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/modules/openai/chat/completions/"])
def test_a_chat_is_streamed_to_openai_ex(alice: Caller, path: str) -> None:
    answer = alice.call("POST", path, json.dumps({**CHAT, "stream": True}).encode())
    assert answer.status == 200
    assert answer.headers["content-type"].startswith("text/event-stream")
    *chunks, last = events_of(answer.body)
    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
    assert last == "[DONE]"
    assert len(alice.charges()) == 1


@pytest.mark.parametrize("path", ["/v1/engines/davinci/completions", "/v1/completions"])
def test_a_completion_is_streamed(alice: Caller, path: str) -> None:
    fields = {"prompt": "Once", "stream": True, **({} if "engines" in path else {"model": "davinci-002"})}
    answer = alice.call("POST", path, json.dumps(fields).encode())
    assert answer.status == 200
    assert events_of(answer.body)[-1] == "[DONE]"
    (charge,) = alice.charges()
    assert charge["model"] in ("davinci", "davinci-002")


def test_an_error_in_place_of_a_stream_is_one_json_object(gateway: House, alice: Caller) -> None:
    gateway.simulator.fault("status=400")
    for caller, status in ((alice, 400), (gateway.caller(0), 402)):
        answer = caller.call("POST", "/v1/chat/completions", json.dumps({**CHAT, "stream": True}).encode())
        assert answer.status == status
        assert answer.headers["content-type"].startswith("application/json")
        assert answer.error["message"]


def test_a_picture_may_be_called_image_or_image_with_brackets(alice: Caller) -> None:
    for name in ("image", "image[]"):
        body, header = form({"prompt": "A hat", "model": "gpt-image-1"}, {name: PICTURE})
        answer = alice.call("POST", "/v1/images/edits", body, header)
        assert answer.status == 200, answer.body


def test_numbers_and_booleans_of_a_form_may_be_texts(gateway: House, alice: Caller) -> None:
    fields = {"model": "gpt-4o-mini-transcribe", "temperature": "0.2", "stream": "true"}
    body, header = form(fields, {"file": SOUND})
    answer = alice.call("POST", "/v1/audio/transcriptions", body, header)
    assert answer.status == 200
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert len(alice.charges()) == 1
    assert gateway.journal()[-1]["body"]["temperature"] == "0.2"
