"""The lease of a connection: whoever writes its records beside their owner holds it, and a heartbeat keeps it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from authpipe_oauth_coordinator.domain.ports import Held, LeaseStore
from authpipe_oauth_coordinator.domain.words import Ending, Lease, Left
from authpipe_sensitive import AuditEntry, DomainError, get_log


class Leasing:
    """Takes, keeps and gives back leases.

    Args:
        leases: The table of leases.
        holder: The name of this process in leases.
        seconds: How long a lease lives without a heartbeat.
    """

    def __init__(self, leases: LeaseStore, holder: str, seconds: float) -> None:
        self._leases = leases
        self._holder = holder
        self._seconds = seconds
        self._kept: set[Held] = set()
        self._beating: asyncio.Task[None] | None = None

    async def acquire(self, workspace: str, connection_id: str, entry: AuditEntry) -> Lease | None:
        """Takes the lease with a new fence, with its event; None: another holder lives."""
        return await self._leases.acquire_lease(workspace, connection_id, self._holder, self._seconds, entry)

    async def note_left(self, workspace: str, connection_id: str, fence: int, left: Left) -> bool:
        """Writes down what is left if this process dies now; False: somebody else has the lease."""
        return await self._leases.note_left(workspace, connection_id, fence, left)

    @contextmanager
    def kept(self, workspace: str, connection_id: str, fence: int) -> Iterator[None]:
        """Keeps a lease for the time of a block, however long it takes."""
        held = (workspace, connection_id, fence)
        self._kept.add(held)
        if self._beating is None:
            self._beating = asyncio.create_task(self._heartbeat(), name="lease heartbeat")
        try:
            yield
        finally:
            self._kept.discard(held)

    async def end(
        self,
        workspace: str,
        connection_id: str,
        fence: int,
        ending: Ending | None = None,
        entry: AuditEntry | None = None,
    ) -> None:
        """Gives the lease back, with what came of it; None: nothing."""
        await self._leases.end_lease(workspace, connection_id, fence, ending or Ending(), entry)

    async def _heartbeat(self) -> None:
        """Extends all that is kept, together.

        A thousand slow refreshes must not be a thousand statements, each in line for one of a few connections until its lease
        has run out.
        """
        try:
            while self._kept:
                await asyncio.sleep(self._seconds / 3)
                beating = list(self._kept)
                try:
                    alive = await self._leases.extend_leases(beating, self._seconds) if beating else set()
                except DomainError as error:
                    get_log().warning("leases not extended", error=error)
                    continue
                # Who was passed over has nothing to keep.
                self._kept -= set(beating) - alive
        finally:
            self._beating = None
