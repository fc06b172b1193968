"""All API keys of a workspace revoked, or the workspace frozen, in one act, by its customer or by an operator.

Both take access away: neither waits for anything, and each can be asked for again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from authpipe_gateway_authority.domain.acting import Actors, Asked, on_record
from authpipe_sensitive import AuditEntry
from authpipe_sensitive.duties import note_nothing_done


class Store(Protocol):
    """authority's own tables."""

    async def note(self, entries: Sequence[AuditEntry]) -> None:
        """Makes events durable."""

    async def revoke_api_keys(self, workspace: str, make: Callable[[str, str], AuditEntry], *, dry_run: bool) -> int:
        """Revokes every active API key of a workspace in one transaction with the events; gives how many there were.

        Args:
            workspace: Which.
            make: Makes an event of its name and target.
            dry_run: Only count them.
        """

    async def set_frozen(self, workspace: str, *, frozen: bool, entry: AuditEntry | None) -> bool:
        """Freezes or unfreezes a workspace with the event; says whether it was frozen. Without an event it only says that."""


class Containing:
    """The rules over containment.

    Args:
        store: authority's own tables.
        actors: Tells who acts.
        forget: Drops what is remembered of API keys.
    """

    def __init__(self, store: Store, actors: Actors, forget: Callable[[], None]) -> None:
        self._store = store
        self._actors = actors
        self._forget = forget

    async def revoke_api_keys(self, asked: Asked, *, dry_run: bool) -> int:
        """Revokes all API keys of a workspace; gives how many were active.

        Raises:
            GrantError: The grant is not for that.
            MalformedError: An operator names no workspace.
            WorkspaceNotFoundError: There is no such workspace.
            ForgedRowError: Its row is not ours.
        """
        acting = self._actors.of(asked, "revoke_api_keys")
        async with on_record(self._store.note, acting, acting.workspace):
            count = await self._store.revoke_api_keys(acting.workspace, acting.entry, dry_run=dry_run)
        if dry_run:
            note_nothing_done()
        self._forget()
        return count

    async def freeze(self, asked: Asked, *, dry_run: bool) -> bool:
        """Freezes a workspace; says whether it was frozen already.

        Raises:
            GrantError: The grant is not for that.
            MalformedError: An operator names no workspace.
            WorkspaceNotFoundError: There is no such workspace.
            ForgedRowError: Its row is not ours.
        """
        acting = self._actors.of(asked, "freeze")
        entry = None if dry_run else acting.entry("WORKSPACE_FROZEN", acting.workspace)
        async with on_record(self._store.note, acting, acting.workspace):
            was_frozen = await self._store.set_frozen(acting.workspace, frozen=True, entry=entry)
        if dry_run or was_frozen:
            note_nothing_done()
        self._forget()
        return was_frozen

    async def unfreeze(self, asked: Asked) -> bool:
        """Has a workspace served again; says whether it was frozen.

        Raises:
            MalformedError: No workspace is named.
            WorkspaceNotFoundError: There is no such workspace.
            ForgedRowError: Its row is not ours.
        """
        acting = self._actors.of(asked, "")
        entry = acting.entry("WORKSPACE_UNFROZEN", acting.workspace)
        async with on_record(self._store.note, acting, acting.workspace):
            was_frozen = await self._store.set_frozen(acting.workspace, frozen=False, entry=entry)
        if not was_frozen:
            note_nothing_done()
        self._forget()
        return was_frozen
