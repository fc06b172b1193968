"""SQL for connections; each change in one transaction with its event."""

from __future__ import annotations

import sqlalchemy as sa

from authpipe_database import Database, Outbox
from authpipe_oauth_coordinator.domain.words import Connection, State, TokenOutcome
from authpipe_oauth_coordinator.store.rows import CONNECTION, read_connection
from authpipe_sensitive import AuditEntry
from authpipe_sensitive.duties import note_nothing_done


class ConnectionTable:
    """Connections in PostgreSQL.

    Args:
        database: coordinator's own database.
        outbox: Where events go, in the same transaction.
    """

    def __init__(self, database: Database, outbox: Outbox) -> None:
        self._database = database
        self._outbox = outbox

    async def add_connection(self, new: Connection, entry: AuditEntry) -> None:
        """Stores a connection."""
        async with self._database.transaction() as connection:
            await connection.execute(
                sa.text(
                    f"insert into connections ({CONNECTION}) values (:workspace, :id, :state, :reason, :state_at, :kind,"  # fixed columns
                    " :provider, :config, :end_user, :scopes, :expires, :refreshable, :hosts, :refreshed, :created)"
                ),
                {
                    "workspace": new.workspace,
                    "id": new.id,
                    "state": new.state.value,
                    "reason": new.state_reason,
                    "state_at": new.state_at,
                    "kind": new.kind.value,
                    "provider": new.provider,
                    "config": new.provider_config_id,
                    "end_user": new.end_user_id,
                    "scopes": list(new.scopes),
                    "expires": new.expires_at,
                    "refreshable": new.refreshable,
                    "hosts": new.hosts,
                    "refreshed": new.refreshed_at,
                    "created": new.created_at,
                },
            )
            await self._outbox.append(connection, entry)

    async def get_connection(self, workspace: str, connection_id: str) -> Connection | None:
        """Gives a connection, drafts too."""
        async with self._database.transaction() as connection:
            row = (
                await connection.execute(
                    sa.text(
                        f"select {CONNECTION} from connections where workspace_id = :workspace and id = :id"
                    ),  # fixed columns
                    {"workspace": workspace, "id": connection_id},
                )
            ).one_or_none()
        return read_connection(row) if row else None

    async def list_connections(self, workspace: str, end_user_id: str, limit: int, before: str) -> list[Connection]:
        """Gives connections that are no drafts, newest first; `before` is the id where the page before ended."""
        async with self._database.transaction() as connection:
            rows = await connection.execute(
                sa.text(
                    f"select {CONNECTION} from connections where workspace_id = :workspace and state <> 'draft'"  # fixed columns
                    " and (:end_user = '' or end_user_id = :end_user) and (:before = '' or (created_at, id) <"
                    " (select created_at, id from connections where workspace_id = :workspace and id = :before))"
                    " order by created_at desc, id desc limit :limit"
                ),
                {"workspace": workspace, "end_user": end_user_id, "before": before, "limit": limit},
            )
            return [read_connection(row) for row in rows]

    async def activate(
        self, workspace: str, connection_id: str, outcome: TokenOutcome, entry: AuditEntry
    ) -> Connection | None:
        """Makes a draft active; None: there is none."""
        async with self._database.transaction() as connection:
            row = (
                await connection.execute(
                    sa.text(
                        "update connections set state = 'active', state_at = now(), scopes = :scopes,"
                        " expires_at = :expires, refreshable = :refreshable, refreshed_at = now()"
                        f" where workspace_id = :workspace and id = :id and state = 'draft' returning {CONNECTION}"
                    ),
                    {
                        "scopes": list(outcome.scopes),
                        "expires": outcome.expires_at,
                        "refreshable": outcome.refreshable,
                        "workspace": workspace,
                        "id": connection_id,
                    },
                )
            ).one_or_none()
            if row is None:
                return None
            await self._outbox.append(connection, entry)
        return read_connection(row)

    async def move(  # required means argument
        self,
        workspace: str,
        connection_id: str,
        sources: tuple[State, ...],
        target: State,
        reason: str,
        entry: AuditEntry,
    ) -> bool:
        """Moves a connection to another state; False: it is in none of the source states, and nothing happened."""
        async with self._database.transaction() as connection:
            result = await connection.execute(
                sa.text(
                    "update connections set state = :target, state_reason = :reason, state_at = now()"
                    " where workspace_id = :workspace and id = :id and state = any(:sources)"
                ),
                {
                    "target": target.value,
                    "reason": reason,
                    "workspace": workspace,
                    "id": connection_id,
                    "sources": [state.value for state in sources],
                },
            )
            if result.rowcount:
                await self._outbox.append(connection, entry)
            else:
                note_nothing_done()
        return bool(result.rowcount)

    async def unfinished(self, older_than_seconds: float) -> list[Connection]:
        """Gives connections that are disconnecting for longer than that, and drafts of a quarter of an hour ago."""
        async with self._database.transaction() as connection:
            rows = await connection.execute(
                sa.text(
                    f"select {CONNECTION} from connections where"  # fixed columns
                    " (state = 'disconnecting' and state_at < now() - make_interval(secs => :seconds))"
                    " or (state = 'draft' and state_at < now() - interval '15 minutes') order by state_at limit 50"
                ),
                {"seconds": older_than_seconds},
            )
            return [read_connection(row) for row in rows]

    async def note(self, entry: AuditEntry) -> None:
        """Makes an event durable on its own."""
        async with self._database.transaction() as connection:
            await self._outbox.append(connection, entry)
