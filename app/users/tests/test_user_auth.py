"""POST /api/user/auth."""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from django.db import connection
from django.test import Client
from django.utils import timezone
from rest_framework.settings import api_settings
from rest_framework.test import APIClient

from conftest import PASSWORD
from users.models import ApiKey, User

AUTH = "/api/user/auth"
pytestmark = pytest.mark.django_db


def test_a_log_in_answers_a_token_that_works_for_thirty_days(api: APIClient, alice: User) -> None:
    answer = api.post(AUTH, {"email": "Alice@example.org", "password": PASSWORD})
    assert answer.status_code == 200
    token = answer.json()["token"]
    key = ApiKey.objects.get(user=alice)
    assert key.kind == ApiKey.Kind.LOGIN
    assert key.expires_at is not None
    assert timedelta(days=29) < key.expires_at - timezone.now() <= timedelta(days=30)
    assert token not in (key.digest, key.prefix)
    api.credentials(HTTP_AUTHORIZATION=f"Token {token}")
    assert api.get("/api/user/me").json()["email"] == "alice@example.org"


def test_a_form_logs_in_too(api: APIClient, alice: User) -> None:
    body = f"email=alice%40example.org&password={PASSWORD.replace(' ', '+')}"
    answer = api.generic("POST", f"{AUTH}/", body, content_type="application/x-www-form-urlencoded")
    assert answer.status_code == 200


def test_a_wrong_password_and_an_unknown_address_are_answered_alike(api: APIClient, alice: User) -> None:
    wrong = api.post(AUTH, {"email": "alice@example.org", "password": "wrong"})
    unknown = api.post(AUTH, {"email": "nobody@example.org", "password": PASSWORD})
    assert wrong.status_code == unknown.status_code == 400
    assert wrong.json() == unknown.json()
    assert wrong.json()["error"]["code"] == "invalid_credentials"


def test_a_disabled_user_does_not_log_in(api: APIClient, alice: User) -> None:
    User.objects.update(is_active=False)
    answer = api.post(AUTH, {"email": "alice@example.org", "password": PASSWORD})
    assert answer.status_code == 400
    assert not ApiKey.objects.exists()


def test_an_old_token_in_the_header_does_not_hinder_a_log_in(api: APIClient, alice: User) -> None:
    api.credentials(HTTP_AUTHORIZATION="Token sk-tg-forgotten")
    assert api.post(AUTH, {"email": "alice@example.org", "password": PASSWORD}).status_code == 200


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"email": "alice@example.org"},
        {"password": PASSWORD},
        [],
        "text",
        7,
        {"email": [], "password": {}},
    ],
)
def test_a_log_in_without_its_fields_is_refused(api: APIClient, alice: User, body: object) -> None:
    answer = api.post(AUTH, body, format="json")
    assert answer.status_code == 400
    assert answer.json()["error"]["type"] == "invalid_request_error"


def test_one_address_tries_ten_times_a_minute(api: APIClient, alice: User) -> None:
    for number in range(10):
        assert api.post(AUTH, {"email": f"{number}@example.org", "password": "x"}).status_code == 400
    answer = api.post(AUTH, {"email": "alice@example.org", "password": PASSWORD})
    assert answer.status_code == 429
    assert int(answer["Retry-After"]) > 0


def test_a_class_behind_one_address_logs_in(api: APIClient) -> None:
    people = [User.objects.create_user(f"{number}@example.org", PASSWORD) for number in range(12)]
    for person in people * 3:
        assert api.post(AUTH, {"email": person.email, "password": PASSWORD}).status_code == 200


def test_one_account_logs_in_as_often_as_it_likes(api: APIClient, alice: User) -> None:
    body = {"email": "alice@example.org", "password": PASSWORD}
    assert {api.post(AUTH, body).status_code for _ in range(32)} == {200}


def test_a_log_in_between_guesses_gives_none_of_them_back(api: APIClient, alice: User, bob: User) -> None:
    own = {"email": "bob@example.org", "password": PASSWORD}
    codes = []
    for number in range(12):
        guess = {"email": "alice@example.org", "password": f"guess {number}"}
        codes += [api.post(AUTH, guess).status_code, api.post(AUTH, own).status_code]
    assert codes == [400, 200] * 9 + [400] + [429] * 5


def test_a_made_up_forwarding_header_gives_no_more_tries(api: APIClient, alice: User) -> None:
    codes = [
        api.post(
            AUTH, {"email": f"{n}@example.org", "password": "x"}, headers={"x-forwarded-for": f"10.0.0.{n}"}
        ).status_code
        for n in range(11)
    ]
    assert codes == [400] * 10 + [429]


