"""The way out: one request to one host of a job, TLS 1.3, bounded in size and time. Nothing here retries.

Connections are made as `connecting` says, and kept as `hosts` says. These three are the only modules that import an HTTP
client.
"""

from __future__ import annotations

import asyncio
import os
import re
import ssl
from collections import OrderedDict
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Protocol
from urllib.parse import SplitResult, urljoin, urlsplit

import httpcore2
from purgatory.domain.model import Context, OpenedState

from authpipe_oauth_worker.connecting import SENDING, Guarded, Resolve, Sending, resolve
from authpipe_oauth_worker.domain.answers import NONCE, Answer
from authpipe_oauth_worker.domain.ports import Client
from authpipe_oauth_worker.domain.proxying import Answered, Outgoing
from authpipe_oauth_worker.errors import AnswerLostError, ClientKeyError, EgressError
from authpipe_oauth_worker.hosts import Hosts
from authpipe_sensitive import Label, Secret


class Write(Protocol):
    """Writes token requests."""

    def __call__(
        self, url: str, parameters: Mapping[str, Secret | str], client: Client, *, json_body: bool
    ) -> tuple[dict[str, str], bytes]:
        """Gives headers and body."""


_LONGEST_ANSWER = 1024 * 1024
_LONGEST_HEAD = 32 * 1024
_MOST_REDIRECTS = 3
_MOST_BREAKERS = 10_000
# After so many requests in a row that came to nothing, a host is left alone for so many seconds; then one is tried.
_FAILURES, _OPEN_SECONDS = 5, 10.0
# What a gateway says for a Provider that is away. Not 500: whoever can provoke one must not shut a Provider for others.
_AWAY = {502, 503, 504}
_OURS = {"URL_NOT_ALLOWED", "ADDRESS_NOT_PUBLIC", "PUBLIC_KEY_NOT_PINNED", "TOO_MANY_AT_ONCE"}
# Long streams have connections of their own, so that they never take those of a refresh.
_MOST_CONNECTIONS, _MOST_STREAMS = 100, 1_000
_HEADERS = {"accept": "application/json", "accept-encoding": "identity", "user-agent": "Authpipe"}
# Letters, digits, dots and hyphens, or an IPv6 address: no percent sign, no user, no other script.
_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?|\[[0-9A-Fa-f:.]+\]")
# What OpenSSL says when the other side knows no TLS 1.3.
_TOO_OLD = {"TLSV1_ALERT_PROTOCOL_VERSION", "UNSUPPORTED_PROTOCOL", "WRONG_SSL_VERSION", "NO_PROTOCOLS_AVAILABLE"}
_PLAIN = re.compile(r"[\x21-\x7e]{1,8000}")


