"""A process's claims on Idempotency-Keys, and whom it takes for dead."""

import asyncio
import threading
import uuid
from collections.abc import Callable

import pytest
from asgiref.sync import sync_to_async
from django.db import OperationalError, connections

from balances import leases
from balances.tests.acting import dead_worker, living_worker
from common.errors import Conflict
from openai_app.idempotency.claims import Claim, Claims
from openai_app.owned.records import THREADS, Records
from openai_app.tests.test_lessons_free_of_charge import closed_at

SURELY_DEAD_S = 0.2


def away_once() -> Callable[[], None]:
    """What finds the database away, and back when it is tried again."""
    outage = iter([OperationalError("the connection has ended")])

    def work() -> None:
        for error in outage:
            raise error

    return work


@pytest.mark.django_db(transaction=True)
async def test_who_had_no_lease_before_the_database_was_away_is_not_dead_when_it_is_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(leases, "SURELY_DEAD_S", SURELY_DEAD_S)
    records = Records(lambda: False)
    gone = Claims(records, await sync_to_async(dead_worker)())
    own = Claims(records, await sync_to_async(living_worker)())

    async def claim(claims: Claims) -> object:
        return await claims.begin(b"a", key_id=1, asks_for=b"", request_id=uuid.uuid4().hex)

    assert isinstance(await claim(gone), Claim)
    with pytest.raises(Conflict):
        await claim(own)
    await asyncio.sleep(SURELY_DEAD_S)
    await own.write(away_once())
    with pytest.raises(Conflict):
        await claim(own)
    await asyncio.sleep(SURELY_DEAD_S)
    assert isinstance(await claim(own), Claim)
    for claims in (gone, own):
        await claims.close()
    both = threading.Barrier(THREADS)
    await asyncio.gather(*[records.run(lambda: closed_at(both)) for _ in range(THREADS)])
    records.close()
    await sync_to_async(connections.close_all)()
