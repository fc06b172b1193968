"""Keys of a workspace through their life: DEK and connection key versions, and the end of all of them.

    rotate a DEK         the new version is primary, the one before active until its connection keys have moved, then
                         destroyed; no credential is touched
    rotate a CK          the new version seals from now on; the one before opens what it sealed until that was written
                         again, then is destroyed
    erase a workspace    its DEKs are disabled at once; when the delay is over they are destroyed; until then a cancel
                         brings them back

Like the KEK's rotation, every step finds in the database what is to be done, and commits it with its event.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

from authpipe_envelope import wrap_key
from authpipe_keyservice.domain.deks import DekRow, Deks
from authpipe_keyservice.domain.keys import NONCE_SIZE, ck_aad, unwrap_ck
from authpipe_keyservice.domain.replicas import Replica
from authpipe_keyservice.errors import (
    ContendedError,
    DelayError,
    KeyTamperedError,
    NoSuchKeyError,
    WorkspaceErasedError,
)
from authpipe_sensitive import AuditEntry

DAY = 86_400.0
LONGEST_DELAY_SECONDS = 30 * DAY
# Connection keys that are re-wrapped by one statement; 5 µs each, between which releases have their turn.
BATCH = 256
# DEKs that are rotated by their age in one turn, so that a fleet of the same age does not rotate at once.
TURN = 50
# How often a step is tried that lost a race.
TRIES = 5


class KeyInPlace(NamedTuple):
    """A connection key, current or retired, as it stands under a DEK."""

    connection: str
    version: int
    wrapped: bytes


class MovedKey(NamedTuple):
    """A connection key with its old and new wrapped form."""

    connection: str
    version: int
    old: bytes
    new: bytes


class WorkspaceTable(Protocol):
    """Keys of workspaces in keyservice's own database."""

    async def newest(self, workspace: str) -> DekRow | None:
        """Gives a workspace's newest DEK."""

    async def rotate_dek(self, workspace: str, old: int, new: DekRow, entry: AuditEntry) -> bool:
        """Stores a new primary DEK over an old one; False: the old one, or the KEK version, is not primary any more."""

    async def key_version(self, workspace: str, connection: str) -> int:
        """Gives the version of an active connection key; 0: there is none."""

    async def rotate_key(
        self, workspace: str, connection: str, old: int, dek_version: int, wrapped: bytes, entry: AuditEntry
    ) -> bool:
        """Stores a new version of a connection key and retires the old one; False: either moved meanwhile."""

    async def awaits(self, now: float, before: float) -> bool:
        """Says whether a delay is over, a primary DEK is older than a moment, or older keys are there."""

    async def aged(self, before: float, limit: int) -> list[str]:
        """Gives workspaces whose primary DEK is older than a moment."""

    async def leaving(self, limit: int) -> list[tuple[str, int, int]]:
        """Gives active DEKs: workspace, version, and the version that is primary."""

    async def keys_on(self, workspace: str, dek_version: int, limit: int) -> list[KeyInPlace]:
        """Gives connection keys that are wrapped by a DEK."""

    async def move_keys(self, workspace: str, keys: Sequence[MovedKey], dek_version: int, entry: AuditEntry) -> int:
        """Stores new wrapped forms where the old ones still stand; gives how many."""

    async def retire_dek(self, workspace: str, version: int, entry: AuditEntry) -> bool:
        """Destroys an active DEK; False: a connection key is on it."""

    async def retire_keys(self, now: float, limit: int, entry: AuditEntry) -> int:
        """Destroys older versions of connection keys that no record is on; gives how many."""

    async def schedule(self, workspace: str, due: float, entry: AuditEntry) -> int:
        """Disables a workspace's DEKs, to be destroyed later; gives the order by which replicas forget them."""

    async def cancel(self, workspace: str, entry: AuditEntry) -> bool:
        """Enables a workspace's DEKs again; False: no erasure waits."""

    async def due(self, now: float) -> list[str]:
        """Gives workspaces whose delay is over."""

    async def erase(self, workspace: str, entry: AuditEntry) -> None:
        """Overwrites a workspace's DEKs."""


