"""The way out, against a hostile Provider on loopback: redirects, floods, silence, drips, old TLS, private addresses."""

from __future__ import annotations

import asyncio
import gzip
import socket
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from authpipe_oauth_worker.domain.ports import Client
from authpipe_oauth_worker.connecting import public_key_pin
from authpipe_oauth_worker import egress as egress_module
from authpipe_oauth_worker import hosts as hosts_module
from authpipe_oauth_worker.egress import Egress
from authpipe_oauth_worker.errors import AnswerLostError, ClientKeyError, EgressError
from authpipe_oauth_worker.requests import token_request
from authpipe_sensitive import Secret
from authpipe_testing.ca import CertificateAuthority
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

PUBLIC = Client("c", None, "none")
Behaviour = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Stage:
    """A CA, and servers that behave as a test says."""

    def __init__(self, folder: Path) -> None:
        self.ca = CertificateAuthority(folder, "provider-ca")
        self.leaf = self.ca.issue(
            folder, "provider", common_name="x", dns=("localhost", "a.example"), addresses=("127.0.0.1",)
        )
        self.requests: list[bytes] = []
        self.clients: list[str] = []

    @asynccontextmanager
    async def provider(self, behave: Behaviour, *, clients: bool = False) -> AsyncIterator[str]:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.leaf.certificate, self.leaf.key)
        if clients:
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(self.ca.certificate_file)

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                shown = writer.get_extra_info("peercert")
                self.clients.append(dict(each[0] for each in shown["subject"])["commonName"] if shown else "")
                self.requests.append(await reader.readuntil(b"\r\n\r\n"))
                await behave(reader, writer)
            except (ConnectionError, asyncio.IncompleteReadError):
                pass
            finally:
                writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
        async with server:
            yield f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}/token"

    def egress(self, *, allow_loopback: bool = True, timeout: float = 5.0, **more: Any) -> Egress:
        return Egress(self.ca.certificate_file, timeout, allow_loopback=allow_loopback, write=token_request, **more)


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return Stage(tmp_path)


