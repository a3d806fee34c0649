"""Any interleaving of what can be asked of the ledger, in batches of any size, with crashes, keeps the sums.

The machine does the same to the ledger and to a model that decides one operation after the other; after each
batch both must say the same, the audit must be clean, and no strict account be lower than usage explains.
"""

import tempfile
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from django.db import transaction
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from balances import audit, leases, ledger
from balances.limits import MINUTE_US, LimitReached
from balances.models import Account, Entry, Hold, Level, Rate, Worker
from balances.operations import (
    Change,
    Defer,
    Granted,
    Operation,
    PlaceHold,
    Post,
    Progress,
    Result,
    SetBalance,
    Void,
)
from balances.rates import Book
from balances.spool import Spool, orphans
from balances.tests.acting import Person
from balances.tests.ledger_model import EACH, LIMITED, LIMITS, Held, Model
from balances.usage import Estimate, Usage
from common.errors import ApiError, InsufficientBalance
from users.models import ApiKey, User

MODELS = ("gpt-4o-mini", "cheap-1", "dear", "free")
RATES = (
    ("cheap*", "input", "0.3"),
    ("cheap*", "output", "0.7"),
    ("dear", "input", "3"),
    ("free", "input", "0"),
)
UNITS = st.dictionaries(
    st.sampled_from(["input", "output", "cached_input", "request"]),
    st.integers(0, 3_000) | st.sampled_from([0, 10**12]),
    max_size=3,
)
ESTIMATES = st.builds(
    Estimate,
    st.dictionaries(st.sampled_from(["input", "request"]), st.integers(0, 2_000), max_size=2),
    asked=st.none() | st.integers(0, 6_000),
    ceiling=st.none() | st.sampled_from([0, 16, 16_384]),
    choices=st.integers(1, 3),
    least_cap=st.sampled_from([1, 16]),
)
PLACES = st.integers(0, 3) | st.integers(0, 2**16)
REASONS = ("Finished.", "Left.")
WAYS = ("post", "post", "post all", "void", "progress", "defer")
STEPS = st.lists(
    st.tuples(st.sampled_from(WAYS), PLACES, UNITS, st.sampled_from(REASONS)), min_size=1, max_size=5
)
HOLDS = st.lists(
    st.tuples(
        st.integers(-1, LIMITED),
        st.sampled_from(MODELS),
        ESTIMATES | ESTIMATES | st.none(),
        st.integers(0, 2),
    ),
    min_size=1,
    max_size=4,
)


