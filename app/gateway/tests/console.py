"""Django beside a running gateway, in a process of its own on the gateway's database.

Tests use it where the API has no way: a user with a key in no time, a relaxed account, a rate, a look at the
holds. What is asked of it are the functions of this module, run there.
"""

import io
import multiprocessing
import os
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from types import TracebackType
from typing import Any, NamedTuple, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class Person(NamedTuple):
    """A user who may call: the id and the secret of a key."""

    id: int
    key: str
    key_id: int


class Console:
    """Runs while the `with` block does."""

    def __init__(self, variables: Mapping[str, str]) -> None:
        """`variables` are the gateway's environment."""
        spawn = multiprocessing.get_context("spawn")
        self._pool = ProcessPoolExecutor(1, spawn, _set_up, (dict(variables),))

    def __enter__(self) -> "Console":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown()

    def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Runs one of the functions below, and answers or raises what it does."""
        return self._pool.submit(_run, function, args, kwargs).result()


def _run(function: Callable[..., T], args: tuple[Any, ...], kwargs: dict[str, Any]) -> T:
    from django.db import connections

    try:
        return function(*args, **kwargs)
    finally:
        # The database may be another's, or away, by the next time.
        connections.close_all()


def _set_up(variables: dict[str, str]) -> None:
    os.environ.update(variables, DJANGO_SETTINGS_MODULE="gateway.settings")
    import django

    django.setup()


def add_user(
    name: str,
    credits: int,
    *,
    relaxed: bool = False,
    allowed_models: list[str] | None = None,
    is_superuser: bool = False,
    kind: str = "issued",
) -> Person:
    """A new user with a key and a balance of `credits`."""
    from django.db import transaction

    from balances import ledger
    from balances.models import Account
    from users.models import ApiKey, User

    with transaction.atomic():
        user = User(email=f"{name}@example.org", is_superuser=is_superuser)
        # The tests' users never log in, and a password's digest takes a third of a second.
        user.set_unusable_password()
        user.save()
        key, secret = ApiKey.issue(
            user=user, name="Test", kind=ApiKey.Kind(kind), allowed_models=allowed_models
        )
        Account.objects.filter(user=user).update(relaxed=relaxed)
        if credits:
            ledger.set_balance(user_id=user.pk, to_credits=credits, by_id=None, reason="For a test")
    return Person(user.pk, secret, key.pk)


def add_keys(user_id: int, count: int) -> list[Person]:
    """More keys for a user: with one for each call, an entry tells of which call it is."""
    from django.db import transaction

    from users.models import ApiKey, User

    user = User.objects.get(pk=user_id)
    with transaction.atomic():
        made = [ApiKey.issue(user=user, name="Test") for _ in range(count)]
    return [Person(user_id, secret, key.pk) for key, secret in made]


def change_key(key_id: int, **fields: Any) -> None:
    from users.models import ApiKey

    ApiKey.objects.filter(pk=key_id).update(**fields)


def change_user(user_id: int, **fields: Any) -> None:
    from users.models import User

    User.objects.filter(pk=user_id).update(**fields)


def own(user_id: int, object_ids: Mapping[str, str]) -> None:
    """Makes objects at the upstream a user's, as if calls of hers had made them; `object_ids` with kinds."""
    from openai_app.models import UpstreamObject

    for object_id, kind in object_ids.items():
        UpstreamObject.objects.get_or_create(
            object_id=object_id, defaults={"kind": kind, "owner_id": user_id}
        )


def holds(**criteria: Any) -> list[dict[str, Any]]:
    """The holds that meet Django's `criteria`, ids as hex digits, oldest first."""
    from balances.models import Hold

    found = Hold.objects.filter(**criteria).order_by("created_at").values()
    return [{**hold, "id": hold["id"].hex} for hold in found]


def entries(**criteria: Any) -> list[dict[str, Any]]:
    """The entries that meet Django's `criteria`, hold ids as hex digits, oldest first."""
    from balances.models import Entry

    found = Entry.objects.filter(**criteria).order_by("id").values()
    return [{**entry, "hold_id": entry["hold_id"] and entry["hold_id"].hex} for entry in found]


def end_leases() -> None:
    """Makes every worker's lease run out, as if it had been dead for a while."""
    from django.utils import timezone

    from balances.models import Worker

    Worker.objects.update(lease_until=timezone.now())


def command(name: str, *args: Any, **options: Any) -> str:
    """What a management command prints. Raises CommandError."""
    from django.core.management import call_command

    out = io.StringIO()
    call_command(name, *args, stdout=out, **options)
    return out.getvalue()


def let_limits_pass_by(owner: str, seconds: float) -> None:
    """Makes what a user or a key, such as "user:7", has asked for so much older: as if one had waited."""
    from django.db.models import F

    from balances.models import Level

    Level.objects.filter(owner=owner).update(at=F("at") - round(seconds * 1_000_000))


def fill_limits(owner: str) -> None:
    """Makes a user or a key have used up whatever limits by the minute it has, just now."""
    from django.db import connection

    from balances import statements
    from balances.models import Level

    now, parameters = statements.clock()
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT {now}", parameters)
        (now_us,) = cursor.fetchone()
    full = {"requests": 2**62, "tokens": 2**62, "at": now_us}
    Level.objects.update_or_create(owner=owner, defaults=full)
