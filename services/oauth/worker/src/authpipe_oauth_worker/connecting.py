"""Connections to Providers: to an address that was checked, TLS 1.3, with a pinned public key where the Provider has one.

A name is resolved once for each connection, every address has to be public, and the connection goes to the address that was
checked, so that a second answer of the name server changes nothing (DNS rebinding). TCP and TLS are made together: nothing
goes out in the clear, and nothing at all before the certificate, and the pin, were right. On asyncio's own TLS, which uvloop
has in C: the library's, on anyio, is a third of what a refresh costs the worker.
"""

from __future__ import annotations

import asyncio
import hashlib
import socket
import ssl
from base64 import b64encode
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from contextvars import ContextVar
from typing import Any

import httpcore2
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from authpipe_oauth_worker.domain.addresses import is_loopback, is_public
from authpipe_oauth_worker.errors import EgressError
from authpipe_sensitive import Label

Resolve = Callable[[str, int], Awaitable[Sequence[str]]]
_BUFFER = 64 * 1024
_UNLIMITED = nullcontext()


class Sending:
    """One request on its way. `began`: a byte of it was given to a connection."""

    __slots__ = ("began",)

    def __init__(self) -> None:
        self.began = False


# That of the task. The library sends in the task that asks; its own way of telling when costs twelve calls a request.
SENDING: ContextVar[Sending] = ContextVar("SENDING")


async def resolve(host: str, port: int) -> list[str]:
    """Asks the system's resolver for the addresses of a name."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(each[4][0]) for each in found]


class Guarded(httpcore2.AsyncNetworkBackend):
    """Connects to the address that was checked.

    Args:
        resolve: Gives the addresses of a name.
        pins: Public keys of which a host has to show one; none: every certificate that is valid for it.
        allow_loopback: Whether addresses of this machine may be called.
    """

    def __init__(self, resolve: Resolve, pins: frozenset[str], *, allow_loopback: bool) -> None:
        self._resolve = resolve
        self._pins = pins
        self._allow_loopback = allow_loopback

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ARG002, ASYNC109  # the library's signature
        local_address: str | None = None,  # noqa: ARG002
        socket_options: Iterable[Any] | None = None,  # noqa: ARG002
    ) -> httpcore2.AsyncNetworkStream:
        """Chooses the address.

        Raises:
            EgressError: The name has none, or one that may not be called.
        """
        try:
            addresses = await self._resolve(host, port)
        except (OSError, UnicodeError):
            raise EgressError(cause=Label("NAME_NOT_RESOLVED")) from None
        if not addresses or not all(map(self._may_call, addresses)):
            raise EgressError(cause=Label("ADDRESS_NOT_PUBLIC"))
        return _Chosen(addresses[0], port, self._pins)

    async def connect_unix_socket(self, *_: Any, **__: Any) -> httpcore2.AsyncNetworkStream:
        """Never does.

        Raises:
            EgressError: Always.
        """
        raise EgressError(cause=Label("ADDRESS_NOT_PUBLIC"))

    def _may_call(self, address: str) -> bool:
        return is_public(address) or (self._allow_loopback and is_loopback(address))


class _Chosen(httpcore2.AsyncNetworkStream):
    """An address that was checked. Nothing can be sent to it but by TLS."""

    def __init__(self, address: str, port: int, pins: frozenset[str]) -> None:
        self._address = address
        self._port = port
        self._pins = pins

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109  # the library's signature
    ) -> httpcore2.AsyncNetworkStream:
        try:
            async with asyncio.timeout(timeout):
                connected = await dial(self._address, self._port, ssl_context, server_hostname)
        except TimeoutError as error:
            raise httpcore2.ConnectTimeout from error
        except OSError as error:
            raise httpcore2.ConnectError from error
        if self._pins:
            leaf = connected.get_extra_info("ssl_object").getpeercert(binary_form=True)
            if public_key_pin(leaf) not in self._pins:
                await connected.aclose()
                raise EgressError(cause=Label("PUBLIC_KEY_NOT_PINNED"))
        return connected

    async def aclose(self) -> None:
        """There is nothing to close."""


def _within(seconds: float | None) -> AbstractAsyncContextManager[object]:
    """Limits how long something takes; who has no limit does not pay for one."""
    return asyncio.timeout(seconds) if seconds is not None else _UNLIMITED


async def dial(address: str, port: int, context: ssl.SSLContext, name: str | None) -> Connected:
    """Connects, and gives the connection when the certificate was right."""
    loop = asyncio.get_running_loop()
    reader = _Reader(limit=_BUFFER, loop=loop)
    protocol = asyncio.StreamReaderProtocol(reader, loop=loop)
    transport, _ = await loop.create_connection(
        lambda: protocol, address, port, ssl=context, server_hostname=name, ssl_shutdown_timeout=1
    )
    return Connected(reader, asyncio.StreamWriter(transport, protocol, reader, loop))


class _Reader(asyncio.StreamReader):
    """A reader that knows how much came in all."""

    came = 0

    def feed_data(self, data: bytes) -> None:  # type: ignore[override]  # asyncio feeds bytes; the stub says any numbers
        """Takes what came."""
        self.came += len(data)
        super().feed_data(data)


class Connected(httpcore2.AsyncNetworkStream):
    """A connection over TLS.

    Args:
        reader: What comes.
        writer: What goes.
    """

    def __init__(self, reader: _Reader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._read = 0

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ASYNC109  # the library's signature
        """Gives what came; nothing: the other side has closed."""
        try:
            async with _within(timeout):
                data = await self._reader.read(max_bytes)
        except TimeoutError as error:
            raise httpcore2.ReadTimeout from error
        except OSError as error:
            raise httpcore2.ReadError from error
        self._read += len(data)
        return data

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ASYNC109  # the library's signature
        """Sends, and waits while more is under way than should be."""
        if not buffer:
            return  # the end of a body whose length was said
        SENDING.get().began = True
        try:
            self._writer.write(buffer)
            transport = self._writer.transport
            if transport.get_write_buffer_size() or transport.is_closing():
                async with _within(timeout):
                    await self._writer.drain()
        except TimeoutError as error:
            raise httpcore2.WriteTimeout from error
        except (OSError, RuntimeError) as error:
            raise httpcore2.WriteError from error

    async def aclose(self) -> None:
        """Closes; what the other side still says is not waited for."""
        self._writer.close()

    def get_extra_info(self, info: str) -> Any:
        """Says what the library asks about a connection."""
        match info:
            case "is_readable":
                # On a connection at rest: the other side has closed it, or says what nobody asked for. Neither is used again.
                unread = self._reader.came > self._read
                return unread or self._reader.at_eof() or self._reader.exception() is not None
            case "ssl_object":
                return self._writer.get_extra_info("ssl_object")
            case _:
                return None


def public_key_pin(certificate: bytes) -> str:
    """Gives the pin of a certificate's public key: base64 of the SHA-256 of its SubjectPublicKeyInfo (RFC 7469, 2.4)."""
    key = x509.load_der_x509_certificate(certificate).public_key()
    return b64encode(
        hashlib.sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).digest()
    ).decode()
