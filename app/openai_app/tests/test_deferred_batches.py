"""Batches are charged line by line, as the same calls would be alone, and what they make is their owner's."""

import json
from typing import Any

import pytest

from openai_app.settlement import deferred
from openai_app.tests.deferred_work import MODEL, PREFIX, charged, get, lines_of, truth, upload
from openai_app.tests.harness import HELLO, Caller, House

JSON_ANSWER = {"content-type": "application/json"}
BATCH_ID, OUTPUT_ID = "batch_1234567890", "file-1234567890"
HD = {"model": "dall-e-3", "prompt": "A cat", "size": "1024x1792", "quality": "hd"}
# Credits for an image of this size and quality, and for one of usual ones.
HD_CREDITS, USUAL_CREDITS = 12_000, 4_000
FILM = {"model": "sora-2-pro", "prompt": "A calm sea", "seconds": "8"}
FILM_CREDITS_A_SECOND = 30_000


@pytest.fixture
def alice(gateway: House) -> Caller:
    """A user with enough for films."""
    return gateway.caller(10_000_000, name="alice")


def begin(caller: Caller, endpoint: str, *requests: dict[str, Any], is_recorded: bool = True) -> Any:
    """The answer to a new batch of these requests; the simulator itself serves texts only."""
    file_id = upload(caller, lines_of(*requests, url=endpoint), "batch")
    body = {"input_file_id": file_id, "endpoint": endpoint, "completion_window": "24h"}
    if is_recorded:
        begun = batch(endpoint, status="validating")
        recording = {"path": f"{PREFIX}/batches", "request": body, "headers": JSON_ANSWER}
        caller.house.simulator.record({**recording, "body": json.dumps(begun)})
    return caller.call("POST", f"{PREFIX}/batches", json.dumps(body).encode())


def batch(endpoint: str, **fields: Any) -> dict[str, Any]:
    return {"id": BATCH_ID, "object": "batch", "endpoint": endpoint, **fields}


def end(caller: Caller, endpoint: str, *answers: dict[str, Any]) -> None:
    """The batch has ended, with these answers in its output file; returns when it is charged."""
    ended = batch(endpoint, status="completed", output_file_id=OUTPUT_ID, model="a-snapshot")
    lines = [
        json.dumps({"custom_id": str(index), "response": {"status_code": 200, "body": body}, "error": None})
        for index, body in enumerate(answers)
    ]
    looked_at = {"method": "GET", "request_base64": "", "headers": JSON_ANSWER}
    caller.house.simulator.record(
        *[{**looked_at, "path": f"{PREFIX}/batches/{BATCH_ID}", "body": json.dumps(ended)}] * 9,
        *[{**looked_at, "path": f"{PREFIX}/files/{OUTPUT_ID}/content", "body": "\n".join(lines)}] * 9,
    )
    caller.settled()


def test_a_batch_of_films_is_held_and_charged_by_the_second_at_its_models_rate(
    gateway: House, alice: Caller
) -> None:
    assert begin(alice, "/v1/videos", FILM, FILM).status == 200
    (hold,) = alice.holds(state="open")
    assert hold["model"] == "sora-2-pro/720x1280"
    assert hold["amount"] >= 16 * FILM_CREDITS_A_SECOND
    film = {"object": "video", "model": "sora-2-pro", "seconds": "8", "size": "720x1280"}
    end(
        alice,
        "/v1/videos",
        {**film, "id": "video_1234567890", "status": "completed"},
        {**film, "id": "video_2345678901", "status": "failed"},
    )
    (entry,) = alice.charges()
    assert (entry["units"], entry["model"]) == ({"second": 8}, "sora-2-pro/720x1280")
    assert entry["amount"] == -8 * FILM_CREDITS_A_SECOND
    assert "wrong" not in gateway.audit()


def test_a_batch_of_images_is_charged_by_the_image_at_the_rate_of_its_dearest_lines(alice: Caller) -> None:
    assert begin(alice, "/v1/images/generations", HD, {**HD, "quality": "standard"}).status == 200
    (hold,) = alice.holds(state="open")
    assert (hold["model"], hold["amount"]) == ("dall-e-3/1024x1792/hd", 2 * HD_CREDITS)
    end(alice, "/v1/images/generations", {"data": [{"url": "x"}]})
    (entry,) = alice.charges()
    assert (entry["units"], entry["amount"]) == ({"image": 1}, -HD_CREDITS)


