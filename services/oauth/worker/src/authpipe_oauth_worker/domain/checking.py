"""Trying a credential: the harmless request of its Provider's entry, or introspection, or userinfo; and when a key ends.

What an answer says of the credential is told from what it says of the Provider, which proves nothing (issue of states that say
fine while the Provider says no, and the other way round).
"""

from __future__ import annotations

from contextlib import nullcontext
from datetime import UTC, datetime
from typing import NamedTuple

from authpipe_consumer.payloads import access_token_of
from authpipe_envelope import RecordClass
from authpipe_oauth_worker.domain.answers import Answer, Failure, at_pointer, judge_health, judge_introspection
from authpipe_oauth_worker.domain.desk import Desk
from authpipe_oauth_worker.domain.proxying import Credential, Outgoing, Placing, Ways
from authpipe_oauth_worker.domain.words import Job
from authpipe_oauth_worker.errors import NotCheckableError
from authpipe_sensitive import DomainError, Secret


class Check(NamedTuple):
    """How a credential is tried.

    Args:
        method: The HTTP method of the harmless request.
        url: Where; empty: none is known.
        headers: What every request to the API carries.
        ways: How the API wants a credential of each kind.
        rotation_url: Where it says when an API key ends; empty: nowhere, or it is not asked.
        rotation_pointer: Where that stands in the answer.
    """

    method: str
    url: str
    headers: tuple[tuple[str, str], ...]
    ways: Ways
    rotation_url: str
    rotation_pointer: str


class Checked(NamedTuple):
    """What a Provider said of a credential.

    Args:
        failure: Why it is not good, or why that is not known; empty: it is good.
        refused: Whether the Provider said that it is not.
        rotate_at: When the API key ends, as its Provider says; None: it does not say.
    """

    failure: str = ""
    refused: bool = False
    rotate_at: datetime | None = None


class Checking:
    """Tries credentials.

    Args:
        desk: The steps that jobs share.
        place: Puts a credential on a request.
    """

    def __init__(self, desk: Desk, place: Placing) -> None:
        self._desk = desk
        self._place = place

    async def check(self, job: Job, record_class: RecordClass, how: Check) -> Checked:
        """Tries a credential, once.

        Raises:
            NotCheckableError: Nobody knows a harmless request.
            DomainError: It does not open, or is checked too often.
        """
        known = job.endpoints
        url, introspects = how.url, False
        if not url and record_class is RecordClass.ACCESS:
            introspects = bool(known.introspection and job.client_grant)
            url = known.userinfo if not introspects else ""
        if not url and not introspects:
            raise NotCheckableError
        opened, key = await self._desk.open_bound(job, record_class)
        # At once with its key: one check is what is allowed.
        credential = Credential(opened.record_class, opened.plaintext, key)
        if record_class is RecordClass.OAUTH1:
            credential = credential._replace(client=await self._desk.client(job))
        with opened.plaintext, key or nullcontext():
            try:
                if url:
                    failure = await self._request(job, credential, how, how.method if how.url else "GET", url)
                else:
                    failure = await self._introspect(job, opened.plaintext)
                rotate_at = await self._rotation(job, credential, how)
            except DomainError as error:
                return Checked(str(error.metadata.get("cause", error.reason)))
        if failure is None:
            return Checked(rotate_at=rotate_at)
        return Checked(failure.reason, not failure.retryable, rotate_at)

    async def _request(self, job: Job, credential: Credential, how: Check, method: str, url: str) -> Failure | None:
        answer = await self._send(job, credential, how, method, url)
        return judge_health(answer, self._desk.bodies.read(answer))

    async def _rotation(self, job: Job, credential: Credential, how: Check) -> datetime | None:
        if not how.rotation_url or credential.record_class is not RecordClass.API_KEY:
            return None
        answer = await self._send(job, credential, how, "GET", how.rotation_url)
        said = self._desk.bodies.read(answer)
        return _moment(at_pointer(said, how.rotation_pointer)) if said is not None and answer.status == 200 else None

    async def _send(self, job: Job, credential: Credential, how: Check, method: str, url: str) -> Answer:
        headers: dict[str, Secret | bytes] = {name.lower(): value.encode() for name, value in how.headers}
        nonces, pins = self._desk.nonces, job.endpoints.pins
        while True:
            nonce = nonces.of(url)
            outgoing = Outgoing(method, url, headers)
            placed = self._place(credential._replace(nonce=nonce), how.ways, outgoing, b"", self._desk.clock())
            sent = {name: each if isinstance(each, Secret) else each.decode() for name, each in placed.headers.items()}
            answer = await self._desk.egress.send(method, url, sent, None, pins, query=placed.query)
            nonces.note(url, answer.dpop_nonce)
            # RFC 9449, section 9: the token was not looked at, what the server wants in the proof is another nonce.
            if answer.status != 401 or "dpop" not in sent or nonce or not answer.dpop_nonce:
                return answer

    async def _introspect(self, job: Job, payload: Secret) -> Failure | None:
        """Asks whether a token is active (RFC 7662, section 2.1)."""
        secrets = await self._desk.client_secrets(job)
        with access_token_of(payload) as token:
            form: dict[str, Secret | str] = {"token": token, "token_type_hint": "access_token"}
            answer = await self._desk.send(job, job.endpoints.introspection, form, secrets)
        if isinstance(answer, Failure):
            return Failure(answer.reason, retryable=True)
        return judge_introspection(answer, self._desk.bodies.read(answer))


def _moment(value: object) -> datetime | None:
    """Reads a date or time of RFC 3339; None: it is none."""
    if not isinstance(value, str) or len(value) > 40:
        return None
    try:
        found = datetime.fromisoformat(value)
    except ValueError:
        return None
    return found if found.tzinfo is not None else found.replace(tzinfo=UTC)
