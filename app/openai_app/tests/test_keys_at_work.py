"""What happens to a key is in force with its next call, on whichever worker that lands."""

import json
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from gateway.tests import console
from openai_app.tests.harness import Answer, Caller, House

# Enough calls to land on both workers.
SEVERAL = 8


def issue(owner: Caller, **fields: object) -> tuple[Caller, int]:
    """A further key of the owner, made as the owner would."""
    made = owner.call("POST", "/api/keys", json.dumps({"name": "Laptop", **fields}).encode())
    assert made.status == 201, made.body
    return Caller(owner.house, owner.id, made.json["secret"], made.json["id"]), made.json["id"]


def refusals(caller: Caller) -> Answer:
    """One of several refusals, all alike."""
    answers = [caller.chat() for _ in range(SEVERAL)]
    assert Counter(answer.status for answer in answers) == {answers[0].status: SEVERAL}
    assert answers[0].status >= 400
    return answers[0]


@pytest.fixture
def owner(gateway: House) -> Caller:
    return gateway.caller(kind="login")


def test_a_new_key_works_at_once_and_a_revoked_one_no_longer(owner: Caller) -> None:
    laptop, number = issue(owner)
    assert {laptop.chat().status for _ in range(SEVERAL)} == {200}
    assert owner.call("DELETE", f"/api/keys/{number}").status == 204
    refused = refusals(laptop)
    assert (refused.status, refused.error["code"]) == (401, "invalid_api_key")
    assert "revoked" in refused.error["message"]
    assert owner.chat().status == 200


def test_a_rotated_key_works_with_its_new_secret_only(owner: Caller) -> None:
    laptop, number = issue(owner)
    renewed = owner.call("POST", f"/api/keys/{number}/rotate")
    assert refusals(laptop).status == 401
    assert Caller(owner.house, owner.id, renewed.json["secret"], number).chat().status == 200


def test_an_expired_key_is_refused(owner: Caller) -> None:
    laptop, number = issue(owner, expires_at=(datetime.now(UTC) + timedelta(hours=1)).isoformat())
    assert laptop.chat().status == 200
    past = datetime.now(UTC) - timedelta(seconds=1)
    owner.house.console.run(console.change_key, number, expires_at=past)
    refused = refusals(laptop)
    assert (refused.status, refused.error["code"]) == (401, "invalid_api_key")
    assert "expired" in refused.error["message"]


def test_all_keys_of_a_disabled_user_are_refused(gateway: House, owner: Caller) -> None:
    laptop, _ = issue(owner)
    olga = gateway.caller(0, is_superuser=True)
    assert olga.call("PATCH", f"/api/users/{owner.id}", b'{"is_active": false}').status == 200
    for caller in (laptop, owner):
        refused = refusals(caller)
        assert (refused.status, refused.error["code"]) == (401, "invalid_api_key")
    assert olga.call("PATCH", f"/api/users/{owner.id}", b'{"is_active": true}').status == 200
    assert laptop.chat().status == 200


@pytest.mark.parametrize(
    "body", [b"{", b"{}", b"[]", b'{"model": "gpt-4o-mini", "messages": [], "n": 1, "n": 2}']
)
def test_a_wrong_key_is_told_before_anything_that_is_wrong_with_the_request(
    owner: Caller, body: bytes
) -> None:
    stranger = replace(owner, key="sk-tg-nobodys")
    for path in ("/v1/chat/completions", "/v1/embeddings"):
        refused = stranger.call("POST", path, body)
        assert (refused.status, refused.error["code"]) == (401, "invalid_api_key")
        assert owner.call("POST", path, body).status == 400


def test_a_keys_models_are_those_of_its_list(owner: Caller) -> None:
    laptop, number = issue(owner, allowed_models=["gpt-4.1*"])
    assert laptop.chat(model="gpt-4.1-mini").status == 200
    refused = refusals(laptop)
    assert (refused.status, refused.error["code"], refused.error["param"]) == (
        403,
        "model_not_allowed",
        "model",
    )
    owner.house.console.run(console.change_key, number, allowed_models=["gpt-4o-mini"])
    assert laptop.chat().status == 200
    assert laptop.chat(model="gpt-4.1-mini").status == 403
    assert len(owner.house.journal()) == 2


def test_a_refused_key_costs_nothing_and_nothing_is_forwarded(owner: Caller) -> None:
    laptop, number = issue(owner)
    owner.call("DELETE", f"/api/keys/{number}")
    refusals(laptop)
    assert owner.house.journal() == []
    assert owner.account()["available"] == 100_000


@pytest.mark.parametrize(
    "header",
    [
        "Bearer sk-tg-' OR '1'='1",
        "Bearer %00",
        "Bearer " + "x" * 5_000,
        "Bearer",
        "Bearer  ",
        "Basic dXNlcjpwYXNz",
        "sk-tg-without-a-scheme",
        "Bearer ÿþ",
        "",
    ],
)
def test_any_other_authorization_is_refused(gateway: House, header: str) -> None:
    nobody = Caller(gateway, 0, "", 0)
    given = {"Authorization": header, "Content-Type": "application/json"}
    refused = nobody.call("POST", "/v1/chat/completions", b'{"model": "gpt-4o-mini"}', given)
    assert refused.status == 401
    assert refused.error["type"] == "authentication_error"
    assert refused.headers["www-authenticate"] == "Bearer"
    assert gateway.journal() == []