@pytest.mark.parametrize(
    ("endpoint", "request_", "answer"),
    [
        ("/v1/chat/completions", {"model": MODEL, "messages": HELLO}, {"object": "chat.completion"}),
        ("/v1/responses", {"model": MODEL, "input": "Hi"}, {"object": "response", "status": "completed"}),
        ("/v1/embeddings", {"model": "text-embedding-3-small", "input": "Hi"}, {"object": "list"}),
    ],
)
def test_a_batch_with_an_answer_that_cannot_be_counted_costs_its_hold_and_raises_a_counter(
    gateway: House, alice: Caller, endpoint: str, request_: dict[str, Any], answer: dict[str, Any]
) -> None:
    before = gateway.metric("tollgate_usage_missing_total")
    assert begin(alice, endpoint, request_).status == 200
    (hold,) = alice.holds(state="open")
    assert hold["model"] == request_["model"]
    end(alice, endpoint, answer)
    (entry,) = alice.charges()
    assert (entry["amount"], entry["reason"]) == (-hold["amount"], deferred.ENDED_WITHOUT_USAGE)
    assert gateway.metric("tollgate_usage_missing_total") == before + 1


def test_tools_that_the_lines_of_a_batch_called_are_charged(alice: Caller) -> None:
    assert begin(alice, "/v1/responses", {"model": MODEL, "input": "Hi"}).status == 200
    search = {"type": "web_search_call", "action": {"type": "search"}}
    usage = {"input_tokens": 7, "output_tokens": 3}
    end(alice, "/v1/responses", {"object": "response", "output": [search], "usage": usage})
    (entry,) = alice.charges()
    assert entry["units"] == {"input": 7, "output": 3, "web_search": 1}


def test_a_batch_is_rated_by_the_model_that_was_asked_for(gateway: House, alice: Caller) -> None:
    """Not by the snapshot that the batch itself names."""
    assert begin(alice, "/v1/completions", {"model": "gpt-3.5-turbo-instruct", "prompt": "Hi"}).status == 200
    end(alice, "/v1/completions", {"usage": {"prompt_tokens": 1, "completion_tokens": 2}})
    (entry,) = alice.charges()
    assert (entry["model"], entry["amount"]) == ("gpt-3.5-turbo-instruct", -3)


def test_a_batch_of_several_models_is_refused(alice: Caller) -> None:
    chats: list[dict[str, Any]] = [{"model": model, "messages": HELLO} for model in ("gpt-4o", "gpt-4o-mini")]
    answer = begin(alice, "/v1/chat/completions", *chats, is_recorded=False)
    assert answer.status == 400
    assert "one model" in answer.json["error"]["message"]
    assert alice.holds() == []


def test_responses_that_a_batch_made_are_its_owners_alone(gateway: House, alice: Caller, bob: Caller) -> None:
    hello: dict[str, Any] = {"model": MODEL, "input": "Hello!"}
    requests = [hello, {**hello, "store": False}]
    work = begin(alice, "/v1/responses", *requests, is_recorded=False).json["id"]
    path = f"/batches/{work}"
    gateway.simulator.finish(work)
    output_id = get(alice, path)["output_file_id"]
    output = alice.call("GET", f"{PREFIX}/files/{output_id}/content").body
    kept, unkept = (json.loads(line)["response"]["body"] for line in output.splitlines())
    assert get(alice, f"/responses/{kept['id']}")["id"] == kept["id"]
    assert bob.call("GET", f"{PREFIX}/responses/{kept['id']}").status == 404
    assert alice.call("GET", f"{PREFIX}/responses/{unkept['id']}").status == 404
    assert charged(alice) == {work: truth(gateway)[work]}


def test_films_that_a_batch_made_are_listed_for_their_owner(alice: Caller, bob: Caller) -> None:
    assert begin(alice, "/v1/videos", FILM).status == 200
    film = {"id": "video_3456789012", "object": "video", "status": "completed", "seconds": "8"}
    end(alice, "/v1/videos", film)
    assert [one["id"] for one in get(alice, "/videos")["data"]] == [film["id"]]
    assert get(bob, "/videos")["data"] == []
