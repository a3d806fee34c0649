"""OpenAI's official client against the gateway, told nothing but its address: what people really run."""

import base64
from collections.abc import AsyncIterator, Iterator
from typing import Any, cast

import openai
import pytest
from openai import AsyncOpenAI, OpenAI
from pydantic import BaseModel

from openai_app.tests.harness import Caller, House

MODEL = "gpt-4o-mini"
WEATHER: Any = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
            "additionalProperties": False,
        },
        "strict": True,
    },
}
# A picture of one white point.
PNG = base64.b64encode(
    bytes.fromhex(
        "89504e470d0a1a0a0000000d4948445200000001000000010806000000"
        "1f15c4890000000d49444154789c6360f8ffff3f0005fe02fe0def46b8"
        "0000000049454e44ae426082"
    )
).decode()


def said(text: str) -> Any:
    return [{"role": "user", "content": text}]


@pytest.fixture
def client(alice: Caller) -> Iterator[OpenAI]:
    with alice.client() as opened:
        yield opened


@pytest.fixture
async def async_client(alice: Caller) -> AsyncIterator[AsyncOpenAI]:
    async with alice.async_client() as opened:
        yield opened


# --- answers --------------------------------------------------------------------------------------------


def test_a_completion_is_answered_and_paid_for(alice: Caller, client: OpenAI) -> None:
    answer = client.chat.completions.create(model=MODEL, messages=said("Hello!"))
    assert answer.object == "chat.completion"
    assert answer.choices[0].message.content
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage
    assert alice.balance() == 100_000 - answer.usage.total_tokens


async def test_a_completion_is_answered_to_the_async_client(alice: Caller, async_client: AsyncOpenAI) -> None:
    answer = await async_client.chat.completions.create(model=MODEL, messages=said("Hello!"))
    assert answer.choices[0].message.content
    assert answer.usage
    assert alice.balance() == 100_000 - answer.usage.total_tokens


def test_a_stream_brings_the_same_text_and_no_usage_that_nobody_asked_for(
    alice: Caller, client: OpenAI
) -> None:
    whole = client.chat.completions.create(model=MODEL, messages=said("Hello!"))
    before = alice.balance()
    with client.chat.completions.create(model=MODEL, messages=said("Hello!"), stream=True) as stream:
        chunks = list(stream)
    assert (
        "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == whole.choices[0].message.content
    )
    assert all(chunk.usage is None for chunk in chunks)
    assert whole.usage
    assert alice.balance() == before - whole.usage.total_tokens


def test_a_stream_brings_usage_to_who_asks(alice: Caller, client: OpenAI) -> None:
    with client.chat.completions.create(
        model=MODEL, messages=said("Hello!"), stream=True, stream_options={"include_usage": True}
    ) as stream:
        last = list(stream)[-1]
    assert last.choices == []
    assert last.usage
    assert alice.balance() == 100_000 - last.usage.total_tokens


async def test_a_stream_is_read_by_the_async_client(alice: Caller, async_client: AsyncOpenAI) -> None:
    stream = await async_client.chat.completions.create(
        model=MODEL, messages=said("Hello!"), stream=True, stream_options={"include_usage": True}
    )
    chunks = [chunk async for chunk in stream]
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[-1].usage
    assert alice.balance() == 100_000 - chunks[-1].usage.total_tokens


def test_the_streaming_helper_puts_the_answer_together(alice: Caller, client: OpenAI) -> None:
    with client.chat.completions.stream(
        model=MODEL, messages=said("Hello!"), stream_options={"include_usage": True}
    ) as stream:
        kinds = {event.type for event in stream}
        final = stream.get_final_completion()
    assert {"chunk", "content.delta", "content.done"} <= kinds
    assert final.usage
    assert alice.balance() == 100_000 - final.usage.total_tokens


def test_tools_are_called_and_answered(alice: Caller, client: OpenAI) -> None:
    first = client.chat.completions.create(
        model=MODEL, messages=said("How is the weather in Oslo?"), tools=[WEATHER], tool_choice="required"
    )
    calls = first.choices[0].message.tool_calls
    assert first.choices[0].finish_reason == "tool_calls"
    assert calls
    assert calls[0].type == "function"
    assert calls[0].function.name == "get_weather"
    second = client.chat.completions.create(
        model=MODEL,
        tools=[WEATHER],
        messages=[
            *said("How is the weather in Oslo?"),
            cast(Any, first.choices[0].message),
            {"role": "tool", "tool_call_id": calls[0].id, "content": "Rain."},
        ],
    )
    assert "Rain." in (second.choices[0].message.content or "")
    assert first.usage
    assert second.usage
    assert alice.balance() == 100_000 - first.usage.total_tokens - second.usage.total_tokens


