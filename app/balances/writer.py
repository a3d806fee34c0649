"""Group commit: one database thread for each serving process.

Operations that arrive while a transaction runs wait and are applied together by the next one, so that one
durable commit serves many calls. At low load a batch is one operation and nothing waits.

`submit` is a plain function: once it has returned, the operation happens, whatever becomes of the caller.
While the database is away, holds are refused at once; posts and voids are owed and written when it is back.
It also counts as away when it does not answer (`balances.watch`): then all who wait are told so.
"""

import asyncio
import logging
import queue
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from django.db import DatabaseError, InterfaceError, OperationalError, connection

from balances import leases, ledger
from balances.database_errors import (
    bounded_waiting,
    is_locked,
    leave_broken_connection,
    lost_a_race,
    read_only_is_away,
)
from balances.debts import MOST_LOCKED, Debts
from balances.operations import (
    Granted,
    Operation,
    PlaceHold,
    Progress,
    Result,
    Void,
)
from balances.rates import Book
from balances.watch import STUCK_S, Watch
from common.errors import ApiError, Unavailable

log = logging.getLogger(__name__)

# When the last batch was larger than this, calls are many, and to wait this long for more of them makes
# transactions fewer and larger: less work a call, and no longer waits. A call that is alone never waits.
BUSY_BATCH = 4
GATHER_S = 0.001
# Beyond this a transaction's length shows in the waiting time and its cost per call falls no further.
MAX_BATCH = 256
# More than this waiting means that the database is stuck: refuse at once rather than pile up.
MAX_WAITING = 10_000
# A change of rates is in force everywhere within this time.
BOOK_AGE_S = 1.0
# While the database is away, how long between attempts to reach it.
RETRY_S = 0.25
# Losing a deadlock says nothing of the operations: the same batch may go through the next time.
ATTEMPTS = 3
# A row that someone else keeps locked must not keep every other caller waiting, nor look as if the database
# were away.
LOCK_TIMEOUT_MS = 500
# A statement that ran away ends; so does a transaction whose process stands still: it has accounts locked.
STATEMENT_TIMEOUT_MS = 5_000
# How often the loop looks whether the database answers, while anybody waits for it.
LOOK_EVERY_S = 0.1
# At the end, how long what is owed may wait for the database.
FAREWELL_S = 5.0

LATE = "The database answered too late; nothing was sent to OpenAI."

_BOUNDS = (
    "SELECT set_config('lock_timeout', '%s', false), set_config('statement_timeout', '%s', false),"
    " set_config('idle_in_transaction_session_timeout', '%s', false)"
)

Answer = asyncio.Future[Result]
_Item = tuple[Operation, Answer]


