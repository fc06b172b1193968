"""SQL for workspaces and API keys."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import sqlalchemy as sa

from authpipe_database import Database, Outbox
from authpipe_gateway_authority.domain.api_keys import ApiKeyRow, WorkspaceRow
from authpipe_gateway_authority.domain.members import MemberRow, SessionRow
from authpipe_gateway_authority.errors import ForgedRowError, WorkspaceNotFoundError
from authpipe_gateway_authority.store.epochs import (
    KEY,
    MEMBER,
    SESSION,
    WORKSPACE,
    Epochs,
    to_key,
    to_member,
    to_session,
    to_workspace,
)
from authpipe_sensitive import AuditEntry, Secret

# A fixed list of columns in each.
_FIND = f"select {KEY}, {WORKSPACE} from api_keys k join workspaces w using (workspace_id) where k.key_hash = any(%s)".encode()
_FIND_SESSIONS = f"""
select {SESSION}, {MEMBER}, {WORKSPACE} from dashboard_sessions s join members m using (workspace_id, member_id)
join workspaces w using (workspace_id) where s.token_hash = any(%s)
""".encode()


class Store:
    """authority's tables in PostgreSQL.

    Args:
        database: authority's own database.
        outbox: Where events go, in the same transaction.
        mac_key: The key of the rows' MAC.
    """

    def __init__(self, database: Database, outbox: Outbox, mac_key: Secret) -> None:
        self._database = database
        self._outbox = outbox
        self._mac_key = mac_key
        self._epochs = Epochs(mac_key)

    async def find(self, key_hashes: Sequence[bytes]) -> dict[bytes, tuple[ApiKeyRow, WorkspaceRow]]:
        """Gives API keys with their workspaces, by keyed hash."""
        async with self._database.hot() as connection:
            rows = await (await connection.execute(_FIND, (list(key_hashes),))).fetchall()
        found = [(to_key(row), to_workspace(row[8:])) for row in rows]
        return {key.key_hash: (key, workspace) for key, workspace in found}

    async def find_sessions(
        self, token_hashes: Sequence[bytes]
    ) -> dict[bytes, tuple[SessionRow, MemberRow, WorkspaceRow]]:
        """Gives sessions with their members and workspaces, by keyed hash."""
        async with self._database.hot() as connection:
            rows = await (await connection.execute(_FIND_SESSIONS, (list(token_hashes),))).fetchall()
        found = [(to_session(row), to_member(row[7:19]), to_workspace(row[19:])) for row in rows]
        return {each[0].token_hash: each for each in found}

    async def note(self, entries: Sequence[AuditEntry]) -> None:
        """Makes events durable."""
        async with self._database.hot() as connection:
            await self._outbox.append_hot(connection, entries)

    async def create_workspace(self, row: WorkspaceRow, entry: AuditEntry) -> None:
        """Stores a new workspace."""
        row = row.sealed(self._mac_key)
        async with self._database.transaction() as connection:
            await connection.execute(
                sa.text(
                    "insert into workspaces (workspace_id, display_name, epoch, is_frozen, mac)"
                    " values (:id, :name, :epoch, :frozen, :mac)"
                ),
                {
                    "id": row.workspace,
                    "name": row.display_name,
                    "epoch": row.epoch,
                    "frozen": row.is_frozen,
                    "mac": row.mac,
                },
            )
            await self._outbox.append(connection, entry)

    async def record_of_workspace(self, workspace: str, entry: AuditEntry) -> None:
        """Puts something on record of a workspace.

        Raises:
            WorkspaceNotFoundError: There is no such workspace.
            ForgedRowError: The workspace's row is not ours.
        """
        async with self._database.transaction() as connection:
            await self._epochs.lock(connection, workspace)
            await self._outbox.append(connection, entry)

    async def create_api_key(self, make: Callable[[int], ApiKeyRow], workspace: str, entry: AuditEntry) -> None:
        """Stores a new API key in its workspace's epoch.

        Raises:
            WorkspaceNotFoundError: There is no such workspace.
            ForgedRowError: The workspace's row is not ours.
        """
        async with self._database.transaction() as connection:
            row = make((await self._epochs.lock(connection, workspace)).epoch).sealed(self._mac_key)
            await connection.execute(
                sa.text(
                    "insert into api_keys (workspace_id, api_key_id, display_name, key_hash, scopes, state, epoch, mac)"
                    " values (:workspace, :id, :name, :hash, :scopes, :state, :epoch, :mac)"
                ),
                _values(row),
            )
            await self._outbox.append(connection, entry)

    async def revoke_api_key(self, workspace: str, api_key_id: str, entry: AuditEntry) -> None:
        """Revokes an API key and moves the workspace to its next epoch, with all keys that stay.

        Raises:
            WorkspaceNotFoundError: There is no such API key.
            ForgedRowError: A row of the workspace is not ours; nothing was changed.
        """
        async with self._database.transaction() as connection:
            found = await self._epochs.lock(connection, workspace)
            keys = await self._epochs.keys(connection, workspace)
            wanted = [key for key in keys if key.api_key_id == api_key_id]
            if not wanted:
                raise WorkspaceNotFoundError
            if not self._epochs.is_ours(wanted[0], found):
                raise ForgedRowError
            await self._epochs.next(connection, found, keys, revoked={api_key_id})
            await self._outbox.append(connection, entry)

    async def revoke_api_keys(self, workspace: str, make: Callable[[str, str], AuditEntry], *, dry_run: bool) -> int:
        """Revokes every active API key of a workspace, with the events; gives how many there were.

        Raises:
            WorkspaceNotFoundError: There is no such workspace.
            ForgedRowError: The workspace's row is not ours.
        """
        async with self._database.transaction() as connection:
            found = await self._epochs.lock(connection, workspace)
            keys = await self._epochs.keys(connection, workspace)
            active = {key.api_key_id for key in keys if key.state == "active" and self._epochs.is_ours(key, found)}
            if not dry_run:
                await self._epochs.next(connection, found, keys, revoked=active)
                all_of_them = make("API_KEYS_REVOKED", workspace)._replace(amount=len(active))
                each = [make("API_KEY_REVOKED", api_key_id) for api_key_id in sorted(active)]
                await self._outbox.append(connection, *each, all_of_them)
        return len(active)

    async def set_frozen(self, workspace: str, *, frozen: bool, entry: AuditEntry | None) -> bool:
        """Freezes or unfreezes a workspace with the event; says whether it was frozen. Without an event it only says that.

        Raises:
            WorkspaceNotFoundError: There is no such workspace.
            ForgedRowError: The workspace's row is not ours.
        """
        async with self._database.transaction() as connection:
            found = await self._epochs.lock(connection, workspace)
            if entry is not None and found.is_frozen != frozen:
                keys = await self._epochs.keys(connection, workspace)
                await self._epochs.next(connection, replace(found, is_frozen=frozen), keys)
                await self._outbox.append(connection, entry)
        return found.is_frozen


def _values(row: ApiKeyRow) -> dict[str, Any]:
    return {
        "workspace": row.workspace,
        "id": row.api_key_id,
        "name": row.display_name,
        "hash": row.key_hash,
        "scopes": list(row.scopes),
        "state": row.state,
        "epoch": row.epoch,
        "mac": row.mac,
    }