@pytest.mark.parametrize(
    ("addresses", "proxies"),
    [
        ([f"2001:db8:1:2::{n:x}" for n in range(1, 12)], 0),
        ([f"2001:db8:1:2:{n:x}::1" for n in range(1, 12)], 0),
        (["::ffff:192.0.2.7", "192.0.2.7"] * 5 + ["::ffff:192.0.2.7"], 0),
        ([f"192.0.2.7:{n}" for n in range(40_000, 40_011)], 1),
        ([f"[2001:db8:1:2::{n:x}]:{n}" for n in range(1, 12)], 1),
    ],
    ids=["one network", "of 64 bits", "IPv4 in IPv6", "ports of a proxy's", "the same of IPv6"],
)
def test_one_address_is_one_however_it_is_written(
    api: APIClient, alice: User, monkeypatch: pytest.MonkeyPatch, addresses: list[str], proxies: int
) -> None:
    monkeypatch.setattr(api_settings, "NUM_PROXIES", proxies)
    codes = []
    for number, address in enumerate(addresses):
        body = {"email": f"{number}@example.org", "password": "x"}
        where = {"HTTP_X_FORWARDED_FOR": address} if proxies else {"REMOTE_ADDR": address}
        codes.append(api.post(AUTH, body, **where).status_code)  # type: ignore[arg-type]
    assert codes == [400] * 10 + [429]
    elsewhere = {"HTTP_X_FORWARDED_FOR": "2001:db8:1:3::1", "REMOTE_ADDR": "2001:db8:1:3::1"}
    assert api.post(AUTH, {"email": "x@example.org", "password": "x"}, **elsewhere).status_code == 400  # type: ignore[arg-type]


def test_one_account_is_tried_thirty_times_a_minute_from_wherever(api: APIClient, alice: User) -> None:
    for number in range(30):
        body = {"email": "alice@example.org", "password": f"guess {number}"}
        assert api.post(AUTH, body, REMOTE_ADDR=f"10.0.0.{number}").status_code == 400
    answer = api.post(AUTH, {"email": "ALICE@example.org", "password": "one more"}, REMOTE_ADDR="10.0.1.1")
    assert answer.status_code == 429


def test_a_refused_try_does_not_count_against_the_account(api: APIClient, alice: User) -> None:
    body = {"email": "alice@example.org", "password": "wrong"}
    for _ in range(40):
        api.post(AUTH, body, REMOTE_ADDR="10.0.0.66")
    owner = api.post(AUTH, {"email": "alice@example.org", "password": PASSWORD}, REMOTE_ADDR="10.0.0.1")
    assert owner.status_code == 200


@pytest.mark.django_db(transaction=True)
def test_parallel_tries_are_counted_one_by_one(alice: User) -> None:
    def guess(number: int) -> int:
        try:
            body = {"email": f"{number}@example.org", "password": "wrong"}
            # An address of its own: what is counted here is not rolled back.
            return APIClient().post(AUTH, body, REMOTE_ADDR="10.0.0.32").status_code
        finally:
            connection.close()

    with ThreadPoolExecutor(16) as threads:
        codes = list(threads.map(guess, range(32)))
    assert Counter(codes) == {400: 10, 429: 22}


def test_log_ins_to_the_admin_that_succeed_are_not_counted(olga: User, alice: User) -> None:
    form = {"username": "olga@example.org", "password": PASSWORD}
    assert {Client().post("/admin/login/", form).status_code for _ in range(12)} == {302}
    # She has a password that is right, and is let in for that no more than anybody.
    of_alice = {**form, "username": "alice@example.org"}
    answers = [Client().post("/admin/login/", of_alice).content.decode() for _ in range(11)]
    assert ["Too many tries" in answer for answer in answers] == [False] * 10 + [True]


@pytest.mark.parametrize("length", [129, 4096])
def test_a_long_password_that_was_set_in_the_admin_logs_in(
    api: APIClient, client: Client, olga: User, alice: User, length: int
) -> None:
    password = ("correct horse battery " * 200)[: length - 1] + "x"
    client.force_login(olga)
    form = {"password1": password, "password2": password, "usable_password": "true"}
    assert client.post(f"/admin/users/user/{alice.pk}/password/", form).status_code == 302
    assert api.post(AUTH, {"email": "alice@example.org", "password": password}).status_code == 200
    longer = {"password1": password * 40, "password2": password * 40, "usable_password": "true"}
    refused = client.post(f"/admin/users/user/{alice.pk}/password/", longer)
    assert "longer than 4096 characters" in refused.content.decode()


def test_the_admins_log_in_is_counted_together_with_the_apis(client: Client, olga: User) -> None:
    form = {"username": "olga@example.org", "password": "wrong"}
    for _ in range(5):
        assert client.post("/admin/login/", form).status_code == 200
        wrong = {"email": "olga@example.org", "password": "wrong"}
        assert client.post(AUTH, wrong, content_type="application/json").status_code == 400
    answer = client.post("/admin/login/", {**form, "password": PASSWORD})
    assert "Too many tries" in answer.content.decode()
    assert client.get("/admin/").status_code == 302
