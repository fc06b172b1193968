"""Workspaces: made, and for how long the bodies of their events are kept."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from authpipe_gateway_authority.domain.acting import Acting, on_record
from authpipe_gateway_authority.domain.api_keys import WorkspaceRow
from authpipe_gateway_authority.domain.issuing import require_name
from authpipe_gateway_authority.errors import MalformedError
from authpipe_sensitive import AuditEntry

_MOST_DAYS = 36_500


class Store(Protocol):
    """authority's own tables."""

    async def note(self, entries: Sequence[AuditEntry]) -> None:
        """Makes events durable."""

    async def create_workspace(self, row: WorkspaceRow, entry: AuditEntry) -> None:
        """Stores a new workspace in one transaction with the event."""

    async def record_of_workspace(self, workspace: str, entry: AuditEntry) -> None:
        """Puts something on record of a workspace."""


class Workspaces:
    """The rules over workspaces.

    Args:
        store: authority's own tables.
    """

    def __init__(self, store: Store) -> None:
        self._store = store

    async def create(self, acting: Acting, display_name: str) -> None:
        """Makes a workspace, under the id for which is acted.

        Raises:
            MalformedError: The name is none.
        """
        row = WorkspaceRow(acting.workspace, require_name(display_name), 1)
        await self._store.create_workspace(row, acting.entry("WORKSPACE_CREATED", acting.workspace))

    async def keep_events(self, acting: Acting, days: int) -> None:
        """Puts on record for how many days bodies of its events are kept: the log itself holds the policy.

        Raises:
            MalformedError: So long nothing is kept.
            WorkspaceNotFoundError: There is no such workspace.
            ForgedRowError: Its row is not ours.
        """
        if not 1 <= days <= _MOST_DAYS:
            raise MalformedError
        entry = acting.entry("AUDIT_RETENTION_SET", acting.workspace)._replace(amount=days)
        async with on_record(self._store.note, acting, acting.workspace):
            await self._store.record_of_workspace(acting.workspace, entry)