def test_tool_calls_come_in_a_stream(alice: Caller, client: OpenAI) -> None:
    with client.chat.completions.stream(
        model=MODEL,
        messages=said("How is the weather?"),
        tools=[WEATHER],
        tool_choice="required",
        stream_options={"include_usage": True},
    ) as stream:
        stream.until_done()
        final = stream.get_final_completion()
    calls = final.choices[0].message.tool_calls
    assert calls
    assert calls[0].function.name == "get_weather"
    assert final.usage
    assert alice.balance() == 100_000 - final.usage.total_tokens


def test_several_choices_are_answered_and_all_paid_for(alice: Caller, client: OpenAI) -> None:
    answer = client.chat.completions.create(model=MODEL, messages=said("Hello!"), n=3, max_tokens=50)
    assert [choice.index for choice in answer.choices] == [0, 1, 2]
    assert answer.usage
    assert alice.balance() == 100_000 - answer.usage.total_tokens


def test_an_image_goes_in_a_data_url(alice: Caller, client: OpenAI) -> None:
    answer = client.chat.completions.create(
        model=MODEL,
        messages=[
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "What is this?"},
                    {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}"}},
                ],
            }
        ],
    )
    assert answer.usage
    assert alice.balance() == 100_000 - answer.usage.total_tokens
    (call,) = alice.house.journal()
    assert call["body"]["messages"][0]["content"][1]["image_url"]["url"].endswith(PNG)


class Step(BaseModel):
    explanation: str
    output: str


def test_a_schema_is_kept_to_and_parsed(alice: Caller, client: OpenAI) -> None:
    answer = client.chat.completions.parse(model=MODEL, messages=said("Solve it"), response_format=Step)
    assert isinstance(answer.choices[0].message.parsed, Step)
    assert answer.usage
    assert alice.balance() == 100_000 - answer.usage.total_tokens


def test_fields_that_the_client_does_not_know_pass(alice: Caller, client: OpenAI) -> None:
    client.chat.completions.create(
        model=MODEL, messages=said("Hello!"), seed=7, extra_body={"not_yet_invented": {"a": [1]}}
    )
    (call,) = alice.house.journal()
    assert call["body"]["not_yet_invented"] == {"a": [1]}


def test_the_models_are_listed_and_retrieved(alice: Caller, client: OpenAI) -> None:
    listed = [model.id for model in client.models.list()]
    assert MODEL in listed
    assert client.models.retrieve(MODEL).id == MODEL
    assert alice.balance() == 100_000


def test_headers_tell_the_request_the_charge_and_what_is_left(alice: Caller, client: OpenAI) -> None:
    raw = client.chat.completions.with_raw_response.create(model=MODEL, messages=said("Hello!"))
    answer = raw.parse()
    assert answer.usage
    assert raw.headers["x-balance-charged"] == str(answer.usage.total_tokens)
    assert raw.headers["x-balance-remaining"] == str(100_000 - answer.usage.total_tokens)
    assert raw.request_id == answer._request_id == raw.headers["x-request-id"]
    assert alice.charges()[0]["hold_id"] == raw.request_id


def test_headers_of_a_stream_tell_the_request_and_what_is_left_beside_its_hold(
    alice: Caller, client: OpenAI
) -> None:
    with client.chat.completions.with_streaming_response.create(
        model=MODEL, messages=said("Hello!"), stream=True, max_tokens=50
    ) as raw:
        assert raw.headers["x-balance-remaining"] == str(100_000 - 9 - 50)
        assert "x-balance-charged" not in raw.headers
        assert raw.headers["content-type"].startswith("text/event-stream")
        raw.read()
    assert alice.charges()[0]["hold_id"] == raw.headers["x-request-id"]


# --- errors ---------------------------------------------------------------------------------------------


def test_a_wrong_key_raises_authentication_error(gateway: House) -> None:
    nobody = Caller(gateway, 0, "sk-tg-nobodys-key", 0)
    with nobody.client() as client, pytest.raises(openai.AuthenticationError) as refusal:
        client.chat.completions.create(model=MODEL, messages=said("Hello!"))
    assert refusal.value.code == "invalid_api_key"
    assert gateway.journal() == []


async def test_a_wrong_key_raises_authentication_error_in_the_async_client(gateway: House) -> None:
    async with Caller(gateway, 0, "sk-tg-nobodys-key", 0).async_client() as client:
        with pytest.raises(openai.AuthenticationError):
            await client.models.list()


def test_a_model_that_the_key_may_not_call_raises_permission_denied(gateway: House) -> None:
    alice = gateway.caller(allowed_models=["gpt-4o*", "o3-mini"])
    with alice.client() as client:
        with pytest.raises(openai.PermissionDeniedError) as refusal:
            client.chat.completions.create(model="gpt-4.1", messages=said("Hello!"))
        client.chat.completions.create(model="gpt-4o-2024-08-06", messages=said("Hello!"))
    assert (refusal.value.code, refusal.value.param) == ("model_not_allowed", "model")
    assert len(gateway.journal()) == 1


