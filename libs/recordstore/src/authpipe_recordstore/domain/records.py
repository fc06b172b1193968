"""Records: read with sealed keys, written as version n + 1 over version n under the newest fence, deleted key first."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple, Protocol

from authpipe_envelope import HEADER_SIZE, SERVABLE, Header
from authpipe_grants import Grant, GrantError
from authpipe_recordstore.domain.words import Digest, Record, Ref
from authpipe_recordstore.domain.writing import TRANSIENT_NUMBERS, Write
from authpipe_recordstore.errors import MalformedError, NotFoundError, WithheldError
from authpipe_sensitive import AuditEntry, DomainError

# Earlier than this before its end, a token is not due for refresh (ARCHITECTURE §7).
REFRESH_MARGIN_SECONDS = 15 * 60
_USES = {"serve", "proxy"}
_WRITING = {"store", "exchange", "refresh", "reseal", "configure"}
EDGE = "gateway/edge"
ANY_SERVABLE = 0
_MOST_DIGESTS = 1000
SERVABLE_NUMBERS = tuple(sorted(int(each) for each in SERVABLE))


@dataclass(frozen=True, slots=True)
class Sealed:
    """Keys sealed by keyservice, relayed as they are: opaque here."""

    answers: tuple[int | DomainError, ...]
    bundle: object


@dataclass(frozen=True, slots=True)
class Asking:
    """Who asks: the consumer's public key, its challenge, its grants; relayed as they are."""

    public_key: bytes
    challenge: bytes
    grants: Sequence[str]


class Reading(NamedTuple):
    """A record that a consumer wants opened.

    Args:
        ref: Its name; the class may be that of whatever may be served.
        grant_index: Which of the grants it is asked for by.
        request_id: The request.
        request_count: For how many requests of one moment, the first of which that is; 0: for it alone.
    """

    ref: Ref
    grant_index: int
    request_id: str
    request_count: int = 0


class Put(NamedTuple):
    """What a consumer wants stored and ended together.

    Args:
        records: The records that it sealed.
        ended: Transient records that end with them.
        grant: The grant that allows all of it.
        request_id: The request.
    """

    records: Sequence[Record]
    ended: Sequence[Ref]
    grant: str
    request_id: str


class Keys(Protocol):
    """keyservice, in a store's own words."""

    async def release(self, asking: Asking, items: Sequence[tuple[Reading, int, bytes]]) -> Sealed:
        """Has keys of stored records sealed: which, under its own class; version; header."""

    async def prepare(self, asking: Asking, items: Sequence[tuple[Ref, int, int, str]]) -> Sealed:
        """Has write keys sealed: name, version stored now, grant index, request id."""

    async def acknowledge(self, items: Sequence[tuple[Ref, int, int, str]]) -> None:
        """Raises floors: name, version, refresh not before (ms), request id."""

    async def restrict(self, workspace: str, connection: str, request_id: str) -> None:
        """Restricts the connection key to revocation."""

    async def destroy(self, workspace: str, connection: str, request_id: str) -> None:
        """Destroys the connection key."""

    async def keep(self, workspace: str, connection: str, until: datetime, request_id: str) -> None:
        """Keeps the connection key: it opens nothing."""

    async def restore(self, grant: str, request_id: str) -> None:
        """Takes the connection key back, under a grant for that."""


class Store(Protocol):
    """The store's own tables."""

    async def find(self, refs: Sequence[Ref]) -> list[Record | None]:
        """Gives records, or None where there is none."""

    async def put(self, writes: Sequence[Write]) -> list[DomainError | None]:
        """Carries out writes, with their events, as `writing.decide` says; gives per write why it was not carried out."""

    async def withhold(self, workspace: str, connection: str, entry: AuditEntry) -> None:
        """Marks a connection as not to be served or written."""

    async def delete(self, workspace: str, connection: str, entry: AuditEntry) -> int:
        """Deletes a connection's records and leaves a mark that it is gone; gives how many there were."""

    async def keep(self, workspace: str, connection: str, entry: AuditEntry) -> None:
        """Marks a connection as kept."""

    async def restore(self, workspace: str, connection: str, entry: AuditEntry) -> bool:
        """Marks a kept connection as active; False: it is neither."""

    async def digests(self, refs: Sequence[Ref], after: Ref | None, limit: int) -> list[Digest]:
        """Gives digests of records that are named; of none: of so many behind one, in the store's order."""

    async def note(self, entries: Sequence[AuditEntry]) -> None:
        """Makes events durable."""


class Budget(Protocol):
    """Counts within fixed windows."""

    async def take(self, name: str) -> bool:
        """Takes one; False: it is used up."""


