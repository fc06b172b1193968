"""SQL for connections; each change in one transaction with its event."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta

import sqlalchemy as sa
from psycopg.rows import namedtuple_row

from authpipe_database import Database, Outbox, columns
from authpipe_oauth_coordinator.domain.words import Connection, Health, State, TokenOutcome
from authpipe_oauth_coordinator.store.rows import (
    ADD_CONNECTION,
    CONNECTION,
    connection_values,
    read_connection,
    write_pairs,
)
from authpipe_rpc import Coalescer
from authpipe_sensitive import AuditEntry
from authpipe_sensitive.duties import note_nothing_done

_GET = f"""
select {", ".join(f"c.{each.strip()}" for each in CONNECTION.split(","))}
from unnest(%b::text[], %b::text[]) as w (workspace_id, id) join connections c using (workspace_id, id)
"""  # fixed columns

_CLAIM = f"""
with recent as (
    select provider, count(*) as taken from connections where claimed_at > now() - interval '1 second' group by provider),
held as (
    select * from unnest(%s::text[], %s::int[]) as held (provider, going)),
due as (
    select workspace_id, id, provider, refresh_due_at from connections
    where state = 'active' and refreshable and refresh_due_at <= now()
        and provider <> all(select provider from held where going >= %s)
    order by refresh_due_at limit 5000),
ranked as (
    select workspace_id, id, refresh_due_at, coalesce(taken, 0) as taken, coalesce(going, 0) as going,
        row_number() over (partition by workspace_id order by refresh_due_at, id) as in_workspace,
        row_number() over (partition by due.provider order by refresh_due_at, id) as in_provider
    from due left join recent using (provider) left join held using (provider)),
-- One after the other, in this order, until there are enough: who is locked, or was taken up meanwhile, is passed over.
-- Each by its primary key: with a bare refresh_due_at PostgreSQL may go through all that is due for each.
taken as materialized (
    select c.workspace_id, c.id
    from (select * from ranked where in_provider <= least(%s - going, %s - taken) order by in_workspace, refresh_due_at) as r
    cross join lateral (
        select workspace_id, id from connections where workspace_id = r.workspace_id and id = r.id and state = 'active'
            and coalesce(refresh_due_at, 'infinity') <= now() for update skip locked) as c
    limit %s)
update connections c set claimed_at = now(), refresh_due_at = now() + make_interval(secs => %s)
from taken where c.workspace_id = taken.workspace_id and c.id = taken.id
returning {", ".join(f"c.{each.strip()}" for each in CONNECTION.split(","))}
"""  # fixed columns

_CLAIM_CHECKS = f"""
with due as (
    select workspace_id, id, health_due_at from connections
    where state in ('active', 'needs_reauth') and health_due_at <= now() order by health_due_at limit 1000),
ranked as (
    select workspace_id, id, row_number() over (partition by workspace_id order by health_due_at, id) as in_workspace
    from due),
taken as (
    select c.workspace_id, c.id from connections c join ranked using (workspace_id, id)
    where c.health_due_at <= now() order by in_workspace limit :most for update of c skip locked)
update connections c set health_due_at = now() + make_interval(secs => :seconds)
from taken where c.workspace_id = taken.workspace_id and c.id = taken.id
returning {", ".join(f"c.{each.strip()}" for each in CONNECTION.split(","))}
"""  # fixed columns

# What was taken up is due later; what is due now was connected again meanwhile. Who is locked is taken up another time.
_REST_CHECKS = """
with resting as (
    select c.workspace_id, c.id from connections c
    join unnest(cast(:workspaces as text[]), cast(:ids as text[])) as w(workspace_id, id) using (workspace_id, id)
    where c.health_due_at > now() for update of c skip locked)
