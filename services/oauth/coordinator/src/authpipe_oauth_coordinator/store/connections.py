"""SQL for connections; each change in one transaction with its event."""

from __future__ import annotations

import json
from datetime import datetime

import sqlalchemy as sa

from authpipe_database import Database, Outbox
from authpipe_oauth_coordinator.domain.words import Connection, State, TokenOutcome
from authpipe_oauth_coordinator.store.rows import CONNECTION, read_connection, write_pairs
from authpipe_sensitive import AuditEntry
from authpipe_sensitive.duties import note_nothing_done

_CLAIM = f"""
with recent as (
    select provider, count(*) as taken from connections where claimed_at > now() - interval '1 second' group by provider),
due as (
    select workspace_id, id, provider, refresh_due_at from connections
    where state = 'active' and refreshable and refresh_due_at <= now() order by refresh_due_at limit 5000),
ranked as (
    select workspace_id, id, refresh_due_at,
        row_number() over (partition by workspace_id order by refresh_due_at, id) as in_workspace,
        row_number() over (partition by due.provider order by refresh_due_at, id) + coalesce(taken, 0) as in_provider
    from due left join recent using (provider)),
taken as (
    select c.workspace_id, c.id from connections c join ranked using (workspace_id, id)
    where in_provider <= :per_provider and c.state = 'active' and c.refresh_due_at <= now()
    order by in_workspace, ranked.refresh_due_at limit :most for update of c skip locked)
update connections c set claimed_at = now(), refresh_due_at = now() + make_interval(secs => :seconds)
from taken where c.workspace_id = taken.workspace_id and c.id = taken.id
returning {", ".join(f"c.{each.strip()}" for each in CONNECTION.split(","))}
"""  # fixed columns


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
                    " :provider, :config, :end_user, :scopes, :expires, :refreshable, :hosts, :refreshed, :created, :due,"
                    " '', null, 0, null, cast(:values as jsonb), '{}', cast(:entry as jsonb))"
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
                    "due": new.refresh_due_at,
                    "values": write_pairs(new.values),
                    "entry": json.dumps(new.entry.document) if new.entry is not None else None,
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
        self, workspace: str, connection_id: str, outcome: TokenOutcome, due: datetime | None, entry: AuditEntry
    ) -> Connection | None:
        """Makes a draft active, to be refreshed when it is due; None: there is none."""
        async with self._database.transaction() as connection:
            row = (
                await connection.execute(
                    sa.text(
                        "update connections set state = 'active', state_at = now(), scopes = :scopes,"
                        " expires_at = :expires, refreshable = :refreshable, refreshed_at = now(), refresh_due_at = :due,"
                        " metadata = cast(:metadata as jsonb)"
                        f" where workspace_id = :workspace and id = :id and state = 'draft' returning {CONNECTION}"
                    ),
                    {
                        "scopes": list(outcome.scopes),
                        "expires": outcome.expires_at,
                        "refreshable": outcome.refreshable,
                        "due": due,
                        "metadata": write_pairs(outcome.metadata),
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
                    "update connections set state = :target, state_reason = :reason, state_at = now(),"
                    # What failed before belongs to the state before.
                    " refresh_failure = '', refresh_failing_since = null, refresh_attempts = 0, refresh_not_before = null"
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

    async def postpone(
        self, workspace: str, connection_id: str, reason: str, attempts: int, due: datetime, entry: AuditEntry
    ) -> None:
        """Leaves a disconnect for later: why, after how many attempts, and until when."""
        async with self._database.transaction() as connection:
            await connection.execute(
                sa.text(
                    "update connections set state_reason = :reason, refresh_failure = :reason,"
                    " refresh_failing_since = coalesce(refresh_failing_since, now()), refresh_attempts = :attempts,"
                    " refresh_not_before = :due, refresh_due_at = null"
                    " where workspace_id = :workspace and id = :id and state = 'disconnecting'"
                ),
                {"workspace": workspace, "id": connection_id, "reason": reason, "attempts": attempts, "due": due},
            )
            await self._outbox.append(connection, entry)

    async def unfinished(self, older_than_seconds: float) -> list[Connection]:
        """Gives connections that are disconnecting for longer than that, and drafts of a quarter of an hour ago."""
        async with self._database.transaction() as connection:
            rows = await connection.execute(
                sa.text(
                    f"select {CONNECTION} from connections where"  # fixed columns
                    " (state = 'disconnecting' and coalesce(refresh_not_before, state_at + make_interval(secs => :seconds))"
                    " < now())"
                    " or (state = 'draft' and state_at < now() - interval '15 minutes') order by state_at limit 50"
                ),
                {"seconds": older_than_seconds},
            )
            return [read_connection(row) for row in rows]

    async def claim_due(self, most: int, per_provider: int, seconds: float) -> list[Connection]:
        """Takes up connections that are due; they are not due again for some seconds.

        One of each workspace before the second of any, and of each Provider no more in a second than it gets, whichever
        replicas took them up.
        """
        async with self._database.transaction() as connection:
            rows = await connection.execute(
                sa.text(_CLAIM), {"most": most, "per_provider": per_provider, "seconds": seconds}
            )
            return [read_connection(row) for row in rows]

    async def note(self, entry: AuditEntry) -> None:
        """Makes an event durable on its own."""
        async with self._database.transaction() as connection:
            await self._outbox.append(connection, entry)
