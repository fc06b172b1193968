"""Releasing: from grants and headers to record keys. The story of keyservice, told once for reads and once for writes.

No audit, no key: the events of the whole batch are durable before the first key is handed out.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, NamedTuple, Protocol, TypeVar

from authpipe_envelope import TRANSIENT, Header, IntegrityError, RecordClass, derive_record_key
from authpipe_grants import Grant, ReleasedKey, Verifier, thumbprint
from authpipe_keyservice.domain.budgets import Budgets
from authpipe_keyservice.domain.clocks import require_clock
from authpipe_keyservice.domain.deks import Deks
from authpipe_keyservice.domain.kek_versions import KeyVersionState
from authpipe_keyservice.domain.keys import Held, KeyCache, ck_aad, unwrap_ck
from authpipe_keyservice.domain.release import Direction, KeyFacts, KeyState, Wanted, judge, mark_of
from authpipe_keyservice.errors import BudgetError, CustomerKeyPendingError, SupersededError, WorkspaceErasedError
from authpipe_sensitive import AuditEntry, DomainError, Label
from authpipe_telemetry import counter


class KeyRow(NamedTuple):
    """A connection key as stored.

    Args:
        facts: What is known of it and of the record.
        version: The CK's version.
        dek_version: The DEK that wraps it.
        wrapped: The wrapped CK.
        dek_state: The state of that DEK.
        customers: Whether a customer's key wraps that DEK too.
    """

    facts: KeyFacts
    version: int
    dek_version: int
    wrapped: bytes
    dek_state: KeyVersionState = KeyVersionState.PRIMARY
    customers: bool = False


class Ask(NamedTuple):
    """One item of a batch.

    Args:
        wanted: Which key.
        token: Its grant; None: the item points to no grant.
        request_id: The request it belongs to.
        header: The AP1 header, to read.
    """

    wanted: Wanted
    token: str | None
    request_id: str
    header: bytes = b""


@dataclass(frozen=True, slots=True)
class Step:
    """What a release changes in what keyservice knows: the floor, the fence, the last forced refresh or check.

    Args:
        wanted: The key that was released.
        key_version: The version of the connection key that it comes from.
        fence: A newer fence than the last one seen; 0: none.
        forced: The mark of a forced refresh; empty: it was none.
        check: The mark of a check; empty: it was none.
    """

    wanted: Wanted
    key_version: int
    fence: int
    forced: str
    check: str


class Store(Protocol):
    """keyservice's own tables."""

    async def look_up(self, wanted: Sequence[Wanted]) -> list[KeyRow | None]:
        """Gives what is known of each; None: there is no such connection key."""

    async def put_key(self, workspace: str, connection: str, row: KeyRow) -> None:
        """Stores a first connection key, unless another process did meanwhile or its DEK is not primary any more."""

    async def retired(self, workspace: str, connection: str, version: int) -> tuple[int, bytes] | None:
        """Gives the DEK version and wrapped form of an older version of a connection's key."""

    def require_room(self, entry: AuditEntry) -> None:
        """Returns when there is room for the event of an act.

        Raises:
            DomainError: There is none, and the act gives or uses access.
        """

    async def commit(self, entries: Sequence[AuditEntry], steps: Sequence[Step], now_ms: int) -> None:
        """Makes events durable, with what the releases change, in one transaction."""


# How often a key is looked up anew whose DEK was destroyed meanwhile.
_TRIES = 3
Answer = int | DomainError
IndexedKey = tuple[int, ReleasedKey]
SealedT = TypeVar("SealedT")


@dataclass(frozen=True, slots=True)
class Batch(Generic[SealedT]):
    """The verdict on each item, and the keys of those that were granted, sealed; None: none was."""

    answers: Sequence[Answer]
    sealed: SealedT | None


