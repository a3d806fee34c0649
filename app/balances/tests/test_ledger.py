"""The rules of the ledger: a batch at a time, on the database under test."""

import threading
import uuid
from dataclasses import replace
from datetime import timedelta

import pytest
from django.db import connection, connections
from django.utils import timezone

from balances import leases, ledger
from balances.models import MAX_BALANCE_CREDITS, Account, Entry, Hold, Rate
from balances.operations import Defer, Granted, PlaceHold, Posted, Progress
from balances.tests.acting import Person, dead_worker, done, end_of, refused
from common.errors import (
    ApiError,
    BadRequest,
    InsufficientBalance,
    KeyRejected,
    NotFound,
    PermissionDenied,
)

pytestmark = pytest.mark.django_db


@pytest.fixture
def ann() -> Person:
    return Person("ann", 100)


@pytest.fixture
def ben() -> Person:
    return Person("ben", 100)


# --- a hold and its end ---------------------------------------------------------------------------------


def test_a_hold_reserves_and_a_post_charges_what_was_used(ann: Person) -> None:
    hold = ann.hold(10, 20)
    granted = done(hold)
    assert isinstance(granted, Granted)
    assert (granted.amount, granted.output_cap, granted.available) == (30, None, 70)
    assert ann.account() == (100, 30)
    assert done(ann.post(hold, input=10, output=7)) == Posted(17, 83, 83)
    assert ann.account() == (83, 0)
    assert ann.charges() == [("charge", -17, 83)]
    assert end_of(hold) == ("posted", "Finished.")


def test_asking_for_nobodys_key_as_readyz_does_leaves_the_others_of_its_batch_alone(ann: Person) -> None:
    question = PlaceHold("", digest="", operation="", model="", estimate=None, worker_id="")
    granted, rejected = ledger.apply([ann.hold(10, 20), question])
    assert isinstance(granted, Granted)
    assert isinstance(rejected, KeyRejected)


def test_a_void_releases_and_leaves_no_entry(ann: Person) -> None:
    hold = ann.hold()
    done(hold)
    assert done(ann.void(hold)) == Posted(0, 100, 100)
    assert (ann.account(), ann.charges()) == ((100, 0), [])
    assert end_of(hold) == ("voided", "Refused.")


def test_a_post_without_usage_charges_the_whole_hold(ann: Person) -> None:
    hold = ann.hold(10, 20)
    done(hold)
    assert done(ann.post(hold)) == Posted(30, 70, 70)


def test_a_post_above_its_hold_is_charged_whole_and_the_balance_says_so(ann: Person) -> None:
    hold = ann.hold(10, 20)
    done(hold)
    assert done(ann.post(hold, input=10, output=120)) == Posted(130, -30, -30)
    assert isinstance(refused(ann.hold(1, 1)), InsufficientBalance)


def test_an_entry_says_what_was_used_at_which_rate_and_on_which_hold(ann: Person) -> None:
    Rate.objects.create(model="gpt-4o*", unit="output", credits_per_unit="2.5")
    hold = ann.hold(10, 10)
    assert done(hold)
    done(ann.post(hold, input=10, output=3))
    entry = Entry.objects.get(kind=Entry.Kind.CHARGE)
    assert entry.amount == -18
    assert entry.units == {"input": 10, "output": 3}
    assert entry.rate == {"input": 1_000_000, "output": 2_500_000}
    assert (entry.hold_id, entry.key_id) == (uuid.UUID(hold.hold_id), ann.key.pk)
    assert (entry.operation, entry.model, entry.reason) == (
        "createChatCompletion",
        "gpt-4o-mini",
        "Finished.",
    )


# --- repeated and late ----------------------------------------------------------------------------------


def test_posting_twice_charges_once(ann: Person) -> None:
    hold = ann.hold()
    done(hold)
    first = done(ann.post(hold, input=10, output=7))
    assert done(ann.post(hold, input=10, output=7)) == first
    assert ann.charges() == [("charge", -17, 83)]


def test_posting_twice_in_one_batch_charges_once(ann: Person) -> None:
    hold = ann.hold()
    done(hold)
    results = ledger.apply([ann.post(hold, input=10, output=7)] * 2)
    assert [r.charged for r in results if isinstance(r, Posted)] == [17, 17]
    assert ann.charges() == [("charge", -17, 83)]


