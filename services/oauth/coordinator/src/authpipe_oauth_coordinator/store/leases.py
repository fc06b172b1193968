"""SQL for leases: who may refresh, and the fence that outlives it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple, cast

import sqlalchemy as sa

from authpipe_database import Database, Outbox, columns
from authpipe_oauth_coordinator.domain.ports import Held
from authpipe_oauth_coordinator.domain.words import Ending, Lease, Left, TokenOutcome, Unfinished
from authpipe_oauth_coordinator.store.rows import write_pairs
from authpipe_rpc import Coalescer
from authpipe_sensitive import AuditEntry

_LEFT_COLUMNS = "unfinished, unfinished_fence, unfinished_since, retries, again_at"
_LEFT = (
    "unfinished = :unfinished, unfinished_fence = :unfinished_fence, unfinished_since = :unfinished_since,"
    " retries = :retries, again_at = :again_at"
)
# Leases that are taken, or looked after, in the same moment are one statement: one round trip, one transaction. Their rows are
# locked in one order.
_TAKE = f"""
with w as (
    select * from unnest(%b::text[], %b::text[], %b::text[], %b::float8[], %b::bytea[])
        with ordinality as w (workspace_id, connection_id, holder, seconds, event, n)),
taken as (
    insert into leases (workspace_id, connection_id, holder, fence, lives_until)
    select workspace_id, connection_id, holder, 1, now() + make_interval(secs => seconds) from w order by 1, 2
    on conflict (workspace_id, connection_id) do update set holder = excluded.holder, fence = leases.fence + 1,
        lives_until = excluded.lives_until
    where leases.lives_until < now()
    returning workspace_id, connection_id, fence, {_LEFT_COLUMNS}),
told as (
    insert into audit_outbox (events)
    select array_agg(w.event order by w.n) from w join taken using (workspace_id, connection_id) having count(*) > 0)
select * from taken
"""  # fixed columns
_EXTEND = """
update leases l set lives_until = now() + make_interval(secs => %s)
from (select w.* from unnest(%b::text[], %b::text[], %b::bigint[]) as w (workspace_id, connection_id, fence)
    join leases l using (workspace_id, connection_id)
    -- What was given back meanwhile stays given back.
    where l.fence = w.fence and l.lives_until > '-infinity' order by 1, 2 for update of l) as w
where l.workspace_id = w.workspace_id and l.connection_id = w.connection_id and l.fence = w.fence
returning l.workspace_id, l.connection_id, l.fence
"""
_NOTE = """
update leases l set unfinished = w.unfinished, unfinished_fence = w.spent, unfinished_since = w.since,
    retries = w.retries, again_at = w.again_at
from (select w.* from unnest(%b::text[], %b::text[], %b::bigint[], %b::text[], %b::bigint[], %b::timestamptz[], %b::int[],
        %b::timestamptz[]) as w (workspace_id, connection_id, fence, unfinished, spent, since, retries, again_at)
    join leases l using (workspace_id, connection_id) where l.fence = w.fence order by 1, 2 for update of l) as w
where l.workspace_id = w.workspace_id and l.connection_id = w.connection_id and l.fence = w.fence
returning l.workspace_id, l.connection_id, l.fence
"""
_END = """
with w as (
    select w.* from unnest(%b::text[], %b::text[], %b::bigint[], %b::text[], %b::bigint[], %b::timestamptz[], %b::int[],
        %b::timestamptz[], %b::bool[], %b::timestamptz[], %b::bool[], %b::text[], %b::timestamptz[], %b::text[])
        as w (workspace_id, connection_id, fence, unfinished, spent, since, retries, again_at, stays, expires_at, refreshable,
            scopes, due, metadata)
    join leases l using (workspace_id, connection_id) where l.fence = w.fence order by 1, 2 for update of l),
ended as (
    update leases l set lives_until = '-infinity',
        unfinished = case when w.stays then l.unfinished else w.unfinished end,
        unfinished_fence = case when w.stays then l.unfinished_fence else w.spent end,
        unfinished_since = case when w.stays then l.unfinished_since else w.since end,
        retries = case when w.stays then l.retries else w.retries end,
        again_at = case when w.stays then l.again_at else w.again_at end
    from w where l.workspace_id = w.workspace_id and l.connection_id = w.connection_id),
current as (
    select w.* from w join connections c on c.workspace_id = w.workspace_id and c.id = w.connection_id
    where c.state in ('active', 'needs_reauth') order by w.workspace_id, w.connection_id for update of c),
refreshed as (
    update connections c set state_at = case when c.state = 'active' then c.state_at else now() end,
        state = 'active', state_reason = '', expires_at = w.expires_at, refreshable = w.refreshable,
        scopes = case when w.scopes = '[]' then c.scopes else array(select jsonb_array_elements_text(w.scopes::jsonb)) end,
        refreshed_at = now(), refresh_due_at = w.due, refresh_failure = '', refresh_failing_since = null,
        refresh_attempts = 0, refresh_not_before = null, metadata = c.metadata || w.metadata::jsonb
    from current w where c.workspace_id = w.workspace_id and c.id = w.connection_id)