class LedgerMachine(RuleBasedStateMachine):
    """Four accounts, three workers, and a batch that operations are put into."""

    tried = 0

    def __init__(self) -> None:
        super().__init__()
        LedgerMachine.tried += 1
        forget()
        for model, unit, credits in RATES:
            Rate.objects.create(model=model, unit=unit, credits_per_unit=credits)
        self.people = [Person(name, 0, relaxed=name == "rex") for name in ("ann", "ben", "rex", "lim")]
        User.objects.filter(id=self.people[LIMITED].id).update(**LIMITS)
        self.workers = [uuid.uuid4().hex for _ in range(3)]
        self.living = set(range(3))
        for worker in self.workers:
            leases.take(worker)
        self.model = Model([person.id for person in self.people], Book.load())
        self.batch: list[tuple[Operation, int, int]] = []
        self.granted: list[Held] = []

    def teardown(self) -> None:
        forget()

    @initialize(credits=st.lists(st.integers(0, 20_000), min_size=len(EACH), max_size=len(EACH)), asked=HOLDS)
    def begin(self, credits: list[int], asked: list[tuple[int, str, Estimate | None, int]]) -> None:
        for person, amount in zip(self.people, credits, strict=True):
            self._put(SetBalance(person.id, 20_000 - amount, None, "first"))
        self.hold(asked)
        self.commit()

    # --- what goes into the batch -------------------------------------------------------------------------

    @rule(asked=HOLDS)
    def hold(self, asked: list[tuple[int, str, Estimate | None, int]]) -> None:
        for who, model, estimate, worker in asked:
            digest = self.people[who].key.digest if who >= 0 else "0" * 64
            operation = PlaceHold(uuid.uuid4().hex, digest, "op", model, estimate, self.workers[worker])
            self._put(operation, who, worker)

    @precondition(lambda self: self.granted)
    @rule(steps=STEPS)
    def go_on(self, steps: list[tuple[str, int, dict[str, int], str]]) -> None:
        """What becomes of calls: any of it, in any order, again and again."""
        self._go_on(self.granted, steps)

    def _go_on(self, some: Sequence[Held], steps: list[tuple[str, int, dict[str, int], str]]) -> None:
        for what, place, units, reason in steps:
            held = some[-1 - place % len(some)]
            person = self.people[held.person]
            if what == "progress":
                self._put(Progress(held.id, person.id, units, f"batch_{place}" if place % 4 == 3 else ""))
            elif what == "defer":
                self._put(Defer(held.id, person.id, f"batch_{place}"))
            elif what == "void":
                self._put(Void(held.id, person.id, reason))
            else:
                usage = Usage(units, {"reasoning": 1}) if what == "post" else None
                self._put(Post(held.id, person.id, person.key.pk, "op", held.model, usage, reason))

    @rule(who=st.sampled_from(EACH), units=UNITS)
    def post_of_nothing(self, who: int, units: dict[str, int]) -> None:
        self._put(Post(uuid.uuid4().hex, self.people[who].id, None, "op", "dear", Usage(units), "Finished."))

    @precondition(lambda self: self.batch)
    @rule(place=PLACES)
    def again(self, place: int) -> None:
        """Something of this batch once more; a hold's id is never used twice."""
        operation, who, worker = self.batch[place % len(self.batch)]
        if not isinstance(operation, PlaceHold):
            self._put(operation, who, worker)

    @rule(who=st.sampled_from(EACH), amount=st.integers(-20_000, 20_000) | st.sampled_from([2**53, -(2**60)]))
    def grant(self, who: int, amount: int) -> None:
        self._put(Change(self.people[who].id, Entry.Kind.GRANT, amount, None, "granted"))

    @rule(who=st.sampled_from(EACH), credits=st.integers(-1, 20_000) | st.sampled_from([2**53 - 1, 2**63]))
    def set_balance(self, who: int, credits: int) -> None:
        self._put(SetBalance(self.people[who].id, credits, None, "set"))

    # --- what becomes of the batch ------------------------------------------------------------------------

    @rule()
    def commit(self) -> None:
        self._expect(ledger.apply([operation for operation, _, _ in self.batch]))

    @precondition(lambda self: self.batch)
    @rule(replays=st.integers(1, 2))
    def crash_before_the_commit(self, replays: int) -> None:
        """Nothing has happened; what ends a hold waits in the spool, and is read from there."""
        with transaction.atomic():
            ledger.apply([operation for operation, _, _ in self.batch])
            transaction.set_rollback(True)
        owed = [each for each in self.batch if isinstance(each[0], Post | Void | Defer)]
        self.batch = owed
        self._replay([operation for operation, _, _ in owed], self._expect)
        for _ in range(1, replays):
            self.batch = owed
            self._replay([operation for operation, _, _ in owed], self._expect)

    @precondition(lambda self: self.batch)
    @rule()
    def crash_after_the_commit(self) -> None:
        """All has happened, but nobody has heard of it: what ends a hold is written once more."""
        batch = self.batch
        self.commit()
        self.batch = [each for each in batch if isinstance(each[0], Post | Void | Defer)]
        self._replay([operation for operation, _, _ in self.batch], self._expect)

    @rule(dying=st.none() | st.integers(0, 2), late=st.just([]) | STEPS)
    def sweep(self, dying: int | None, late: list[tuple[str, int, dict[str, int], str]]) -> None:
        """Ends the holds of those that are gone, one of whom may have been taken for dead and speak late."""
        if dying is not None:
            leases.release(self.workers[dying])
            self.living.discard(dying)
        self.commit()
        for worker in self.living:
            leases.take(self.workers[worker])
        leftovers = [
            held
            for held in self.model.holds.values()
            if held.charged is None and held.worker not in self.living and not held.awaits
        ]
        assert leases.sweep() == len(leftovers)
        for held in leftovers:
            self.model.sweep(held)
        self._compare()
        if leftovers and late:
            self._go_on(leftovers, late)
            self.commit()

    # --- what must hold -----------------------------------------------------------------------------------

    @invariant()
    def no_strict_account_is_lower_than_usage_explains(self) -> None:
        for who in EACH:
            available = self.model.balance[who] - self.model.held[who]
            assert available >= -self.model.excess[who]
            assert self.model.held[who] >= 0

    def _put(self, operation: Operation, who: int = 0, worker: int = 0) -> None:
        self.batch.append((operation, who, worker))

    def _replay(self, owed: Sequence[Operation], expect: Callable[[list[Result | ApiError]], None]) -> None:
        """Writes operations to a spool whose process ends, and applies what is read from it."""
        with tempfile.TemporaryDirectory() as folder:
            spool = Spool(Path(folder), "dead")
            spool.keep([operation for operation in owed if isinstance(operation, Post | Void | Defer)])
            assert spool._file is not None
            spool._file.close()
            for orphan in orphans(Path(folder)):
                with orphan:
                    expect(ledger.apply([one for one in orphan.operations() if isinstance(one, Operation)]))
                    orphan.done()

    def _expect(self, results: list[Result | ApiError]) -> None:
        """Holds the ledger's answers and its tables against the model's."""
        batch, self.batch = self.batch, []
        for (operation, who, worker), result in zip(batch, results, strict=True):
            if isinstance(operation, PlaceHold) and who == LIMITED:
                self._expect_within_limits(operation, worker, result)
                continue
            expected = self.model.decide(operation, who, worker)
            if isinstance(expected, type):
                assert isinstance(result, expected), (operation, result)
            elif isinstance(expected, Granted):
                assert isinstance(result, Granted), (operation, result)
                seen = (result.amount, result.output_cap, result.available, result.user_id)
                wanted = (expected.amount, expected.output_cap, expected.available, expected.user_id)
                assert seen == wanted
            else:
                assert result == expected, operation
        known = {held.id for held in self.granted}
        self.granted += [held for held in self.model.holds.values() if held.id not in known]
        self._compare()

    def _expect_within_limits(self, operation: PlaceHold, worker: int, result: Result | ApiError) -> None:
        if isinstance(result, Granted):
            assert result.allowances is not None
            if operation.estimate is not None:
                self.model.granted(operation, result.amount, worker)
        else:
            assert isinstance(result, LimitReached | InsufficientBalance), result

    def _name(self, hold: Hold) -> Held:
        """The hold that the model expects the ledger to have opened by itself."""
        what = (self.people.index(next(p for p in self.people if p.id == hold.account_id)), hold.amount)
        held = next(h for h in self.model.unnamed if (h.person, h.amount, h.awaits) == (*what, hold.awaits))
        self.model.unnamed.remove(held)
        held.id = hold.id.hex
        self.model.holds[held.id] = held
        self.granted.append(held)
        return held

    def _compare(self) -> None:
        for who, person in enumerate(self.people):
            assert person.account() == (self.model.balance[who], self.model.held[who])
        for hold in Hold.objects.order_by("created_at"):
            held = self.model.holds.get(hold.id.hex) or self._name(hold)
            state = "open" if held.charged is None else "posted" if held.is_posted else "voided"
            assert hold.state == state
            if state == "open":
                assert (hold.counted, hold.awaits) == (held.counted, held.awaits)
            charged = -sum(entry.amount for entry in hold.entries.all())
            assert charged == (held.charged or 0)
        assert not self.model.unnamed
        for level in Level.objects.all():
            assert 0 <= level.requests <= LIMITS["requests_per_minute"] * MINUTE_US
            assert 0 <= level.tokens <= LIMITS["tokens_per_minute"] * MINUTE_US
        for check in audit.CHECKS:
            assert list(audit.offences(check)) == [], check.claim


def forget() -> None:
    """Empties the ledger, which by itself forgets nothing."""
    for model in (Entry, Hold, Level, Worker, Account, ApiKey, User, Rate):
        found = model._default_manager.all()
        found._raw_delete(found.db)


@pytest.mark.django_db(transaction=True)
def test_any_interleaving_keeps_the_sums() -> None:
    run_state_machine_as_test(LedgerMachine, settings=settings(max_examples=12, stateful_step_count=25))