def test_a_void_and_a_post_in_one_batch_end_in_the_posts_charge(ann: Person) -> None:
    hold = ann.hold()
    done(hold)
    results = ledger.apply([ann.void(hold), ann.post(hold, input=10, output=7)])
    assert results == [Posted(0, 100, 100), Posted(17, 83, 83)]
    assert ann.charges() == [("correction", -17, 83)]


def test_a_post_after_a_sweep_writes_the_difference_as_a_correction(ann: Person) -> None:
    hold = ann.hold(10, 50)
    done(hold)
    done(ann.post(hold, "Swept.", input=10, output=5))
    assert done(ann.post(hold, "Finished.", input=10, output=40)) == Posted(50, 50, 50)
    assert ann.charges() == [("charge", -15, 85), ("correction", -35, 50)]
    # And once more, as when it is replayed.
    assert done(ann.post(hold, "Finished.", input=10, output=40)) == Posted(50, 50, 50)
    assert len(ann.charges()) == 2
    assert Entry.objects.get(kind=Entry.Kind.CORRECTION).reason.startswith("Finished.; 15 had been charged")


def test_a_post_after_a_sweep_that_charged_too_much_gives_back(ann: Person) -> None:
    hold = ann.hold(10, 50)
    done(hold)
    done(ann.post(hold, "Swept.", input=10, output=45))
    done(ann.post(hold, "Finished.", input=10, output=4))
    assert ann.charges() == [("charge", -55, 45), ("correction", 41, 86)]


def test_a_post_after_a_void_is_a_correction_too(ann: Person) -> None:
    hold = ann.hold(10, 50)
    done(hold)
    done(ann.void(hold, "Swept."))
    assert done(ann.post(hold, input=10, output=4)) == Posted(14, 86, 86)
    assert ann.charges() == [("correction", -14, 86)]
    assert end_of(hold) == ("voided", "Swept.")


def test_a_void_after_a_post_changes_nothing(ann: Person) -> None:
    hold = ann.hold()
    done(hold)
    done(ann.post(hold, input=10, output=7))
    assert done(ann.void(hold)) == Posted(0, 83, 83)
    assert (ann.account(), end_of(hold)[0]) == ((83, 0), "posted")


def test_a_void_after_a_sweep_gives_back_what_the_sweep_charged(ann: Person) -> None:
    hold = ann.hold(10, 50)
    done(hold)
    done(ann.post(hold, ledger.DIED, input=10, output=5))
    assert ann.charges() == [("charge", -15, 85)]
    assert done(ann.void(hold, "Refused.")) == Posted(0, 100, 100)
    assert ann.charges() == [("charge", -15, 85), ("correction", 15, 100)]
    # And once more, as when it is replayed.
    ledger.apply([ann.void(hold, "Refused.")] * 2)
    assert len(ann.charges()) == 2
    given_back = Entry.objects.get(kind=Entry.Kind.CORRECTION)
    assert (given_back.operation, given_back.model, given_back.key_id) == (
        hold.operation,
        hold.model,
        ann.key.pk,
    )
    assert given_back.reason == "Refused.; 15 had been charged before this was known"


@pytest.mark.parametrize("was_counted", [True, False])
def test_work_that_goes_on_though_its_process_was_taken_for_dead_is_paid_at_its_end(
    ann: Person, was_counted: bool
) -> None:
    hold = ann.hold(10, 50)
    done(hold)
    died = ann.post(hold, ledger.DIED, input=10) if was_counted else ann.void(hold, ledger.DIED_UNCOUNTED)
    done(died)
    late = Defer(hold.hold_id, ann.id, "batch /batches/1")
    assert done(late) == Posted(0, 100, 40)
    # And once more, as when it is replayed.
    done(late)
    waiting = Hold.objects.get(state=Hold.State.OPEN)
    assert (waiting.awaits, waiting.amount, waiting.operation) == ("batch /batches/1", 60, hold.operation)
    assert waiting.key_id == ann.key.pk
    assert end_of(hold)[1] == ledger.GOES_ON
    done(ann.post(replace(hold, hold_id=waiting.id.hex), input=10, output=40))
    assert ann.account() == (50, 0)
    corrections = [("charge", -10, 90), ("correction", 10, 100)] if was_counted else []
    assert ann.charges() == [*corrections, ("charge", -50, 50)]