class Releasing:
    """Releases record keys and write keys of one key domain.

    Args:
        key_domain: The key domain.
        region: The region that grants must name.
        store: Connection keys and floors.
        deks: The DEKs.
        verifier: Verifies grants.
        budgets: The budgets.
        cache: Unwrapped keys.
        clock: Seconds since the epoch.
        randomness: Gives random bytes.
    """

    def __init__(  # required means argument
        self,
        *,
        key_domain: str,
        region: str,
        store: Store,
        deks: Deks,
        verifier: Verifier,
        budgets: Budgets,
        cache: KeyCache,
        clock: Callable[[], float],
        randomness: Callable[[int], bytes],
    ) -> None:
        self._key_domain = key_domain
        self._audience = f"{key_domain}/{region}"
        self._store = store
        self._deks = deks
        self._verifier = verifier
        self._budgets = budgets
        self._cache = cache
        self._clock = clock
        self._randomness = randomness
        self._refused = counter("authpipe.keyservice.releases.refused")

    async def release(
        self, public_key: bytes, asks: Sequence[Ask], seal: Callable[[Sequence[IndexedKey]], SealedT | None]
    ) -> Batch[SealedT]:
        """Judges a batch and gives the keys of what was granted, sealed. Items are refused one by one.

        Args:
            public_key: The consumer's, to which they are sealed.
            asks: The items.
            seal: Seals the keys of the items, each with its index, to that public key.

        Raises:
            DomainError: The batch as a whole could not be carried out; nothing was released.
        """
        now_ms = int(self._clock() * 1000)
        consumer = thumbprint(public_key)
        # Step 1: every grant of the batch, once.
        grants = {token: self._verify(token) for token in {ask.token for ask in asks}}
        # Step 2: what we know ourselves; the store is not believed.
        rows = await self._store.look_up([ask.wanted for ask in asks])
        # Step 3: judge, count, derive; each item on its own.
        answers: list[Answer] = []
        keys: list[IndexedKey] = []
        exceeded = await self._take_budgets(asks, grants)
        entries: list[AuditEntry] = await self._clock_alarms(grants.values())
        steps: list[Step] = []
        for index, (asked, row) in enumerate(zip(asks, rows, strict=True)):
            ask = _after_floor(asked, row)
            grant = grants[ask.token]
            try:
                if isinstance(grant, DomainError):
                    raise grant
                judge(grant, ask.wanted, row.facts if row else None, consumer, self._audience, now_ms)
                if bound := exceeded[grant.workspace, grant.issuer, grant.consumer]:
                    self._refused.add(1, bound=Label(bound))
                    raise BudgetError(bound=Label(bound))
                key = await self._key_for(ask, row)
                released = _released(ask, grant)
                self._store.require_room(released)
            except DomainError as error:
                answers.append(error)
                # Who is to ask again in a moment was not refused.
                waits = isinstance(error, CustomerKeyPendingError | SupersededError)
                if not waits and await self._budgets.note_refusal(ask.wanted.workspace):
                    entries.append(_refusal(ask, grant, error))
                continue
            answers.append(ask.wanted.version)
            keys.append((index, key))
            entries.append(released)
            if step := _step(ask, grant, row, key.key_version):
                steps.append(step)
        # Step 4: no audit, no key. They are sealed while PostgreSQL makes their events durable, which takes as long;
        # what was sealed leaves here afterwards, or never.
        durable = asyncio.create_task(self._store.commit(entries, steps, now_ms), name="durable events")
        try:
            await asyncio.sleep(0)
            sealed = seal(keys)
        finally:
            await durable
        return Batch(answers, sealed)

    async def _take_budgets(
        self, asks: Sequence[Ask], grants: Mapping[str | None, Grant | DomainError]
    ) -> dict[tuple[str, str, str], str]:
        """Takes what a batch asks for from the budgets, once for each workspace, signer and consumer in it."""
        amounts = Counter(
            (grant.workspace, grant.issuer, grant.consumer)
            for ask in asks
            if isinstance(grant := grants[ask.token], Grant)
        )
        return {key: await self._budgets.exceeded(*key, amount) for key, amount in amounts.items()}

    async def _clock_alarms(self, grants: Iterable[Grant | DomainError]) -> list[AuditEntry]:
        """Gives an event for each signer whose clock differs, once in a while."""
        now = self._clock()
        signers = {grant.issuer for grant in grants if isinstance(grant, Grant) and require_clock(grant, now) > 0}
        return [
            AuditEntry(
                name="CLOCK_DIFFERS",
                outcome="SUCCEEDED",
                actor=f"service:{signer}",
                request_id="clock",
                target=self._audience,
            )
            for signer in sorted(signers)
            if await self._budgets.note_clock(signer)
        ]

    def _verify(self, token: str | None) -> Grant | DomainError:
        try:
            grant = self._verifier.verify(token or "")
            require_clock(grant, self._clock())
        except DomainError as error:
            return error
        return grant

    async def _key_for(self, ask: Ask, row: KeyRow | None) -> ReleasedKey:
        for _ in range(_TRIES):
            try:
                return await self._derive(ask, row)
            except WorkspaceErasedError:
                # Its DEK may have been rotated, and the one before destroyed, since it was looked up: what stands now counts.
                row = (await self._store.look_up([ask.wanted]))[0]
                if row is None or not row.dek_state.unwraps:
                    raise
        raise WorkspaceErasedError

    async def _derive(self, ask: Ask, row: KeyRow | None) -> ReleasedKey:
        wanted = ask.wanted
        if row is None:
            row = await self._first_key(wanted)
        # Looked up with every release: a workspace that is being erased is refused at once, whatever a cache holds.
        if not row.dek_state.unwraps:
            raise WorkspaceErasedError
        if wanted.direction is Direction.WRITE:
            connection_key = await self._open(wanted, row)
            salt = self._randomness(32)
            key = derive_record_key(connection_key.key, row.version, salt, int(wanted.record_class))
            return ReleasedKey(wanted.version, row.version, salt, key.material)
        header = Header.parse(ask.header)
        if header.key_version != row.version:
            row = await self._older(wanted, row, header.key_version)
        connection_key = await self._open(wanted, row)
        key = derive_record_key(connection_key.key, row.version, header.salt, int(wanted.record_class))
        if not key.commits_to(header.commitment):
            raise IntegrityError
        return ReleasedKey(wanted.version, row.version, header.salt, key.material)

    async def _open(self, wanted: Wanted, row: KeyRow) -> Held:
        async def unwrap() -> Held:
            dek = await self._deks.open(wanted.workspace, row.dek_version)
            aad = ck_aad(self._key_domain, wanted.workspace, wanted.connection, row.version)
            return dek._replace(key=unwrap_ck(dek.key, row.wrapped, aad))

        name = (wanted.workspace, wanted.connection, row.wrapped)
        if not row.customers:
            return await self._cache.get_or_unwrap(name, unwrap)
        # A customer's KMS is asked beside the batch: nobody in it waits for it, or for a look-up on its account.
        held = self._cache.get_or_start(name, unwrap)
        if held is None:
            raise CustomerKeyPendingError
        if self._cache.is_to_renew(held):
            await self._deks.renew(wanted.workspace, row.dek_version)
        return held

    async def _older(self, wanted: Wanted, row: KeyRow, version: int) -> KeyRow:
        """Gives the connection key of an older version, which records are on until they are written again."""
        found = await self._store.retired(wanted.workspace, wanted.connection, version)
        if found is None:
            raise IntegrityError
        return row._replace(version=version, dek_version=found[0], wrapped=found[1])

    async def _first_key(self, wanted: Wanted) -> KeyRow:
        workspace, connection = wanted.workspace, wanted.connection
        # Again, when the DEK was rotated between making the key and storing it.
        for _ in range(3):
            dek_version, wrapped = await self._deks.new_key(workspace, connection, 1, patient=False)
            await self._store.put_key(workspace, connection, KeyRow(_NEW_FACTS, 1, dek_version, wrapped))
            # Two processes may have made one at once: what is stored is what counts.
            stored = (await self._store.look_up([wanted]))[0]
            if stored is not None:
                return stored
        raise WorkspaceErasedError


