"""SQL for leases: who may refresh, and the fence that outlives it."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from authpipe_database import Database, Outbox
from authpipe_oauth_coordinator.domain.words import Ending, Lease, Left, Unfinished
from authpipe_oauth_coordinator.store.rows import write_pairs
from authpipe_sensitive import AuditEntry

_LEFT_COLUMNS = "unfinished, unfinished_fence, unfinished_since, retries, again_at"
_LEFT = (
    "unfinished = :unfinished, unfinished_fence = :unfinished_fence, unfinished_since = :unfinished_since,"
    " retries = :retries, again_at = :again_at"
)


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
    ) -> Lease | None:
        """Takes the lease with a new fence, with its event; None: another holder lives."""
        async with self._database.transaction() as connection:
            found = await connection.execute(
                sa.text(
                    "insert into leases (workspace_id, connection_id, holder, fence, lives_until)"
                    " values (:workspace, :connection, :holder, 1, now() + make_interval(secs => :seconds))"
                    " on conflict (workspace_id, connection_id) do update set holder = :holder,"
                    " fence = leases.fence + 1, lives_until = now() + make_interval(secs => :seconds)"
                    " where leases.lives_until < now()"
                    " returning fence, " + _LEFT_COLUMNS
                ),
                {"workspace": workspace, "connection": connection_id, "holder": holder, "seconds": seconds},
            )
            row = found.one_or_none()
            if row is None:
                return None
            await self._outbox.append(connection, entry)
        return Lease(int(row.fence), _read_left(row))

    async def note_left(self, workspace: str, connection_id: str, fence: int, left: Left) -> bool:
        """Writes down what is left if this process dies now; False: somebody else has the lease."""
        async with self._database.transaction() as connection:
            names = {"workspace": workspace, "connection": connection_id, "fence": fence}
            result = await connection.execute(
                sa.text(
                    f"update leases set {_LEFT} where workspace_id = :workspace"  # fixed words
                    " and connection_id = :connection and fence = :fence"
                ),
                {**names, **_left_values(left)},
            )
        return result.rowcount == 1

    async def get_left(self, workspace: str, connection_id: str) -> Left:
        """Gives what the last refresh of a connection has left."""
        async with self._database.transaction() as connection:
            found = await connection.execute(
                sa.text(
                    f"select {_LEFT_COLUMNS} from leases"  # fixed words
                    " where workspace_id = :workspace and connection_id = :connection"
                ),
                {"workspace": workspace, "connection": connection_id},
            )
            row = found.one_or_none()
        return _read_left(row) if row else Left()

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
        ending: Ending,
        entry: AuditEntry | None,
    ) -> None:
        """Gives the lease back, with what came of it. Whoever has been passed over changes nothing but leaves its event."""
        left, tokens, failing = ending.left, ending.tokens, ending.failing
        names = {"workspace": workspace, "connection": connection_id, "fence": fence}
        async with self._database.transaction() as connection:
            result = await connection.execute(
                sa.text(
                    f"update leases set lives_until = '-infinity'{', ' + _LEFT if left is not None else ''}"  # fixed words
                    " where workspace_id = :workspace and connection_id = :connection and fence = :fence"
                ),
                names | (_left_values(left) if left is not None else {}),
            )
            if result.rowcount == 1 and tokens is not None:
                await connection.execute(
                    sa.text(
                        "update connections set state_at = case when state = 'active' then state_at else now() end,"
                        " state = 'active', state_reason = '', expires_at = :expires, refreshable = :refreshable, scopes ="
                        " case when cardinality(:scopes) > 0 then :scopes else scopes end, refreshed_at = now(),"
                        " refresh_due_at = :due, refresh_failure = '', refresh_failing_since = null,"
                        " refresh_attempts = 0, refresh_not_before = null, metadata = metadata || cast(:metadata as jsonb)"
                        " where workspace_id = :workspace and id = :connection and state in ('active', 'needs_reauth')"
                    ).bindparams(sa.bindparam("scopes", type_=sa.ARRAY(sa.Text))),
                    {
                        **names,
                        "due": ending.due,
                        "expires": tokens.expires_at,
                        "refreshable": tokens.refreshable,
                        "scopes": list(tokens.scopes),
                        "metadata": write_pairs(tokens.metadata),
                    },
                )
            if result.rowcount == 1 and failing is not None:
                await connection.execute(
                    sa.text(
                        "update connections set refresh_due_at = :due, refresh_failure = :reason, refresh_failing_since ="
                        " :since, refresh_attempts = :attempts, refresh_not_before = :not_before"
                        " where workspace_id = :workspace and id = :connection"
                    ),
                    names | failing._asdict() | {"due": ending.due},
                )
            if result.rowcount == 1 and ending.reauth:
                await connection.execute(
                    sa.text(
                        "update connections set state = 'needs_reauth', state_reason = :reason, state_at = now()"
                        " where workspace_id = :workspace and id = :connection and state = 'active'"
                    ),
                    {**names, "reason": ending.reauth},
                )
            if entry is not None:
                await self._outbox.append(connection, entry)


def _left_values(left: Left) -> dict[str, Any]:
    return {
        "unfinished": left.unfinished.value,
        "unfinished_fence": left.fence,
        "unfinished_since": left.since,
        "retries": left.retries,
        "again_at": left.again_at,
    }


def _read_left(row: Any) -> Left:
    return Left(Unfinished(row.unfinished), int(row.unfinished_fence), row.unfinished_since, row.retries, row.again_at)