def answering(head: str, body: bytes = b"") -> Behaviour:
    async def behave(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        length = f"content-length: {len(body)}\r\n" if "length" not in head and "chunked" not in head else ""
        writer.write(f"HTTP/1.1 {head}\r\n{length}connection: close\r\n\r\n".encode() + body)
        await writer.drain()

    return behave


async def cause(egress: Egress, url: str, **more: Any) -> str:
    try:
        await egress.get(url, **more)
    except EgressError as error:
        return str(error.metadata["cause"])
    except AnswerLostError as error:
        return f"sent, {error.metadata['cause']}"
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
            await egress.post_form(url, {"a": "b"}, Client("client", Secret(b"the-secret"), method))
        await egress.close()
    assert b"authorization: basic" in stage.requests[0].lower()
    assert all(b"the-secret" not in request.split(b"\r\n")[0] for request in stage.requests)


async def test_a_client_shows_who_it_is_by_its_certificate_and_no_two_share_a_connection(
    stage: Stage, tmp_path: Path
) -> None:
    async def twice(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}")
            await writer.drain()
            await reader.readuntil(b"\r\n\r\n")

    async with stage.provider(twice, clients=True) as url:
        egress = stage.egress()
        for name in ("one", "two", "one"):
            leaf = stage.ca.issue(tmp_path, name, common_name=name, dns=(name,))
            pem = leaf.certificate.read_bytes() + leaf.key.read_bytes()
            answer = await egress.post_form(url, {"a": "b"}, Client(name, Secret(pem), "tls_client_auth"))
            assert answer.status == 200
        with pytest.raises(ClientKeyError):
            await egress.post_form(url, {"a": "b"}, Client("x", Secret(b"no certificate"), "tls_client_auth"))
        failed = await cause(egress, url)
    assert stage.clients == ["one", "two", "one"]
    assert failed != "OK", "nobody without a certificate gets in"
    assert all(b"PRIVATE KEY" not in request for request in stage.requests)


@pytest.mark.case(21)
async def test_a_redirect_of_a_form_is_an_answer_and_is_not_followed(stage: Stage) -> None:
    async with stage.provider(answering("307 Temporary\r\nlocation: /elsewhere")) as url:
        egress = stage.egress()
        assert (await egress.post_form(url, {"refresh_token": "r"}, PUBLIC)).status == 307
        await egress.close()
    assert len(stage.requests) == 1


@pytest.mark.case(21)
@pytest.mark.parametrize(
    "location",
    [
        "https://169.254.169.254/latest/meta-data",
        "https://localhost/metadata",
        "//127.0.0.2/metadata",
        "http://127.0.0.1/metadata",
        "https://127.0.0.1:1/metadata",
        "https://127.0.0.1@169.254.169.254/",
        "file:///etc/passwd",
    ],
)
async def test_a_redirect_to_another_origin_is_not_followed(stage: Stage, location: str) -> None:
    async with stage.provider(answering(f"302 Found\r\nlocation: {location}")) as url:
        assert await cause(stage.egress(allow_loopback=True), url) == "REDIRECTED_ELSEWHERE"
    assert len(stage.requests) == 1


async def test_a_redirect_within_the_origin_is_followed_three_times(stage: Stage) -> None:
    async def behave(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = "200 OK" if len(stage.requests) == 4 else f"301 Moved\r\nlocation: /next/{len(stage.requests)}"
        await answering(head, b"{}")(_, writer)

    async with stage.provider(behave) as url:
        assert await cause(stage.egress(), url) == "OK"
        assert stage.requests[3].startswith(b"GET /next/3 ")
        stage.requests[:] = [b""] * 4
        assert await cause(stage.egress(), url) == "TOO_MANY_REDIRECTS"


async def test_an_answer_of_ten_megabytes_is_cut_off(stage: Stage) -> None:
    async with stage.provider(answering("200 OK", b"x" * 10_000_000)) as url:
        assert await cause(stage.egress(), url) == "sent, ANSWER_TOO_LARGE"


@pytest.mark.case(21)
async def test_a_head_of_forty_kilobytes_is_refused(stage: Stage) -> None:
    async with stage.provider(answering("200 OK\r\nx-much: " + "x" * 40_000)) as url:
        assert await cause(stage.egress(), url) == "sent, ANSWER_TOO_LARGE"


@pytest.mark.case(21)
async def test_a_compressed_bomb_is_not_unpacked(stage: Stage) -> None:
    bomb = gzip.compress(bytes(50_000_000))
    async with stage.provider(answering("200 OK\r\ncontent-encoding: gzip", bomb)) as url:
        egress = stage.egress()
        assert (await egress.get(url)).body == Secret(bomb)
        await egress.close()
    assert b"accept-encoding: identity" in stage.requests[0].lower()


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
            assert await cause(stage.egress(timeout=1), url) == "sent, TIMEOUT"


async def test_nothing_at_all_is_a_failed_connection(stage: Stage) -> None:
    async def hang_up(_: asyncio.StreamReader, __: asyncio.StreamWriter) -> None:
        return

    async with stage.provider(hang_up) as url:
        assert await cause(stage.egress(), url) == "sent, CONNECTION_FAILED"


async def test_nobody_at_the_door_is_told_from_an_answer_that_was_lost(stage: Stage) -> None:
    async with stage.provider(answering("200 OK")) as url:
        pass
    assert await cause(stage.egress(), url) == "CONNECTION_FAILED"


@pytest.mark.promise("P02")
async def test_a_provider_that_speaks_tls_1_2_alone_is_not_called(stage: Stage) -> None:
    # Over plain sockets, so that its alert is sent: asyncio's server hangs up without it.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(stage.leaf.certificate, stage.leaf.key)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    shaken: list[str] = []

    def serve(listener: socket.socket) -> None:
        with listener.accept()[0] as accepted:
            try:
                context.wrap_socket(accepted, server_side=True)
            except ssl.SSLError as error:
                shaken.append(str(error.reason))

    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = asyncio.create_task(asyncio.to_thread(serve, listener))
        url = f"https://127.0.0.1:{listener.getsockname()[1]}/token"
        assert await cause(stage.egress(), url) == "PROVIDER_TLS_TOO_OLD"
        await server
    assert shaken == ["UNSUPPORTED_PROTOCOL"]


async def test_a_provider_whose_certificate_is_not_believed_is_not_called(stage: Stage, tmp_path: Path) -> None:
    other = CertificateAuthority(tmp_path / "other", "other-ca")
    async with stage.provider(answering("200 OK", b"{}")) as url:
        assert (
            await cause(Egress(other.certificate_file, 1.0, allow_loopback=True, write=token_request), url)
            == "CONNECTION_FAILED"
        )


@pytest.mark.case(21)
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
        "[::]",
        "[::ffff:127.0.0.1]",
        "[::ffff:10.0.0.1]",
        "[::127.0.0.1]",
        "[64:ff9b::7f00:1]",
        "[2002:7f00:1::]",
        "[fd00::1]",
        "[fe80::1]",
        "224.0.0.1",
        # The same address, written otherwise: decimal, octal, hexadecimal, short.
        "2130706433",
        "0177.0.0.1",
        "0x7f.0.0.1",
        "0x7f000001",
        "127.1",
    ],
)
async def test_addresses_that_are_not_public_are_refused_before_a_connection_is_made(host: str, stage: Stage) -> None:
    found = await cause(stage.egress(allow_loopback=False), f"https://{host}:1/token")
    assert found in {"ADDRESS_NOT_PUBLIC", "NAME_NOT_RESOLVED"}