update connections c set health_due_at = null from resting r where c.workspace_id = r.workspace_id and c.id = r.id
"""


class ConnectionTable:
    """Connections in PostgreSQL.

    Args:
        database: coordinator's own database.
        outbox: Where events go, in the same transaction.
    """

    def __init__(self, database: Database, outbox: Outbox) -> None:
        self._database = database
        self._outbox = outbox
        self._getting: Coalescer[tuple[str, str], Connection | None] = Coalescer(self._get)

    async def add_connection(self, new: Connection, entry: AuditEntry) -> None:
        """Stores a connection."""
        async with self._database.transaction() as connection:
            await connection.execute(sa.text(ADD_CONNECTION), connection_values(new))
            await self._outbox.append(connection, entry)

    async def get_connection(self, workspace: str, connection_id: str) -> Connection | None:
        """Gives a connection, drafts too."""
        return await self._getting.submit((workspace, connection_id))

    async def _get(self, names: Sequence[tuple[str, str]]) -> list[Connection | None]:
        wanted = columns([*dict.fromkeys(names)], 2)
        async with self._database.hot() as hot, hot.cursor(row_factory=namedtuple_row) as cursor:
            rows = await (await cursor.execute(_GET, wanted, binary=True)).fetchall()
        found = {(each.workspace, each.id): each for each in map(read_connection, rows)}
        return [found.get(name) for name in names]

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
        keep_until: datetime | None = None,
    ) -> bool:
        """Moves a connection to another state; False: it is in none of the source states, and nothing happened."""
        async with self._database.transaction() as connection:
            result = await connection.execute(
                sa.text(
                    "update connections set state = :target, state_reason = :reason, state_at = now(),"
                    # What failed before belongs to the state before.
                    " refresh_failure = '', refresh_failing_since = null, refresh_attempts = 0, refresh_not_before = null,"
                    " keep_until = :keep_until, refresh_due_at = case when :target = 'active' and refreshable then now()"
                    " else refresh_due_at end, health_due_at = case when :target = 'active' then now() else health_due_at end"
                    " where workspace_id = :workspace and id = :id and state = any(:sources)"
                ),
                {
                    "keep_until": keep_until,
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
        """Gives what is disconnecting for longer than that, drafts of a quarter of an hour ago, and what was kept enough."""
        async with self._database.transaction() as connection:
            rows = await connection.execute(
                sa.text(
                    f"select {CONNECTION} from connections where"  # fixed columns
                    " (state = 'disconnecting' and coalesce(refresh_not_before, state_at + make_interval(secs => :seconds))"
                    " < now())"
                    " or (state = 'draft' and state_at < now() - interval '15 minutes')"
                    " or (state = 'kept' and keep_until < now()) order by state_at limit 50"
                ),
                {"seconds": older_than_seconds},
            )
            return [read_connection(row) for row in rows]

    async def claim_due(
        self, most: int, per_provider: int, share: int, going: Mapping[str, int], seconds: float
    ) -> list[Connection]:
        """Takes up connections that are due; they are not due again for some seconds.

        One of each workspace before the second of any, of each Provider no more than its share with those that are under way,
        and no more in a second than it gets, whichever replicas took them up.
        """
        async with self._database.hot() as hot, hot.cursor(row_factory=namedtuple_row) as cursor:
            held = ([*going], [*going.values()], share)
            claimed = await cursor.execute(_CLAIM, (*held, share, per_provider, most, seconds), binary=True)
            rows = await claimed.fetchall()
        return [read_connection(row) for row in rows]

    async def claim_checks(self, most: int, seconds: float) -> list[Connection]:
        """Takes up connections whose check is due, one of each workspace before the second of any."""
        async with self._database.statement() as connection:
            rows = await connection.execute(sa.text(_CLAIM_CHECKS), {"most": most, "seconds": seconds})
            return [read_connection(row) for row in rows]

    async def rest_checks(self, connections: Sequence[Connection]) -> None:
        """Has connections not tried by themselves any more, but for those that became due anew since they were taken up."""
        async with self._database.statement() as connection:
            await connection.execute(
                sa.text(_REST_CHECKS),
                {"workspaces": [each.workspace for each in connections], "ids": [each.id for each in connections]},
            )

    async def note_health(
        self, checked: Connection, health: Health, due: datetime | None, rotate_at: datetime | None, entry: AuditEntry
    ) -> None:
        """Stores what came of a check. Refused twice in a row it needs to be connected again; good again, it does not."""
        async with self._database.transaction() as connection:
            await connection.execute(
                sa.text(
                    "update connections set health_state = :state, health_reason = :reason, health_at = :at,"
                    " health_refusals = :refusals, health_ever_passed = :ever_passed, health_due_at = :due, rotate_at = :rotate_at,"
                    " rotation_told = rotation_told and rotate_at is not distinct from :rotate_at"
                    " where workspace_id = :workspace and id = :id and state in ('active', 'needs_reauth')"
                ),
                {
                    "workspace": checked.workspace,
                    "id": checked.id,
                    "state": health.state,
                    "reason": health.reason,
                    "at": health.at,
                    "refusals": health.refusals,
                    "ever_passed": health.ever_passed,
                    "due": due,
                    "rotate_at": rotate_at,
                },
            )
            await connection.execute(
                sa.text(
                    "update connections set state_at = now(),"
                    " state = case when health_refusals > 1 then 'needs_reauth' else 'active' end,"
                    " state_reason = case when health_refusals > 1 then health_reason else '' end"
                    " where workspace_id = :workspace and id = :id and ((state = 'active' and health_refusals > 1)"
                    " or (state = 'needs_reauth' and state_reason = 'CREDENTIAL_REFUSED' and health_state = 'passing'))"
                ),
                {"workspace": checked.workspace, "id": checked.id},
            )
            await self._outbox.append(connection, entry)

    async def tell_rotations(self, notice: timedelta, entry: Callable[[Connection], AuditEntry]) -> int:
        """Leaves an event for each API key that ends soon, once."""
        async with self._database.transaction() as connection:
            rows = await connection.execute(
                sa.text(
                    "with soon as (select workspace_id, id from connections where state = 'active' and not rotation_told"
                    " and rotate_at < now() + :notice limit 100 for update skip locked)"
                    " update connections c set rotation_told = true, health_due_at = least(health_due_at, now())"
                    " from soon where c.workspace_id = soon.workspace_id and c.id = soon.id returning "
                    + ", ".join(f"c.{each.strip()}" for each in CONNECTION.split(","))  # fixed columns
                ),
                {"notice": notice},
            )
            found = [read_connection(row) for row in rows]
            if found:
                await self._outbox.append(connection, *map(entry, found))
            else:
                note_nothing_done()
        return len(found)

    async def note(self, entry: AuditEntry) -> None:
        """Makes an event durable on its own."""
        async with self._database.transaction() as connection:
            await self._outbox.append(connection, entry)
