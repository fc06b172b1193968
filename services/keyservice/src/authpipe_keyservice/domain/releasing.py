"""Releasing: from grants and headers to record keys. The story of keyservice, told once for reads and once for writes.

No audit, no key: the events of the whole batch are durable before the first key is handed out.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from authpipe_envelope import Header, IntegrityError, derive_record_key
from authpipe_grants import LONGEST_KEPT_SECONDS, Grant, ReleasedKey, Verifier, thumbprint
from authpipe_keyservice.domain.asking import (
    Ask,
    Step,
    after_floor,
    refused_event,
    released_event,
    step_of,
    told_together,
)
from authpipe_keyservice.domain.budgets import Budgets
from authpipe_keyservice.domain.clocks import require_clock
from authpipe_keyservice.domain.deks import Deks
from authpipe_keyservice.domain.keys import Held, KeyCache, ck_aad, unwrap_ck
from authpipe_keyservice.domain.release import Direction, KeyFacts, KeyState, Wanted, judge
from authpipe_keyservice.domain.remembered import KeyRow, Remembered
from authpipe_keyservice.errors import BudgetError, CustomerKeyPendingError, SupersededError, WorkspaceErasedError
from authpipe_sensitive import AuditEntry, DomainError, Label
from authpipe_telemetry import counter


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

    async def commit_if(self, entries: Sequence[AuditEntry], wanted: Sequence[Wanted], rows: Sequence[KeyRow]) -> bool:
        """Makes events durable in one statement that finds every row as given; False: one differs, nothing was written."""


# How often a key is looked up anew whose DEK was destroyed meanwhile.
_TRIES = 3
Answer = int | DomainError
IndexedKey = tuple[int, ReleasedKey]
SealedT = TypeVar("SealedT")
ResultT = TypeVar("ResultT")
# What uses a credential many times in a row, where it never leaves us.
_KEPT = frozenset({"proxy"})
# What reads and changes nothing: no fence, no mark, no time before which it is refused.
_PLAIN = frozenset({"serve", "proxy"})


@dataclass(frozen=True, slots=True)
class Batch(Generic[SealedT]):
    """The verdict on each item, and the keys of those that were granted, sealed; None: none was."""

    answers: Sequence[Answer]
    sealed: SealedT | None


@dataclass(frozen=True, slots=True)
class _Judged:
    """The verdict on each item, the keys of those that were granted, the events, and what is to be changed."""

    answers: list[Answer]
    keys: list[IndexedKey]
    entries: list[AuditEntry]
    steps: list[Step]


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
        remembered: What was looked up a moment ago.
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
        remembered: Remembered,
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
        self._remembered = remembered
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
        # Step 2: count.
        exceeded = await self._take_budgets(asks, grants)
        alarms = await self._clock_alarms(grants.values())
        wanted = [ask.wanted for ask in asks]

        async def judge_all(rows: Sequence[KeyRow | None]) -> _Judged:
            return await self._judge_all(asks, rows, grants, exceeded, consumer, now_ms)

        # Step 3: what we know ourselves; the store is not believed. Plain reads of what is remembered are judged by that, and
        # nothing leaves here unless all of it still stands when their events are written.
        if not alarms and (rows := self._plain(wanted, grants, asks)) is not None:
            judged = await judge_all(rows)
            if not judged.steps and not any(isinstance(each, DomainError) for each in judged.answers):
                stood, sealed = await _beside(
                    self._store.commit_if(judged.entries, wanted, rows), lambda: seal(judged.keys)
                )
                if stood:
                    return Batch(judged.answers, sealed)
        found = await self._store.look_up(wanted)
        self._remembered.put(wanted, found)
        # Step 4: judge, derive; each item on its own. What was refused is noted here alone: a memory refuses nothing.
        judged = await judge_all(found)
        written = all(ask.wanted.direction is Direction.WRITE for ask in asks)
        released = told_together(judged.entries) if written else judged.entries
        entries = [*alarms, *await self._refusals(asks, grants, judged.answers), *released]
        # Step 5: no audit, no key.
        _, sealed = await _beside(self._store.commit(entries, judged.steps, now_ms), lambda: seal(judged.keys))
        return Batch(judged.answers, sealed)

    def _plain(
        self, wanted: Sequence[Wanted], grants: Mapping[str | None, Grant | DomainError], asks: Sequence[Ask]
    ) -> list[KeyRow] | None:
        """Gives what is remembered of plain reads: those that neither spend nor try what they open; None: some are not."""
        for ask in asks:
            grant = grants[ask.token]
            if not isinstance(grant, Grant) or grant.purpose not in _PLAIN or grant.forced:
                return None
        return self._remembered.rows(wanted)

    async def _judge_all(  # what a batch is judged by
        self,
        asks: Sequence[Ask],
        rows: Sequence[KeyRow | None],
        grants: Mapping[str | None, Grant | DomainError],
        exceeded: Mapping[tuple[str, str, str], str],
        consumer: str,
        now_ms: int,
    ) -> _Judged:
        judged = _Judged([], [], [], [])
        for index, (asked, row) in enumerate(zip(asks, rows, strict=True)):
            ask = after_floor(asked, row)
            grant = grants[ask.token]
            try:
                if isinstance(grant, DomainError):
                    raise grant
                judge(grant, ask.wanted, row.facts if row else None, consumer, self._audience, now_ms)
                if bound := exceeded[grant.workspace, grant.issuer, grant.consumer]:
                    raise BudgetError(bound=Label(bound))
                key = (await self._key_for(ask, row))._replace(keep_seconds=_keep_seconds(ask, grant, row))
                released = released_event(ask, grant)
                self._store.require_room(released)
            except DomainError as error:
                judged.answers.append(error)
                continue
            judged.answers.append(ask.wanted.version)
            judged.keys.append((index, key))
            judged.entries.append(released)
            if step := step_of(ask, grant, row, key.key_version):
                judged.steps.append(step)
        return judged

    async def _refusals(
        self, asks: Sequence[Ask], grants: Mapping[str | None, Grant | DomainError], answers: Sequence[Answer]
    ) -> list[AuditEntry]:
        """Gives the events of what was refused, as far as the budget of such events goes."""
        entries = []
        for ask, answer in zip(asks, answers, strict=True):
            if isinstance(answer, BudgetError) and isinstance(bound := answer.metadata["bound"], Label):
                self._refused.add(1, bound=bound)
            # Who is to ask again in a moment was not refused.
            waits = isinstance(answer, CustomerKeyPendingError | SupersededError)
            if not isinstance(answer, DomainError) or waits:
                continue
            if await self._budgets.note_refusal(ask.wanted.workspace):
                entries.append(refused_event(ask, grants[ask.token], answer))
        return entries

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


def _keep_seconds(ask: Ask, grant: Grant, row: KeyRow | None) -> int:
    """Gives for how long a key may be kept: of what requests are proxied with, unless a customer's own KMS has a say in it."""
    reads = ask.wanted.direction is Direction.READ
    if grant.purpose not in _KEPT or not reads or row is None or row.customers:
        return 0
    return LONGEST_KEPT_SECONDS


async def _beside(durable: Coroutine[Any, Any, ResultT], seal: Callable[[], SealedT]) -> tuple[ResultT, SealedT]:
    """Seals while PostgreSQL makes events durable, which takes as long; what was sealed leaves here afterwards, or never."""
    written = asyncio.create_task(durable, name="durable events")
    try:
        await asyncio.sleep(0)
        sealed = seal()
    finally:
        result = await written
    return result, sealed


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
