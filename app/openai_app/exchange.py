"""One call through the relay, from its head to its settlement."""

import asyncio
import hashlib
import logging
import random
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from balances.operations import Granted, PlaceHold, Void
from balances.usage import Estimate
from common.asgi import JSON, ClientLeftError, Headers, Receive, Scope, Send, punctual
from common.errors import (
    ApiError,
    BadRequest,
    KeyRejected,
    PermissionDenied,
    Unavailable,
    forget_frames,
)
from openai_app import catalogue, metrics
from openai_app.answer import passing
from openai_app.answer.reply import Reply
from openai_app.catalogue import Operation
from openai_app.catalogue.operation import EVENTS
from openai_app.http.response import Response
from openai_app.idempotency.claims import key_in, replayed_headers
from openai_app.idempotency.rows import Kept
from openai_app.metering.reading import asks_for_stream
from openai_app.owned import lists, ownership
from openai_app.owned.objects import MODEL
from openai_app.owned.ownership import Mention
from openai_app.owned.told import Told
from openai_app.request.credentials import digest_from
from openai_app.request.incoming import INLINE_BYTES, Incoming, Payload, content_length, is_packed
from openai_app.request.paths import path_below_prefix
from openai_app.services import Services
from openai_app.settlement import charge
from openai_app.settlement.charge import Charge
from openai_app.upstream import IDEMPOTENCY_KEY, is_json

log = logging.getLogger(__name__)

# A stranger must not make us read a large body: above this the key is looked at first.
UNKNOWN_CALLER_BYTES = 1024 * 1024


