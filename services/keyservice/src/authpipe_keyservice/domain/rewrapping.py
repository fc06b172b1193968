"""Re-wrapping: every DEK comes from an older KEK version to the primary one, while releases go on.

Each DEK is swapped by compare-and-swap on its old wrapped form, so a re-wrapper that is killed, or two that race, leave
every DEK readable under one version or the other. What is left to do stands in the rows themselves: nothing to resume
from but the next row.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import NamedTuple, Protocol

from authpipe_keyservice.domain.keyring import Keyring
from authpipe_keyservice.domain.keys import Wrapper, dek_aad, kek_label
from authpipe_keyservice.errors import ErasedError, KekDisabledError, KeyTamperedError
from authpipe_sensitive import AuditEntry

# DEKs that are read and swapped by one statement each.
BATCH = 1024
# DEKs that the HSM's one thread re-wraps before it turns to a release: about 2 ms with SoftHSM.
CHUNK = 32


class StaleDek(NamedTuple):
    """A DEK that is not on the primary KEK version."""

    workspace: str
    version: int
    kek_version: int
    wrapped: bytes


class SwappedDek(NamedTuple):
    """A DEK with its old and new wrapped form."""

    workspace: str
    version: int
    old: bytes
    new: bytes


class DekTable(Protocol):
    """DEKs in keyservice's own database."""

    def alone(self) -> AbstractAsyncContextManager[bool]:
        """Gives, for the time of a block, whether this is the one replica that re-wraps."""

    async def count_stale(self, primary: int) -> int:
        """Gives how many DEKs are on an older version than the primary one."""

    async def stale(self, primary: int, after: tuple[str, int], limit: int) -> list[StaleDek]:
        """Gives DEKs that are on an older version than the primary one, by workspace and version, from after a name."""

    async def swap(self, deks: Sequence[SwappedDek], kek_version: int, entry: AuditEntry) -> int:
        """Stores new wrapped forms where the old ones still stand and the version still wraps; gives how many."""


class Progress(NamedTuple):
    """What a pass did.

    Args:
        swapped: How many DEKs came to the primary version.
        refused: How many do not unwrap: rows that were changed behind our back. Each holds its KEK version in use.
    """

    swapped: int
    refused: int


class Rewrapping:
    """Re-wraps DEKs.

    Args:
        key_domain: The key domain.
        keyring: The KEK versions.
        table: The DEKs.
        wrapper: The HSM.
        share: The share of the time that re-wrapping may keep the HSM busy; 1: no pause.
        clock: Gives seconds.
        note: Called with how many DEKs were swapped, and how many are left.
    """

    def __init__(
        self,
        *,
        key_domain: str,
        keyring: Keyring,
        table: DekTable,
        wrapper: Wrapper,
        share: float,
        clock: Callable[[], float],
        note: Callable[[int, int], None],
    ) -> None:
        self._key_domain = key_domain
        self._keyring = keyring
        self._table = table
        self._wrapper = wrapper
        self._rest = 1 / share - 1
        self._clock = clock
        self._note = note
        self._left = 0

    async def run(self) -> Progress:
        """Re-wraps what there is, unless another replica does.

        Raises:
            HsmUnavailableError: The token does not answer; what was swapped stays so.
        """
        primary = self._keyring.primary()
        self._left = await self._table.count_stale(primary)
        if self._left == 0:
            return Progress(0, 0)
        async with self._table.alone() as alone:
            return await self._pass(primary) if alone else Progress(0, 0)

    async def _pass(self, primary: int) -> Progress:
        after, swapped, refused = ("", 0), 0, 0
        storing: asyncio.Task[int] | None = None
        try:
            while rows := await self._table.stale(primary, after, BATCH):
                after = (rows[-1].workspace, rows[-1].version)
                done = await self._rewrap(rows, primary)
                refused += len(rows) - len(done)
                # The HSM works on the next batch while PostgreSQL stores this one.
                if storing is not None:
                    swapped += await storing
                storing = asyncio.create_task(self._store(done, primary), name="store re-wrapped DEKs")
        finally:
            if storing is not None:
                swapped += await storing
        return Progress(swapped, refused)

    async def _rewrap(self, rows: Sequence[StaleDek], primary: int) -> list[SwappedDek]:
        done: list[SwappedDek] = []
        for start in range(0, len(rows), CHUNK):
            chunk = rows[start : start + CHUNK]
            began = self._clock()
            for kek_version in dict.fromkeys(row.kek_version for row in chunk):
                same = [row for row in chunk if row.kek_version == kek_version]
                try:
                    old = await self._keyring.label(kek_version)
                except (KekDisabledError, ErasedError, KeyTamperedError):
                    continue  # a row put back from a backup, say: it stays what it is, and the others go on
                new = await self._wrapper.rewrap(
                    old,
                    kek_label(self._key_domain, primary),
                    [(row.wrapped, dek_aad(self._key_domain, row.workspace, row.version)) for row in same],
                )
                done += [
                    SwappedDek(row.workspace, row.version, row.wrapped, wrapped)
                    for row, wrapped in zip(same, new, strict=True)
                    if wrapped is not None
                ]
            await asyncio.sleep((self._clock() - began) * self._rest)
        return done

    async def _store(self, deks: Sequence[SwappedDek], primary: int) -> int:
        if not deks:
            return 0
        entry = AuditEntry(
            name="DEKS_REWRAPPED",
            outcome="SUCCEEDED",
            actor=f"service:keyservice/{self._key_domain}",
            request_id="rotation",
            target=kek_label(self._key_domain, primary),
        )
        swapped = await self._table.swap(deks, primary, entry)
        self._left -= swapped
        self._note(swapped, self._left)
        return swapped
