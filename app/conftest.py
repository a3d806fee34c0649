"""The cast of the tests: Alice, Bob and Charlie are users, Olga operates the gateway."""

from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path

import pytest
from django.apps import apps
from django.conf import settings as project
from django.core.cache import cache
from django.db.models.signals import post_migrate
from django.dispatch import receiver
from hypothesis import HealthCheck, settings
from rest_framework.test import APIClient

from users.models import ApiKey, User

# Recorded traffic, OpenAI's description and the like; tests that need them are skipped where they are not.
SHARED: Path = project.ROOT.parent / "shared"
PASSWORD = "correct horse battery"
# Files whose tests wait for a minute and more, for leases that run out and bodies that do not come: they are
# begun first, so that nothing else is waited for at the end.
LONGEST = (
    *("test_bounds.py", "test_idempotency_restart.py", "test_uploads.py", "test_database_hangs.py"),
    *("test_slow_readers.py", "test_stopping.py", "test_lessons_running.py", "test_attack.py"),
    *("test_serve.py", "test_lessons_streams.py", "test_lessons_money.py", "test_every_operation.py"),
)
# The same examples each time, however slow the machine; `make fuzz` looks for new ones.
settings.register_profile(
    "suite",
    derandomize=True,
    database=None,
    deadline=None,
    print_blob=False,
    max_examples=150,
    suppress_health_check=list(HealthCheck),
)
settings.load_profile("suite")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts the longest files first; all else keeps its order."""
    items.sort(key=lambda item: LONGEST.index(item.path.name) if item.path.name in LONGEST else len(LONGEST))


@pytest.fixture
def alice(db: None) -> User:
    return User.objects.create_user("alice@example.org", PASSWORD, name="Alice")


@pytest.fixture
def bob(db: None) -> User:
    return User.objects.create_user("bob@example.org", PASSWORD, name="Bob")


@pytest.fixture
def charlie(db: None) -> User:
    return User.objects.create_user("charlie@example.org", PASSWORD, name="Charlie")


@pytest.fixture
def olga(db: None) -> User:
    return User.objects.create_superuser("olga@example.org", PASSWORD, name="Olga")


@pytest.fixture
def api() -> APIClient:
    """A client that nobody knows."""
    return APIClient()


@pytest.fixture
def client_of() -> Callable[..., APIClient]:
    """`client_of(alice)` calls with a fresh login key of hers; `kind` makes it an issued one."""

    def make(user: User, kind: ApiKey.Kind = ApiKey.Kind.LOGIN) -> APIClient:
        _, secret = ApiKey.issue(user=user, name="Test", kind=kind)
        client = APIClient()
        client.credentials(HTTP_AUTHORIZATION=f"Bearer {secret}")
        return client

    return make


@receiver(post_migrate, sender=apps.get_app_config("openai_app"), dispatch_uid="rates of the tests")
def rates_come_back(**_: object) -> None:
    """A test with transactions of its own empties tables at its end: what migrations put there comes back."""
    import_module("openai_app.migrations.0002_default_rates").seed(apps, None)


@pytest.fixture(autouse=True)
def no_counts_left(request: pytest.FixtureRequest) -> Iterator[None]:
    """Log-ins are counted in the cache's table, which is no model's: emptying theirs leaves it as it is."""
    marker = request.node.get_closest_marker("django_db")
    if marker is not None and marker.kwargs.get("transaction"):
        request.getfixturevalue("_django_db_helper")
        yield
        cache.clear()
    else:
        yield


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Prints the figures that tests have recorded as `figures`, and why tests were done again."""
    for report in (*terminalreporter.getreports("passed"), *terminalreporter.getreports("failed")):
        for name, value in report.user_properties:
            if name == "figures" and report.when == "call":
                terminalreporter.write_line(str(value))
    for report in terminalreporter.getreports("rerun"):
        terminalreporter.write_line(f"DONE AGAIN, for it had failed: {report.nodeid}\n{report.longreprtext}")