insert into audit_outbox (events) select %b::bytea[] where cardinality(%b::bytea[]) > 0
"""


class _Taking(NamedTuple):
    workspace: str
    connection: str
    holder: str
    seconds: float
    entry: AuditEntry


class _Noting(NamedTuple):
    workspace: str
    connection: str
    fence: int
    left: Left


class _Refreshed(NamedTuple):
    workspace: str
    connection: str
    fence: int
    tokens: TokenOutcome
    left: Left | None
    due: datetime | None
    entry: AuditEntry | None


class LeaseTable:
    """Leases in PostgreSQL, by its clock.

    Args:
        database: coordinator's own database.
        outbox: Where events go, in the same transaction.
    """

    def __init__(self, database: Database, outbox: Outbox) -> None:
        self._database = database
        self._outbox = outbox
        self._taking: Coalescer[_Taking, Lease | None] = Coalescer(self._take)
        self._noting: Coalescer[_Noting, bool] = Coalescer(self._note)
        self._ending: Coalescer[_Refreshed, None] = Coalescer(self._end)

    async def acquire_lease(
        self, workspace: str, connection_id: str, holder: str, seconds: float, entry: AuditEntry
    ) -> Lease | None:
        """Takes the lease with a new fence, with its event; None: another holder lives."""
        lease = await self._taking.submit(_Taking(workspace, connection_id, holder, seconds, entry))
        if lease is not None:
            self._outbox.note([entry])
        return lease

    async def _take(self, wanted: Sequence[_Taking]) -> list[Lease | None]:
        # Who wants what another of the batch wants comes after them, and finds that it lives.
        firsts = {(each.workspace, each.connection): each for each in reversed(wanted)}
        rows = list(firsts.values())
        values = columns(rows, 4)
        async with self._database.hot() as connection:
            events = self._outbox.encode([row.entry for row in rows])
            found = await (await connection.execute(_TAKE, (*values, events), binary=True)).fetchall()
        taken = {tuple(row[:2]): Lease(cast("int", row[2]), _read_left(*row[3:])) for row in found}
        names = [(each.workspace, each.connection) for each in wanted]
        return [taken.get(name) if firsts[name] is each else None for name, each in zip(names, wanted, strict=True)]

    async def note_left(self, workspace: str, connection_id: str, fence: int, left: Left) -> bool:
        """Writes down what is left if this process dies now; False: somebody else has the lease."""
        return await self._noting.submit(_Noting(workspace, connection_id, fence, left))

    async def _note(self, wanted: Sequence[_Noting]) -> list[bool]:
        rows = {each[:3]: (*each[:3], *_left_columns(each.left)) for each in wanted}
        async with self._database.hot() as connection:
            found = await connection.execute(_NOTE, columns([*rows.values()], 8), binary=True)
            noted = {tuple(row) for row in await found.fetchall()}
        return [each[:3] in noted for each in wanted]

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
        return _read_left(*row) if row else Left()

    async def extend_leases(self, held: Sequence[Held], seconds: float) -> set[Held]:
        """Heartbeat; gives those that are still ours."""
        async with self._database.hot() as connection:
            found = await connection.execute(_EXTEND, (seconds, *columns(held, 3)), binary=True)
            return {cast("Held", tuple(row)) for row in await found.fetchall()}

    async def end_lease(  # required means argument
        self,
        workspace: str,
        connection_id: str,
        fence: int,
        ending: Ending,
        entry: AuditEntry | None,
    ) -> None:
        """Gives the lease back, with what came of it. Whoever has been passed over changes nothing but leaves its event."""
        if ending.tokens is not None:
            await self._ending.submit(
                _Refreshed(workspace, connection_id, fence, ending.tokens, ending.left, ending.due, entry)
            )
            self._outbox.note([entry] if entry is not None else [])
            return
        left, failing = ending.left, ending.failing
        names = {"workspace": workspace, "connection": connection_id, "fence": fence}
        async with self._database.transaction() as connection:
            result = await connection.execute(
                sa.text(
                    f"update leases set lives_until = '-infinity'{', ' + _LEFT if left is not None else ''}"  # fixed words
                    " where workspace_id = :workspace and connection_id = :connection and fence = :fence"
                ),
                names | (_left_values(left) if left is not None else {}),
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

    async def _end(self, wanted: Sequence[_Refreshed]) -> list[None]:
        rows = {
            each[:3]: (
                *each[:3],
                *_left_columns(each.left or Left()),
                each.left is None,
                each.tokens.expires_at,
                each.tokens.refreshable,
                json.dumps(each.tokens.scopes),
                each.due,
                write_pairs(each.tokens.metadata),
            )
            for each in wanted
        }
        events = self._outbox.encode([each.entry for each in wanted if each.entry is not None])
        values = columns([*rows.values()], 14)
        async with self._database.hot() as connection:
            await connection.execute(_END, (*values, events, events))
        return [None] * len(wanted)


def _left_values(left: Left) -> dict[str, Any]:
    names = ("unfinished", "unfinished_fence", "unfinished_since", "retries", "again_at")
    return dict(zip(names, _left_columns(left), strict=True))


def _left_columns(left: Left) -> tuple[Any, ...]:
    return (left.unfinished.value, left.fence, left.since, left.retries, left.again_at)


def _read_left(unfinished: Any, fence: Any, since: Any, retries: Any, again_at: Any) -> Left:
    return Left(Unfinished(unfinished), int(fence), since, retries, again_at)
