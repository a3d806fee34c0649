"""The data plane: an ASGI application that checks a call against the balance, forwards it, has it paid for.

    match ─► count ─► hold ─► forward ─► settle ─► answer        (`exchange`, one for each call)
                       └─── the writer's thread ──┘               (`balances.writer`)

Nothing here touches the ORM or waits for a lock; no database connection is kept during an upstream call.
"""

import asyncio
import logging
from concurrent.futures import ThreadPoolExecutor

from balances.writer import Writer
from common.asgi import Receive, Scope, Send
from openai_app import metrics
from openai_app.exchange import Exchange
from openai_app.idempotency.claims import Claims
from openai_app.owned.records import Records
from openai_app.owned.referred import Referred
from openai_app.request.paths import PREFIXES
from openai_app.services import Services
from openai_app.settlement.deferred import Settler
from openai_app.sockets.socket import Socket
from openai_app.upstream import Upstream

log = logging.getLogger(__name__)

# A worker's death may cost the output of a second at most: of this time, and of that of the note's commit.
PROGRESS_EVERY_S = 0.5
COUNTING_THREADS = 2


class Relay:
    """Serves everything below `PREFIXES`; made on the event loop, `close`d at its end."""

    def __init__(self, writer: Writer, upstream: Upstream) -> None:
        records = Records(lambda: writer.is_stuck)
        counting = ThreadPoolExecutor(COUNTING_THREADS, "count")
        self._services = Services(
            writer=writer,
            upstream=upstream,
            records=records,
            settler=Settler(writer, upstream, records),
            referred=Referred(upstream, records, counting),
            claims=Claims(records, writer.worker_id),
            counting=counting,
        )
        self._tasks = [
            asyncio.ensure_future(self._report_progress()),
            asyncio.ensure_future(self._services.settler.run()),
        ]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await Socket(self._services, scope, receive, send).run()
        else:
            await Exchange(self._services, scope, receive, send).run()

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._services.settler.close()
        await self._services.claims.close()
        self._services.records.close()
        self._services.counting.shutdown(wait=False, cancel_futures=True)
        await self._services.upstream.close()

    async def _report_progress(self) -> None:
        while True:
            await asyncio.sleep(PROGRESS_EVERY_S)
            for charge in tuple(self._services.open_charges):
                try:
                    charge.report_progress()
                except Exception:
                    # One stream that cannot be counted must not cost all others their notes.
                    log.exception("what an open stream has used could not be noted")
            metrics.show(metrics.OWED, self._services.writer.owed)


__all__ = ["PREFIXES", "Relay"]
