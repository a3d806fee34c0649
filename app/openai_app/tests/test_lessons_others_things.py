"""Other people's things, keys and balances, as other gateways gave them away; see docs/lessons.md.

Ids in every place are `test_attack*`'s; here are those things that were given away elsewhere, one by one.
"""

import json
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from gateway.tests import console
from openai_app.catalogue import CATALOGUE
from openai_app.tests.attacks import form, new_ids
from openai_app.tests.deferred_work import ASSISTANTS, begin_batch, post, upload
from openai_app.tests.harness import JSON, OPERATORS_KEY, PATIENCE_S, Answer, Caller, House, chat_body

PLENTY = 100_000


# --- objects --------------------------------------------------------------------------------------------


def assert_missed(answer: Answer) -> None:
    assert (answer.status, answer.error["type"]) == (404, "invalid_request_error")


def test_no_user_reads_or_cancels_another_users_batch(gateway: House, alice: Caller, bob: Caller) -> None:
    batch = begin_batch(alice)
    assert_missed(bob.call("GET", f"/v1/batches/{batch}"))
    assert_missed(bob.call("POST", f"/v1/batches/{batch}/cancel", b""))
    assert bob.call("GET", "/v1/batches").json["data"] == []
    assert alice.call("GET", f"/v1/batches/{batch}").json["status"] != "cancelling"
    gateway.simulator.finish()
    alice.settled()


def test_a_raw_file_id_does_not_bypass_ownership(gateway: House, alice: Caller, bob: Caller) -> None:
    """In the path, in a query, in JSON bodies, in a form; a list shows one's own."""
    file = upload(alice, b"Secret.", "assistants", "secret.txt")
    for path in (f"/v1/files/{file}", f"/v1/files/{file}/content", f"/v1/files?after={file}"):
        assert_missed(bob.call("GET", path))
    assert_missed(bob.call("DELETE", f"/v1/files/{file}"))
    part = {"type": "input_file", "file_id": file}
    bodies: dict[str, dict[str, Any]] = {
        "/v1/responses": {"model": "gpt-4o-mini", "input": [{"role": "user", "content": [part]}]},
        "/v1/chat/completions": {
            "model": "gpt-4o-mini",
            "messages": [{"role": "user", "content": [{"type": "file", "file": {"file_id": file}}]}],
        },
        "/v1/vector_stores": {"file_ids": [file]},
        "/v1/batches": {
            "input_file_id": file,
            "endpoint": "/v1/chat/completions",
            "completion_window": "24h",
        },
        "/v1/fine_tuning/jobs": {"model": "gpt-4o-mini", "training_file": file},
    }
    for path, body in bodies.items():
        assert_missed(bob.call("POST", path, json.dumps(body).encode()))
    sent, header = form({"model": "gpt-image-1", "prompt": "x", "image": file}, {})
    assert_missed(bob.call("POST", "/v1/images/edits", sent, header))
    assert bob.call("GET", "/v1/files").json["data"] == []
    assert alice.call("GET", f"/v1/files/{file}/content").body == b"Secret."
    assert bob.holds() == []


def test_a_vector_store_does_not_fall_through(alice: Caller, bob: Caller) -> None:
    store = post(alice, "/vector_stores", name="Hers")["id"]
    for method, path, body in (
        ("GET", "", None),
        ("POST", "", b'{"name": "His"}'),
        ("DELETE", "", None),
        ("GET", "/files", None),
        ("POST", "/search", b'{"query": "secret"}'),
    ):
        assert_missed(bob.call(method, f"/v1/vector_stores/{store}{path}", body, ASSISTANTS))
    search = {"type": "file_search", "vector_store_ids": [store]}
    asked = {"model": "gpt-4o-mini", "input": "What is in it?", "tools": [search]}
    assert_missed(bob.call("POST", "/v1/responses", json.dumps(asked).encode()))
    assert bob.call("GET", "/v1/vector_stores", headers=ASSISTANTS).json["data"] == []
    assert post(alice, f"/vector_stores/{store}", name="Still hers")["name"] == "Still hers"