class Egress:
    """Sends requests to Providers.

    Args:
        ca: A further CA to believe; None: the usual ones alone.
        timeout_seconds: How long an answer may take, in all.
        allow_loopback: Whether addresses of this machine may be called.
        resolve: Gives the addresses of a name.
        write: Writes token requests: headers and body.
    """

    def __init__(
        self, ca: Path | None, timeout_seconds: float, *, allow_loopback: bool, write: Write, resolve: Resolve = resolve
    ) -> None:
        self._context = ssl.create_default_context()
        self._context.minimum_version = ssl.TLSVersion.TLSv1_3
        if ca is not None:
            self._context.load_verify_locations(ca)
        self._ca = ca
        self._timeout = timeout_seconds
        self._allow_loopback = allow_loopback
        self._resolve = resolve
        self._write = write
        self._hosts = Hosts(self._context, resolve, allow_loopback=allow_loopback)
        self._breakers: OrderedDict[str, Context] = OrderedDict()

    async def get(self, url: str, pins: Iterable[str] = ()) -> Answer:
        """Fetches a document; redirects are followed within its origin.

        Args:
            url: Where it is.
            pins: Public keys of which the host has to show one, each the base64 of a SHA-256 (RFC 7469, section 2.4);
                none: every certificate that is valid for it.

        Raises:
            EgressError: It was not reached.
            AnswerLostError: It answered too much, too late, or not at all.
        """
        for _ in range(_MOST_REDIRECTS + 1):
            answer = await self._send("GET", url, {}, None, pins)
            if answer.location is None or not 300 <= answer.status < 400:
                break
            target = urljoin(url, answer.location)
            if _origin(urlsplit(target)) != _origin(urlsplit(url)):
                raise EgressError(cause=Label("REDIRECTED_ELSEWHERE"))
            url = target
        else:
            raise EgressError(cause=Label("TOO_MANY_REDIRECTS"))
        return answer

    async def post_form(
        self,
        url: str,
        form: Mapping[str, Secret | str],
        client: Client,
        *,
        json_body: bool = False,
        pins: Iterable[str] = (),
        proof: Secret | None = None,
    ) -> Answer:
        """Sends parameters, authenticated as our OAuth client (RFC 6749, section 2.3.1). A redirect is an answer.

        With the proof of a key that tokens are to be bound to, if there is one (RFC 9449, section 5).

        Raises:
            EgressError: It was not reached: nothing was sent.
            AnswerLostError: It was sent, and may have been carried out.
            ClientKeyError: The client's key cannot be used.
        """
        headers, body = self._write(url, form, client, json_body=json_body)
        if proof is not None:
            headers["dpop"] = proof.expose().decode()
        certificate = client.secret if client.method == "tls_client_auth" else None
        return await self._send("POST", url, headers, body, pins, certificate)

    async def send(
        self,
        method: str,
        url: str,
        headers: Mapping[str, Secret | str],
        body: Secret | None,
        pins: Iterable[str] = (),
        query: Secret | None = None,
    ) -> Answer:
        """Sends a request once, with what is added to its query. A redirect is an answer.

        Raises:
            EgressError: It was not reached: nothing was sent.
            AnswerLostError: It was sent, and may have been carried out.
        """
        plain = {
            name: value.expose().decode() if isinstance(value, Secret) else value for name, value in headers.items()
        }
        if query is not None:
            url += ("&" if "?" in url else "?") + query.expose().decode()
        return await self._send(method, url, plain, bytes(body.expose()) if body is not None else None, pins)

    @asynccontextmanager
    async def stream(
        self, outgoing: Outgoing, body: AsyncIterator[bytes] | None, pins: Iterable[str]
    ) -> AsyncIterator[Answered]:
        """Sends a request once, and gives the answer while it comes. A redirect is an answer. Neither body is kept.

        Raises:
            EgressError: It was not reached: nothing was sent.
            AnswerLostError: It was sent, and no answer came, or broke off.
        """
        _require_url(outgoing.url)
        url = outgoing.url
        if outgoing.query is not None:
            url += ("&" if "?" in url else "?") + outgoing.query.expose().decode()
        headers = {name: bytes(v.expose()) if isinstance(v, Secret) else v for name, v in outgoing.headers.items()}
        headers = {"user-agent": b"Authpipe", "accept": b"*/*", "accept-encoding": b"identity"} | headers
        SENDING.set(sending := Sending())
        pause = self._timeout
        async with AsyncExitStack() as stack:
            pool = await stack.enter_async_context(self._hosts.connections(url, frozenset(pins), _MOST_STREAMS))
            request = pool.stream(
                outgoing.method,
                url,
                headers=[(name.encode(), value) for name, value in headers.items()],
                content=body,
                extensions={"timeout": {"connect": pause, "read": pause, "write": pause, "pool": pause}},
            )
            try:
                with self._breaker(urlsplit(url).netloc.lower()):
                    try:
                        response = await stack.enter_async_context(request)
                    except httpcore2.PoolTimeout:
                        raise EgressError(cause=Label("TOO_MANY_AT_ONCE")) from None
                    except httpcore2.ConnectError as error:
                        raise EgressError(cause=_why(error)) from None
                    except (TimeoutError, httpcore2.TimeoutException):
                        raise _failed(Label("TIMEOUT"), sent=sending.began) from None
                    except (httpcore2.NetworkError, httpcore2.ProtocolError, ssl.SSLError, OSError):
                        raise _failed(Label("CONNECTION_FAILED"), sent=sending.began) from None
            except OpenedState:
                raise EgressError(cause=Label("PROVIDER_CIRCUIT_OPEN")) from None
            if sum(len(name) + len(value) + 4 for name, value in response.headers) > _LONGEST_HEAD:
                raise AnswerLostError(cause=Label("ANSWER_TOO_LARGE"))
            head = tuple((name.decode("latin-1").lower(), value) for name, value in response.headers)
            yield Answered(response.status, head, _pieces(response))

    async def close(self) -> None:
        """Closes all connections."""
        await self._hosts.close()

    async def _send(
        self,
        method: str,
        url: str,
        headers: dict[str, str],
        body: bytes | None,
        pins: Iterable[str],
        certificate: Secret | None = None,
    ) -> Answer:
        _require_url(url)
        try:
            with self._breaker(urlsplit(url).netloc.lower()):
                return _require_there(await self._carry(method, url, headers, body, pins, certificate))
        except _AwayAnswer as away:
            return away.answer
        except OpenedState:
            raise EgressError(cause=Label("PROVIDER_CIRCUIT_OPEN")) from None

    def _breaker(self, host: str) -> Context:
        """Gives the circuit breaker of a host: one that does not answer is left alone for a while."""
        breaker = self._breakers.pop(host, None)
        if breaker is None:
            breaker = Context(host, _FAILURES, _OPEN_SECONDS, exclude=[(EgressError, _is_ours), asyncio.CancelledError])
            if len(self._breakers) >= _MOST_BREAKERS:
                self._breakers.popitem(last=False)
        breaker.messages.clear()  # nobody listens
        self._breakers[host] = breaker
        return breaker

    async def _carry(
        self,
        method: str,
        url: str,
        headers: dict[str, str],
        body: bytes | None,
        pins: Iterable[str],
        certificate: Secret | None,
    ) -> Answer:
        SENDING.set(sending := Sending())
        try:
            async with (
                asyncio.timeout(self._timeout),
                self._pool_of(url, frozenset(pins), certificate) as pool,
                pool.stream(method, url, headers=list((_HEADERS | headers).items()), content=body) as response,
            ):
                return await _read(response)
        except httpcore2.PoolTimeout:
            raise EgressError(cause=Label("TOO_MANY_AT_ONCE")) from None
        except (TimeoutError, httpcore2.TimeoutException):
            raise _failed(Label("TIMEOUT"), sent=sending.began) from None
        except httpcore2.ConnectError as error:
            raise EgressError(cause=_why(error)) from None
        except (httpcore2.NetworkError, httpcore2.ProtocolError, ssl.SSLError, OSError):
            raise _failed(Label("CONNECTION_FAILED"), sent=sending.began) from None

    @asynccontextmanager
    async def _pool_of(
        self, url: str, pins: frozenset[str], certificate: Secret | None
    ) -> AsyncIterator[httpcore2.AsyncConnectionPool]:
        """Gives the connections for a request; one that shows a client's certificate is nobody else's, and ends with it."""
        if certificate is None:
            async with self._hosts.connections(url, pins, _MOST_CONNECTIONS) as pool:
                yield pool
            return
        backend = Guarded(self._resolve, pins, allow_loopback=self._allow_loopback)
        async with httpcore2.AsyncConnectionPool(
            ssl_context=self._with_certificate(certificate), max_connections=1, network_backend=backend
        ) as pool:
            yield pool

    def _with_certificate(self, certificate: Secret) -> ssl.SSLContext:
        """Makes a context that shows a client's certificate (RFC 8705, section 2.1): a PEM of it and its key.

        Raises:
            ClientKeyError: It is none.
        """
        context = ssl.create_default_context()
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        if self._ca is not None:
            context.load_verify_locations(self._ca)
        # OpenSSL reads it from a file; this one is in memory alone, and gone when it was read.
        file = os.memfd_create("client", os.MFD_CLOEXEC)
        try:
            os.write(file, certificate.expose())
            context.load_cert_chain(f"/proc/self/fd/{file}")
        except ssl.SSLError:
            raise ClientKeyError from None
        finally:
            os.close(file)
        return context


