"""What the calls of one serving process share."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from balances.writer import Writer
from openai_app.idempotency.claims import Claims
from openai_app.owned.records import Records
from openai_app.owned.referred import Referred
from openai_app.settlement.charge import Charge
from openai_app.settlement.deferred import Settler
from openai_app.upstream import Upstream


@dataclass
class Services:
    """Made with the relay, on the event loop."""

    writer: Writer
    upstream: Upstream
    records: Records
    settler: Settler
    referred: Referred
    claims: Claims
    #: Counts large inputs: the tokeniser lets go of the interpreter's lock, but a core is a core.
    counting: ThreadPoolExecutor
    #: The charges of open streams, for the ledger to hear of their progress.
    open_charges: set[Charge] = field(default_factory=set)
