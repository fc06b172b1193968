"""A connection that is used again: what the other side says unasked is nobody's answer, and what it closed is not used."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path
from typing import Self

import httpcore2
import pytest
from authpipe_oauth_worker.connecting import SENDING, Connected, Guarded, Sending, dial
from authpipe_oauth_worker.domain.ports import Client
from authpipe_oauth_worker.egress import Egress
from authpipe_oauth_worker.requests import token_request
from authpipe_testing.ca import CertificateAuthority

PUBLIC = Client("c", None, "none")
ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\n"


class Server:
    """A server on loopback that counts its connections and does after an answer what a test says."""

    def __init__(self, folder: Path) -> None:
        self.ca = CertificateAuthority(folder, "provider-ca")
        leaf = self.ca.issue(folder, "provider", common_name="x", dns=("localhost",), addresses=("127.0.0.1",))
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(leaf.certificate, leaf.key)
        self.connections = 0
        self.unasked = b""
        self.closes = False
        self.reads = True
        self._over = asyncio.Event()
        self._serving: set[asyncio.Task[None] | None] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._context)
        self.port: int = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._over.set()
        self._server.close()
        await asyncio.gather(*filter(None, self._serving))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._serving.add(asyncio.current_task())
        try:
            while self.reads:
                await reader.readuntil(b"\r\n\r\n")
                await reader.readexactly(len(b"a=b&client_id=c"))
                writer.write(ANSWER + b"mine")
                await writer.drain()
                if self.closes:
                    return
                await asyncio.sleep(0.02)
                writer.write(self.unasked)
            await self._over.wait()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.transport.abort()

    def context(self) -> ssl.SSLContext:
        """Believes this server."""
        return ssl.create_default_context(cafile=str(self.ca.certificate_file))


async def _ask_twice(server: Server) -> list[bytes]:
    egress = Egress(server.ca.certificate_file, 2.0, allow_loopback=True, write=token_request)
    said = []
    for _ in range(2):
        answer = await egress.post_form(f"https://127.0.0.1:{server.port}/token", {"a": "b"}, PUBLIC)
        said.append(bytes(answer.body.expose()))
        await asyncio.sleep(0.1)
    await egress.close()
    return said


async def test_a_connection_at_rest_is_used_again(tmp_path: Path) -> None:
    async with Server(tmp_path) as server:
        assert await _ask_twice(server) == [b"mine", b"mine"]
    assert server.connections == 1


async def test_an_answer_that_nobody_asked_for_is_not_the_answer_to_the_next_request(tmp_path: Path) -> None:
    async with Server(tmp_path) as server:
        server.unasked = ANSWER + b"evil"
        assert await _ask_twice(server) == [b"mine", b"mine"]
    assert server.connections == 2


async def test_a_connection_that_the_other_side_closed_is_not_used_again(tmp_path: Path) -> None:
    async with Server(tmp_path) as server:
        server.closes = True
        assert await _ask_twice(server) == [b"mine", b"mine"]
    assert server.connections == 2


async def test_nothing_is_sent_to_an_address_before_its_certificate_was_right(tmp_path: Path) -> None:
    async def resolve(_: str, __: int) -> list[str]:
        return ["127.0.0.1"]

    async with Server(tmp_path) as server:
        chosen = await Guarded(resolve, frozenset(), allow_loopback=True).connect_tcp("elsewhere.example", server.port)
        with pytest.raises(NotImplementedError):
            await chosen.write(b"in the clear")
        with pytest.raises(httpcore2.ConnectError):
            await chosen.start_tls(server.context(), "elsewhere.example")
    assert server.connections == 0


async def test_who_reads_nothing_stops_the_writer_and_both_sides_give_up_in_time(tmp_path: Path) -> None:
    async with Server(tmp_path) as server:
        server.reads = False
        connected: Connected = await dial("127.0.0.1", server.port, server.context(), "localhost")
        SENDING.set(sending := Sending())
        await connected.write(b"")
        assert not sending.began
        with pytest.raises(httpcore2.WriteTimeout):
            for _ in range(1_000):
                await connected.write(bytes(1 << 20), timeout=0.2)
        with pytest.raises(httpcore2.ReadTimeout):
            await connected.read(10, timeout=0.05)
        assert sending.began
        await connected.aclose()
