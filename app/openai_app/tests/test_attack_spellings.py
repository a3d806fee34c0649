"""Ids of others written in ways that a gateway might overlook and OpenAI might not."""

import gzip
import json
import zlib
from collections.abc import Iterator
from typing import Any

import pytest

from openai_app.tests.attacks import BOUNDARY, Attack
from openai_app.tests.harness import JSON, House

CHAT = "/v1/chat/completions"
RESPONSES = "/v1/responses"
FORM = f"multipart/form-data; boundary={BOUNDARY}"


@pytest.fixture(scope="module")
def attack(undisturbed: House) -> Iterator[Attack]:
    undisturbed.simulator.clear()
    opened = Attack(undisturbed, undisturbed.caller(name="alice"), undisturbed.caller(10**12, name="bob"))
    yield opened
    opened.close()


def with_file(file_id: Any) -> dict[str, Any]:
    part = {"type": "input_file", "file_id": file_id}
    return {"model": "gpt-4o-mini", "input": [{"role": "user", "content": [part]}]}


def escaped(text: str) -> str:
    """As JSON may write it: every character by its number."""
    return "".join(f"\\u{ord(character):04x}" for character in text)


def test_an_id_in_escapes_is_seen(attack: Attack) -> None:
    hers = attack.alices["file"]
    body = json.dumps(with_file(hers))
    with attack.without_effect():
        assert not attack.refused("POST", RESPONSES, body.replace(hers, escaped(hers)).encode())
        plain = body.replace(hers, escaped(hers)).replace("file_id", escaped("file_id"))
        assert not attack.refused("POST", RESPONSES, plain.encode())


@pytest.mark.parametrize(
    "body",
    [
        '{"model": "gpt-4o", "previous_response_id": "HERS", "input": "Hi", "previous_response_id": null}',
        '{"model": "gpt-4o", "previous_response_id": null, "input": "Hi", "previous_response_id": "HERS"}',
        '{"model": "gpt-4o-mini", "input": "Hi", "a": {"b": [{"c": 1, "c": 2}]}}',
        '{"model": "gpt-4o-mini", "input": "Hi", "max_output_tokens": 16, "max_output_tokens": 100000}',
        '{"model": "gpt-4o-mini", "model": "gpt-4o", "input": "\\"quoted\\" \\\\"}',
        '{"model": "gpt-4o-mini", "input": "Hi", "n": 1, "\\u006e": 2}',
        '{"x\\\\": "", "model": "gpt-4o-mini", "input": "Hi", "n": 1, "n": 2}',
        '{"model": "gpt-4o-mini", "input": [1, {"n": 1, "n": 2}]}',
    ],
)
def test_a_name_that_stands_twice_is_refused(attack: Attack, body: str) -> None:
    with attack.without_effect():
        answer = attack.call("POST", RESPONSES, body.replace("HERS", attack.alices["response"]).encode())
        assert (answer.status, answer.error["type"]) == (400, "invalid_request_error")
        assert "stands twice" in answer.error["message"]


@pytest.mark.parametrize(
    "content",
    ['He said "{"a": 1, "a": 2}"', "ends in a backslash \\", '":', '{"type": "text"}', "\U0001f600 \u2028 é"],
)
def test_quotation_marks_in_a_text_are_no_names(attack: Attack, content: str) -> None:
    body = json.dumps({"model": "gpt-4o-mini", "messages": [{"role": "user", "content": content}]})
    assert attack.call("POST", CHAT, body.encode()).status == 200


@pytest.mark.parametrize(
    "file_id",
    [["HERS"], [["HERS"]], [None, "HERS"], {"id": "HERS"}, {"id": {"id": "HERS"}}, [{"id": ["HERS"]}]],
    ids=str,
)
def test_an_id_in_lists_and_objects_is_seen(attack: Attack, file_id: Any) -> None:
    body = json.dumps(with_file(file_id)).replace("HERS", attack.alices["file"])
    with attack.without_effect():
        assert not attack.refused("POST", RESPONSES, body.encode())


@pytest.mark.parametrize("encoding", ["gzip", "x-gzip", "deflate"])
def test_an_id_in_a_compressed_body_is_seen(attack: Attack, encoding: str) -> None:
    body = json.dumps(with_file(attack.alices["file"])).encode()
    packed = zlib.compress(body) if encoding == "deflate" else gzip.compress(body)
    with attack.without_effect():
        assert not attack.refused("POST", RESPONSES, packed, {**JSON, "Content-Encoding": encoding})