def test_a_late_post_without_usage_changes_nothing(ann: Person) -> None:
    hold = ann.hold()
    done(hold)
    done(ann.post(hold, input=10, output=7))
    assert done(ann.post(hold)) == Posted(17, 83, 83)
    assert len(ann.charges()) == 1


@pytest.mark.parametrize("was_counted", [True, False])
def test_a_late_post_without_usage_charges_the_whole_hold_that_a_sweep_had_ended(
    ann: Person, was_counted: bool
) -> None:
    hold = ann.hold(10, 50)
    done(hold)
    done(ann.post(hold, ledger.DIED, input=10) if was_counted else ann.void(hold, ledger.DIED_UNCOUNTED))
    assert done(ann.post(hold, "No usage.")) == Posted(60, 40, 40)
    # And once more, as when it is replayed.
    ledger.apply([ann.post(hold, "No usage.")] * 2)
    first = [("charge", -10, 90)] if was_counted else []
    assert ann.charges() == [*first, ("correction", -50 if was_counted else -60, 40)]


def test_a_post_of_a_hold_that_never_was_is_refused(ann: Person) -> None:
    assert isinstance(refused(ann.post(ann.hold(), input=1)), NotFound)
    assert (ann.account(), ann.charges()) == ((100, 0), [])


def test_progress_is_noted_on_an_open_hold_only(ann: Person) -> None:
    hold = ann.hold(10, 20)
    done(hold)
    done(Progress(hold.hold_id, ann.id, {"input": 10, "output": 3}))
    assert Hold.objects.get().counted == {"input": 10, "output": 3}
    done(ann.void(hold))
    done(Progress(hold.hold_id, ann.id, {"input": 10, "output": 9}))
    assert Hold.objects.get().counted == {"input": 10, "output": 3}


# --- batches --------------------------------------------------------------------------------------------


def test_progress_of_work_that_goes_on_keeps_its_hold_for_its_end(ann: Person) -> None:
    hold = ann.hold(10, 20, worker_id=dead_worker())
    done(hold)
    done(Progress(hold.hold_id, ann.id, {"input": 10, "output": 3}, "response /responses/1"))
    assert leases.sweep() == 0
    waiting = Hold.objects.get()
    assert (waiting.state, waiting.awaits) == ("open", "response /responses/1")
    done(ann.void(hold))
    done(Progress(hold.hold_id, ann.id, {"input": 10}, "response /responses/2"))
    assert Hold.objects.get().awaits == "response /responses/1"


def test_a_batch_is_decided_in_the_order_of_arrival(ann: Person) -> None:
    holds = [ann.hold(10, 20) for _ in range(5)]
    results = ledger.apply(holds)
    assert [type(result) for result in results[:3]] == [Granted] * 3
    # Of the last ten credits there is the input, but nothing to answer with.
    assert [type(result) for result in results[3:]] == [InsufficientBalance] * 2
    assert ann.account() == (100, 90)
    assert Hold.objects.count() == 3


def test_a_refusal_leaves_the_others_of_its_batch_as_they_are(ann: Person, ben: Person) -> None:
    first, stranger, too_dear, last = ann.hold(), ann.hold(), ben.hold(200, 1), ben.hold()
    stranger = PlaceHold(uuid.uuid4().hex, "0" * 64, "x", "y", stranger.estimate, stranger.worker_id)
    results = ledger.apply([first, stranger, too_dear, last, ann.post(ann.hold(), input=1)])
    assert [type(result) for result in results] == [
        Granted,
        KeyRejected,
        InsufficientBalance,
        Granted,
        NotFound,
    ]
    assert (ann.account(), ben.account()) == ((100, 30), (100, 30))


def test_a_batch_mixes_all_kinds_of_operations_and_users(ann: Person, ben: Person) -> None:
    held, voided = ann.hold(), ben.hold()
    ledger.apply([held, voided])
    fresh = ben.hold(5, 5)
    ledger.apply([ann.post(held, input=10, output=1), fresh, ben.void(voided)])
    ledger.set_balance(user_id=ann.id, to_credits=500, by_id=None, reason="Paid")
    assert (ann.account(), ben.account()) == ((500, 0), (100, 10))


def test_what_an_end_releases_is_there_for_the_next_in_the_batch(ann: Person) -> None:
    first = ann.hold(10, 85)
    done(first)
    results = ledger.apply([ann.post(first, input=10, output=5), ann.hold(10, 70)])
    assert isinstance(results[1], Granted)
    assert ann.account() == (85, 80)