class Exchange:
    """State of one call. `run` never raises but for cancellation, and leaves no hold open."""

    def __init__(self, services: Services, scope: Scope, receive: Receive, send: Send) -> None:
        self._services = services
        self._scope = scope
        self._receive = receive
        self._request_id = new_id()
        self._reply = Reply(send, self._request_id)
        self._headers: Headers = scope["headers"]
        self._operation: Operation | None = None
        self._caller: Granted | None = None
        self._slots: Mapping[str, str] = {}
        self._body: Incoming | None = None
        self._charge: Charge | None = None
        self._client_left = False
        #: There is one once it is known what is asked for; so there is a digest of the caller's key.
        self._told: Told
        self._digest: str

    async def run(self) -> None:
        """Serves the call and answers whatever error it ends with."""
        began = time.monotonic()
        try:
            status = await self._serve()
        except ApiError as error:
            error = await self._rather_of_the_key(error)
            status = error.status
            await self._answer_error(error)
        except ClientLeftError:
            status = 499
        except asyncio.CancelledError:
            if self._charge is not None:
                self._charge.cut(charge.LEFT if self._client_left else charge.STOPPED)
            if not self._client_left:
                await self._reply.last_event(Unavailable("The gateway is being stopped. Try again."))
                raise
            status = 499
            _uncancel()
        except Exception:
            log.exception("request %s met an unexpected error", self._request_id)
            status = 500
            await self._reply.error(
                ApiError("The gateway failed on this request. Its operator finds it by its id.")
            )
        finally:
            # Whatever has not ended the hold by now will not.
            if self._charge is not None:
                self._charge.failed()
            if self._reply.claim is not None:
                self._reply.claim.abandon()
            if self._body is not None:
                self._body.close()
        name = self._operation.name if self._operation is not None else "none"
        metrics.count_call(name, status, time.monotonic() - began)

    async def _serve(self) -> int:
        """Answers the call and says with which status."""
        operation, slots = catalogue.match(self._scope["method"], path_below_prefix(self._scope["path"]))
        self._operation, self._told = operation, Told(self._services, operation, slots)
        self._digest = digest = digest_from(self._headers)
        key = key_in(self._headers) if operation.is_repeatable else None
        must_know = key is not None or self._must_know_caller(operation, slots)
        caller = await self._recognise(digest) if must_know else None
        self._caller, self._slots = caller, slots
        if operation.refused:
            raise PermissionDenied(operation.refused, code="operation_not_offered")
        body = await Incoming.read(
            punctual(self._receive),
            self._headers,
            operation,
            self._services.counting,
            with_digest=key is not None,
        )
        self._body = body
        if (refusal := operation.refusal(body.fields)) and not (caller and caller.is_superuser):
            raise PermissionDenied(refusal, code="operation_not_offered")
        path = operation.path.format(**slots)
        if key is not None and caller is not None and (kept := await self._claim(key, path, body, caller)):
            metrics.count(metrics.REPLAYED, operation.name)
            await self._reply.whole(kept.status, replayed_headers(kept, caller.available), kept.body or b"")
            return kept.status
        if slots or self._scope["query_string"] or body.may_mention_ids:
            caller = caller or await self._recognise(digest)
            self._caller = caller
            await self._check(
                ownership.mentions(operation, slots, self._scope["query_string"], body.mentioning)
            )
        if operation.lists not in (None, MODEL) and caller is not None and not caller.is_superuser:
            page = await self._told.page(operation.lists, self._scope["query_string"], caller)
            await self._reply.whole(200, [JSON], page)
            return 200
        fields = await self._hold(operation, digest, body) if operation.meter.estimate is not None else {}
        follows = operation.method == "GET" and EVENTS in operation.answers
        is_stream = asks_for_stream(body.fields) or body.fields.get("stream_format") == "sse"
        # An answer in one piece that will be kept is waited for, for a client that left and asks again.
        is_cut = operation.answers_bytes and self._reply.claim is None
        if is_stream or is_cut or follows:
            return await self._forward_while_client_stays(path, await self._payload(body, fields))
        return await self._forward(path, await self._payload(body, fields))

    async def _answer_error(self, error: ApiError) -> None:
        headers: Headers = []
        if self._charge is not None and (posting := self._charge.failed()) is not None:
            with suppress(ApiError):
                headers = await passing.settled(posting)
        await self._reply.error(error, headers)
        forget_frames(error)

    async def _rather_of_the_key(self, error: ApiError) -> ApiError:
        """A request that is refused before its key was looked at is refused for its key, if that is no good:
        strangers are told nothing else."""
        if self._operation is None or self._caller is not None or isinstance(error, KeyRejected):
            return error
        try:
            await self._recognise(digest_from(self._headers))
        except KeyRejected as refused:
            forget_frames(error)
            return refused
        except ApiError as other:
            forget_frames(other)
        return error

    def _must_know_caller(self, operation: Operation, slots: Mapping[str, str]) -> bool:
        """Whether the key is looked at by itself, before the body is read and a hold is placed."""
        length = content_length(self._headers)
        is_large = length is None or length > UNKNOWN_CALLER_BYTES or is_packed(self._headers)
        return operation.meter.estimate is None or bool(operation.refused or slots) or is_large

    @property
    def _is_free(self) -> bool:
        return self._operation is not None and self._operation.meter.estimate is None

    async def _claim(self, key: bytes, path: str, body: Incoming, caller: Granted) -> Kept | None:
        """Claims the call's Idempotency-Key, or answers what the first call with it came to."""
        digest = await body.digest(self._services.counting)
        asks_for = b"\n".join((path.encode(), self._scope["query_string"], digest))
        begun = await self._services.claims.begin(
            key, key_id=caller.key_id, asks_for=asks_for, request_id=self._request_id
        )
        if isinstance(begun, Kept):
            return begun
        self._reply.claim = begun
        return None

    async def _recognise(self, digest: str) -> Granted:
        return await self._ask_ledger(digest, "", None)

    async def _ask_ledger(self, digest: str, model: str, estimate: Estimate | None) -> Granted:
        answer = self._services.writer.submit(
            PlaceHold(
                hold_id=self._request_id,
                digest=digest,
                operation=self._operation.name if self._operation else "",
                model=model,
                estimate=estimate,
                worker_id=self._services.writer.worker_id,
                # A call counts once: one that will be paid for does with its hold.
                is_limited=estimate is not None or self._is_free,
            )
        )
        try:
            result = await answer
        except asyncio.CancelledError:
            # Granted in the very step in which this was cancelled; otherwise the writer voids it by itself.
            if estimate is not None and answer.done() and not answer.cancelled() and not answer.exception():
                held = answer.result()
                assert isinstance(held, Granted)
                self._services.writer.submit(Void(held.hold_id, held.user_id, charge.UNSENT))
            raise
        assert isinstance(result, Granted)
        self._reply.tell(result.allowances)
        return result

    async def _hold(self, operation: Operation, digest: str, body: Incoming) -> dict[str, Any]:
        """Holds what the call may cost, and answers the fields that are written into its body."""
        # Nothing is counted or held for a call that could not be forwarded.
        self._services.upstream.circuit.check(digest)
        meter, request = operation.meter, body.fields
        if "engine_id" in self._slots:
            # The oldest calls name the model in the path.
            request = {**request, "model": self._slots["engine_id"]}
        assert meter.estimate is not None
        if body.size <= INLINE_BYTES:
            estimate = meter.estimate(request)
        else:
            loop = asyncio.get_running_loop()
            estimate = await loop.run_in_executor(self._services.counting, meter.estimate, request)
        estimate = await self._services.referred.add_to(estimate, meter, request, self._check)
        model = await self._services.referred.rated_as(estimate) or meter.rated_as(request)
        if not model.isprintable():
            raise BadRequest("The model's name holds characters that no name has.", param="model")
        granted = await self._ask_ledger(digest, model, estimate)
        self._caller = granted
        self._charge = Charge(self._services.writer, granted, estimate, meter, request)
        fields = meter.ask_for_usage(request)
        self._charge.open_stream(hide_usage=bool(fields))
        if granted.output_cap is not None:
            fields.update(meter.cap(request, granted.output_cap))
        return fields

    async def _payload(self, body: Incoming, fields: dict[str, Any]) -> Payload:
        if not fields or body.size <= INLINE_BYTES:
            return body.payload(fields)
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._services.counting, body.payload, fields)

    # --- whose things -------------------------------------------------------------------------------------

    async def _check(self, found: list[Mention]) -> None:
        """Raises NotFound for an id that is not the caller's."""
        if self._caller is not None:
            await self._told.check(found, self._caller)

    async def _saw(self, answer: Mapping[str, Any]) -> None:
        """Records what an answer says came into being, before the caller hears of it."""
        assert self._caller is not None
        request = self._body.fields if self._body is not None else {}
        await self._told.note(answer, request, self._caller, self._charge, self._reply.claim)

    async def _missed(self, response: Response, body: bytes) -> None:
        """OpenAI has refused the call."""
        if self._caller is not None:
            await self._told.missed(response, body, self._caller)

    # --- the upstream -------------------------------------------------------------------------------------

    async def _forward_while_client_stays(self, path: str, payload: Payload) -> int:
        """Forwards a call whose answer takes time; a client that leaves ends it, and the upstream's work."""
        task = asyncio.current_task()
        assert task is not None
        watch = asyncio.ensure_future(self._cancel_when_client_leaves(task))
        if self._charge is not None:
            self._services.open_charges.add(self._charge)
        try:
            return await self._forward(path, payload)
        finally:
            if self._charge is not None:
                self._services.open_charges.discard(self._charge)
            watch.cancel()

    async def _cancel_when_client_leaves(self, task: "asyncio.Task[Any]") -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._client_left = True
        task.cancel()

    async def _forward(self, path: str, payload: Payload) -> int:
        query, headers = self._scope["query_string"], self._sent_headers()
        try:
            response = await self._services.upstream.send(
                self._scope["method"],
                path,
                query,
                headers,
                payload,
                self._note_sent,
                caller=self._digest,
            )
        except ApiError:
            if self._body is not None and self._body.error is not None:
                raise self._body.error from None
            raise
        try:
            return await self._pass(response)
        finally:
            response.close()

    def _note_sent(self) -> None:
        """From now on OpenAI may be at work."""
        if self._charge is not None:
            self._charge.is_sent = True

    def _sent_headers(self) -> Headers:
        """The caller's headers; its idempotency key made its own, for all users share one account."""
        key = next((value for name, value in self._headers if name == IDEMPOTENCY_KEY), None)
        if key is None or self._caller is None:
            return self._headers
        own = hashlib.sha256(b"%d:" % self._caller.key_id + key).hexdigest().encode()
        return [h for h in self._headers if h[0] != IDEMPOTENCY_KEY] + [(IDEMPOTENCY_KEY, own)]

    async def _pass(self, response: Response) -> int:
        assert self._operation is not None
        operation, charge_, reply = self._operation, self._charge, self._reply
        if not 200 <= response.status < 300:
            return await passing.pass_refusal(response, reply, charge_, self._missed)
        request = self._body.fields if self._body is not None else {}
        leaves = operation.creates is not None and operation.keeps(request)
        seen = self._saw if leaves or operation.slots else None
        if operation.lists is MODEL and self._caller is not None and not self._caller.is_superuser:
            return await lists.pass_models(response, reply, self._services.records, self._caller.user_id)
        content_type = response.content_type
        if content_type.startswith("text/event-stream"):
            if charge_ is None or charge_.stream is None:
                return await passing.pass_bytes(response, reply, charge_)
            return await passing.pass_stream(response, reply, charge_, charge_.stream, seen)
        # What is downloaded for free holds whatever somebody put there: it tells nothing, though it be JSON.
        if operation.answers_bytes and (charge_ is None or not is_json(content_type)):
            return await passing.pass_bytes(response, reply, charge_)
        if operation.deletes:
            await self._services.records.forget(*self._told.named_last)
        return await passing.pass_answer(response, reply, charge_, seen)


def new_id() -> str:
    """32 hex digits that sort by time, so that new holds lie together in the index."""
    # It need not be hard to guess, and the system's own random numbers take longer than all the rest here.
    return f"{time.time_ns() // 1_000_000:012x}{random.getrandbits(80):020x}"  # nosec B311


def _uncancel() -> None:
    task = asyncio.current_task()
    if task is not None:
        task.uncancel()