_NEW_FACTS = KeyFacts(
    KeyState.ACTIVE,
    floor=0,
    fence=0,
    refresh_not_before_ms=0,
    last_forced_ms=0,
    last_forced_grant="",
    last_check_ms=0,
    last_check_grant="",
    key_version=1,
    record_key_version=0,
    floor_age_ms=0,
)


def _after_floor(ask: Ask, row: KeyRow | None) -> Ask:
    """Gives a write of a transient record the version after its floor: the store has deleted the one before."""
    wanted = ask.wanted
    if row is None or wanted.direction is Direction.READ or wanted.record_class not in TRANSIENT:
        return ask
    version = max(wanted.version, row.facts.floor + 1)
    return ask._replace(wanted=wanted._replace(version=version))


def _step(ask: Ask, grant: Grant, row: KeyRow | None, key_version: int) -> Step | None:
    reads = ask.wanted.direction is Direction.READ
    mark = mark_of(grant, ask.wanted)
    forced = mark if reads and grant.forced and ask.wanted.record_class is RecordClass.REFRESH else ""
    check = mark if grant.purpose in {"health_check", "rotation_check"} else ""
    fence = grant.fence if row is None or grant.fence > row.facts.fence else 0
    raises = reads and row is not None and ask.wanted.version > row.facts.floor
    return (
        Step(ask.wanted, key_version, fence, forced, check) if raises or fence or forced or check or not reads else None
    )


def _released(ask: Ask, grant: Grant) -> AuditEntry:
    reads = ask.wanted.direction is Direction.READ
    return AuditEntry(
        name="RECORD_KEY_RELEASED" if reads else "WRITE_KEY_RELEASED",
        outcome="SUCCEEDED",
        actor=grant.actor,
        request_id=ask.request_id,
        workspace_id=ask.wanted.workspace,
        target=ask.wanted.connection,
        purpose=grant.purpose,
        record_class=int(ask.wanted.record_class),
        record_version=ask.wanted.version,
        grant_id=grant.grant_id,
        source=grant.source,
    )


def _refusal(ask: Ask, grant: Grant | DomainError, error: DomainError) -> AuditEntry:
    names = {"RECORD_INTEGRITY_VIOLATION", "WRAPPED_KEY_TAMPERED", "RECORD_ROLLED_BACK"}
    name = "INTEGRITY_VIOLATION" if error.reason in names else "RELEASE_REFUSED"
    if isinstance(error, BudgetError):
        name = "RELEASE_BUDGET_EXCEEDED"
    return AuditEntry(
        name=name,
        outcome="REFUSED",
        actor=grant.actor if isinstance(grant, Grant) else "service:unknown",
        request_id=ask.request_id,
        workspace_id=ask.wanted.workspace,
        target=ask.wanted.connection,
        purpose=grant.purpose if isinstance(grant, Grant) else "",
        source=grant.source if isinstance(grant, Grant) else "",
        record_class=int(ask.wanted.record_class),
        record_version=ask.wanted.version,
        reason=error.reason,
        grant_id=grant.grant_id if isinstance(grant, Grant) else "",
    )