@pytest.mark.case(21)
@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:{port}/",
        "https://user@127.0.0.1:{port}/",
        "https://as.example:443@127.0.0.1:{port}/",
        "https://127%2e0%2e0%2e1:{port}/",
        "https://127。0。0。1:{port}/",
        "https://①②⑦.0.0.1:{port}/",
        "https://127.0.0.1:{port}/#fragment",
        "https://127.0.0.1:{port}\\@as.example/",
        "https://[fe80::1%25lo]:{port}/",
        "https://127.0.0.1:99999/",
        "https://127.0.0.1:{port}/\r\nx-header: y",
        "https:///nothing",
        "gopher://127.0.0.1:{port}/",
    ],
)
async def test_an_url_that_two_readers_might_read_differently_is_not_called(url: str, stage: Stage) -> None:
    async with stage.provider(answering("200 OK", b"{}")) as real:
        port = real.rsplit(":", 1)[1].partition("/")[0]
        assert await cause(stage.egress(), url.format(port=port)) == "URL_NOT_ALLOWED"
    assert stage.requests == []


def names(**addresses: list[str]) -> Callable[[str, int], Awaitable[list[str]]]:
    """A name server: the addresses of each name, one answer after the other."""

    async def resolve(host: str, _: int) -> list[str]:
        found = addresses[host.replace(".", "_")]
        return [found.pop(0)] if len(found) > 1 else found

    return resolve


@pytest.mark.case(21)
async def test_a_name_that_comes_to_mean_another_address_is_checked_anew_with_each_connection(stage: Stage) -> None:
    async with stage.provider(answering("200 OK", b"{}")) as url:
        port = url.rsplit(":", 1)[1]
        egress = stage.egress(resolve=names(a_example=["127.0.0.1", "169.254.169.254"]))
        assert (await egress.get(f"https://a.example:{port}")).status == 200
        assert await cause(egress, f"https://a.example:{port}") == "ADDRESS_NOT_PUBLIC"
    assert len(stage.requests) == 1