def test_256_calls_are_one_batch(ann: Person) -> None:
    ledger.set_balance(user_id=ann.id, to_credits=256 * 30, by_id=None, reason="For a test")
    holds = [ann.hold(10, 20) for _ in range(256)]
    assert {type(result) for result in ledger.apply(holds)} == {Granted}
    assert ann.account() == (256 * 30, 256 * 30)
    ledger.apply([ann.post(hold, input=10, output=20) for hold in holds])
    assert ann.account() == (0, 0)
    assert len(ann.charges()) == 256


def test_an_empty_batch_is_nothing() -> None:
    assert ledger.apply([]) == []


# --- keys -----------------------------------------------------------------------------------------------


def test_a_key_is_recognised_without_a_hold(ann: Person) -> None:
    hold = ann.hold()
    granted = done(PlaceHold(hold.hold_id, hold.digest, "listModels", "", None, hold.worker_id))
    assert isinstance(granted, Granted)
    assert (granted.amount, granted.available, granted.user_id) == (0, 100, ann.id)
    assert Hold.objects.count() == 0


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"revoked_at": timezone.now()}, "revoked"),
        ({"expires_at": timezone.now() - timedelta(seconds=1)}, "expired"),
    ],
)
def test_a_key_that_has_ended_is_refused(ann: Person, fields: dict[str, object], words: str) -> None:
    type(ann.key).objects.update(**fields)
    error = refused(ann.hold())
    assert isinstance(error, KeyRejected)
    assert words in error.message


def test_a_key_that_has_yet_to_expire_works(ann: Person) -> None:
    type(ann.key).objects.update(expires_at=timezone.now() + timedelta(hours=1))
    assert done(ann.hold())


def test_a_disabled_users_key_is_refused(ann: Person) -> None:
    type(ann.user).objects.filter(pk=ann.id).update(is_active=False)
    assert refused(ann.hold()).code == "invalid_api_key"


@pytest.mark.parametrize(
    ("patterns", "may"),
    [
        ([], True),
        (["gpt-4o-mini"], True),
        (["gpt-4o*"], True),
        (["gpt-4.1", "*mini"], True),
        (["gpt-4o"], False),
        (["gpt-4.1*"], False),
        (["GPT-4o-mini"], False),
    ],
)
def test_a_key_calls_the_models_of_its_list(ann: Person, patterns: list[str], may: bool) -> None:
    type(ann.key).objects.update(allowed_models=patterns)
    (result,) = ledger.apply([ann.hold()])
    assert isinstance(result, Granted if may else PermissionDenied)


@pytest.mark.parametrize(("patterns", "may"), [([], True), (["*"], True), (["gpt-4o*"], False)])
def test_a_key_with_a_list_pays_for_no_call_that_names_no_model(
    ann: Person, patterns: list[str], may: bool
) -> None:
    """It may run any, as an assistant's does."""
    type(ann.key).objects.update(allowed_models=patterns)
    hold = replace(ann.hold(), model="")
    free = replace(hold, hold_id=uuid.uuid4().hex, estimate=None)
    result, answered = ledger.apply([hold, free])
    assert isinstance(result, Granted if may else PermissionDenied)
    assert isinstance(answered, Granted)


def test_the_last_use_of_a_key_is_noted(ann: Person) -> None:
    done(ann.hold())
    ann.key.refresh_from_db()
    assert ann.key.last_used_at is not None
    assert abs(timezone.now() - ann.key.last_used_at) < timedelta(minutes=1)


# --- changes by people ----------------------------------------------------------------------------------


def test_a_balance_is_set_and_granted_as_entries_with_who_and_why(ann: Person, ben: Person) -> None:
    assert ledger.set_balance(user_id=ann.id, to_credits=30, by_id=ben.id, reason="Trial").balance == 30
    assert ledger.change(user_id=ann.id, amount=-5, by_id=ben.id, reason="Taken").balance == 25
    entries = Entry.objects.filter(by_id=ben.id).order_by("id")
    assert [(e.kind, e.amount, e.balance_after, e.reason) for e in entries] == [
        ("set", -70, 30, "Trial"),
        ("grant", -5, 25, "Taken"),
    ]


