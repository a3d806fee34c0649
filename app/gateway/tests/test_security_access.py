"""Who may call what of the control plane: every address and method, by everyone from a stranger to
an operator.

An address that is new must be put into the table before this passes.
"""

from collections.abc import Callable, Iterator

import pytest
from django.contrib import admin
from django.test import Client
from django.urls import URLPattern, URLResolver, get_resolver
from rest_framework.test import APIClient

from balances.models import Rate
from conftest import PASSWORD
from users.limits import NAMES
from users.models import ApiKey, User

# Each may do what those before it may.
STRANGER, USER, LOGGED_IN, OPERATOR = "a stranger", "a user", "a user who has logged in", "an operator"
EVERYONE = (STRANGER, USER, LOGGED_IN, OPERATOR)
METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")

# By the name of the address: the least that one must be, for each method that it has.
WHO_MAY: dict[str, dict[str, str]] = {
    "docs": {"GET": STRANGER},
    "schema": {"GET": STRANGER},
    "user-auth": {"POST": STRANGER},
    "user-create": {"POST": OPERATOR},
    "user-me": {"GET": USER, "PUT": USER, "PATCH": USER},
    "user-list": {"GET": OPERATOR},
    "user-detail": {"GET": OPERATOR, "PATCH": OPERATOR},
    "key-list": {"GET": USER, "POST": LOGGED_IN},
    "key-detail": {"GET": USER, "PATCH": LOGGED_IN, "DELETE": LOGGED_IN},
    "key-rotate": {"POST": LOGGED_IN},
    "balance": {"GET": USER},
    "balance-entries": {"GET": USER},
    "user-balance": {"GET": OPERATOR, "PUT": OPERATOR, "PATCH": OPERATOR},
    "user-balance-grant": {"POST": OPERATOR},
    "user-balance-entries": {"GET": OPERATOR},
    "usage": {"GET": USER},
    "rate-list": {"GET": OPERATOR, "POST": OPERATOR},
    "rate-detail": {"GET": OPERATOR, "PATCH": OPERATOR, "DELETE": OPERATOR},
}


def patterns(under: str) -> Iterator[tuple[str, URLPattern]]:
    """Every address below a prefix, with its pattern."""
    stack = [("", each) for each in get_resolver().url_patterns]
    while stack:
        before, each = stack.pop()
        path = before + str(each.pattern)
        if isinstance(each, URLResolver):
            stack += [(path, inner) for inner in each.url_patterns]
        elif path.startswith(under):
            yield path, each


ROUTES = {str(pattern.name): path for path, pattern in patterns("api/")}


@pytest.fixture
def address(alice: User) -> Callable[[str, User | None], str]:
    """The address of a name, for what is the caller's where that matters."""

    def make(name: str, caller: User | None) -> str:
        key, _ = ApiKey.issue(user=caller or alice, name="Its own")
        ids = {"key": key.pk, "user": alice.pk, "rate": Rate.objects.values_list("pk", flat=True)[0]}
        path = "/" + ROUTES[name].replace("<int:user_id>", str(alice.pk))
        return path.replace("<int:pk>", str(ids[name.partition("-")[0]])) if "<int:pk>" in path else path

    return make


def test_the_table_names_every_address() -> None:
    assert set(WHO_MAY) == set(ROUTES)


@pytest.mark.parametrize("who", EVERYONE)
@pytest.mark.parametrize("name", sorted(WHO_MAY))
def test_each_address_answers_those_who_may_and_nobody_else(
    name: str,
    who: str,
    address: Callable[[str, User | None], str],
    client_of: Callable[..., APIClient],
    alice: User,
    bob: User,
    olga: User,
) -> None:
    caller = {STRANGER: None, USER: bob, LOGGED_IN: bob, OPERATOR: olga}[who]
    kind = ApiKey.Kind.ISSUED if who == USER else ApiKey.Kind.LOGIN
    for method in METHODS:
        client = APIClient() if caller is None else client_of(caller, kind)
        status = client.generic(method, address(name, caller), "{}", "application/json").status_code
        least = WHO_MAY[name].get(method)
        if least is None:
            assert status in (401, 403, 405), f"{method} is offered"
        elif EVERYONE.index(who) < EVERYONE.index(least):
            assert status == (401 if who == STRANGER else 403), f"{method} answers {who}"
        else:
            assert status in (200, 201, 204, 400), f"{method} refuses {who}"


