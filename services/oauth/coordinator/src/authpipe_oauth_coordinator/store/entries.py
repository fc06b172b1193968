"""SQL for Providers that workspaces describe; each change in one transaction with its event."""

from __future__ import annotations

import json

import sqlalchemy as sa

from authpipe_database import Database, Outbox
from authpipe_providers import Entry, read
from authpipe_sensitive import AuditEntry


class EntryTable:
    """Entries of workspaces in PostgreSQL.

    Args:
        database: coordinator's own database.
        outbox: Where events go, in the same transaction.
    """

    def __init__(self, database: Database, outbox: Outbox) -> None:
        self._database = database
        self._outbox = outbox

    async def add_entry(self, workspace: str, found: Entry, most: int, entry: AuditEntry) -> bool | None:
        """Stores an entry; False: there is one of this name, None: there are too many."""
        async with self._database.transaction() as connection:
            # Of two at once one waits here, so that the number is not passed.
            await connection.execute(
                sa.text("select pg_advisory_xact_lock(hashtextextended('entries ' || :workspace, 0))"),
                {"workspace": workspace},
            )
            there = await connection.scalar(
                sa.text("select count(*) from provider_entries where workspace_id = :workspace"),
                {"workspace": workspace},
            )
            if int(there or 0) >= most:
                return None
            result = await connection.execute(
                sa.text(
                    "insert into provider_entries (workspace_id, name, entry, created_at)"
                    " values (:workspace, :name, cast(:entry as jsonb), now()) on conflict do nothing"
                ),
                {"workspace": workspace, "name": found.name, "entry": json.dumps(found.document)},
            )
            if result.rowcount != 1:
                return False
            await self._outbox.append(connection, entry)
        return True

    async def get_entry(self, workspace: str, name: str) -> Entry | None:
        """Gives an entry."""
        async with self._database.transaction() as connection:
            row = (
                await connection.execute(
                    sa.text("select entry from provider_entries where workspace_id = :workspace and name = :name"),
                    {"workspace": workspace, "name": name},
                )
            ).one_or_none()
        return read(row.entry) if row else None

    async def list_entries(self, workspace: str) -> list[Entry]:
        """Gives a workspace's entries, by name."""
        async with self._database.transaction() as connection:
            rows = await connection.execute(
                sa.text("select entry from provider_entries where workspace_id = :workspace order by name"),
                {"workspace": workspace},
            )
            return [read(row.entry) for row in rows]

    async def delete_entry(self, workspace: str, name: str, entry: AuditEntry) -> bool:
        """Deletes an entry; False: there is none."""
        async with self._database.transaction() as connection:
            result = await connection.execute(
                sa.text("delete from provider_entries where workspace_id = :workspace and name = :name"),
                {"workspace": workspace, "name": name},
            )
            if result.rowcount != 1:
                return False
            await self._outbox.append(connection, entry)
        return True