def test_what_follows_a_compressed_body_is_not_passed_on(attack: Attack) -> None:
    hello = json.dumps({"model": "gpt-4o-mini", "input": "Hello!"}).encode()
    hers = json.dumps(with_file(attack.alices["file"])).encode()
    packed = gzip.compress(hello) + gzip.compress(hers)
    assert attack.call("POST", RESPONSES, packed, {**JSON, "Content-Encoding": "gzip"}).status == 200
    (call,) = [c for c in attack.house.journal() if c["object_id"] and c["path"] == RESPONSES][-1:]
    assert call["body"] == json.loads(hello)


@pytest.mark.parametrize(
    "content_type",
    ["text/plain", "application/octet-stream", "APPLICATION/JSON", ""],
)
def test_an_id_in_a_json_body_of_another_name_is_seen(attack: Attack, content_type: str) -> None:
    body = json.dumps(with_file(attack.alices["file"])).encode()
    with attack.without_effect():
        assert not attack.refused("POST", RESPONSES, body, {"Content-Type": content_type})


@pytest.mark.parametrize(
    "content_type",
    [FORM, "Multipart/Form-Data; boundary=x", "multipart/mixed", "application/x-www-form-urlencoded"],
)
def test_json_that_calls_itself_a_form_is_refused(attack: Attack, content_type: str) -> None:
    body = json.dumps(with_file(attack.alices["file"])).encode()
    with attack.without_effect():
        answer = attack.call("POST", RESPONSES, body, {"Content-Type": content_type})
        assert (answer.status, answer.error["code"]) == (400, "unsupported_content_type")


@pytest.mark.parametrize("charset", ["utf-16", "utf-16-le", "utf-32", "utf-8-sig", "utf-7"])
def test_a_body_in_another_encoding_is_refused(attack: Attack, charset: str) -> None:
    body = json.dumps(with_file(attack.alices["file"])).replace("-", "\\u002d").encode(charset)
    headers = {"Content-Type": f"application/json; charset={charset}"}
    with attack.without_effect():
        assert attack.call("POST", RESPONSES, body, headers).status in (400, 404)


@pytest.mark.parametrize("method", ["GET", "DELETE"])
def test_an_id_in_the_body_of_a_call_that_has_none_is_seen(attack: Attack, method: str) -> None:
    path = f"/v1/responses/{attack.bobs['response']}"
    body = json.dumps({"file_id": attack.alices["file"]}).encode()
    with attack.without_effect():
        assert not attack.refused(method, path, body)


@pytest.mark.parametrize("path", ["/v1/files", "/v1/vector_stores", "/v1/models"])
def test_an_id_in_the_body_of_a_list_is_seen(attack: Attack, path: str) -> None:
    body = json.dumps({"after": attack.alices["file"]}).encode()
    with attack.without_effect():
        assert not attack.refused("GET", path, body)


@pytest.mark.parametrize(
    "name", ["file_ids", "vector_store_ids", "part_ids"], ids=lambda name: f"among many {name}"
)
def test_one_id_of_anothers_among_many_is_seen(attack: Attack, name: str) -> None:
    kind = {"file_ids": "file", "vector_store_ids": "vector_store", "part_ids": "upload_part"}[name]
    ids = [attack.bobs[kind]] * 500 + [attack.alices[kind]]
    body = json.dumps({"model": "gpt-4o-mini", "tool_resources": {"any": {name: ids}}}).encode()
    with attack.without_effect():
        assert not attack.refused("POST", "/v1/assistants", body)


@pytest.mark.parametrize("depth", [90, 110, 900, 1_000, 5_000])
@pytest.mark.parametrize("name", ["content", "any"])
def test_an_id_far_down_is_seen_or_the_body_refused(attack: Attack, depth: int, name: str) -> None:
    deep = "[" * depth + json.dumps({"file_id": attack.alices["file"]}) + "]" * depth
    for text in ("Hi", 'He said "Hi"'):
        body = json.dumps({"model": "gpt-4o-mini", "input": text, name: "DEEP"}).replace('"DEEP"', deep)
        with attack.without_effect():
            answer = attack.call("POST", RESPONSES, body.encode())
            assert answer.status == 404 if depth < 100 else answer.status == 400