class _AwayAnswer(Exception):
    """An answer of what stands before a Provider, which says that it is away."""

    def __init__(self, answer: Answer) -> None:
        super().__init__()
        self.answer = answer


def _require_there(answer: Answer) -> Answer:
    if answer.status in _AWAY:
        raise _AwayAnswer(answer)
    return answer


def _is_ours(error: BaseException) -> bool:
    """Whether a request was refused here, which says nothing of the host."""
    return isinstance(error, EgressError) and error.metadata.get("cause") in _OURS


def _require_url(url: str) -> None:
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        raise EgressError(cause=Label("URL_NOT_ALLOWED")) from None
    host, _, _ = parts.netloc.partition("@")
    name = host.rsplit(":", 1)[0] if not host.endswith("]") else host
    if parts.scheme != "https" or "@" in parts.netloc or _HOST.fullmatch(name) is None or ".." in name:
        raise EgressError(cause=Label("URL_NOT_ALLOWED"))
    if _PLAIN.fullmatch(url) is None or "\\" in url or "#" in url:
        raise EgressError(cause=Label("URL_NOT_ALLOWED"))


def _origin(parts: SplitResult) -> tuple[str, str | None, int]:
    return parts.scheme, parts.hostname, parts.port or 443


def _failed(cause: Label, *, sent: bool) -> EgressError | AnswerLostError:
    return AnswerLostError(cause=cause) if sent else EgressError(cause=cause)


