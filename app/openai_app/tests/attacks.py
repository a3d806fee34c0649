"""What the tests of ownership share: Alice's things, Bob who tries to get at them, proof that he did not."""

import json
import re
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from openai_app.catalogue import CATALOGUE, Operation
from openai_app.owned.objects import KINDS, SLOT_KINDS, Kind
from openai_app.tests.harness import JSON, Answer, Caller, House

OFFERED = [row for row in CATALOGUE if not row.refused]
# A call that carries it and reaches the upstream is one of Bob's attacks.
MARK = {"x-client-request-id": "bob-attacks"}
# How OpenAI's ids begin; of the others, as `<kind>_`.
BEGINNINGS = {
    "assistant": "asst_",
    "assistant_file": "file-",
    "chat_audio": "audio_",
    "chat_completion": "chatcmpl-",
    "chatkit_session": "cksess_",
    "chatkit_thread": "cthr_",
    "container": "cntr_",
    "container_file": "cfile_",
    "conversation": "conv_",
    "eval_output_item": "outputitem_",
    "eval_run": "evalrun_",
    "file": "file-",
    "fine_tune": "ft-",
    "fine_tuning_job": "ftjob-",
    "item": "msg_",
    "message": "msg_",
    "message_file": "file-",
    "model": "ft:gpt-4o-mini-2024-07-18:acme::",
    "prompt": "pmpt_",
    "response": "resp_",
    "run_step": "step_",
    "skill_version": "skillver_",
    "upload_part": "part_",
    "vector_store": "vs_",
    "vector_store_file": "file-",
    "vector_store_file_batch": "vsfb_",
    "video_character": "char_",
    "voice_consent": "cons_",
}
BOUNDARY = "the-boundary-of-the-test"


def new_ids() -> dict[str, str]:
    """An id of each kind, none of which exists at the upstream."""
    return {kind: f"{BEGINNINGS.get(kind, f'{kind}_')}{uuid.uuid4().hex}" for kind in KINDS}


# --- In the gateway's database, by the console --------------------------------------------------------------


def record(owner_id: int, ids: Mapping[str, str], *, is_shared: bool = False) -> None:
    """Has ids of these kinds belong to a user, as if calls had made them."""
    from openai_app.models import UpstreamObject

    UpstreamObject.objects.bulk_create(
        UpstreamObject(
            object_id=object_id, kind=kind, owner_id=owner_id, is_shared=is_shared, data={"id": object_id}
        )
        for kind, object_id in ids.items()
    )


def forget(object_id: str) -> None:
    """Has an id belong to nobody again."""
    from openai_app.models import UpstreamObject

    UpstreamObject.objects.filter(object_id=object_id).delete()


def recorded(owner_id: int) -> dict[str, str]:
    """A user's objects: id to kind."""
    from openai_app.models import UpstreamObject

    return dict(UpstreamObject.objects.filter(owner_id=owner_id).values_list("object_id", "kind"))


def state_of(user_ids: list[int]) -> list[Any]:
    """All that a call may change for these users: balances, holds, entries, objects."""
    from balances.models import Account, Entry, Hold
    from openai_app.models import UpstreamObject

    return [
        list(Account.objects.filter(user__in=user_ids).order_by("user").values_list("balance", "held")),
        Hold.objects.filter(account__in=user_ids).count(),
        Entry.objects.filter(account__in=user_ids).count(),
        list(
            UpstreamObject.objects.filter(owner__in=user_ids)
            .order_by("id")
            .values_list("object_id", "kind", "owner_id", "is_shared", "data")
        ),
    ]


# --- The attack ---------------------------------------------------------------------------------------------