class Writer:
    """The serving process's way to the ledger; made on its event loop, `start`ed once and `stop`ped once."""

    def __init__(self, worker_id: str, spool_folder: Path) -> None:
        """`worker_id` is 32 hex digits, new for each process; the folder is all processes' of this host."""
        self.worker_id = worker_id
        self._spool_folder = spool_folder
        self._debts = Debts(spool_folder, worker_id, self._apply, self._connected)
        self._loop = asyncio.get_running_loop()
        self._inbox: queue.SimpleQueue[_Item | None] = queue.SimpleQueue()
        self._was_applied = False
        self._watch = Watch()
        #: Those on the loop who wait for an answer, and the time at which they are looked after.
        self._waiting: list[Answer] = []
        self._look_at: asyncio.TimerHandle | None = None
        self._is_stopping = False
        self._away_until = 0.0
        self._renew_at = 0.0
        self._tidy_at = 0.0
        #: The replay of dead processes' files, a part of it at a time.
        self._adopting: Iterator[None] | None = None
        self._sweeper = leases.Sweeper()
        self._last_batch = 0
        self._book = Book()
        self._book_until = 0.0
        self._thread = threading.Thread(target=self._run, name="ledger", daemon=True)

    def start(self) -> None:
        self._thread.start()

    async def stop(self) -> None:
        """Writes all that was submitted, gives up the lease and ends the thread."""
        self._watch.give_up_s = STUCK_S
        self._is_stopping = True
        self._look()
        # Behind all that is granted by now: who has gone meanwhile has had it voided before the end.
        with suppress(ApiError):
            await self.submit(PlaceHold("", digest="", operation="", model="", estimate=None, worker_id=""))
        self._inbox.put(None)
        await asyncio.to_thread(self._thread.join)
        assert self._look_at is not None
        self._look_at.cancel()

    def submit(self, operation: Operation) -> "Answer":
        """Queues an operation; the future has its result, or raises the ApiError it was refused with.

        A hold whose future was cancelled, or was refused because the database did not answer in time, is
        voided when it turns out to be granted. What ends a hold happens whatever the future says.
        """
        answer: Answer = self._loop.create_future()
        if isinstance(operation, PlaceHold | Progress) and self.is_stuck:
            self._fail(answer, _away())
        elif isinstance(operation, PlaceHold) and self._inbox.qsize() > MAX_WAITING:
            self._fail(answer, Unavailable("The gateway is overloaded. Try again in a moment."))
        else:
            self._inbox.put((operation, answer))
            self._waiting.append(answer)
            if self._look_at is None:
                self._look_at = self._loop.call_later(LOOK_EVERY_S, self._look)
        return answer

    @property
    def is_stuck(self) -> bool:
        """Whether the database does not answer: who waits for it elsewhere should not wait any longer."""
        return self._watch.is_stuck

    @property
    def owed(self) -> int:
        """How many posts and voids wait for the database."""
        return len(self._debts)

    # --- on the loop --------------------------------------------------------------------------------------

    def _deliver(self, outcomes: Sequence[tuple[_Item, Result | ApiError]]) -> None:
        for (operation, answer), outcome in outcomes:
            if answer.done():
                if isinstance(operation, PlaceHold) and isinstance(outcome, Granted) and operation.estimate:
                    why = "The client left before the call." if answer.cancelled() else LATE
                    self.submit(Void(outcome.hold_id, outcome.user_id, why))
            elif isinstance(outcome, ApiError):
                self._fail(answer, outcome)
            else:
                answer.set_result(outcome)

    def _look(self) -> None:
        """Tells those who wait when the database does not answer."""
        if self._look_at is not None:
            self._look_at.cancel()
        self._waiting = [answer for answer in self._waiting if not answer.done()]
        if self.is_stuck:
            if self._waiting:
                log.warning("the database does not answer: %d who wait are told so", len(self._waiting))
            for answer in self._waiting:
                self._fail(answer, _away())
            self._waiting.clear()
            self._watch.give_up()
        goes_on = self._is_stopping or self._watch.is_busy or bool(self._waiting)
        self._look_at = self._loop.call_later(LOOK_EVERY_S, self._look) if goes_on else None

    def _fail(self, answer: "Answer", error: ApiError) -> None:
        answer.set_exception(error)
        answer.exception()  # whoever submitted it may not wait for it: that is no error

    # --- on the thread ------------------------------------------------------------------------------------

    def _run(self) -> None:
        going = True
        while going:
            batch, going = self._next_batch()
            try:
                self._keep_house()
            except Exception:
                # Whatever is wrong with what others have left, calls are served.
                log.exception("the ledger's housekeeping met an unexpected error")
            try:
                if batch:
                    self._serve(batch)
            except Exception:
                # The thread must outlive anything: without it every call of this process would hang.
                log.exception("the ledger's thread met an unexpected error")
                self._refuse(batch)
        self._say_farewell()

    def _next_batch(self) -> tuple[list[_Item], bool]:
        """What has arrived, waiting a moment for the first; False when `stop` was called."""
        batch: list[_Item] = []
        was_busy, self._last_batch = self._last_batch > BUSY_BATCH, 0
        try:
            item = self._inbox.get(timeout=self._pause_s)
            if was_busy:
                time.sleep(GATHER_S)
            while item is not None:
                batch.append(item)
                self._last_batch = len(batch)
                if len(batch) == MAX_BATCH:
                    return batch, True
                item = self._inbox.get_nowait()
        except queue.Empty:
            return batch, True
        return batch, False

    @property
    def _pause_s(self) -> float:
        """How long to wait for operations before looking after the house again."""
        if self._adopting is not None:
            return 0.001
        return RETRY_S if self._debts.are_open else 1.0

    def _serve(self, batch: Sequence[_Item]) -> None:
        if self._is_away:
            self._refuse(batch)
            return
        # Who was told in the meantime that the database is away need not be granted a hold any more.
        batch = [item for item in batch if not (isinstance(item[0], PlaceHold) and item[1].done())]
        if not batch:
            return
        try:
            results = self._apply([operation for operation, _ in batch])
        except (OperationalError, InterfaceError) as error:
            self._lose_database(error)
            self._refuse(batch, error)
        except Exception:
            # One operation cannot be written, such as one with a NUL in a text; it must not take the others
            # with it.
            log.exception("a batch of %d was refused by the database", len(batch))
            self._serve_each(batch)
        else:
            self._answer(list(zip(batch, results, strict=True)))

    def _serve_each(self, batch: Sequence[_Item]) -> None:
        locked: set[int | str] = set()
        for item in batch:
            if _caller_of(item[0]) in locked or len(locked) >= MOST_LOCKED or self._is_away:
                self._refuse([item])
                continue
            try:
                (result,) = self._apply([item[0]])
            except (OperationalError, InterfaceError) as error:
                if is_locked(error):
                    locked.add(_caller_of(item[0]))
                self._lose_database(error)
                self._refuse([item], error)
            except Exception:
                log.exception("cannot be written: %s", item[0])
                self._refuse([item])
            else:
                self._answer([(item, result)])

    def _apply(self, operations: Sequence[Operation]) -> list[Result | ApiError]:
        for attempt in range(1, ATTEMPTS + 1):
            try:
                self._was_applied = False
                with self._connected():
                    self._was_applied = True
                    return ledger.apply(operations, self._book)
            except OperationalError as error:
                if is_locked(error) and len(operations) > 1:
                    raise DatabaseError("an account stays locked") from error
                if not lost_a_race(error) or attempt == ATTEMPTS:
                    raise
        raise AssertionError("unreachable")

    @contextmanager
    def _connected(self) -> Iterator[None]:
        """Around whatever asks the database: it is watched, and prepared."""
        with self._watch.transaction(), read_only_is_away(), bounded_waiting():
            self._prepare()
            yield

    def _prepare(self) -> None:
        """A usable connection, whose waiting is bounded, and rates that are fresh."""
        leave_broken_connection()
        if connection.connection is None:
            connection.ensure_connection()
            if connection.vendor == "postgresql":
                self._watch.connected()
                with connection.cursor() as cursor:
                    cursor.execute(_BOUNDS, [LOCK_TIMEOUT_MS, STATEMENT_TIMEOUT_MS, STATEMENT_TIMEOUT_MS])
        if time.monotonic() >= self._book_until:
            self._book = Book.load()
            self._book_until = time.monotonic() + BOOK_AGE_S

    def _lose_database(self, error: Exception) -> None:
        if is_locked(error):
            log.warning("an account stays locked by someone else")
            return
        log.warning("the database cannot be reached: %s", str(error).strip() or type(error).__name__)
        connection.close()
        self._watch.closed()
        self._sweeper.forget()
        self._tidy_at = 0.0
        self._away_until = time.monotonic() + RETRY_S

    def _refuse(self, batch: Sequence[_Item], error: Exception | None = None) -> None:
        """Answers a batch that did not get through; whatever ends a hold is owed.

        Where the connection may have broken after its commit, its holds may stand all the same.
        """
        if error is not None and self._was_applied and not is_locked(error):
            asked = [o for o, _ in batch if isinstance(o, PlaceHold) and o.estimate is not None]
            self._debts.doubt([operation.hold_id for operation in asked])
        self._debts.add([operation for operation, _ in batch])
        away = _away()
        self._answer([(item, away) for item in batch])

    def _answer(self, outcomes: Sequence[tuple[_Item, Result | ApiError]]) -> None:
        try:
            self._loop.call_soon_threadsafe(self._deliver, outcomes)
        except RuntimeError:
            log.debug("the loop has ended; nobody waits for %d answers", len(outcomes))

    @property
    def _is_away(self) -> bool:
        """Whether the database was away just now, so that it need not be tried yet."""
        return time.monotonic() < self._away_until

    def _keep_house(self) -> None:
        """Renews the lease, writes what is owed, ends what dead processes left.

        Each has a time of its own, which moves on whatever comes of it: what cannot be done must keep nothing
        else from being done.
        """
        if self._is_away:
            return
        now = time.monotonic()
        try:
            if now >= self._renew_at:
                with self._connected():
                    leases.take(self.worker_id)
                self._renew_at = now + leases.RENEW_EVERY_S
            self._debts.pay()
            if now >= self._tidy_at and self._adopting is None:
                self._tidy_at = now + leases.RENEW_EVERY_S
                self._adopting = self._debts.adopt_orphans()
            if self._adopting is not None:
                self._tidy()
        except (OperationalError, InterfaceError) as error:
            self._lose_database(error)

    def _tidy(self) -> None:
        """Goes on with the files of dead processes, and sweeps when they are through: what is known exactly
        comes first, for the sweep knows only what had been counted."""
        adopting, self._adopting = self._adopting, None
        assert adopting is not None
        for _ in adopting:
            # More of it when those who wait have been served.
            self._adopting = adopting
            return
        with self._connected():
            self._sweeper.sweep()

    def _say_farewell(self) -> None:
        until = time.monotonic() + FAREWELL_S
        while self._debts.must_be_paid and time.monotonic() < until:
            time.sleep(max(0.0, max(self._away_until, self._debts.pay_at) - time.monotonic()))
            self._keep_house()
        if self._debts:
            log.error("ended with %d charges owed; they are in %s", len(self._debts), self._spool_folder)
        self._debts.close()
        try:
            with self._watch.transaction(), bounded_waiting():
                leases.release(self.worker_id)
        except DatabaseError as error:
            log.warning("the lease could not be given up: %s", error)
        connection.close()
        self._watch.closed()


def _caller_of(operation: Operation) -> int | str:
    """Tells operations of one account from others': by the key's digest where the user is not known yet."""
    return operation.digest if isinstance(operation, PlaceHold) else operation.user_id


def _away() -> Unavailable:
    return Unavailable("The gateway's database cannot be reached. Try again in a moment.")