@pytest.mark.case(21)
async def test_one_private_address_among_public_ones_is_one_too_many(stage: Stage) -> None:
    async def resolve(_: str, __: int) -> list[str]:
        return ["93.184.216.34", "10.0.0.1"]

    assert await cause(stage.egress(resolve=resolve), "https://a.example/") == "ADDRESS_NOT_PUBLIC"


async def keep_open(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while True:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}")
        await writer.drain()
        await reader.readuntil(b"\r\n\r\n")


@pytest.mark.case(21)
async def test_two_names_at_one_address_do_not_share_a_connection(stage: Stage) -> None:
    """As behind one CDN: a connection verified for the one must not carry a credential to the other."""
    async with stage.provider(keep_open) as url:
        port = url.rsplit(":", 1)[1]
        egress = stage.egress(resolve=names(a_example=["127.0.0.1"], b_example=["127.0.0.1"]))
        assert (await egress.get(f"https://a.example:{port}")).status == 200
        assert await cause(egress, f"https://b.example:{port}") == "CONNECTION_FAILED"
    assert len(stage.requests) == 1


async def test_a_provider_that_shows_another_public_key_than_pinned_gets_nothing(stage: Stage) -> None:
    leaf = x509.load_pem_x509_certificate(stage.leaf.certificate.read_bytes())
    pin = public_key_pin(leaf.public_bytes(Encoding.DER))
    async with stage.provider(answering("200 OK", b"{}")) as url:
        assert await cause(stage.egress(), url, pins=["other", pin]) == "OK"
        assert await cause(stage.egress(), url, pins=["other"]) == "PUBLIC_KEY_NOT_PINNED"
    assert len(stage.requests) == 1


