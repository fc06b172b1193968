"""The proxy: a customer's request goes to the Provider's own API with the credential on it, and the answer comes back.

The credential never leaves this process but to a host that is bound into its record: what the request, the customer's
workspace or our own database say cannot widen that. Bodies pass through, a piece at a time.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple, Protocol
from urllib.parse import unquote, urlsplit

from authpipe_consumer.words import Opened, Want
from authpipe_envelope import RecordClass, hosts_digest
from authpipe_oauth_worker.domain.answers import NONCE
from authpipe_oauth_worker.domain.desk import Desk
from authpipe_oauth_worker.domain.opening import open_together
from authpipe_oauth_worker.domain.ports import Client
from authpipe_oauth_worker.domain.words import Job
from authpipe_oauth_worker.errors import (
    ApiUnknownError,
    BodyTooLargeError,
    HostError,
    NotBoundError,
    NotProxiableError,
    ProxyBusyError,
    ProxyRequestError,
)
from authpipe_providers import Dialect, Placement, Signing
from authpipe_sensitive import Label, Secret

Headers = tuple[tuple[str, bytes], ...]
METHODS = frozenset({"GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE"})
# RFC 9110, section 7.6.1: these are between two neighbours, and mean nothing beyond.
_HOP_BY_HOP = frozenset(
    {
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
# Ours to say, or nobody's business.
_NOT_SENT = _HOP_BY_HOP | {"host", "authorization", "cookie", "content-length", "expect", "forwarded", "via", "dpop"}
_NOT_RETURNED = _HOP_BY_HOP | {"set-cookie", "set-cookie2", "alt-svc", "strict-transport-security", "clear-site-data"}
_NOT_SENT_PREFIXES = ("x-forwarded-", "authpipe-", "proxy-", "sec-")
_NAME = re.compile(r"[a-z0-9!#$%&'*+.^_`|~-]{1,100}")
_VALUE = re.compile(rb"[\x20-\x7e\t\x80-\xff]{0,8192}")
_URL = re.compile(r"https://[A-Za-z0-9.\[\]:-]{1,260}(/[\x21-\x7e]{0,2000})?")
_PATH = re.compile(r"(/[A-Za-z0-9._~!$&'()*+,;=:@%-]*)*")
_QUERY = re.compile(r"[A-Za-z0-9._~!$&'()*+,;=:@%/?\[\]{}|^-]*")
_LENGTH = re.compile(r"[0-9]{1,9}")
_UNAUTHORIZED = 401
_PROXIABLE = {
    RecordClass.ACCESS,
    RecordClass.API_KEY,
    RecordClass.BASIC,
    RecordClass.OAUTH1,
    RecordClass.DPOP_KEY,
}
# What signs a request, in place of being sent.
_SIGNING = {RecordClass.BASIC, RecordClass.OAUTH1}
_MOST_HEADERS = 64
# Of one workspace at one worker: a slow API of one must not take the way out of all.
_MOST_AT_ONCE = 100
_LONGEST_TARGET = 8_000
# Of a body that is signed, which has to be there as a whole before anything is sent.
_MOST_SIGNED = 1024 * 1024
# An answer with a body of so many bytes at most is handed on when it is there, in one piece.
_SHORT = 64 * 1024
# What has no body, whatever its length is said to be (RFC 9110, section 6.4.1).
_BODILESS = {204, 304}


class Ways(NamedTuple):
    """How an API wants a credential of each kind.

    Args:
        token: An access token.
        api_key: An API key.
        pair: How requests are signed with a name and a secret; None: they are sent as HTTP Basic.
        oauth1: How requests are signed with a token's secret and our client's (OAuth 1.0a); None: they are not.
    """

    token: Placement
    api_key: Placement
    pair: Signing | None = None
    oauth1: Dialect | None = None


class Credential(NamedTuple):
    """What is put on a request.

    Args:
        record_class: Its class.
        payload: Itself.
        key: What it is bound to; None: nothing.
        nonce: What the server wants in the proof of that key; empty: nothing.
        client: As whom it is signed too; None: as nobody.
    """

    record_class: RecordClass
    payload: Secret
    key: Secret | None = None
    nonce: str = ""
    client: Client | None = None


@dataclass(frozen=True, slots=True)
class ProxyJob:
    """One request to a Provider's API.

    Args:
        workspace: The tenant.
        connection: The connection.
        provider: The Provider, for the context.
        hosts: The hosts of the Provider's entry, filled: what the record has to be bound to.
        base_urls: Where the API is.
        api_headers: What every request to it carries.
        ways: How it wants a credential of each kind.
        dpop: Whether a token may be bound to a key of the connection (RFC 9449).
        signs_as: With OAuth 1.0a: as which client of ours requests are signed; None: as none.
        pins: Public keys of which each host shows one.
        grant: To open the credential.
        request_id: The request.
        method: The HTTP method.
        base_url: One of the base URLs; empty: the first.
        path: What follows it.
        query: Without the question mark.
        headers: The caller's own.
        content_length: Of the body; None: not known beforehand.
    """

    workspace: str
    connection: str
    provider: str
    hosts: frozenset[str]
    base_urls: tuple[str, ...]
    api_headers: tuple[tuple[str, str], ...]
    ways: Ways
    dpop: bool
    signs_as: Job | None
    pins: tuple[str, ...]
    grant: str
    request_id: str
    method: str
    base_url: str
    path: str
    query: str
    headers: Headers
    content_length: int | None


class Outgoing(NamedTuple):
    """A request as it goes to the Provider.

    Args:
        method: The HTTP method.
        url: Where.
        headers: Its headers; those with the credential are Secrets.
        query: What is added to the URL's query with the credential in it; None: nothing.
    """

    method: str
    url: str
    headers: Mapping[str, Secret | bytes]
    query: Secret | None = None


class Answered(NamedTuple):
    """A Provider's answer, its body still to come."""

    status: int
    headers: Headers
    body: AsyncIterator[bytes]