def test_a_previous_response_id_of_anothers_is_not_passed_on(
    gateway: House, alice: Caller, bob: Caller
) -> None:
    earlier = post(alice, "/responses", model="gpt-4o-mini", input="My secret is 42.")["id"]
    body = json.dumps({"model": "gpt-4o-mini", "input": "What is it?", "previous_response_id": earlier})
    seen = len(gateway.journal())
    assert_missed(bob.call("POST", "/v1/responses", body.encode()))
    assert len(gateway.journal()) == seen
    assert alice.call("POST", "/v1/responses", body.encode()).status == 200


# --- the upstream is the operator's ---------------------------------------------------------------------


@pytest.fixture
def elsewhere() -> Iterator[socket.socket]:
    """A server that nobody should ever connect to."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener
        listener.setblocking(False)
        with pytest.raises(BlockingIOError):
            listener.accept()


@pytest.mark.parametrize("stream", [False, True], ids=["json", "stream"])
def test_a_client_does_not_choose_the_upstreams_host(
    gateway: House, alice: Caller, elsewhere: socket.socket, stream: bool
) -> None:
    """Neither by a header, nor in the body, the query or the request line: and the key goes nowhere else."""
    host = f"127.0.0.1:{elsewhere.getsockname()[1]}"
    url = f"http://{host}/v1"
    headers = {
        **JSON,
        "Host": host,
        "X-Forwarded-Host": host,
        "X-Original-URL": f"{url}/models",
        "X-Rewrite-URL": f"{url}/models",
        "Forwarded": f"host={host}",
        "OpenAI-Base-URL": url,
        "X-OpenAI-Base-URL": url,
        "X-Custom-Host": url,
        "X-Portkey-Custom-Host": url,
        "Api-Base": url,
        "Location": url,
    }
    named = {"base_url": url, "api_base": url, "custom_host": url, "url": url, "endpoint": url}
    body = chat_body(stream=stream, **named)
    assert alice.call("POST", f"/v1/chat/completions?base_url={url}&host={host}", body, headers).status == 200
    with gateway.connected() as connection:
        request = (
            f"POST http://{host}/v1/chat/completions HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n"
            f"authorization: Bearer {alice.key}\r\ncontent-length: {len(body)}\r\n\r\n"
        )
        connection.sendall(request.encode() + body)
        answer = b"".join(iter(lambda: connection.recv(65_536), b""))
    assert answer.split(b" ")[1] in (b"200", b"400", b"404")
    # All that was served was served by the operator's upstream.
    served = gateway.journal()
    assert {call["path"] for call in served} == {"/v1/chat/completions"}
    assert len(served) == len(alice.charges())
    assert OPERATORS_KEY.encode() not in answer


# --- headers that are no keys ---------------------------------------------------------------------------

INJECTIONS = (
    "' OR '1'='1",
    "' OR 1=1--",
    "x' UNION SELECT digest FROM users_apikey--",
    "'; DROP TABLE balances_account; --",
    "'; UPDATE balances_account SET balance=999999999; --",
    '" OR ""="',
    "x') OR ('1'='1",
    "%' OR '1' LIKE '1",
    "$1; SELECT pg_sleep(30)",
    "%s%s%n%(digest)s",
    "{digest}",
    "\\'; --",
    "x\t' OR 1=1",
    "0x27204f5220313d31",
    "*",
    "%",
    "_" * 43,
    "null",
    "true",
    "[]",
    "{}",
)


@pytest.mark.parametrize("injection", INJECTIONS)
def test_sql_in_the_bearer_header_is_only_a_wrong_key(gateway: House, alice: Caller, injection: str) -> None:
    """On both planes, by itself and behind a key that is right."""
    for key in (injection, f"sk-tg-{injection}", f"{alice.key}{injection}", f"{alice.key}' AND '1'='1"):
        given = {"Authorization": f"Bearer {key}", **JSON}
        for method, path, body in (
            ("POST", "/v1/chat/completions", chat_body()),
            ("GET", "/v1/models", None),
            ("GET", "/api/balance", None),
            ("GET", "/api/users", None),
        ):
            refused = alice.call(method, path, body, given)
            assert refused.status == 401, (path, refused.body)
    assert alice.account() == {"user": alice.id, "balance": PLENTY, "held": 0, "available": PLENTY}
    assert gateway.journal() == []
    assert "wrong" not in gateway.audit()


HOSTS = (
    "localhost",
    "127.0.0.1",
    "api.openai.com",
    "localhost/v1/models?",
    "localhost/healthz#",
    "localhost:80/metrics",
    "admin@localhost",
    "localhost@evil.example",
    "evil.example",
    "../healthz",
    "[::1]",
    "",
    "x' OR '1'='1",
    "localhost, evil.example",
    "a" * 3_000,
)


@pytest.mark.parametrize("host", HOSTS)
def test_no_host_header_is_a_way_past_the_key(gateway: House, host: str) -> None:
    """Whatever it says, a stranger stays one: on the data plane, on the control plane, in the admin."""
    alice = gateway.caller()
    targets = [
        ("POST", "/v1/chat/completions", chat_body()),
        ("GET", "/v1/models", b""),
        ("GET", "/api/balance", b""),
        ("GET", "/api/users", b""),
        ("PATCH", f"/api/balance/{alice.id}", b'{"balance": 7}'),
        ("GET", "/admin/users/user/", b""),
    ]
    for method, path, body in targets:
        # A host with a slash in it would be another path.
        for target in (path, path if "/" in host else f"http://{host}{path}"):
            status = status_of(gateway, method, target, host, body)
            # No answer at all: the server takes it for no HTTP.
            assert status in (None, 302, 400, 401, 403, 404), (method, target, host, status)
    assert alice.balance() == PLENTY
    assert gateway.journal() == []


def status_of(gateway: House, method: str, target: str, host: str, body: bytes) -> int | None:
    """The status that a stranger is answered; None without an answer."""
    with gateway.connected() as connection:
        head = f"{method} {target} HTTP/1.1\r\nhost: {host}\r\nx-forwarded-host: {host}\r\n"
        head += f"content-type: application/json\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n"
        connection.settimeout(PATIENCE_S)
        connection.sendall(head.encode() + body)
        answer = connection.recv(65_536)
    return int(answer.split(b" ")[1]) if answer.startswith(b"HTTP/1.") else None


# --- keys -----------------------------------------------------------------------------------------------


def test_keys_are_stored_as_digests_only_and_shown_once(gateway: House) -> None:
    """Nothing in the whole database holds a secret, nor any answer but the one that made it."""
    alice = gateway.caller(kind="login")
    made = alice.call("POST", "/api/keys", b'{"name": "Laptop"}').json
    rotated = alice.call("POST", f"/api/keys/{made['id']}/rotate").json
    laptop = Caller(gateway, alice.id, rotated["secret"], rotated["id"])
    assert laptop.chat().status == 200
    assert laptop.chat(stream=True).status == 200
    secrets = [alice.key, made["secret"], rotated["secret"]]
    assert all(len(secret) > 40 for secret in secrets)
    # What is random in them; the end may be shown, to tell one's keys apart.
    hidden = [secret.removeprefix("sk-tg-")[:-8] for secret in secrets]
    texts = gateway.console.run(everything_in_the_database)
    assert not [table for table, text in texts.items() if any(part in text for part in hidden)]
    # It would have been found: what is kept in the open is.
    assert any("Laptop" in text for text in texts.values())
    for path in ("/api/keys", f"/api/keys/{rotated['id']}", "/api/user/me", "/api/balance/entries"):
        shown = alice.call("GET", path).body.decode()
        assert not [part for part in hidden if part in shown]


def everything_in_the_database() -> dict[str, str]:
    """All rows of all tables as text; for the console."""
    from django.db import connection

    with connection.cursor() as cursor:
        found = {}
        for table in connection.introspection.table_names(cursor):
            cursor.execute(f'SELECT * FROM "{table}"')
            found[table] = str(cursor.fetchall())
    return found


def test_a_revocation_takes_effect_on_the_next_request(gateway: House) -> None:
    """On every worker, on both planes."""
    alice = gateway.caller(kind="login")
    made = alice.call("POST", "/api/keys", b'{"name": "Laptop"}').json
    laptop = Caller(gateway, alice.id, made["secret"], made["id"])
    for _ in range(8):
        assert laptop.chat().status == 200
    assert alice.call("DELETE", f"/api/keys/{made['id']}").status == 204
    for _ in range(8):
        assert laptop.chat().status == 401
        assert laptop.call("GET", "/api/balance").status == 401


# --- balances -------------------------------------------------------------------------------------------

# What anybody may read; what is sent there is looked at by nobody.
PUBLIC = {"/", "/api/docs", "/api/schema", "/admin/login/", "/healthz", "/readyz", "/metrics"}
PAYMENT = {
    "balance": 10**6,
    "amount": 10**6,
    "credits": 10**6,
    "is_superuser": True,
    "reason": "Paid",
    "type": "checkout.session.completed",
    "data": {"object": {"amount_total": 10**6, "payment_status": "paid"}},
}


def routes(user_id: int) -> list[str]:
    """Every address that the gateway answers under, ids filled in; for the console."""
    import re

    from django.urls import URLPattern, get_resolver

    def walk(patterns: Any, before: str) -> Iterator[str]:
        for each in patterns:
            path = before + str(each.pattern)
            if isinstance(each, URLPattern):
                yield path
            else:
                yield from walk(each.url_patterns, path)

    found = set()
    for pattern in walk(get_resolver().url_patterns, "/"):
        plain = re.sub(r"<[^>]+>", str(user_id), pattern)
        # The admin's last resort is a regular expression that takes anything.
        found.add(re.sub(r"\(\?P.*", "anything", plain).replace("^", "").replace("$", ""))
    return sorted(found)


GUESSES = ("/webhook", "/api/webhook", "/api/stripe/webhook", "/api/payments", "/api/topup", "/api/redeem")


def test_there_is_no_unauthenticated_way_to_add_balance(gateway: House) -> None:
    """All routes of both planes are walked with what a payment's webhook sends, by a stranger and a user."""
    alice = gateway.caller()
    ids = new_ids()
    data_plane = {
        "/v1" + row.path.format(**{slot: ids.get(slot.removesuffix("_id"), "x_1") for slot in row.slots})
        for row in CATALOGUE
    }
    paths = [*gateway.console.run(routes, alice.id), "/healthz", "/readyz", "/metrics", *GUESSES]
    assert f"/api/balance/{alice.id}/grant" in paths
    assert len(paths) > 50
    body = json.dumps({**PAYMENT, "user": alice.id, "user_id": alice.id}).encode()
    signed = {**JSON, "Stripe-Signature": "t=1,v1=00", "X-Signature": "00", "X-Forwarded-For": "127.0.0.1"}
    before = gateway.console.run(console.entries, account_id=alice.id)
    wrong = []
    nobody = {**signed, "Authorization": ""}
    for path in [*paths, *sorted(data_plane)]:
        for method in ("GET", "POST", "PUT", "PATCH", "DELETE"):
            answer = alice.call(method, path, None if method == "GET" else body, nobody)
            allowed = path in PUBLIC or answer.status in (301, 302, 400, 401, 403, 404, 405, 429)
            if not allowed:
                wrong.append(f"{method} {path}: {answer.status}")
    assert wrong == []
    for path in paths:
        if path.startswith("/api/balance") or path in GUESSES:
            for method in ("POST", "PUT", "PATCH"):
                assert alice.call(method, path, body, signed).status in (403, 404, 405), (method, path)
    assert gateway.console.run(console.entries, account_id=alice.id) == before
    assert alice.account() == {"user": alice.id, "balance": PLENTY, "held": 0, "available": PLENTY}
    assert alice.call("GET", "/api/users").status == 403