class Workspaces:
    """Rotates and erases the keys of workspaces.

    Args:
        key_domain: The key domain.
        table: Their keys.
        deks: Makes and unwraps DEKs.
        replica: Tells the other replicas to forget.
        rotate_seconds: How long a DEK stays primary.
        clock: Seconds since the epoch.
        randomness: Gives random bytes.
    """

    def __init__(
        self,
        *,
        key_domain: str,
        table: WorkspaceTable,
        deks: Deks,
        replica: Replica,
        rotate_seconds: float,
        clock: Callable[[], float],
        randomness: Callable[[int], bytes],
    ) -> None:
        self._key_domain = key_domain
        self._table = table
        self._deks = deks
        self._replica = replica
        self._rotate_seconds = rotate_seconds
        self._clock = clock
        self._randomness = randomness
        self._actor = f"service:keyservice/{key_domain}"

    async def rotate_dek(self, workspace: str, actor: str, request_id: str) -> int:
        """Gives a workspace a new DEK version; its connection keys move in the background.

        Raises:
            NoSuchKeyError: The workspace has no DEK in this key domain.
            WorkspaceErasedError: It is being erased.
            ContendedError: Others moved its keys, or the KEK, each time.
        """
        for _ in range(TRIES):
            row = await self._table.newest(workspace)
            if row is None:
                raise NoSuchKeyError
            if not row.state.unwraps:
                raise WorkspaceErasedError
            new = await self._deks.make(workspace, row.version + 1)
            entry = self._entry("DEK_ROTATED", actor, request_id, workspace, version=new.version)
            if await self._table.rotate_dek(workspace, row.version, new, entry):
                return new.version
            # Rotated meanwhile by somebody else: the DEK, or the KEK, which another replica may have moved long ago.
            await self._deks.catch_up()
        raise ContendedError

    async def rotate_key(self, workspace: str, connection: str, actor: str, request_id: str) -> int:
        """Gives a connection a new key version; its records move to it as they are written.

        Raises:
            NoSuchKeyError: The connection has no active key in this key domain.
            WorkspaceErasedError: The workspace is being erased.
            ContendedError: Others moved its keys each time.
        """
        for _ in range(TRIES):
            old = await self._table.key_version(workspace, connection)
            if old == 0:
                raise NoSuchKeyError
            dek_version, wrapped = await self._deks.new_key(workspace, connection, old + 1)
            entry = self._entry("CONTEXT_KEY_ROTATED", actor, request_id, workspace, connection, old + 1)
            if await self._table.rotate_key(workspace, connection, old, dek_version, wrapped, entry):
                return old + 1
        raise ContendedError

    async def erase(self, workspace: str, delay_seconds: float, actor: str, request_id: str) -> tuple[float, int]:
        """Takes a workspace out of use, and destroys its DEKs when the delay is over.

        Returns:
            When that is, in seconds since the epoch, and how many replicas have not said yet that they forgot its keys.

        Raises:
            DelayError: The delay is not between 0 and 30 days.
        """
        if not 0 <= delay_seconds <= LONGEST_DELAY_SECONDS:
            raise DelayError
        due = self._clock() + delay_seconds
        entry = self._entry("WORKSPACE_ERASURE_SCHEDULED", actor, request_id, workspace)
        order = await self._table.schedule(workspace, due, entry)
        outstanding = await self._replica.all_obeyed(order)
        await self._erase_due()
        return due, outstanding

    async def cancel(self, workspace: str, actor: str, request_id: str) -> None:
        """Cancels an erasure whose delay is not over.

        Raises:
            NoSuchKeyError: None waits.
        """
        entry = self._entry("WORKSPACE_ERASURE_CANCELLED", actor, request_id, workspace)
        if not await self._table.cancel(workspace, entry):
            raise NoSuchKeyError

    async def advance(self) -> None:
        """Takes every step that can be taken now. Called again and again, by every replica."""
        if not await self._table.awaits(self._clock(), self._clock() - self._rotate_seconds):
            return
        # Step 1: what is to be erased goes first.
        await self._erase_due()
        # Step 2: DEKs that are old.
        for workspace in await self._table.aged(self._clock() - self._rotate_seconds, TURN):
            await self.rotate_dek(workspace, self._actor, "schedule")
        # Step 3: connection keys move from older DEKs; a DEK that none is on goes.
        for workspace, version, primary in await self._table.leaving(TURN):
            await self._leave(workspace, version, primary)
        # Step 4: older connection keys that no record is on.
        retired = self._entry("CONTEXT_KEY_RETIRED", self._actor, "rotation", "")
        await self._table.retire_keys(self._clock(), BATCH, retired)

    async def _leave(self, workspace: str, version: int, primary: int) -> None:
        while keys := await self._table.keys_on(workspace, version, BATCH):
            moved = await self._rewrap(workspace, keys, version, primary)
            entry = self._entry("CONTEXT_KEYS_REWRAPPED", self._actor, "rotation", workspace, version=primary)
            if not moved or not await self._table.move_keys(workspace, moved, primary, entry):
                return  # all of them changed meanwhile, or none unwraps: the next turn looks again
            await asyncio.sleep(0)
        retired = self._entry("DEK_RETIRED", self._actor, "rotation", workspace, version=version)
        await self._table.retire_dek(workspace, version, retired)

    async def _rewrap(self, workspace: str, keys: Sequence[KeyInPlace], version: int, primary: int) -> list[MovedKey]:
        old, new = await self._deks.open(workspace, version), await self._deks.open(workspace, primary)
        moved = []
        for each in keys:
            aad = ck_aad(self._key_domain, workspace, each.connection, each.version)
            try:
                key = unwrap_ck(old.key, each.wrapped, aad)
            except KeyTamperedError:
                continue
            with key:
                wrapped = wrap_key(new.key, key, aad, self._randomness(NONCE_SIZE))
            moved.append(MovedKey(each.connection, each.version, each.wrapped, wrapped))
        return moved

    async def _erase_due(self) -> None:
        for workspace in await self._table.due(self._clock()):
            await self._table.erase(workspace, self._entry("WORKSPACE_ERASED", self._actor, "erasure", workspace))

    def _entry(
        self, name: str, actor: str, request_id: str, workspace: str, target: str = "", version: int = 0
    ) -> AuditEntry:
        return AuditEntry(
            name=name,
            outcome="SUCCEEDED",
            actor=actor,
            request_id=request_id,
            workspace_id=workspace,
            target=target or (f"dek-{self._key_domain}-{version}" if version else ""),
        )