async def whole_of(method: str, answered: Answered) -> bytes | None:
    """Gives the body of an answer that says that it is short; None: it may be long, or come by and by. Nothing was read of it then.

    Raises:
        AnswerLostError: It broke off. Nothing of the answer was handed on.
    """
    lengths = _values(answered.headers, "content-length")
    is_short = len(lengths) == 1 and _LENGTH.fullmatch(lengths[0]) is not None and int(lengths[0]) <= _SHORT
    if not is_short and method != "HEAD" and answered.status not in _BODILESS:
        return None
    return b"".join([piece async for piece in answered.body])


class Streamer(Protocol):
    """The way out, for bodies of any size."""

    def stream(
        self, outgoing: Outgoing, body: AsyncIterator[bytes] | None, pins: Iterable[str]
    ) -> AbstractAsyncContextManager[Answered]:
        """Sends a request once, and gives the answer while it comes."""


class Placing(Protocol):
    """Puts a credential on a request."""

    def __call__(self, credential: Credential, ways: Ways, outgoing: Outgoing, body: bytes, now: datetime) -> Outgoing:
        """Gives the request with the credential on it; its body is empty where no signature covers it."""


class Proxying:
    """Carries requests.

    Args:
        desk: The steps that jobs share.
        egress: The way out.
        place: Puts a credential on a request.
    """

    def __init__(self, desk: Desk, egress: Streamer, place: Placing) -> None:
        self._desk = desk
        self._egress = egress
        self._place = place
        self._going: Counter[str] = Counter()

    @asynccontextmanager
    async def carry(self, job: ProxyJob, body: AsyncIterator[bytes] | None) -> AsyncIterator[Answered]:
        """Sends a request with the connection's credential, and gives the answer while it comes.

        Raises:
            ProxyRequestError: The request is not one that is carried.
            ApiUnknownError: Nothing is known of an API of the Provider's.
            HostError: The credential is not bound to the hosts of the API.
            NotProxiableError: The credential is of a kind that no API takes.
            BodyTooLargeError: The API wants the body signed, and it is too large for that.
            ProxyBusyError: The workspace has as many requests under way as it may.
            EgressError: The Provider was not reached: nothing was sent.
            AnswerLostError: It was sent, and no answer came.
        """
        # What is wrong with the request is found before a credential is opened for it.
        url = _target(job)
        headers = _sent(job)
        if self._going[job.workspace] >= _MOST_AT_ONCE:
            raise ProxyBusyError
        self._going[job.workspace] += 1
        try:
            async with self._answer(job, url, headers, body) as answered:
                yield answered
        finally:
            self._going[job.workspace] -= 1
            if not self._going[job.workspace]:
                del self._going[job.workspace]

    async def prove(self, job: ProxyJob, url: str, nonce: str) -> Secret:
        """Makes a proof of the key that the connection's token is bound to, for one request that its owner sends.

        Args:
            job: Whose, and the method.
            url: Where it goes.
            nonce: What the server wants in the proof; empty: what it last wanted of us.

        Raises:
            ProxyRequestError: Its method, URL or nonce is none.
            HostError: The credential is not bound to the hosts of its Provider.
            NotBoundError: The token is bound to no key.
        """
        # Where it goes is its owner's to say, who has the token: the proof is of no use with another one, or elsewhere.
        if _URL.fullmatch(url) is None:
            raise ProxyRequestError(field=Label("url"))
        if job.method not in METHODS:
            raise ProxyRequestError(field=Label("method"))
        if nonce and NONCE.fullmatch(nonce) is None:
            raise ProxyRequestError(field=Label("nonce"))
        opened, key = await self._open(job)
        with opened.plaintext, key or nullcontext():
            if key is None or opened.record_class is not RecordClass.ACCESS:
                raise NotBoundError
            credential = Credential(opened.record_class, opened.plaintext, key, nonce or self._desk.nonces.of(url))
            placed = self._place(credential, job.ways, Outgoing(job.method, url, {}), b"", self._desk.clock())
        proof = placed.headers.get("dpop")
        if not isinstance(proof, Secret):
            raise NotBoundError
        return proof

    @asynccontextmanager
    async def _answer(
        self, job: ProxyJob, url: str, headers: dict[str, Secret | bytes], body: AsyncIterator[bytes] | None
    ) -> AsyncIterator[Answered]:
        # Before a credential is opened: whoever sends a body slowly must not keep one in memory. What is known as a whole
        # can be signed, and sent again with the nonce that a server wants.
        whole = _Whole()
        if body is not None and (job.dpop or _covers_body(job, headers)):
            body = await whole.read(body)
        for again in (True, False):
            outgoing = await self._place_on(job, Outgoing(job.method, url, headers), whole)
            async with self._egress.stream(outgoing, whole.again() if whole.is_read else body, job.pins) as answered:
                wants_nonce = self._wants_nonce(outgoing, answered)
                if wants_nonce and again and (body is None or whole.is_read):
                    continue
                yield answered._replace(headers=_returned(answered.headers))
                return

    async def _place_on(self, job: ProxyJob, outgoing: Outgoing, whole: _Whole) -> Outgoing:
        opened, key = await self._open(job)
        with opened.plaintext, key or nullcontext():
            if opened.record_class in _SIGNING and not whole.is_whole:
                raise BodyTooLargeError
            nonce = self._desk.nonces.of(outgoing.url)
            credential = Credential(opened.record_class, opened.plaintext, key, nonce)
            if opened.record_class is RecordClass.OAUTH1 and job.signs_as is not None:
                credential = credential._replace(client=await self._desk.client(job.signs_as))
            with (credential.client and credential.client.secret) or nullcontext():
                return self._place(credential, job.ways, outgoing, whole.data, self._desk.clock())

    def _wants_nonce(self, outgoing: Outgoing, answered: Answered) -> bool:
        """Whether a server wants another nonce in the proof (RFC 9449, section 9); what it wants is kept."""
        if "dpop" not in outgoing.headers:
            return False
        nonce = next((value.decode("latin-1") for name, value in answered.headers if name == "dpop-nonce"), "")
        if not NONCE.fullmatch(nonce) or nonce == self._desk.nonces.of(outgoing.url):
            return False
        self._desk.nonces.note(outgoing.url, nonce)
        return answered.status == _UNAUTHORIZED

    async def _open(self, job: ProxyJob) -> tuple[Opened, Secret | None]:
        """Opens the credential, and the key that it is bound to, if it is."""
        beside = [RecordClass.DPOP_KEY] if job.dpop else []
        wants = [
            Want(job.workspace, job.connection, each, job.grant, job.request_id, keep=True) for each in (None, *beside)
        ]
        found, *keys = await open_together(self._desk.vault, wants, beside, lambda each: _require(job, each))
        if found is None:
            raise AssertionError("It is not optional.")
        return found, keys[0].plaintext if keys and keys[0] is not None else None


