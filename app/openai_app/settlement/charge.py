"""One call's hold, from its grant to its end, and the rules of who pays what.

how the call ended                                    what is charged
finished, usage reported                              the usage
finished, no usage reported                           the whole hold, and a counter rises
OpenAI refused, failed, or answered nonsense          nothing
a client left a call that is answered in one piece    the usage: the call runs to its end all the same
a client left a stream                                usage if it came, else input and output as counted
OpenAI broke off a stream                             the same; nothing if no event had come
OpenAI broke off speech, or another answer in bytes   input as counted; nothing if no byte had come
the gateway was stopped                               the same as for a client that left
a stream met the database away                        the same
the gateway died                                      what had been counted, at most a second before, or
                                                      before it stood still for longer than its lease; of
                                                      the time without a database, what was found in its
                                                      spool before the sweep
the gateway died while its charges could be written to no disk  what had been counted
the work goes on after the answer                     the usage at its end: see `deferred`
"""

from collections.abc import Mapping
from typing import Any

from balances.operations import Defer, Granted, Post, Progress, Void
from balances.usage import Estimate, Usage
from balances.writer import Answer, Writer
from openai_app import metrics
from openai_app.answer.streaming import Stream
from openai_app.metering import Meter
from openai_app.metering.meter import Request
from openai_app.metering.reading import model_name

FINISHED = "Finished; charged what OpenAI reported."
NO_USAGE = "Finished, but OpenAI reported no usage; charged the whole hold."
LEFT = "The client left; charged what had been counted."
CUT_REPORTED = "Cut off after OpenAI had reported its usage; charged that."
BROKEN = "OpenAI broke off; charged what had been counted."
STOPPED = "The gateway was stopped; charged what had been counted."
INTERRUPTED = "The gateway could not go on; charged what had been counted."
REFUSED = "OpenAI refused the call."
FAILED = "OpenAI could not be reached or gave no usable answer."
UNSENT = "The call ended before it was sent to OpenAI."


class Charge:
    """A call's hold, ended exactly once. Its methods only submit: nothing that happens later undoes them."""

    def __init__(
        self, writer: Writer, granted: Granted, estimate: Estimate, meter: Meter, request: Request
    ) -> None:
        self._writer = writer
        self._granted = granted
        self._estimate = estimate
        self._meter = meter
        self._request = request
        self.stream: Stream | None = None
        #: What goes on at OpenAI whether or not anybody listens; the hold then waits for its end.
        self.awaits = ""
        self.is_sent = False
        #: The caller has been given a part of an answer in bytes.
        self.has_passed = False
        self.is_settled = False

    @property
    def available(self) -> int:
        """Credits available to the caller after the hold."""
        return self._granted.available

    def open_stream(self, *, hide_usage: bool) -> Stream:
        """The reader of the stream that the call is answered with."""
        self.stream = Stream(self._meter, self._request, hide_usage=hide_usage)
        return self.stream

    def outlook(self, answer: Mapping[str, Any] | None) -> Progress | Defer | None:
        """What the ledger may be told beforehand of the end that comes now: of a call with this answer, or
        without one of the stream. None if nothing is known."""
        hold_id, user_id = self._granted.hold_id, self._granted.user_id
        if answer is None:
            usage = self.stream.usage if self.stream is not None else None
        else:
            usage = self._meter.usage(answer, self._request)
        if self.awaits and (answer is not None or usage is None):
            return Defer(hold_id, user_id, self.awaits)
        return Progress(hold_id, user_id, usage.units) if usage is not None else None

    def refused(self) -> Answer:
        """OpenAI refused the call."""
        return self._void(REFUSED)

    def answered(self, answer: Mapping[str, Any]) -> Answer:
        """OpenAI answered in one piece."""
        usage = self._meter.usage(answer, self._request)
        if usage is None and isinstance(answer.get("error"), Mapping):
            # Refused, though with a status that says otherwise, as some gateways in front of a model do.
            return self._void(REFUSED)
        return self._post(
            usage, NO_USAGE if usage is None else FINISHED, told=model_name(answer.get("model"))
        )

    def stream_ended(self) -> Answer | None:
        """The stream is over, by itself or because OpenAI broke it off; None if it was settled before."""
        stream = self.stream
        if self.is_settled or stream is None:
            return None
        if stream.usage is not None:
            return self._post(stream.usage, FINISHED)
        if self.awaits:
            return self.defer()
        if stream.is_done and not stream.has_failed:
            return self._post(None, NO_USAGE)
        if stream.has_begun:
            return self._post(self._counted(), BROKEN)
        return self._void(FAILED)

    def defer(self) -> Answer:
        """The work goes on after the answer: the hold stays open until it has ended."""
        self.is_settled = True
        return self._writer.submit(Defer(self._granted.hold_id, self._granted.user_id, self.awaits))

    def cut(self, reason: str) -> None:
        """The call was cut off while it went on."""
        if self.is_settled:
            return
        metrics.count(metrics.CUT, self._granted.operation)
        if not self.is_sent:
            self._void(UNSENT)
        elif self.stream is not None and self.stream.usage is not None:
            self._post(self.stream.usage, CUT_REPORTED)
        elif self.awaits:
            self.defer()
        else:
            self._post(self._counted(), reason)

    def failed(self) -> Answer | None:
        """The caller gets an error, or no more of a stream; None if the hold has ended already."""
        return None if self.is_settled else self._give_up()

    def report_progress(self) -> None:
        """Has the ledger note what an open stream has used, in case this process dies."""
        if not self.is_settled:
            counted = self._counted().units
            self._writer.submit(Progress(self._granted.hold_id, self._granted.user_id, counted, self.awaits))

    def _counted(self) -> Usage:
        """What the call has used as far as it can be seen from here: its input, and the output so far."""
        if self.stream is not None and self.stream.usage is not None:
            return self.stream.usage
        output = self.stream.output_tokens() if self.stream is not None else 0
        return Usage({**self._estimate.units, self._estimate.output_unit: output})

    def _post(self, usage: Usage | None, reason: str, *, told: str = "") -> Answer:
        """`told` is the model that the answer names: it is charged for where the request named none, as runs
        and stored prompts need not."""
        self.is_settled = True
        if self.stream is not None:
            told = told or self.stream.model
        granted = self._granted
        if usage is None:
            metrics.count(metrics.USAGE_MISSING, granted.operation)
        return self._writer.submit(
            Post(
                hold_id=granted.hold_id,
                user_id=granted.user_id,
                key_id=granted.key_id,
                operation=granted.operation,
                model=granted.model or told,
                usage=usage,
                reason=reason,
            )
        )

    def _give_up(self) -> Answer:
        """The caller gets no more; what has come of a stream, and work that goes on, is paid for."""
        stream = self.stream
        if stream is not None and stream.usage is not None:
            return self._post(stream.usage, CUT_REPORTED)
        if self.awaits:
            return self.defer()
        if self.has_passed or (stream is not None and stream.has_begun):
            return self._post(self._counted(), INTERRUPTED)
        return self._void(FAILED)

    def _void(self, reason: str) -> Answer:
        self.is_settled = True
        return self._writer.submit(Void(self._granted.hold_id, self._granted.user_id, reason))
