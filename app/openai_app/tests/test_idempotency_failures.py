"""Calls with an Idempotency-Key that come to nothing, whose client leaves, or that are under way."""

import json
import threading
from collections.abc import Iterator

import pytest

from balances import ledger
from openai_app.settlement import charge
from openai_app.tests.harness import PATIENCE_S, Answer, Caller, House, chat_body, house, wait_for
from openai_app.tests.idempotent import REPLAYED, assert_replayed, chat, chat_stream, post, raw, until_ended
from openai_app.tests.raw_upstream import Connection, RawUpstream
from openai_app.tests.test_uploads import wave

CHAT = "/v1/chat/completions"
SPEECH = {"model": "tts-1", "input": "Good morning.", "voice": "alloy"}


def assert_runs_anew(answer: Answer) -> None:
    assert answer.status == 200
    assert REPLAYED not in answer.headers


# --- Calls that come to nothing ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "status"),
    [
        ("status=400", 400),
        ("status=402", 402),
        ("status=429", 429),
        ("status=500", 500),
        ("status=503", 503),
        ("reset", 502),
        ("reset_after=0", 502),
        ("html", 502),
        ("malformed", 502),
    ],
)
@pytest.mark.parametrize("is_stream", [False, True], ids=["whole", "stream"])
def test_a_call_that_failed_runs_anew(
    gateway: House, alice: Caller, fault: str, status: int, is_stream: bool
) -> None:
    if is_stream and fault in ("reset_after=0", "malformed"):
        pytest.skip("An answer in events has begun by then: see the test of streams that break off.")
    gateway.simulator.fault(fault)
    failed = chat(alice, "a", stream=is_stream)
    assert failed.status == status
    assert alice.charges() == []
    anew = chat(alice, "a", stream=is_stream)
    assert_runs_anew(anew)
    assert_replayed(chat(alice, "a", stream=is_stream), anew)
    assert len(alice.charges()) == 1


def test_a_call_that_could_not_be_paid_runs_when_it_can_be(gateway: House) -> None:
    poor = gateway.caller(0, name="poor")
    assert chat(poor, "a").status == 402
    gateway.console.run(ledger.set_balance, user_id=poor.id, to_credits=1_000, by_id=None, reason="Pay day")
    assert_runs_anew(chat(poor, "a"))
    assert len(poor.charges()) == 1


def test_a_call_that_is_refused_by_the_gateway_runs_when_it_is_put_right(
    gateway: House, alice: Caller
) -> None:
    """The key is free for what was meant: the first request was never made."""
    refused = post(
        alice, "a", "/responses", model="gpt-4o-mini", input="Hi", previous_response_id="resp_none1"
    )
    assert refused.status == 404
    assert_runs_anew(post(alice, "a", "/responses", model="gpt-4o-mini", input="Hi"))


@pytest.mark.parametrize(
    "fault", ["close_after=5", "truncate_after=5", "reset_after=5", "error_after=5", "no_done no_usage"]
)
def test_a_stream_that_broke_off_runs_anew(gateway: House, alice: Caller, fault: str) -> None:
    gateway.simulator.fault(f"tokens=20 {fault}")
    broken = chat(alice, "a", stream=True)
    assert broken.status == 200
    # It was paid as far as it came.
    assert alice.settled()["balance"] < 100_000
    anew = chat(alice, "a", stream=True)
    assert_runs_anew(anew)
    assert anew.body.endswith(b"data: [DONE]\n\n")
    assert_replayed(chat(alice, "a", stream=True), anew)
    assert len(alice.charges()) == 2


def test_speech_that_broke_off_runs_anew(gateway: House, alice: Caller) -> None:
    gateway.simulator.fault("reset_after=0")
    with alice.house.connected() as connection:
        connection.sendall(raw(alice, "a", "/v1/audio/speech", json.dumps(SPEECH).encode()))
        while connection.recv(65_536):
            pass
    alice.settled()
    anew = until_ended(alice, "a", "/v1/audio/speech", json.dumps(SPEECH).encode())
    assert_runs_anew(anew)