def test_strange_characters_in_an_id_are_an_id_that_nobody_has(attack: Attack) -> None:
    with attack.without_effect():
        for path in (
            "/v1/files/file-%00",
            "/v1/files/%ff%fe",
            "/v1/files/%F0%9F%98%80",
            f"/v1/files/{'x' * 3000}",
        ):
            assert not attack.refused("GET", path)
        for file_id in ("file-\x00", "\U0001f600", "x" * 3000):
            assert not attack.refused("POST", RESPONSES, json.dumps(with_file(file_id)).encode())
    for query in ("after=%00", "before=%ff", "purpose=%00", "metadata[%00]=a"):
        assert attack.call("GET", f"/v1/files?{query}").status in (400, 404)


# --- Forms --------------------------------------------------------------------------------------------------


def parts(*texts: str, boundary: str = BOUNDARY) -> bytes:
    return b"".join(f"--{boundary}\r\n{text}\r\n".encode() for text in texts) + f"--{boundary}--\r\n".encode()


def field(name: str, value: str) -> str:
    return f'Content-Disposition: form-data; name="{name}"\r\n\r\n{value}'


@pytest.mark.parametrize(
    ("content_type", "part"),
    [
        (f"multipart/form-data; boundary=other; boundary={BOUNDARY}", field("a", "1")),
        (f"{FORM}; boundary=other", field("a", "1")),
        (f"{FORM}; boundary*=utf-8''other", field("a", "1")),
        (f"{FORM}; boundary*0=oth; boundary*1=er", field("a", "1")),
        (
            FORM,
            'Content-Disposition: form-data; name="a"\r\nContent-Disposition: form-data; name="b"\r\n\r\n1',
        ),
        (
            FORM,
            'Content-Disposition: form-data; name="a"; name="b"\r\n\r\n1',
        ),
        (
            FORM,
            "Content-Disposition: form-data; name=\"a\"; name*=utf-8''b\r\n\r\n1",
        ),
    ],
    ids=str,
)
def test_a_form_that_can_be_read_in_two_ways_is_refused(attack: Attack, content_type: str, part: str) -> None:
    body = parts(field("prompt", "Snow"), field("video", attack.bobs["video"]), part)
    with attack.without_effect():
        answer = attack.call("POST", "/v1/videos/edits", body, {"Content-Type": content_type})
        assert (answer.status, answer.error["type"]) == (400, "invalid_request_error")


@pytest.mark.parametrize(
    "head",
    [
        'Content-Disposition: form-data; name="video"; filename=""',
        'Content-Disposition: form-data; name="video"; filename="v"\r\nContent-Type: text/plain',
        "Content-Disposition: form-data; name=\"video\"; filename*=utf-8''v",
        'content-disposition: FORM-DATA; NAME="video"',
        "Content-Disposition: form-data; name=video",
        "Content-Disposition: form-data; name*=utf-8''video",
        'Content-Disposition: form-data; name="video"\r\nContent-Type: application/json',
    ],
)
def test_an_id_in_a_part_that_pretends_to_be_something_else_is_seen(attack: Attack, head: str) -> None:
    for value in (attack.alices["video"], json.dumps({"id": attack.alices["video"]})):
        body = parts(field("prompt", "Snow"), f"{head}\r\n\r\n{value}")
        headers = {"Content-Type": FORM}
        with attack.without_effect():
            assert not attack.refused("POST", "/v1/videos/edits", body, headers)


def test_a_call_with_two_content_types_is_read_as_it_is_sent(attack: Attack) -> None:
    body = json.dumps(with_file(attack.alices["file"])).encode()
    for types in ("application/json", FORM), (FORM, "application/json"):
        head = b"POST /v1/responses HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nConnection: close\r\n"
        head %= attack.bob.key.encode()
        head += b"".join(f"Content-Type: {each}\r\n".encode() for each in types)
        head += b"Content-Length: %d\r\nX-Client-Request-Id: bob-attacks\r\n\r\n" % len(body)
        with attack.without_effect(), attack.house.connected() as connection:
            connection.sendall(head + body)
            answered = b""
            while piece := connection.recv(65_536):
                answered += piece
            assert answered.split(b" ", 2)[1] in (b"400", b"404")
