"""`manage.py sweep`."""

import io

import pytest
from django.core.management import CommandError, call_command

from balances.models import Hold
from balances.tests.acting import Person, dead_worker, done, living_worker
from gateway.management.commands import sweep
from users.sessions import SessionStore

pytestmark = pytest.mark.django_db


@pytest.fixture
def orphans() -> Person:
    """Somebody with five holds of a process that is gone, and one of a process that lives."""
    ann = Person("ann", 100)
    dead = dead_worker()
    for _ in range(5):
        done(ann.hold(1, 1, worker_id=dead))
    done(ann.hold(1, 1, worker_id=living_worker()))
    return ann


def run(*options: str) -> str:
    out = io.StringIO()
    call_command("sweep", *options, stdout=out)
    return out.getvalue()


def test_it_ends_all_holds_of_processes_that_are_gone(orphans: Person) -> None:
    assert run().splitlines()[-1].startswith("5 holds ended, ")
    assert orphans.account() == (95, 2)
    assert run().splitlines() == [
        "0 holds ended, 0 processes of former days forgotten, 0 kept answers deleted."
    ]


def test_it_ends_no_more_than_it_was_told(orphans: Person) -> None:
    assert run("--limit", "2").splitlines()[-1].startswith("2 holds ended, ")
    assert Hold.objects.filter(state=Hold.State.OPEN).count() == 4


def test_it_goes_on_in_batches_and_says_how_far_it_is(
    orphans: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweep, "BATCH", 2)
    assert run().splitlines()[:3] == [
        "2 holds ended so far",
        "4 holds ended so far",
        "5 holds ended so far",
    ]


def test_it_deletes_sessions_that_have_expired_and_no_others() -> None:
    expired, current = SessionStore(), SessionStore()
    for session, seconds in ((expired, -1), (current, 60)):
        session.set_expiry(seconds)
        session.save()
    run()
    assert not expired.exists(str(expired.session_key))
    assert current.exists(str(current.session_key))


@pytest.mark.parametrize("limit", ["0", "-1", "many"])
def test_a_limit_that_is_none_is_refused(limit: str) -> None:
    with pytest.raises(CommandError, match="--limit"):
        run(f"--limit={limit}")


def test_its_help_says_what_it_does_and_when_it_is_needed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        call_command("sweep", "--help")
    printed = capsys.readouterr().out
    assert "whose process is gone" in " ".join(printed.split())
    assert "--limit" in printed
