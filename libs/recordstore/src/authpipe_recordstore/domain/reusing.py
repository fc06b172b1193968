"""Records opened again: by a consumer that has them, with keys that keyservice let it keep for seconds.

keyservice is not asked, so what it would refuse is refused here: a grant that is not for this, a record that is not the one stored, a
connection that is withheld. The use is durable before the consumer hears that it may open what it has.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

from authpipe_grants import Grant, thumbprint
from authpipe_recordstore.domain.words import Ref
from authpipe_sensitive import AuditEntry, DomainError

_SIGNER = "gateway/authority"
_PURPOSE = "proxy"
# What the tables hold; no record has a greater one.
_GREATEST_VERSION = 2**63 - 1


class Again(NamedTuple):
    """One record that a consumer wants to open again.

    Args:
        ref: Which.
        version: The version that it has.
        digest: SHA-256 of the AP1 record that it has.
        token: The grant.
        request_id: The request.
    """

    ref: Ref
    version: int
    digest: bytes
    token: str
    request_id: str


class Use(NamedTuple):
    """A use of a record of that version and digest, with its event."""

    ref: Ref
    version: int
    digest: bytes
    entry: AuditEntry


class Store(Protocol):
    """The store's own tables."""

    async def use(self, uses: Sequence[Use]) -> list[bool]:
        """Makes the events durable of what is stored just so and is active; says which are, in one statement."""


class Reusing:
    """The rules over records that are opened again.

    Args:
        store: The tables.
        verify: Verifies a grant's signature, chain and time.
        audience: Key domain and region, which grants have to name.
    """

    def __init__(self, store: Store, verify: Callable[[str], Grant], audience: str) -> None:
        self._store = store
        self._verify = verify
        self._audience = audience

    async def reuse(self, caller: str, public_key: bytes, asked: Sequence[Again]) -> list[bool]:
        """Says which records may be opened again, once each; false: their consumer asks for them anew, and is told why not.

        Args:
            caller: The process that asks.
            public_key: Its HPKE public key.
            asked: What it has.

        Raises:
            AuditBacklogError: There is no room for events: nothing may be opened.
        """
        consumer = thumbprint(public_key)
        uses: list[tuple[int, Use]] = []
        for index, again in enumerate(asked):
            grant = self._grant(again, caller, consumer)
            if grant is not None and again.version <= _GREATEST_VERSION:
                uses.append((index, Use(again.ref, again.version, again.digest, _reused(again, grant))))
        allowed = [False] * len(asked)
        if uses:
            stood = await self._store.use([use for _, use in uses])
            for (index, _), stands in zip(uses, stood, strict=True):
                allowed[index] = stands
        return allowed

    def _grant(self, again: Again, caller: str, consumer: str) -> Grant | None:
        """Gives the grant that allows a use; None: it does not. The consumer asks anew, and keyservice puts the refusal on record."""
        try:
            grant = self._verify(again.token)
        except DomainError:
            return None
        is_for_them = grant.consumer == caller and grant.consumer_thumbprint == consumer
        is_for_us = self._audience in grant.audience and grant.issuer == _SIGNER and grant.purpose == _PURPOSE
        names_it = (
            grant.workspace == again.ref.workspace
            and again.ref.connection in grant.connections
            and again.ref.record_class in grant.classes
        )
        return grant if is_for_them and is_for_us and names_it else None


def _reused(again: Again, grant: Grant) -> AuditEntry:
    return AuditEntry(
        name="RECORD_KEY_REUSED",
        outcome="SUCCEEDED",
        actor=grant.actor,
        request_id=again.request_id,
        workspace_id=again.ref.workspace,
        target=again.ref.connection,
        purpose=grant.purpose,
        record_class=again.ref.record_class,
        record_version=again.version,
        grant_id=grant.grant_id,
        source=grant.source,
    )
