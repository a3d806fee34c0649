"""Sessions and log-ins: what begins, guards and ends them, and what strangers learn by trying."""

import re
from collections.abc import Callable

import pytest
from django.contrib.auth.hashers import MD5PasswordHasher
from django.contrib.sessions.models import Session
from django.core.management import call_command
from django.test import Client
from django.utils import timezone
from pytest_django import Settings
from rest_framework.test import APIClient

from conftest import PASSWORD
from users.models import ApiKey, User
from users.sessions import SessionStore

ME = "/api/user/me"
AUTH = "/api/user/auth"
LOG_IN = "/admin/login/"
NEW_PASSWORD = "another horse staple"
Clients = Callable[..., APIClient]


@pytest.fixture
def browser(olga: User) -> Client:
    """Olga's, logged in by the form."""
    client = Client()
    assert client.post(LOG_IN, {"username": olga.email, "password": PASSWORD}).status_code == 302
    return client


def is_in(browser: Client) -> bool:
    return browser.get("/admin/").status_code == 200


# --- sessions -----------------------------------------------------------------------------------------------


def test_a_session_that_was_there_before_the_log_in_is_not_the_one_after_it(olga: User) -> None:
    client = Client()
    client.session.save()
    client.cookies["sessionid"] = planted = "0123456789abcdefghijklmnopqrstuv"
    client.post(LOG_IN, {"username": olga.email, "password": PASSWORD})
    assert client.cookies["sessionid"].value != planted
    assert not SessionStore().exists(planted)


def test_a_session_is_not_to_be_had_from_the_database(browser: Client) -> None:
    cookie = browser.cookies["sessionid"].value
    (row,) = Session.objects.all()
    assert cookie not in row.session_key + row.session_data
    thief = Client()
    thief.cookies["sessionid"] = row.session_key
    assert not is_in(thief)
    assert is_in(browser)
    Session.objects.update(expire_date=timezone.now())
    assert not is_in(browser)


def test_a_session_ends_with_its_log_out_wherever_its_cookie_has_got_to(browser: Client) -> None:
    copied = Client()
    copied.cookies["sessionid"] = browser.cookies["sessionid"].value
    assert is_in(copied)
    browser.post("/admin/logout/")
    assert not is_in(copied)


def test_a_session_ends_after_a_day_of_work(browser: Client) -> None:
    assert 0 < int(browser.cookies["sessionid"]["max-age"]) <= 12 * 3600


def test_forms_of_the_admin_need_their_token(olga: User, alice: User) -> None:
    client = Client(enforce_csrf_checks=True)
    client.force_login(olga)
    for path in (
        "/admin/logout/",
        "/admin/password_change/",
        f"/admin/users/user/{alice.pk}/change/",
        LOG_IN,
    ):
        assert client.post(path, {"is_superuser": "on"}).status_code == 403
    assert is_in(client)


@pytest.mark.parametrize(
    "content_type", ["application/json", "text/plain", "application/x-www-form-urlencoded"]
)
def test_a_session_does_nothing_in_the_api_without_a_token(
    olga: User, alice: User, content_type: str
) -> None:
    client = Client(enforce_csrf_checks=True)
    client.force_login(olga)
    for method, path in (
        ("PATCH", f"/api/balance/{alice.pk}"),
        ("POST", f"/api/balance/{alice.pk}/grant"),
        ("POST", "/api/user/create"),
        ("POST", "/api/keys"),
        ("PATCH", ME),
    ):
        answer = client.generic(method, path, b'{"balance": 1, "name": "x"}', content_type)
        assert answer.status_code == 403, path
        assert answer.json()["error"]["message"].startswith("CSRF Failed")
    assert ApiKey.objects.count() == 0


# --- what a new password ends ---------------------------------------------------------------------------


def by_the_api(olga: User) -> None:
    client = Client()
    client.force_login(olga)
    client.patch(ME, {"password": NEW_PASSWORD}, "application/json")


def by_the_admins_own_form(olga: User) -> None:
    client = Client()
    client.force_login(olga)
    new = {"new_password1": NEW_PASSWORD, "new_password2": NEW_PASSWORD}
    assert client.post("/admin/password_change/", {"old_password": PASSWORD, **new}).status_code == 302


def by_another_operator(olga: User) -> None:
    client = Client()
    client.force_login(User.objects.create_superuser("otto@example.org", PASSWORD))
    form = {"usable_password": "true", "password1": NEW_PASSWORD, "password2": NEW_PASSWORD}
    assert client.post(f"/admin/users/user/{olga.pk}/password/", form).status_code == 302


def by_taking_it_away(olga: User) -> None:
    client = Client()
    client.force_login(User.objects.create_superuser("otto@example.org", PASSWORD))
    form = {"usable_password": "false", "unset-password": "x"}
    assert client.post(f"/admin/users/user/{olga.pk}/password/", form).status_code == 302


def in_the_shell(olga: User) -> None:
    olga.set_password(NEW_PASSWORD)
    olga.save()