@pytest.mark.parametrize("name", sorted(WHO_MAY))
def test_a_disabled_user_is_a_stranger_everywhere(
    name: str,
    address: Callable[[str, User | None], str],
    client_of: Callable[..., APIClient],
    olga: User,
) -> None:
    client = client_of(olga)
    browser = Client()
    browser.force_login(olga)
    path = address(name, olga)
    User.objects.filter(pk=olga.pk).update(is_active=False)
    for method, least in WHO_MAY[name].items():
        if least != STRANGER:
            assert client.generic(method, path, "{}", "application/json").status_code == 401
            assert browser.generic(method, path, b"{}", "application/json").status_code == 401


# --- what a user cannot give themselves -------------------------------------------------------------------

MORE = {
    "id": 1,
    "pk": 1,
    "user": 1,
    "user_id": 1,
    "owner": 1,
    "is_superuser": True,
    "is_staff": True,
    "is_active": True,
    "groups": [1],
    "user_permissions": [1],
    "balance": 10**9,
    "held": -(10**9),
    "available": 10**9,
    "account": {"balance": 10**9, "relaxed": True},
    "relaxed": True,
    "date_joined": "2000-01-01T00:00:00Z",
    "last_login": "2000-01-01T00:00:00Z",
    "kind": "login",
    "prefix": "sk-tg-mine",
    "digest": "0" * 64,
    "secret": "sk-tg-mine",
    "created_at": "2000-01-01T00:00:00Z",
    "revoked_at": None,
    "last_used_at": None,
}
# An operator may set them; nobody sets their own.
LIMITS = dict.fromkeys(NAMES, 10**6)


def state(user: User) -> tuple[object, ...]:
    user = User.objects.select_related("account").get(pk=user.pk)
    return (
        user.is_active,
        user.is_staff,
        user.is_superuser,
        user.date_joined,
        user.account.balance,
        user.account.held,
        user.account.relaxed,
        user.groups.count(),
        user.user_permissions.count(),
        *(getattr(user, name) for name in NAMES),
    )


@pytest.mark.parametrize("method", ["put", "patch"])
def test_a_profile_takes_nothing_but_what_is_a_users_to_change(
    client_of: Callable[..., APIClient], alice: User, olga: User, method: str
) -> None:
    before = state(alice), state(olga)
    answer = getattr(client_of(alice), method)(
        "/api/user/me", {**MORE, **LIMITS, "id": olga.pk, "email": alice.email, "name": "Al"}
    )
    assert answer.status_code == 200
    assert answer.json().items() >= {"id": alice.pk, "email": alice.email, "name": "Al"}.items()
    assert (state(alice), state(olga)) == before


def test_a_new_user_is_nothing_but_a_user(client_of: Callable[..., APIClient], olga: User) -> None:
    form = {"email": "charlie@example.org", "password": "correct horse battery", **MORE}
    assert client_of(olga).post("/api/user/create", form).status_code == 201
    charlie = User.objects.get(email="charlie@example.org")
    active, staff, superuser, _, *rest = state(charlie)
    assert (active, staff, superuser, rest) == (True, False, False, [0, 0, False, 0, 0, None, None, None])
    assert charlie.date_joined.year > 2000


def test_a_key_is_its_makers_and_issued_whatever_the_form_says(
    client_of: Callable[..., APIClient], alice: User, olga: User
) -> None:
    made = client_of(alice).post("/api/keys", {**MORE, "user": olga.pk, "name": "x"}).json()
    key = ApiKey.objects.get(pk=made["id"])
    assert (key.user, key.kind) == (alice, ApiKey.Kind.ISSUED)
    assert made["secret"] != MORE["secret"]
    assert key.digest != MORE["digest"]
    assert key.created_at.year > 2000