def _covers_body(job: ProxyJob, headers: Mapping[str, Secret | bytes]) -> bool:
    """Whether a signature may be over the body: of OAuth 1.0a it is over a form (RFC 5849, section 3.4.1.3.1)."""
    if job.signs_as is not None:
        return is_form(headers)
    return job.ways.pair is not None and job.ways.pair.covers_body


def is_form(headers: Mapping[str, Secret | bytes]) -> bool:
    """Whether a body is a form, as its headers say."""
    said = headers.get("content-type", b"")
    return isinstance(said, bytes) and said.lower().startswith(b"application/x-www-form-urlencoded")


def _require(job: ProxyJob, opened: Opened) -> None:
    """Returns when a record may be sent with this job. What is sealed says where it may go; the request does not."""
    if opened.hosts != hosts_digest(job.hosts) or opened.provider != job.provider:
        raise HostError
    if opened.record_class not in _PROXIABLE:
        raise NotProxiableError


class _Whole:
    """A body that has to be known as a whole, up to what is kept of it.

    `is_read`: it is in `data`. `is_whole`: it is, or need not be.
    """

    def __init__(self) -> None:
        self.data = b""
        self.is_read = False
        self.is_whole = True

    async def read(self, body: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """Reads it until it ends or is too large; gives it from its beginning."""
        kept = bytearray()
        async for piece in body:
            kept += piece
            if len(kept) > _MOST_SIGNED:
                self.is_whole = False
                return _behind(bytes(kept), body)
        self.data, self.is_read = bytes(kept), True
        return self.again()

    async def again(self) -> AsyncIterator[bytes]:
        """Gives what was read."""
        yield self.data


async def _behind(first: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    async for piece in rest:
        yield piece


def _target(job: ProxyJob) -> str:
    """Gives the URL: a base URL of the API, to the letter, and what the caller puts behind it."""
    if job.method not in METHODS:
        raise ProxyRequestError(field=Label("method"))
    if not job.base_urls:
        raise ApiUnknownError
    base = job.base_url or job.base_urls[0]
    if base not in job.base_urls or urlsplit(base).hostname not in job.hosts:
        raise ProxyRequestError(field=Label("base_url"))
    if len(job.path) + len(job.query) > _LONGEST_TARGET or _PATH.fullmatch(job.path) is None:
        raise ProxyRequestError(field=Label("path"))
    # A dot segment, also one that is hidden, would leave the base.
    if {".", ".."} & set(re.split(r"[/\\]", unquote(unquote(job.path)))):
        raise ProxyRequestError(field=Label("path"))
    if _QUERY.fullmatch(job.query) is None:
        raise ProxyRequestError(field=Label("query"))
    return f"{base.rstrip('/')}{job.path}" + (f"?{job.query}" if job.query else "")


def _sent(job: ProxyJob) -> dict[str, Secret | bytes]:
    """Gives the headers that go on: the caller's own but those between neighbours, and those that are ours to say."""
    if len(job.headers) > _MOST_HEADERS:
        raise ProxyRequestError(field=Label("headers"))
    named = {name.strip() for value in _values(job.headers, "connection") for name in value.lower().split(",")}
    sent: dict[str, Secret | bytes] = {name: value.encode() for name, value in job.api_headers}
    for name, value in job.headers:
        if _NAME.fullmatch(name) is None or _VALUE.fullmatch(value) is None:
            raise ProxyRequestError(field=Label("headers"))
        if name in _NOT_SENT or name in named or name.startswith(_NOT_SENT_PREFIXES):
            continue
        sent[name] = value
    if job.content_length is not None:
        sent["content-length"] = str(job.content_length).encode()
    return sent


def _returned(headers: Headers) -> Headers:
    named = {name.strip() for value in _values(headers, "connection") for name in value.lower().split(",")}
    return tuple(
        (name, value)
        for name, value in headers
        if name not in _NOT_RETURNED and name not in named and _VALUE.fullmatch(value) is not None
    )


def _values(headers: Headers, wanted: str) -> list[str]:
    return [value.decode("latin-1") for name, value in headers if name == wanted]