# --- Clients that leave -----------------------------------------------------------------------------------


def test_who_leaves_a_call_in_one_piece_gets_its_answer_by_asking_again(
    gateway: House, alice: Caller
) -> None:
    gateway.simulator.fault("tokens=40 delay=0.5")
    body = chat_body()
    with alice.house.connected() as connection:
        connection.sendall(raw(alice, "a", CHAT, body))
        gateway.wait_for_a_call()
    again = until_ended(alice, "a", CHAT, body)
    assert again.headers[REPLAYED] == "true"
    assert again.json["usage"]["completion_tokens"] == 40
    assert len(gateway.journal()) == 1
    # The answer was kept before it was charged, and may have been repeated in between.
    alice.settled()
    (entry,) = alice.charges()
    assert entry["reason"] == charge.FINISHED


def test_who_leaves_speech_gets_it_by_asking_again(gateway: House, alice: Caller) -> None:
    gateway.simulator.fault("delay=0.5")
    body = json.dumps(SPEECH).encode()
    with alice.house.connected() as connection:
        connection.sendall(raw(alice, "a", "/v1/audio/speech", body))
        gateway.wait_for_a_call()
    again = until_ended(alice, "a", "/v1/audio/speech", body)
    assert again.headers[REPLAYED] == "true"
    assert again.headers["content-type"] == "audio/mpeg"
    (call,) = gateway.journal()
    assert call["state"] == "finished"
    alice.settled()
    assert len(alice.charges()) == 1


def test_a_stream_whose_client_left_is_cut_and_runs_anew(gateway: House, alice: Caller) -> None:
    gateway.simulator.fault("tokens=50 stall=60 stall_after=20")
    with chat_stream(alice, "a") as response:
        came = b""
        while came.count(b'"content"') < 21:
            came += response.readline()
    anew = until_ended(alice, "a", CHAT, chat_body(stream=True))
    assert_runs_anew(anew)
    assert anew.body.endswith(b"data: [DONE]\n\n")
    alice.settled()
    # Nothing says which of the two is written first.
    reasons = sorted(entry["reason"] for entry in alice.charges())
    assert reasons == sorted([charge.LEFT, charge.FINISHED])