@pytest.mark.parametrize(
    "change", [by_the_api, by_the_admins_own_form, by_another_operator, by_taking_it_away, in_the_shell]
)
def test_a_new_password_ends_log_ins_and_sessions_and_no_issued_key(
    browser: Client, client_of: Clients, olga: User, change: Callable[[User], None]
) -> None:
    log_in, issued = client_of(olga), client_of(olga, ApiKey.Kind.ISSUED)
    assert is_in(browser)
    change(olga)
    olga.refresh_from_db()
    assert not olga.check_password(PASSWORD)
    assert [client.get(ME).status_code for client in (log_in, issued)] == [401, 200]
    assert not is_in(browser)


def test_nothing_else_that_is_saved_ends_a_log_in(client_of: Clients, olga: User) -> None:
    client = client_of(olga)
    olga.name = "O."
    olga.save()
    assert olga.check_password(PASSWORD)
    call_command("check", verbosity=0)
    assert client.get(ME).status_code == 200


def test_a_better_hash_of_the_same_password_ends_no_log_in(
    client_of: Clients, olga: User, settings: Settings
) -> None:
    client = client_of(olga)
    settings.PASSWORD_HASHERS = [f"{__name__}.Counting", *settings.PASSWORD_HASHERS]
    assert olga.check_password(PASSWORD)
    olga.refresh_from_db()
    assert olga.password.startswith("counting$")
    assert client.get(ME).status_code == 200


def test_a_disabled_operators_session_is_over_at_the_next_request(browser: Client, olga: User) -> None:
    User.objects.update(is_active=False)
    assert not is_in(browser)
    assert browser.get(ME).status_code == 401
    User.objects.update(is_active=True, is_staff=False, is_superuser=False)
    assert not is_in(browser)


# --- what strangers learn -----------------------------------------------------------------------------------


class Counting(MD5PasswordHasher):
    """Counts the passwords that are hashed."""

    algorithm = "counting"
    count = 0

    def encode(self, password: str, salt: str) -> str:
        Counting.count += 1
        return super().encode(password, salt)


def tried(email: str, password: str) -> tuple[int, bytes, int]:
    """Status, body and number of hashes of a log-in."""
    Counting.count = 0
    answer = APIClient().post(AUTH, {"email": email, "password": password})
    return answer.status_code, answer.content, Counting.count


def test_all_that_is_wrong_with_a_log_in_takes_the_same_work_and_has_the_same_answer(
    settings: Settings, db: None
) -> None:
    settings.PASSWORD_HASHERS = [f"{__name__}.Counting"]
    User.objects.create_user("alice@example.org", PASSWORD)
    User.objects.create_user("bob@example.org", PASSWORD, is_active=False)
    User.objects.create_user("program@example.org")
    wrong = tried("alice@example.org", "wrong")
    assert wrong[2] == 1
    assert tried("nobody@example.org", PASSWORD) == wrong
    assert tried("bob@example.org", PASSWORD) == wrong
    assert tried("program@example.org", PASSWORD) == wrong


def test_the_admins_form_says_the_same_of_a_wrong_password_and_an_unknown_address(
    client: Client, olga: User, alice: User
) -> None:
    def shown(email: str, password: str) -> str:
        """The page, less what was typed in and the form's token."""
        page = client.post(LOG_IN, {"username": email, "password": password}).content.decode()
        assert "staff account" in page
        return re.sub(r'value="[^"]*"', "", page)

    wrong = shown(olga.email, "wrong")
    assert shown("nobody@example.org", PASSWORD) == wrong
    assert shown(alice.email, "wrong") == wrong
    # Nor does it say that a password is right for somebody who is no operator.
    assert shown(alice.email, PASSWORD) == wrong


def test_the_admins_form_is_throttled_by_account_from_wherever(client: Client, olga: User) -> None:
    for number in range(30):
        form = {"username": olga.email, "password": f"guess {number}", "email": f"{number}@example.org"}
        client.post(LOG_IN, form, REMOTE_ADDR=f"10.0.0.{number}")
    answer = client.post(LOG_IN, {"username": olga.email, "password": PASSWORD}, REMOTE_ADDR="10.0.1.1")
    assert "Too many tries" in answer.content.decode()
    assert not is_in(client)


# --- answers with secrets -----------------------------------------------------------------------------------


def test_no_answer_of_the_control_plane_is_kept(client_of: Clients, olga: User, browser: Client) -> None:
    client = client_of(olga)
    answers = [
        client.post(AUTH, {"email": olga.email, "password": PASSWORD}),
        client.post("/api/keys", {"name": "x"}),
        client.post(f"/api/keys/{ApiKey.objects.filter(user=olga)[0].pk}/rotate"),
        client.get("/api/keys"),
        client.get(ME),
        client.get("/api/nothing"),
        APIClient().get(ME),
        browser.post(
            "/admin/users/apikey/add/", {"user": olga.pk, "name": "x", "allowed_models": ""}, follow=True
        ),
        browser.get("/admin/password_change/"),
    ]
    for answer in answers:
        assert "no-store" in answer["Cache-Control"], answer
        assert answer["X-Content-Type-Options"] == "nosniff"
        assert answer["Cross-Origin-Resource-Policy"] == "same-origin"