def test_an_operator_makes_no_operator_and_no_balance_by_a_users_fields(
    client_of: Callable[..., APIClient], alice: User, olga: User
) -> None:
    before = state(alice)
    assert client_of(olga).patch(f"/api/users/{alice.pk}", {**MORE, "name": "Al"}).status_code == 200
    assert state(alice) == before


def test_balances_change_by_nobodys_word_but_an_operators(
    client_of: Callable[..., APIClient], alice: User, bob: User
) -> None:
    client = client_of(alice)
    for path in (f"/api/balance/{alice.pk}", f"/api/balance/{bob.pk}"):
        for method in ("post", "put", "patch", "delete"):
            assert getattr(client, method)(path, {"balance": 10**6}).status_code == 403
            assert (
                getattr(client, method)(f"{path}/grant", {"amount": 10**6, "reason": "x"}).status_code == 403
            )
    for query in (f"user={bob.pk}", "user=all", f"user_id={bob.pk}&user={bob.pk}"):
        assert client.get(f"/api/balance/entries?{query}").status_code == 403
        assert client.get(f"/api/usage?{query}").status_code == 403
    assert state(alice)[4] == state(bob)[4] == 0


# --- the admin --------------------------------------------------------------------------------------------


def admin_paths() -> list[str]:
    found = []
    for path, _ in patterns("admin/"):
        for slot, value in {
            "<path:object_id>": "1",
            "<id>": "1",
            "<int:content_type_id>": "1",
            "<path:object_id>/": "1/",
        }.items():
            path = path.replace(slot, value)
        found.append(path)
    return found


@pytest.mark.parametrize("who", [STRANGER, USER, "staff without rights"])
def test_the_admin_shows_a_log_in_to_everybody_but_operators(client: Client, alice: User, who: str) -> None:
    if who != STRANGER:
        User.objects.filter(pk=alice.pk).update(is_staff=who != USER)
        client.force_login(alice)
    paths = {path for path in admin_paths() if "(" not in path and "<" not in path}
    assert len(paths) > 20
    # These speak of nothing: to change the own password, to log out, a front page without anything on it.
    of_staff = {"admin/", "admin/password_change/", "admin/password_change/done/", "admin/logout/"}
    of_staff |= {"admin/jsi18n/", "admin/search/"}
    for path in sorted(paths - {"admin/login/"}):
        for method in ("GET", "POST"):
            status = client.generic(method, f"/{path}").status_code
            if who == "staff without rights" and path in of_staff:
                client.force_login(alice)
                continue
            assert status in (302, 403, 404, 405), f"{method} /{path} answers {who} with {status}"


def test_every_model_in_the_admin_is_an_operators(alice: User) -> None:
    User.objects.filter(pk=alice.pk).update(is_staff=True)
    alice.refresh_from_db()
    assert admin.site._registry
    assert not alice.get_all_permissions()


@pytest.mark.django_db
@pytest.mark.parametrize(
    "elsewhere",
    [
        "https://evil.example/",
        "//evil.example/",
        "///evil.example",
        "/\\evil.example",
        "\\\\evil.example",
        "http:///evil.example",
        "javascript:alert(1)",
        "https:evil.example",
        " https://evil.example",
    ],
)
def test_a_log_in_leads_to_no_other_site(client: Client, olga: User, elsewhere: str) -> None:
    form = {"username": olga.email, "password": PASSWORD, "next": elsewhere}
    answer = client.post("/admin/login/", form, query_params={"next": elsewhere})
    assert answer.status_code == 302
    assert answer["Location"] == "/admin/"
    again = client.get("/admin/login/", query_params={"next": elsewhere})
    assert "evil.example" not in again.headers.get("Location", "")