@pytest.mark.promise("P36")
@pytest.mark.parametrize("away", ["502 Bad Gateway", "503 Unavailable", "504 Timeout"])
async def test_a_host_that_is_away_five_times_in_a_row_is_left_alone_and_then_tried_again(
    stage: Stage, away: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    egress = stage.egress()
    async with stage.provider(answering(away)) as url, stage.provider(answering("200 OK", b"{}")) as other:
        for _ in range(5):
            assert (await egress.post_form(url, {}, PUBLIC)).status == int(away[:3])
        for _ in range(3):
            with pytest.raises(EgressError) as refused:
                await egress.post_form(url, {}, PUBLIC)
            assert refused.value.metadata["cause"] == "PROVIDER_CIRCUIT_OPEN", "and that is an error of nothing sent"
        assert len(stage.requests) == 5
        assert (await egress.get(other)).status == 200, "another host goes on"
        now = time.time()
        monkeypatch.setattr(time, "time", lambda: now + 11)
        assert (await egress.post_form(url, {}, PUBLIC)).status == int(away[:3]), "one is tried"
        with pytest.raises(EgressError):
            await egress.post_form(url, {}, PUBLIC)
    await egress.close()


async def test_a_host_is_not_shut_for_others_by_what_one_client_can_provoke(stage: Stage) -> None:
    egress = stage.egress()
    for status in ("500 Oops", "400 Bad", "401 No", "429 Slow"):
        async with stage.provider(answering(status)) as url:
            for _ in range(8):
                assert (await egress.post_form(url, {}, PUBLIC)).status == int(status[:3])
    await egress.close()
    for _ in range(8):
        assert await cause(stage.egress(), "https://user@127.0.0.1/") == "URL_NOT_ALLOWED"


async def test_answers_that_were_lost_open_the_circuit_too(stage: Stage) -> None:
    async def hang_up(_: asyncio.StreamReader, __: asyncio.StreamWriter) -> None:
        return

    egress = stage.egress()
    async with stage.provider(hang_up) as url:
        for _ in range(5):
            with pytest.raises(AnswerLostError):
                await egress.post_form(url, {}, PUBLIC)
        with pytest.raises(EgressError):
            await egress.post_form(url, {}, PUBLIC)
    await egress.close()


async def test_a_host_that_answers_nobody_takes_no_connection_of_another(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(egress_module, "_MOST_CONNECTIONS", 2)
    over = asyncio.Event()

    async def silent(_: asyncio.StreamReader, __: asyncio.StreamWriter) -> None:
        await over.wait()

    async with stage.provider(silent) as slow, stage.provider(answering("200 OK", b"{}")) as quick:
        egress = stage.egress(timeout=2)
        waiting = [asyncio.create_task(egress.get(slow)) for _ in range(5)]
        await asyncio.sleep(0.2)
        assert (await egress.get(quick)).status == 200
        assert len(stage.requests) == 3, "two of the slow one's are under way, three wait for their end"
        over.set()
        ended = await asyncio.gather(*waiting, return_exceptions=True)
        await egress.close()
    assert {type(each) for each in ended} == {AnswerLostError}


async def test_a_burst_spreads_over_small_pools_and_never_over_more_connections_than_a_host_may_have(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(egress_module, "_MOST_CONNECTIONS", 5)
    monkeypatch.setattr(hosts_module, "_POOL", 2)
    open_now, most = 0, 0

    async def slowly(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal open_now, most
        open_now += 1
        most = max(most, open_now)
        try:
            while True:
                await asyncio.sleep(0.01)
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}")
                await reader.readuntil(b"\r\n\r\n")
        finally:
            open_now -= 1

    async with stage.provider(slowly) as url:
        egress = stage.egress()
        answers = await asyncio.gather(*(egress.get(url) for _ in range(40)))
        assert {each.status for each in answers} == {200}
        assert most == open_now == 5
        # What the burst has opened is closed behind it, though the host is asked all the while.
        monkeypatch.setattr(hosts_module, "_REST_SECONDS", 0.1)
        async with asyncio.timeout(5):
            while open_now > 2:
                await egress.get(url)
                await asyncio.sleep(0.02)
        await egress.close()


async def test_connections_to_a_host_that_nobody_asks_any_more_are_closed(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hosts_module, "_REST_SECONDS", 0.05)
    closed = asyncio.Event()

    async def keeps(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}")
        await reader.read()
        closed.set()

    async with stage.provider(keeps) as first, stage.provider(answering("200 OK", b"{}")) as second:
        egress = stage.egress()
        await egress.get(first)
        await asyncio.sleep(0.1)
        assert not closed.is_set()
        await egress.get(second)
        await asyncio.wait_for(closed.wait(), 2)
        await egress.close()


async def test_more_hosts_than_there_is_room_for_are_refused_before_anything_is_sent(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hosts_module, "_MOST_HOSTS", 1)
    async with stage.provider(answering("200 OK", b"{}")) as first, stage.provider(answering("200 OK")) as second:
        egress = stage.egress()
        await egress.get(first)
        assert await cause(egress, second) == "TOO_MANY_AT_ONCE"
    assert len(stage.requests) == 1


async def test_requests_that_close_what_rests_at_the_same_moment_do_not_meet(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    close = hosts_module.httpcore2.AsyncConnectionPool.aclose

    async def slowly(pool: Any) -> None:
        await asyncio.sleep(0.05)
        await close(pool)

    monkeypatch.setattr(hosts_module.httpcore2.AsyncConnectionPool, "aclose", slowly)
    async with (
        stage.provider(answering("200 OK", b"{}")) as first,
        stage.provider(answering("200 OK", b"{}")) as second,
    ):
        egress = stage.egress()
        for url in (first, second):
            await egress.get(url)
        monkeypatch.setattr(hosts_module, "_REST_SECONDS", 0.0)
        both = [first.replace("127.0.0.1", "localhost"), second.replace("127.0.0.1", "localhost")]
        answers = await asyncio.gather(*map(egress.get, both * 2))
        await egress.close()
    assert [each.status for each in answers] == [200] * 4