def test_a_model_that_does_not_exist_raises_not_found(alice: Caller, client: OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as refusal:
        client.chat.completions.create(model="gpt-nonsense", messages=said("Hello!"))
    assert refusal.value.code == "model_not_found"
    assert alice.account()["available"] == 100_000


def test_an_operation_that_is_not_offered_raises_not_found(gateway: House, client: OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as refusal:
        client.get("/organization/users", cast_to=object)
    assert refusal.value.code == "unknown_url"
    assert gateway.journal() == []


def test_a_bad_request_is_refused_in_the_upstreams_words(alice: Caller, client: OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as refusal:
        client.chat.completions.create(model=MODEL, messages=[])
    assert (refusal.value.param, refusal.value.code) == ("messages", "empty_array")
    assert alice.account()["available"] == 100_000


def test_an_empty_balance_raises_a_status_error_with_its_code(gateway: House) -> None:
    with gateway.caller(0).client() as client, pytest.raises(openai.APIStatusError) as refusal:
        client.chat.completions.create(model=MODEL, messages=said("Hello!"))
    assert refusal.value.status_code == 402
    assert refusal.value.code == refusal.value.type == "insufficient_quota"


def test_the_upstreams_rate_limit_raises_rate_limit_error_with_its_time(
    alice: Caller, client: OpenAI
) -> None:
    with pytest.raises(openai.RateLimitError) as refusal:
        client.chat.completions.create(
            model=MODEL, messages=said("Hello! [[simulate:status=429 retry_after=7]]")
        )
    assert refusal.value.response.headers["retry-after"] == "7"
    assert refusal.value.code == "rate_limit_exceeded"
    assert alice.account()["available"] == 100_000


def test_the_upstreams_failure_raises_internal_server_error(alice: Caller, client: OpenAI) -> None:
    with pytest.raises(openai.InternalServerError) as refusal:
        client.chat.completions.create(model=MODEL, messages=said("Hello! [[simulate:status=500]]"))
    assert refusal.value.status_code == 500
    assert alice.account()["available"] == 100_000


def test_a_client_that_retries_pays_once(alice: Caller) -> None:
    alice.house.simulator.fault("status=503 retry_after=0", times=2)
    with alice.client(max_retries=2) as client:
        answer = client.chat.completions.create(model=MODEL, messages=said("Hello!"))
    assert [call["status"] for call in alice.house.journal()] == [503, 503, 200]
    assert answer.usage
    assert [charge["amount"] for charge in alice.charges()] == [-answer.usage.total_tokens]


@pytest.mark.parametrize("breaks", ["reset_after=5", "close_after=5", "truncate_after=5", "error_after=5"])
def test_a_stream_that_breaks_raises_api_error_after_what_had_come(client: OpenAI, breaks: str) -> None:
    with client.chat.completions.create(
        model=MODEL, messages=said(f"Hello! [[simulate:tokens=20 {breaks}]]"), stream=True
    ) as stream:
        came: list[str] = []
        with pytest.raises(openai.APIError):
            came.extend(chunk.choices[0].delta.content or "" for chunk in stream)
    assert "".join(came)
    assert client.chat.completions.create(model=MODEL, messages=said("Hello!")).choices


async def test_a_stream_that_breaks_raises_api_error_in_the_async_client(async_client: AsyncOpenAI) -> None:
    stream = await async_client.chat.completions.create(
        model=MODEL, messages=said("Hello! [[simulate:tokens=20 reset_after=5]]"), stream=True
    )
    with pytest.raises(openai.APIError):
        [chunk async for chunk in stream]


def test_a_gateway_that_is_not_there_raises_connection_error(alice: Caller) -> None:
    with alice.client(base_url="http://127.0.0.1:1/v1") as client, pytest.raises(openai.APIConnectionError):
        client.models.list()


def test_a_run_of_an_evaluation_is_cancelled(alice: Caller, client: OpenAI) -> None:
    made = client.evals.create(
        data_source_config={"type": "custom", "item_schema": {"type": "object"}},
        testing_criteria=[
            {
                "type": "string_check",
                "name": "Equal",
                "operation": "eq",
                "input": "{{sample.output_text}}",
                "reference": "{{item.answer}}",
            }
        ],
    )
    source: Any = {
        "type": "jsonl",
        "source": {"type": "file_content", "content": [{"item": {"answer": "4"}}]},
    }
    run = client.evals.runs.create(made.id, data_source=source)
    client.evals.runs.cancel(run.id, eval_id=made.id)
    assert client.evals.runs.retrieve(run.id, eval_id=made.id).status == "canceled"
    assert alice.account()["held"] == 0
