"""The way out, against a hostile Provider on loopback: redirects, floods, silence, drips, old TLS, private addresses."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from authpipe_oauth_worker.egress import Egress
from authpipe_oauth_worker.errors import EgressError
from authpipe_sensitive import Secret
from authpipe_testing.ca import CertificateAuthority

Behaviour = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Stage:
    """A CA, and servers that behave as a test says."""

    def __init__(self, folder: Path) -> None:
        self.ca = CertificateAuthority(folder, "provider-ca")
        self.leaf = self.ca.issue(folder, "provider", common_name="x", dns=("localhost",), addresses=("127.0.0.1",))
        self.requests: list[bytes] = []

    @asynccontextmanager
    async def provider(self, behave: Behaviour, newest: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3) -> AsyncIterator[str]:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.leaf.certificate, self.leaf.key)
        context.maximum_version = newest

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                self.requests.append(await reader.readuntil(b"\r\n\r\n"))
                await behave(reader, writer)
            except (ConnectionError, asyncio.IncompleteReadError):
                pass
            finally:
                writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
        async with server:
            yield f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}/token"

    def egress(self, *, allow_loopback: bool = True, timeout: float = 1.0) -> Egress:
        return Egress(self.ca.certificate_file, timeout, allow_loopback=allow_loopback)


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return Stage(tmp_path)


def answering(head: str, body: bytes = b"") -> Behaviour:
    async def behave(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        length = f"content-length: {len(body)}\r\n" if "length" not in head and "chunked" not in head else ""
        writer.write(f"HTTP/1.1 {head}\r\n{length}connection: close\r\n\r\n".encode() + body)
        await writer.drain()

    return behave


async def cause(egress: Egress, url: str) -> str:
    try:
        await egress.get(url)
    except EgressError as error:
        return str(error.metadata["cause"])
    finally:
        await egress.close()
    return "OK"


async def test_an_answer_comes_back_with_its_status_and_retry_after(stage: Stage) -> None:
    async with stage.provider(answering("429 Too Many\r\nretry-after: 30", b"slow down")) as url:
        egress = stage.egress()
        answer = await egress.get(url)
        await egress.close()
    assert (answer.status, answer.retry_after_seconds) == (429, 30)
    assert answer.body == Secret(b"slow down")


async def test_the_client_is_authenticated_by_header_or_body_and_the_secret_is_in_no_url(stage: Stage) -> None:
    async with stage.provider(answering("200 OK", b"{}")) as url:
        egress = stage.egress()
        for method in ("client_secret_basic", "client_secret_post"):
            await egress.post_form(url, {"a": "b"}, "client", Secret(b"the-secret"), method)
        await egress.close()
    assert b"authorization: basic" in stage.requests[0].lower()
    assert all(b"the-secret" not in request.split(b"\r\n")[0] for request in stage.requests)


async def test_a_redirect_is_an_answer_and_is_not_followed(stage: Stage) -> None:
    async with stage.provider(answering("302 Found\r\nlocation: https://169.254.169.254/latest/meta-data")) as url:
        egress = stage.egress()
        assert (await egress.get(url)).status == 302
        await egress.close()
    assert len(stage.requests) == 1


async def test_an_answer_of_ten_megabytes_is_cut_off(stage: Stage) -> None:
    async with stage.provider(answering("200 OK", b"x" * 10_000_000)) as url:
        assert await cause(stage.egress(timeout=5), url) == "ANSWER_TOO_LARGE"


async def test_silence_and_one_byte_at_a_time_end_at_the_time_limit(stage: Stage) -> None:
    async def silent(_: asyncio.StreamReader, __: asyncio.StreamWriter) -> None:
        await asyncio.sleep(3)

    async def dripping(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n")
        for _ in range(30):
            writer.write(b"x")
            await writer.drain()
            await asyncio.sleep(0.1)

    for behave in (silent, dripping):
        async with stage.provider(behave) as url:
            assert await cause(stage.egress(), url) == "TIMEOUT"


async def test_nothing_at_all_is_a_failed_connection(stage: Stage) -> None:
    async def hang_up(_: asyncio.StreamReader, __: asyncio.StreamWriter) -> None:
        return

    async with stage.provider(hang_up) as url:
        assert await cause(stage.egress(), url) == "CONNECTION_FAILED"


@pytest.mark.promise("P02")
async def test_a_provider_that_speaks_tls_1_2_alone_is_not_called(stage: Stage) -> None:
    async with stage.provider(answering("200 OK", b"{}"), ssl.TLSVersion.TLSv1_2) as url:
        assert await cause(stage.egress(), url) == "CONNECTION_FAILED"
    assert stage.requests == []


async def test_a_provider_whose_certificate_is_not_believed_is_not_called(stage: Stage, tmp_path: Path) -> None:
    other = CertificateAuthority(tmp_path / "other", "other-ca")
    async with stage.provider(answering("200 OK", b"{}")) as url:
        assert await cause(Egress(other.certificate_file, 1.0, allow_loopback=True), url) == "CONNECTION_FAILED"


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "localhost",
        "10.0.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "0.0.0.0",  # noqa: S104  # an address to refuse
        "[::1]",
        "[::ffff:127.0.0.1]",
        "[::ffff:10.0.0.1]",
        "[64:ff9b::7f00:1]",
        "[2002:7f00:1::]",
        "[fd00::1]",
        "[fe80::1]",
        "224.0.0.1",
    ],
)
async def test_addresses_that_are_not_public_are_refused_before_a_connection_is_made(host: str, stage: Stage) -> None:
    assert await cause(stage.egress(allow_loopback=False), f"https://{host}:1/token") == "ADDRESS_NOT_PUBLIC"