@dataclass
class Attack:
    """Bob calls with Alice's ids; `missing` are ids that nobody has."""

    house: House
    alice: Caller
    bob: Caller
    alices: dict[str, str] = field(default_factory=new_ids)
    bobs: dict[str, str] = field(default_factory=new_ids)
    missing: dict[str, str] = field(default_factory=new_ids)

    def __post_init__(self) -> None:
        self._connection = self.house.connect()
        self.house.console.run(record, self.alice.id, self.alices)
        self.house.console.run(record, self.bob.id, self.bobs)

    def call(
        self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] = JSON
    ) -> Answer:
        """Bob's call; all of them share a connection, being many."""
        sent = {"Authorization": f"Bearer {self.bob.key}", **headers, **MARK}
        self._connection.request(method, path, body, sent)
        response = self._connection.getresponse()
        answered = {name.lower(): value for name, value in response.getheaders()}
        return Answer(response.status, answered, response.read())

    def close(self) -> None:
        self._connection.close()

    @contextmanager
    def without_effect(self) -> Iterator[None]:
        """Nothing in the block reaches the upstream, moves a balance, or changes what is recorded."""
        users = [self.alice.id, self.bob.id]
        before = self.house.console.run(state_of, users)
        last = self.house.simulator.control("GET", "journal?limit=1000000")["last"]
        yield
        calls = self.house.simulator.control("GET", f"journal?after={last}&limit=1000000")["calls"]
        for call in calls:
            assert not self._concerns(call), f"reached the upstream: {call}"
        assert self.house.console.run(state_of, users) == before

    def _concerns(self, call: dict[str, Any]) -> bool:
        told = json.dumps(call)
        return MARK["x-client-request-id"] in told or any(id in told for id in self.alices.values())

    def refused(self, method: str, path: str, body: bytes | None = None, headers: Any = JSON) -> str:
        """What is wrong with the answer to a call that speaks of what Alice has; empty if nothing is."""
        answer = self.call(method, path, body, headers)
        if answer.status != 404:
            return f"{method} {path}: {answer.status} {answer.body[:200]!r}"
        if answer.json.keys() != {"error"} or answer.error["type"] != "invalid_request_error":
            return f"{method} {path}: not OpenAI's shape: {answer.body[:200]!r}"
        return ""


def must_be_known(kind: Kind) -> bool:
    """Whether the gateway itself answers for an id of this kind that nobody has; else the upstream does."""
    return kind.parent is None and not kind.is_model


def kinds_in(path: str) -> dict[str, Kind]:
    return {slot: SLOT_KINDS[slot] for slot in re.findall(r"\{(\w+)\}", path)}


def form(fields: Mapping[str, Any], files: Mapping[str, bytes]) -> tuple[bytes, dict[str, str]]:
    """A multipart form and its header; a field that is a list is sent once for each element."""
    parts = []
    for name, value in fields.items():
        for one in value if isinstance(value, list) else [value]:
            parts.append(f'Content-Disposition: form-data; name="{name}"\r\n\r\n{one}\r\n'.encode())
    for name, content in files.items():
        head = f'Content-Disposition: form-data; name="{name}"; filename="{name}.wav"\r\n'
        parts.append(head.encode() + b"Content-Type: audio/wav\r\n\r\n" + content + b"\r\n")
    mark = f"--{BOUNDARY}".encode()
    body = b"".join(mark + b"\r\n" + part for part in parts) + mark + b"--\r\n"
    return body, {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}


def request_of(row: Operation, **fields: Any) -> tuple[bytes | None, dict[str, str]]:
    """A body that works for a row, `fields` set in it, and its header."""
    if "application/json" in row.accepts:
        return json.dumps({**(row.example or {}), **fields}).encode(), JSON
    if "multipart/form-data" in row.accepts:
        return form_of(row, **fields)
    return None, {}


def form_of(row: Operation, **fields: Any) -> tuple[bytes, dict[str, str]]:
    """A form that works for a row, and its header."""
    return form({**row.form_example, **fields}, form_files(row))


def form_files(row: Operation) -> dict[str, bytes]:
    return dict.fromkeys(row.files, b"RIFF")
