"""Containing: all API keys of a workspace revoked, or the workspace frozen, in one act, by its customer or by an operator.

Both take access away: neither waits for anything, and each can be asked for again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

from authpipe_gateway_authority.errors import MalformedError
from authpipe_grants import Grant, GrantError
from authpipe_sensitive import AuditEntry
from authpipe_sensitive.duties import note_nothing_done

_SELF = "gateway/authority"


class Asked(NamedTuple):
    """Who asks for what.

    Args:
        caller: The SPIFFE path of the caller.
        grant: From edge: its grant; from an operator: nothing.
        workspace: From an operator: the workspace.
        request_id: The request.
    """

    caller: str
    grant: str
    workspace: str
    request_id: str


class Store(Protocol):
    """authority's own tables."""

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
        verify: Verifies a grant's signature, chain and time.
        audience: What a grant must name to be taken here.
        forget: Drops what is remembered of API keys.
    """

    def __init__(self, store: Store, verify: Callable[[str], Grant], audience: str, forget: Callable[[], None]) -> None:
        self._store = store
        self._verify = verify
        self._audience = audience
        self._forget = forget

    async def revoke_api_keys(self, asked: Asked, *, dry_run: bool) -> int:
        """Revokes all API keys of a workspace; gives how many were active.

        Raises:
            GrantError: The grant is not for that.
            MalformedError: An operator names no workspace.
            WorkspaceNotFoundError: There is no such workspace.
        """
        workspace, make = self._acting(asked, "revoke_api_keys")
        count = await self._store.revoke_api_keys(workspace, make, dry_run=dry_run)
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
        """
        workspace, make = self._acting(asked, "freeze")
        entry = None if dry_run else make("WORKSPACE_FROZEN", workspace)
        was_frozen = await self._store.set_frozen(workspace, frozen=True, entry=entry)
        if dry_run or was_frozen:
            note_nothing_done()
        self._forget()
        return was_frozen

    async def unfreeze(self, asked: Asked) -> bool:
        """Has a workspace served again; says whether it was frozen.

        Raises:
            MalformedError: No workspace is named.
            WorkspaceNotFoundError: There is no such workspace.
        """
        workspace, make = self._acting(asked, "")
        entry = make("WORKSPACE_UNFROZEN", workspace)
        was_frozen = await self._store.set_frozen(workspace, frozen=False, entry=entry)
        if not was_frozen:
            note_nothing_done()
        self._forget()
        return was_frozen

    def _acting(self, asked: Asked, act: str) -> tuple[str, Callable[[str, str], AuditEntry]]:
        """Says whose workspace it is, and makes events of who does it."""
        if asked.caller.startswith("operator/"):
            if not asked.workspace:
                raise MalformedError
            workspace, actor, source = asked.workspace, f"operator:{asked.caller}", ""
        else:
            grant = self._verify(asked.grant)
            is_ours = grant.issuer == _SELF and self._audience in grant.audience and grant.consumer == asked.caller
            if not is_ours or grant.purpose != f"manage.{act}":
                raise GrantError
            workspace, actor, source = grant.workspace, grant.actor, grant.source

        def make(name: str, target: str) -> AuditEntry:
            return AuditEntry(
                name=name,
                outcome="SUCCEEDED",
                actor=actor,
                request_id=asked.request_id,
                workspace_id=workspace,
                target=target,
                source=source,
            )

        return workspace, make