def test_a_client_that_leaves_in_its_own_request_claims_nothing(gateway: House, alice: Caller) -> None:
    body = chat_body()
    with alice.house.connected() as connection:
        connection.sendall(raw(alice, "a", CHAT, body)[: -len(body) // 2])
    assert_runs_anew(until_ended(alice, "a", CHAT, body))
    assert len(gateway.journal()) == 1


# --- Calls that are under way, with an upstream that the test leads by the hand ----------------------------


@pytest.fixture(scope="module")
def upstream() -> Iterator[RawUpstream]:
    opened = RawUpstream()
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def led_house(tmp_path_factory: pytest.TempPathFactory, upstream: RawUpstream) -> Iterator[House]:
    with house(tmp_path_factory.mktemp("led"), workers=2, upstream=upstream.base_url) as opened:
        yield opened


def whole(body: bytes) -> bytes:
    """An upstream's answer with this JSON."""
    head = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    return head.encode() + body


def test_a_call_that_is_under_way_is_not_made_again(led_house: House, upstream: RawUpstream) -> None:
    alice = led_house.caller()
    has_arrived, may_answer = threading.Event(), threading.Event()
    completion = json.dumps({"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 3}}).encode()

    def serve(connection: Connection) -> None:
        has_arrived.set()
        assert may_answer.wait(PATIENCE_S)
        head = (
            f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(completion)}\r\n\r\n"
        )
        connection.send(head.encode() + completion)

    answers: list[Answer] = []
    first = threading.Thread(target=lambda: answers.append(chat(alice, "a")))
    with upstream.serving(serve):
        first.start()
        assert has_arrived.wait(PATIENCE_S)
        # Several times, so that both workers are asked.
        for _ in range(4):
            refused = chat(alice, "a")
            assert (refused.status, refused.error["code"]) == (409, "idempotency_key_in_use")
            assert 1 <= int(refused.headers["retry-after"]) <= 30
        assert chat(alice, "a", temperature=1).status == 422
        assert len(alice.holds()) == 1
        may_answer.set()
        first.join()
    assert answers[0].body == completion
    assert_replayed(chat(alice, "a"), answers[0])
    (entry,) = alice.charges()
    assert entry["units"] == {"input": 9, "output": 3}


def test_the_official_client_that_loses_patience_gets_the_answer_and_pays_once(
    led_house: House, upstream: RawUpstream
) -> None:
    """It gives up, and tries again by itself: while the first call is under way, and after its end."""
    alice = led_house.caller()
    may_answer = threading.Event()
    completion = {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "gpt-4o-mini",
        "choices": [
            {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "Here I am."}}
        ],
        "usage": {"prompt_tokens": 9, "completion_tokens": 4, "total_tokens": 13},
    }
    body = json.dumps(completion).encode()

    def serve(connection: Connection) -> None:
        assert may_answer.wait(PATIENCE_S)
        connection.send(whole(body))

    in_use = {"operation": "createChatCompletion", "status": "409"}
    before = led_house.metric("tollgate_calls_total", **in_use)

    def answer_when_it_was_asked_again() -> None:
        wait_for(lambda: led_house.metric("tollgate_calls_total", **in_use) > before)
        may_answer.set()

    release = threading.Thread(target=answer_when_it_was_asked_again)
    with upstream.serving(serve), alice.client(max_retries=20, timeout=2.0) as client:
        release.start()
        answered = client.chat.completions.create(
            model="gpt-4o-mini",
            messages=[{"role": "user", "content": "Hello!"}],
            extra_headers={"Idempotency-Key": "a"},
        )
        release.join()
    assert answered.choices[0].message.content == "Here I am."
    alice.settled()
    (entry,) = alice.charges()
    assert entry["amount"] == -13
    assert len(alice.holds()) == 1


# --- What the official client does by itself ----------------------------------------------------------------


def test_the_official_client_sends_no_key_by_itself(gateway: House, alice: Caller) -> None:
    """Its repetitions can be told from new calls only where it is given a key."""
    gateway.simulator.fault("status=500")
    with alice.client(max_retries=1) as client:
        client.chat.completions.create(model="gpt-4o-mini", messages=[{"role": "user", "content": "Hello!"}])
    failed, repeated = (call["headers"] for call in gateway.journal())
    assert failed["x-stainless-retry-count"] == "0"
    assert repeated["x-stainless-retry-count"] == "1"
    assert not {"idempotency-key"} & {*failed, *repeated}


def test_the_official_clients_stream_is_repeated(gateway: House, alice: Caller) -> None:
    texts = []
    with alice.client() as client:
        for _ in range(2):
            with client.chat.completions.create(
                model="gpt-4o-mini",
                messages=[{"role": "user", "content": "Hello!"}],
                stream=True,
                extra_headers={"Idempotency-Key": "a"},
            ) as stream:
                texts.append([chunk.choices[0].delta.content for chunk in stream])
    assert texts[0] == texts[1]
    assert len(gateway.journal()) == 1


def test_the_official_clients_form_is_repeated(gateway: House, alice: Caller) -> None:
    with alice.client() as client:
        texts = [
            client.audio.transcriptions.create(
                model="gpt-4o-transcribe", file=("a.wav", wave(2)), extra_headers={"Idempotency-Key": "a"}
            ).text
            for _ in range(2)
        ]
    assert texts[0] == texts[1]
    assert len(gateway.journal()) == 1
    assert len(alice.charges()) == 1
