"""SQL for workspaces and API keys."""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence
from dataclasses import replace
from typing import Any

import sqlalchemy as sa

from authpipe_database import Database, Outbox
from authpipe_gateway_authority.domain.api_keys import ApiKeyRow, WorkspaceRow
from authpipe_gateway_authority.errors import ForgedRowError, WorkspaceNotFoundError
from authpipe_sensitive import AuditEntry, Secret

_KEY = "k.workspace_id, k.api_key_id, k.display_name, k.key_hash, k.scopes, k.state, k.epoch, k.mac"
_FIND = f"""
select {_KEY}, w.workspace_id, w.display_name, w.epoch, w.is_frozen, w.mac
from api_keys k join workspaces w using (workspace_id) where k.key_hash = any(%s)
"""  # a fixed list of columns


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

    async def find(self, key_hashes: Sequence[bytes]) -> dict[bytes, tuple[ApiKeyRow, WorkspaceRow]]:
        """Gives API keys with their workspaces, by keyed hash."""
        async with self._database.hot() as connection:
            rows = await (await connection.execute(_FIND, (list(key_hashes),))).fetchall()
        found = [(_key(row), _workspace(row[8:])) for row in rows]
        return {key.key_hash: (key, workspace) for key, workspace in found}

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
            await self._lock(connection, workspace)
            await self._outbox.append(connection, entry)

    async def create_api_key(self, make: Callable[[int], ApiKeyRow], workspace: str, entry: AuditEntry) -> None:
        """Stores a new API key in its workspace's epoch.

        Raises:
            WorkspaceNotFoundError: There is no such workspace.
            ForgedRowError: The workspace's row is not ours.
        """
        async with self._database.transaction() as connection:
            row = make((await self._lock(connection, workspace)).epoch).sealed(self._mac_key)
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
            found = await self._lock(connection, workspace)
            keys = await self._keys(connection, workspace)
            wanted = [key for key in keys if key.api_key_id == api_key_id]
            if not wanted:
                raise WorkspaceNotFoundError
            if not self._is_ours(wanted[0], found):
                raise ForgedRowError
            await self._next_epoch(connection, found, keys, revoked={api_key_id})
            await self._outbox.append(connection, entry)

    async def revoke_api_keys(self, workspace: str, make: Callable[[str, str], AuditEntry], *, dry_run: bool) -> int:
        """Revokes every active API key of a workspace, with the events; gives how many there were.

        Raises:
            WorkspaceNotFoundError: There is no such workspace.
            ForgedRowError: The workspace's row is not ours.
        """
        async with self._database.transaction() as connection:
            found = await self._lock(connection, workspace)
            keys = await self._keys(connection, workspace)
            active = {key.api_key_id for key in keys if key.state == "active" and self._is_ours(key, found)}
            if not dry_run:
                await self._next_epoch(connection, found, keys, revoked=active)
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
            found = await self._lock(connection, workspace)
            if entry is not None and found.is_frozen != frozen:
                keys = await self._keys(connection, workspace)
                await self._next_epoch(connection, replace(found, is_frozen=frozen), keys, revoked=set())
                await self._outbox.append(connection, entry)
        return found.is_frozen

    async def _keys(self, connection: Any, workspace: str) -> list[ApiKeyRow]:
        query = f"select {_KEY} from api_keys k where workspace_id = :workspace for update"  # fixed columns
        return [_key(row) for row in (await connection.execute(sa.text(query), {"workspace": workspace})).all()]

    def _is_ours(self, key: ApiKeyRow, workspace: WorkspaceRow) -> bool:
        return key.is_genuine(self._mac_key) and key.epoch == workspace.epoch

    async def _next_epoch(
        self, connection: Any, workspace: WorkspaceRow, keys: Sequence[ApiKeyRow], revoked: Container[str]
    ) -> None:
        """Moves a workspace to its next epoch, with all keys that are ours: a row from before does not fit any more."""
        epoch = workspace.epoch + 1
        for key in keys:
            # A forged row is never blessed with a new MAC.
            if not self._is_ours(key, workspace):
                continue
            state = "revoked" if key.api_key_id in revoked else key.state
            moved = replace(key, state=state, epoch=epoch).sealed(self._mac_key)
            await connection.execute(
                sa.text(
                    "update api_keys set state = :state, epoch = :epoch, mac = :mac"
                    " where workspace_id = :workspace and api_key_id = :id"
                ),
                {
                    name: value
                    for name, value in _values(moved).items()
                    if name in {"state", "epoch", "mac", "workspace", "id"}
                },
            )
        row = replace(workspace, epoch=epoch).sealed(self._mac_key)
        await connection.execute(
            sa.text(
                "update workspaces set epoch = :epoch, is_frozen = :frozen, mac = :mac where workspace_id = :workspace"
            ),
            {"epoch": epoch, "frozen": row.is_frozen, "mac": row.mac, "workspace": row.workspace},
        )

    async def _lock(self, connection: Any, workspace: str) -> WorkspaceRow:
        row = (
            await connection.execute(
                sa.text(
                    "select workspace_id, display_name, epoch, is_frozen, mac from workspaces"
                    " where workspace_id = :workspace for update"
                ),
                {"workspace": workspace},
            )
        ).one_or_none()
        if row is None:
            raise WorkspaceNotFoundError
        found = _workspace(row)
        if not found.is_genuine(self._mac_key):
            raise ForgedRowError
        return found


def _key(row: Sequence[Any]) -> ApiKeyRow:
    return ApiKeyRow(row[0], row[1], row[2], bytes(row[3]), tuple(row[4]), row[5], row[6], bytes(row[7]))


def _workspace(row: Sequence[Any]) -> WorkspaceRow:
    return WorkspaceRow(row[0], row[1], row[2], row[3], bytes(row[4]))


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