@pytest.mark.parametrize("credits", [-1, MAX_BALANCE_CREDITS + 1])
def test_an_impossible_balance_is_refused(ann: Person, credits: int) -> None:
    with pytest.raises(BadRequest):
        ledger.set_balance(user_id=ann.id, to_credits=credits, by_id=None, reason="x")
    assert ann.account() == (100, 0)


def test_a_grant_beyond_the_bound_is_refused(ann: Person) -> None:
    with pytest.raises(BadRequest):
        ledger.change(user_id=ann.id, amount=MAX_BALANCE_CREDITS, by_id=None, reason="x")


def test_a_balance_set_below_what_is_held_keeps_the_holds(ann: Person) -> None:
    hold = ann.hold(10, 50)
    done(hold)
    assert ledger.set_balance(user_id=ann.id, to_credits=0, by_id=None, reason="x").available == -60
    assert isinstance(refused(ann.hold(1, 1)), InsufficientBalance)
    done(ann.post(hold, input=10, output=10))
    assert ann.account() == (-20, 0)


def test_a_user_that_does_not_exist_is_not_found() -> None:
    with pytest.raises(NotFound):
        ledger.set_balance(user_id=2**62, to_credits=1, by_id=None, reason="x")


# --- at once --------------------------------------------------------------------------------------------


@pytest.mark.django_db(transaction=True)
def test_batches_that_name_the_same_accounts_in_any_order_do_not_deadlock() -> None:
    people = [Person(f"user{number}", 100_000) for number in range(6)]
    rounds, errors = 20, []

    def work(mine: list[Person]) -> None:
        try:
            for _ in range(rounds):
                holds = [person.hold(1, 1) for person in mine]
                assert not [result for result in ledger.apply(holds) if isinstance(result, ApiError)]
                ends = [person.post(hold, input=1) for person, hold in zip(mine, holds, strict=True)]
                ledger.apply(ends[::-1])
        except BaseException as error:
            errors.append(error)
        finally:
            connections.close_all()

    orders = [people, people[::-1], people[3:] + people[:3], people[::2]]
    threads = [threading.Thread(target=work, args=(order,)) for order in orders]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    calls = [sum(person in order for order in orders) * rounds for person in people]
    assert [person.account() for person in people] == [(100_000 - count, 0) for count in calls]


@pytest.mark.django_db(transaction=True)
def test_calls_at_once_on_one_balance_never_overspend_it() -> None:
    ann = Person("ann", 30 * 10)
    granted: list[bool] = []
    worker_id = ann.hold().worker_id

    def work() -> None:
        try:
            for _ in range(10):
                (result,) = ledger.apply([ann.hold(10, 20, worker_id=worker_id)])
                granted.append(isinstance(result, Granted))
        finally:
            connections.close_all()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(granted), sum(granted)) == (40, 10)
    assert ann.account() == (300, 300)


def test_the_database_itself_forbids_to_hold_less_than_nothing(ann: Person) -> None:
    with pytest.raises(Exception, match=r"held_not_negative"), connection.cursor() as cursor:
        cursor.execute("UPDATE balances_account SET held = -1 WHERE user_id = %s", [ann.id])


def test_the_database_itself_forbids_a_second_charge_on_a_hold(ann: Person) -> None:
    hold = ann.hold()
    done(hold)
    done(ann.post(hold, input=1))
    charge = Entry.objects.get(kind=Entry.Kind.CHARGE)
    charge.pk = None
    charge._state.adding = True
    with pytest.raises(Exception, match=r"one_charge_a_hold|hold_id"):
        charge.save()


def test_an_entry_is_never_changed_nor_deleted(ann: Person) -> None:
    entry = Entry.objects.get()
    with pytest.raises(TypeError, match="never changed"):
        entry.save()
    with pytest.raises(TypeError, match="never deleted"):
        entry.delete()
    assert Account.objects.count() == 1


def test_a_hold_that_is_voided_and_posted_in_one_batch_ends_by_the_first_of_them(ann: Person) -> None:
    first, second = ann.hold(), ann.hold()
    done(first)
    done(second)
    ledger.apply([ann.post(second, input=5), ann.void(first), ann.post(first, input=7)])
    assert end_of(first) == ("voided", "Refused.")
    assert [(kind, amount) for kind, amount, _ in ann.charges()] == [("charge", -5), ("correction", -7)]
    assert ann.account() == (88, 0)
