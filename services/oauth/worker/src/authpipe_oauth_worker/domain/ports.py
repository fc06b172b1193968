"""What the rules need from outside, as Protocols: the way out, what is in answers, the spool, coordinator."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import NamedTuple, Protocol

from authpipe_oauth_worker.domain.answers import Answer, Said
from authpipe_oauth_worker.domain.words import Job
from authpipe_providers import Dialect
from authpipe_sensitive import Secret


class Kept(NamedTuple):
    """An answer on this worker's disk.

    Args:
        name: What the spool calls it.
        packed: The sealed record, as it was packed.
    """

    name: str
    packed: bytes


class Client(NamedTuple):
    """Our OAuth client.

    Args:
        id: The client id.
        secret: Its secret, or private key; None: a public client.
        method: How it shows who it is (OpenID Connect Core 1.0, section 9).
    """

    id: str
    secret: Secret | None
    method: str


class Proofs(Protocol):
    """Makes keys that tokens are bound to, and proofs of having them (RFC 9449)."""

    def new_key(self) -> Secret:
        """Makes a key, as it is kept."""

    def thumbprint(self, key: Secret) -> str:
        """Gives the thumbprint of its public half."""

    def proof(
        self, key: Secret, method: str, url: str, now: datetime, *, nonce: str = "", token: Secret | None = None
    ) -> Secret:
        """Makes the proof for one request."""


class Signs(Protocol):
    """Signs requests as OAuth 1.0a wants it (RFC 5849, section 3)."""

    def __call__(
        self,
        client: Client,
        dialect: Dialect,
        method: str,
        url: str,
        *,
        pair: tuple[Secret, Secret] | None = None,
        callback: str = "",
        verifier: str = "",
        form: bytes = b"",
    ) -> Secret:
        """Gives the value of the Authorization header.

        Raises:
            ClientKeyError: The client's key cannot be used.
        """


class Sender(Protocol):
    """The way out."""

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
        """Sends parameters once, as our OAuth client, with the proof of a key, if there is one."""

    async def send(
        self,
        method: str,
        url: str,
        headers: Mapping[str, Secret | str],
        body: Secret | None,
        pins: Iterable[str] = (),
        query: Secret | None = None,
    ) -> Answer:
        """Sends a request once."""


class Bodies(Protocol):
    """Looks inside answers."""

    def read(self, answer: Answer, secret_pointers: Iterable[str] = ()) -> Said:
        """Reads what an answer says, with its secrets shut; None: nothing that can be read."""

    def read_form(self, answer: Answer) -> Said:
        """Reads a form, with its secrets shut; None: nothing that can be read."""

    def form(self, parameters: Mapping[str, Secret | str], *, as_json: bool) -> Secret:
        """Writes parameters as a body."""

    def bearer(self, token: Secret) -> Secret:
        """Gives the value of a Bearer header."""

    def basic(self, name: str, secret: Secret | None) -> Secret:
        """Gives the value of an HTTP Basic header."""

    def pack(self, answer: Answer) -> Secret:
        """Packs an answer, to be sealed before anybody judges it."""

    def unpack(self, packed: Secret) -> Answer:
        """Unpacks an answer that was sealed."""


class Ask(NamedTuple):
    """What a token is asked for with.

    Args:
        form: The parameters of a token request; with `request` none.
        request: A Provider's own request in its place: method, URL, headers and body.
    """

    form: Mapping[str, Secret | str]
    request: tuple[str, str, Mapping[str, Secret | str], Secret | None] | None = None


class Asks(Protocol):
    """Writes what a token is asked for with, where it is not a refresh token."""

    def __call__(self, job: Job, material: Secret, now: datetime) -> Ask:
        """Gives it, of what the connection has brought.

        Raises:
            DomainError: What it has brought cannot be used.
        """


class Slot(Protocol):
    """Place for one sealed answer on this worker's disk."""

    def write(self, packed: bytes) -> None:
        """Writes the answer. From here on it outlives this process."""

    async def keep(self) -> None:
        """Makes the answer durable, to be delivered later."""

    def release(self) -> None:
        """Gives the place back."""


class Spool(Protocol):
    """Sealed answers on this worker's disk."""

    def reserve(self) -> Slot:
        """Makes place for one answer.

        Raises:
            SpoolError: The disk takes no file, or too much waits.
        """

    def waiting(self) -> list[Kept]:
        """Gives the answers that are to be delivered, oldest first."""

    def remove(self, name: str) -> None:
        """Forgets an answer that was delivered, or that nobody waits for."""


class Coordinator(Protocol):
    """coordinator, in our own words."""

    async def claim_answer(self, workspace: str, connection: str, fence: int, request_id: str) -> str:
        """Gives the grant to store an answer."""

    async def report_answer(self, workspace: str, connection: str, fence: int, request_id: str) -> None:
        """Says that an answer is stored."""
