"""The HTTP client by TLS and by proxies."""

import asyncio
import ssl
from contextlib import suppress
from typing import Any

import pytest
import trustme

from openai_app.http import client as http_client
from openai_app.http.response import (
    NotConnectedError,
)
from openai_app.tests.http.peers import (
    HELLO,
    Peer,
    answering,
    client_of,
    closed,
    get,
    serving,
    silent,
)


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


def tls_of(authority: trustme.CA, name: str = "localhost") -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(name).configure_cert(context)
    return context


@pytest.fixture
def trusting(authority: trustme.CA, monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    """The test's authority is the one that the environment names."""
    file = tmp_path / "authority.pem"
    authority.cert_pem.write_to_path(str(file))
    monkeypatch.setenv("SSL_CERT_FILE", str(file))


@pytest.mark.usefixtures("trusting")
async def test_tls(authority: trustme.CA) -> None:
    large = b"x" * 5_000_000

    async def serve(peer: Peer) -> None:
        assert len(await peer.request()) > len(large)
        await peer.send(HELLO)
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 5000000\r\n\r\n" + large)

    async with (
        serving(serve, tls=tls_of(authority)) as server,
        client_of(0, base_url=f"https://localhost:{server.port}") as client,
    ):
        assert await (await client.request("POST", "/x", [], large)).read() == b"hello"
        assert await (await get(client)).read() == large
        assert server.accepted == 1


@pytest.mark.usefixtures("trusting")
async def test_a_server_of_another_name_is_not_spoken_to(authority: trustme.CA) -> None:
    async with (
        serving(silent, tls=tls_of(authority, "elsewhere.example")) as server,
        client_of(0, base_url=f"https://localhost:{server.port}") as client,
    ):
        with pytest.raises(NotConnectedError, match="CERTIFICATE_VERIFY_FAILED"):
            await get(client)


async def test_a_server_that_nobody_vouches_for_is_not_spoken_to(authority: trustme.CA) -> None:
    async with (
        serving(silent, tls=tls_of(authority)) as server,
        client_of(0, base_url=f"https://localhost:{server.port}") as client,
    ):
        with pytest.raises(NotConnectedError, match="CERTIFICATE_VERIFY_FAILED"):
            await get(client)


async def test_a_proxy_is_asked_for_the_whole_address() -> None:
    seen = []

    async def serve(peer: Peer) -> None:
        seen.append(await peer.request())
        await peer.send(HELLO)

    async with (
        serving(serve) as proxy,
        client_of(
            0, base_url="http://openai.example/v1", proxy=f"http://me:p%40ss@127.0.0.1:{proxy.port}"
        ) as client,
    ):
        assert await (await get(client)).read() == b"hello"
    line, host, *_ = seen[0].split(b"\r\n")
    assert (line, host) == (b"GET http://openai.example/v1/models HTTP/1.1", b"host: openai.example")
    assert b"\r\nproxy-authorization: Basic bWU6cEBzcw==\r\n" in seen[0]


@pytest.mark.usefixtures("trusting")
async def test_a_proxy_joins_to_a_server_of_tls_and_hears_nothing_else(authority: trustme.CA) -> None:
    seen = []

    async with serving(answering(HELLO), tls=tls_of(authority)) as server:

        async def serve(peer: Peer) -> None:
            seen.append(await peer.request())
            joined, other = await asyncio.open_connection("127.0.0.1", server.port)
            await peer.send(b"HTTP/1.1 200 Connection established\r\nX: y\r\n\r\n")

            async def copy(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
                with suppress(ConnectionError):
                    while data := await source.read(65_536):
                        target.write(data)
                await closed(target)

            await asyncio.gather(copy(peer.reader, other), copy(joined, peer.writer))

        async with (
            serving(serve) as proxy,
            client_of(
                0,
                base_url=f"https://localhost:{server.port}/v1",
                proxy=f"http://me:pass@127.0.0.1:{proxy.port}",
            ) as client,
        ):
            assert await (await get(client)).read() == b"hello"
            name = b"localhost:%d" % server.port
    authorization = b"proxy-authorization: Basic bWU6cGFzcw=="
    assert seen == [b"CONNECT %b HTTP/1.1\r\nhost: %b\r\n%b\r\n\r\n" % (name, name, authorization)]


@pytest.mark.parametrize(
    "answer",
    [b"HTTP/1.1 407 Who are you\r\n\r\n", b"nonsense\r\n\r\n", b"", b"x" * http_client.MOST_PROXY_BYTES],
)
async def test_a_proxy_that_refuses_is_no_connection(answer: bytes) -> None:
    async with (
        serving(answering(answer)) as proxy,
        client_of(0, base_url="https://localhost:1", proxy=f"http://127.0.0.1:{proxy.port}") as client,
    ):
        with pytest.raises(NotConnectedError):
            await get(client)