class Records:
    """The rules over one store.

    Args:
        store: Its tables.
        keys: Its keyservice.
        verify: Verifies a grant's signature, chain and time.
        refusals: Events about uses that were refused; beyond it they are not written, so that a flood of them does not
            become a flood of writes.
    """

    def __init__(self, store: Store, keys: Keys, verify: Callable[[str], Grant], refusals: Budget) -> None:
        self._refusals = refusals
        self._store = store
        self._keys = keys
        self._verify = verify

    async def digests(self, refs: Sequence[Ref], after: Ref | None, limit: int) -> list[Digest]:
        """Gives digests of records that are named; of none: of a page of all, so many at most.

        Raises:
            MalformedError: The page is larger than 1,000, or as many are named.
        """
        if not 0 <= limit <= _MOST_DIGESTS or len(refs) > _MOST_DIGESTS:
            raise MalformedError
        return await self._store.digests(refs, after, limit or _MOST_DIGESTS)

    async def get(
        self, caller: str, asking: Asking, items: Sequence[Reading]
    ) -> tuple[list[Record | DomainError], object]:
        """Gives records with the keys that open them, sealed to the consumer.

        Args:
            caller: The process that asks.
            asking: Its key, challenge and grants.
            items: Which.

        Returns:
            One record or refusal per item, and the sealed keys; a key belongs to the record that has its salt.
        """
        found = await self._store.find([item.ref for item in items])
        answers: list[Record | DomainError] = []
        asked: list[int] = []
        wanted: list[tuple[Reading, int, bytes]] = []
        for index, (item, record) in enumerate(zip(items, found, strict=True)):
            if record is None:
                answers.append(NotFoundError())
            elif record.withheld and (caller == EDGE or not record.data):
                answers.append(WithheldError())
            else:
                answers.append(record)
                asked.append(index)
                wanted.append((item._replace(ref=record.ref), record.version, record.data[:HEADER_SIZE]))
        if len(wanted) < len(items):
            await self._note_refused(asking, items, answers)
        if not wanted:
            return answers, None
        sealed = await self._keys.release(asking, wanted)
        for index, answer in zip(asked, sealed.answers, strict=True):
            if isinstance(answer, DomainError):
                answers[index] = answer
        return answers, sealed.bundle

    async def _note_refused(
        self, asking: Asking, items: Sequence[Reading], answers: Sequence[Record | DomainError]
    ) -> None:
        """Puts on record who wanted to use what is not there, or is disconnected."""
        entries = []
        for (ref, grant_index, request_id, _), answer in zip(items, answers, strict=True):
            if not isinstance(answer, DomainError) or not 0 <= grant_index < len(asking.grants):
                continue
            try:
                grant = self._verify(asking.grants[grant_index])
            except DomainError:
                continue  # nobody in particular: without a grant nothing is used
            is_use = grant.purpose in _USES and grant.workspace == ref.workspace
            if is_use and await self._refusals.take(ref.workspace):
                entries.append(_refused(ref, grant, request_id, answer))
        if entries:
            await self._store.note(entries)

    async def masked(self, caller: str, token: str, refs: Sequence[Ref]) -> list[Record | None]:
        """Gives what may be shown of records of the grant's workspace; no key is involved.

        Raises:
            GrantError: The grant is not to act for the workspace of all of them.
        """
        grant = self._verify(token)
        foreign = any(ref.workspace != grant.workspace for ref in refs)
        if not grant.purpose.startswith("manage.") or grant.consumer != caller or foreign:
            raise GrantError
        return await self._store.find(refs)

    async def prepare(
        self, asking: Asking, items: Sequence[tuple[Ref, int, str]]
    ) -> tuple[tuple[int | DomainError, ...], object]:
        """Has the write keys of the next versions sealed to the consumer: name, grant index, request id."""
        found = await self._store.find([ref for ref, _, _ in items])
        wanted = [
            (ref, record.version if record else 0, grant_index, request_id)
            for (ref, grant_index, request_id), record in zip(items, found, strict=True)
        ]
        sealed = await self._keys.prepare(asking, wanted)
        return sealed.answers, sealed.bundle

    async def put(self, caller: str, asked: Sequence[Put], now_ms: int) -> list[DomainError | None]:
        """Stores records that their consumer sealed; gives per write why nothing of it was stored.

        Args:
            caller: The process that writes.
            asked: The writes.
            now_ms: Milliseconds since the epoch.
        """
        # Step 1: each record under a grant that allows this writer to write it. A caller that was taken over
        # cannot overwrite what its jobs do not name.
        answers: list[DomainError | None] = [None] * len(asked)
        allowed: list[tuple[int, Write]] = []
        for index, put in enumerate(asked):
            try:
                allowed.append((index, self._allowed(caller, put)))
            except DomainError as error:
                answers[index] = error
        if not allowed:
            return answers
        # Step 2: one transaction with the events.
        for (index, _), answer in zip(allowed, await self._store.put([each for _, each in allowed]), strict=True):
            answers[index] = answer
        # Step 3: the floors. Should this not arrive, keyservice raises them at the first release.
        acknowledged = [
            (record.ref, record.version, _not_before_ms(record, now_ms), put.request_id)
            for put, answer in zip(asked, answers, strict=True)
            if answer is None
            for record in put.records
        ]
        if acknowledged:
            await self._keys.acknowledge(acknowledged)
        return answers

    def _allowed(self, caller: str, put: Put) -> Write:
        """Gives a write with its events.

        Raises:
            GrantError: Its grant does not allow this writer to write it.
            MalformedError: What it wrote is no AP1 record.
        """
        if not put.records and not put.ended:
            raise MalformedError
        grant = self._verify(put.grant)
        entries = []
        for record in put.records:
            # The fence is the one that coordinator signed, not one that the writer claims.
            if not _allows(grant, caller, record.ref) or record.fence != grant.fence:
                raise GrantError
            _require_record(record)
            entries.append(_written(record.ref, record.version, grant, put.request_id, digest_of(record.data)))
        for ref in put.ended:
            if not _allows(grant, caller, ref) or ref.record_class not in TRANSIENT_NUMBERS:
                raise GrantError
            if not put.records:
                entries.append(_written(ref, 0, grant, put.request_id))
        return Write(put.records, [(ref, grant.fence) for ref in put.ended], entries)

    async def withhold(self, caller: str, workspace: str, connection: str, request_id: str) -> None:
        """Stops serving and writing: here first, which nothing can block, then at keyservice."""
        await self._store.withhold(
            workspace, connection, _entry("RECORDS_WITHHELD", caller, workspace, connection, request_id)
        )
        await self._keys.restrict(workspace, connection, request_id)

    async def keep(self, caller: str, workspace: str, connection: str, until: datetime, request_id: str) -> None:
        """Keeps a disconnected connection: here first, which nothing can block, then at keyservice."""
        await self._store.keep(workspace, connection, _entry("RECORDS_KEPT", caller, workspace, connection, request_id))
        await self._keys.keep(workspace, connection, until, request_id)

    async def restore(self, caller: str, token: str, request_id: str) -> None:
        """Takes a connection back that was kept. Its key first: keyservice judges the grant for itself.

        Raises:
            GrantError: The grant is not for that.
            WithheldError: The connection is not kept.
        """
        grant = self._verify(token)
        if grant.purpose != "reconnect" or len(grant.connections) != 1:
            raise GrantError
        workspace, connection = grant.workspace, grant.connections[0]
        await self._keys.restore(token, request_id)
        entry = _entry("RECORDS_RESTORED", caller, workspace, connection, request_id)
        if not await self._store.restore(workspace, connection, entry):
            raise WithheldError

    async def delete(self, caller: str, workspace: str, connection: str, request_id: str) -> int:
        """Erases: the key first, so that from then on no copy opens, then the records."""
        await self._keys.destroy(workspace, connection, request_id)
        return await self._store.delete(
            workspace, connection, _entry("RECORDS_DELETED", caller, workspace, connection, request_id)
        )