def _why(error: BaseException) -> Label:
    """Tells a Provider that speaks no TLS 1.3 from other failures to connect."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, ssl.SSLError) and seen.reason in _TOO_OLD:
            return Label("PROVIDER_TLS_TOO_OLD")
        seen = seen.__cause__ or seen.__context__
    return Label("CONNECTION_FAILED")


async def _pieces(response: httpcore2.Response) -> AsyncIterator[bytes]:
    try:
        async for piece in response.aiter_stream():
            yield piece
    except (httpcore2.TimeoutException, httpcore2.NetworkError, httpcore2.ProtocolError, ssl.SSLError, OSError):
        raise AnswerLostError(cause=Label("ANSWER_BROKE_OFF")) from None


async def _read(response: httpcore2.Response) -> Answer:
    if sum(len(name) + len(value) + 4 for name, value in response.headers) > _LONGEST_HEAD:
        raise AnswerLostError(cause=Label("ANSWER_TOO_LARGE"))
    body = bytearray()
    async for chunk in response.aiter_stream():
        body += chunk
        if len(body) > _LONGEST_ANSWER:
            raise AnswerLostError(cause=Label("ANSWER_TOO_LARGE"))
    head = {name.lower(): value for name, value in response.headers}
    retry_after = head.get(b"retry-after", b"").decode("latin-1")
    seconds = int(retry_after) if retry_after.isdecimal() and len(retry_after) < 6 else 0
    location = head.get(b"location")
    nonce = head.get(b"dpop-nonce", b"").decode("latin-1")
    return Answer(
        response.status,
        Secret.adopt(body),
        seconds,
        location.decode("latin-1") if location is not None else None,
        nonce if NONCE.fullmatch(nonce) else "",
    )
