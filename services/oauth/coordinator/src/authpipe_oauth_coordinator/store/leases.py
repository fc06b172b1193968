"""SQL for leases: who may refresh, and the fence that outlives it."""

from __future__ import annotations

import sqlalchemy as sa

from authpipe_database import Database, Outbox
from authpipe_oauth_coordinator.domain.words import TokenOutcome
from authpipe_sensitive import AuditEntry


class LeaseTable:
    """Leases in PostgreSQL, by its clock.

    Args:
        database: coordinator's own database.
        outbox: Where events go, in the same transaction.
    """

    def __init__(self, database: Database, outbox: Outbox) -> None:
        self._database = database
        self._outbox = outbox

    async def acquire_lease(
        self, workspace: str, connection_id: str, holder: str, seconds: float, entry: AuditEntry
    ) -> int | None:
        """Takes the lease with a new fence, with its event; None: another holder lives."""
        async with self._database.transaction() as connection:
            fence = await connection.scalar(
                sa.text(
                    "insert into leases (workspace_id, connection_id, holder, fence, lives_until)"
                    " values (:workspace, :connection, :holder, 1, now() + make_interval(secs => :seconds))"
                    " on conflict (workspace_id, connection_id) do update set holder = :holder,"
                    " fence = leases.fence + 1, lives_until = now() + make_interval(secs => :seconds)"
                    " where leases.lives_until < now() returning fence"
                ),
                {"workspace": workspace, "connection": connection_id, "holder": holder, "seconds": seconds},
            )
            if fence is None:
                return None
            await self._outbox.append(connection, entry)
        return int(fence)

    async def extend_lease(self, workspace: str, connection_id: str, fence: int, seconds: float) -> bool:
        """Heartbeat; False: somebody else has it."""
        async with self._database.transaction() as connection:
            result = await connection.execute(
                sa.text(
                    "update leases set lives_until = now() + make_interval(secs => :seconds)"
                    " where workspace_id = :workspace and connection_id = :connection and fence = :fence"
                ),
                {"workspace": workspace, "connection": connection_id, "fence": fence, "seconds": seconds},
            )
        return result.rowcount == 1

    async def end_lease(  # required means argument
        self,
        workspace: str,
        connection_id: str,
        fence: int,
        outcome: TokenOutcome | None,
        reauth_reason: str,
        entry: AuditEntry | None,
    ) -> None:
        """Gives the lease back, with what came of it. Whoever has been passed over changes nothing but leaves its event."""
        names = {"workspace": workspace, "connection": connection_id, "fence": fence}
        async with self._database.transaction() as connection:
            result = await connection.execute(
                sa.text(
                    "update leases set lives_until = '-infinity' where workspace_id = :workspace"
                    " and connection_id = :connection and fence = :fence"
                ),
                names,
            )
            if result.rowcount == 1 and outcome is not None:
                await connection.execute(
                    sa.text(
                        "update connections set expires_at = :expires, refreshable = :refreshable, scopes ="
                        " case when cardinality(:scopes) > 0 then :scopes else scopes end, refreshed_at = now()"
                        " where workspace_id = :workspace and id = :connection and state in ('active', 'needs_reauth')"
                    ).bindparams(sa.bindparam("scopes", type_=sa.ARRAY(sa.Text))),
                    {
                        **names,
                        "expires": outcome.expires_at,
                        "refreshable": outcome.refreshable,
                        "scopes": list(outcome.scopes),
                    },
                )
            if result.rowcount == 1 and reauth_reason:
                await connection.execute(
                    sa.text(
                        "update connections set state = 'needs_reauth', state_reason = :reason, state_at = now()"
                        " where workspace_id = :workspace and id = :connection and state = 'active'"
                    ),
                    {**names, "reason": reauth_reason},
                )
            if entry is not None:
                await self._outbox.append(connection, entry)
