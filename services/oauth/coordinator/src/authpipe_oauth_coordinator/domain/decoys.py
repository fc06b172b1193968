"""Decoys: connections that nobody should ever use (honeytokens).

That one is a decoy stands in the log alone, where detectors read it: who takes over this process or its database cannot
tell it from another.
"""

from __future__ import annotations

from typing import Protocol

from authpipe_oauth_coordinator.domain.words import Acting, Connection, State, audit_entry
from authpipe_oauth_coordinator.errors import DecoyError, NotFoundError
from authpipe_sensitive import AuditEntry


class Table(Protocol):
    """The table of connections."""

    async def get_connection(self, workspace: str, connection_id: str) -> Connection | None:
        """Gives a connection."""

    async def note(self, entry: AuditEntry) -> None:
        """Makes an event durable on its own."""


class Decoys:
    """The rules over decoys.

    Args:
        table: The table of connections.
    """

    def __init__(self, table: Table) -> None:
        self._table = table

    async def place(self, acting: Acting, connection_id: str) -> None:
        """Makes a connection a decoy from now on.

        Raises:
            NotFoundError: There is no such connection.
            DecoyError: It is refreshed by itself, or not active.
        """
        found = await self._table.get_connection(acting.workspace, connection_id)
        if found is None or found.state is State.DRAFT:
            raise NotFoundError
        if found.refreshable or found.state is not State.ACTIVE:
            raise DecoyError
        await self._table.note(audit_entry("DECOY_PLACED", acting, connection_id))