def _allows(grant: Grant, caller: str, ref: Ref) -> bool:
    return (
        grant.purpose in _WRITING
        and grant.consumer == caller
        and grant.workspace == ref.workspace
        and ref.connection in grant.connections
        and ref.record_class in grant.classes
    )


def _require_record(record: Record) -> None:
    try:
        Header.parse(record.data[:HEADER_SIZE])
    except DomainError:
        raise MalformedError from None
    if record.version < 1 or len(record.hosts) != 32 or not record.provider or len(record.masked) > 8:
        raise MalformedError


def _not_before_ms(record: Record, now_ms: int) -> int:
    if record.expires_at is None:
        return 0
    return max(now_ms, int(record.expires_at.timestamp() * 1000) - REFRESH_MARGIN_SECONDS * 1000)


def digest_of(record: bytes) -> str:
    """Gives what a record is compared with the log by: SHA-256 of all of it, in hexadecimal."""
    return hashlib.sha256(record).hexdigest()


def _refused(ref: Ref, grant: Grant, request_id: str, error: DomainError) -> AuditEntry:
    return AuditEntry(
        name="RECORDS_REFUSED",
        outcome="REFUSED",
        actor=grant.actor,
        request_id=request_id,
        workspace_id=ref.workspace,
        target=ref.connection,
        purpose=grant.purpose,
        record_class=ref.record_class,
        reason=error.reason,
        grant_id=grant.grant_id,
        source=grant.source,
    )


def _written(ref: Ref, version: int, grant: Grant, request_id: str, digest: str = "") -> AuditEntry:
    return AuditEntry(
        name="RECORDS_WRITTEN",
        outcome="SUCCEEDED",
        actor=grant.actor,
        request_id=request_id,
        workspace_id=ref.workspace,
        target=ref.connection,
        purpose=grant.purpose,
        record_class=ref.record_class,
        record_version=version,
        grant_id=grant.grant_id,
        digest=digest,
        source=grant.source,
    )


def _entry(name: str, caller: str, workspace: str, connection: str, request_id: str) -> AuditEntry:
    return AuditEntry(
        name=name,
        outcome="SUCCEEDED",
        actor=f"service:{caller}",
        request_id=request_id,
        workspace_id=workspace,
        target=connection,
    )
