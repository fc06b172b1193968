"""Connection keys and floors: what a release looks up and what it changes."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from authpipe_database import Database, Outbox, columns
from authpipe_keyservice.domain.kek_versions import KeyVersionState
from authpipe_keyservice.domain.release import Direction, KeyFacts, KeyState, Wanted
from authpipe_keyservice.domain.asking import Step
from authpipe_keyservice.domain.remembered import KeyRow
from authpipe_keyservice.store.replicas import order_to_forget
from authpipe_sensitive import AuditEntry

_LOOK_UP = """
select k.state, k.version, k.dek_version, k.wrapped, d.state, d.customer_key_id <> '', k.fence, k.refresh_not_before_ms, k.last_forced_ms,
       k.last_forced_grant, k.last_check_ms, k.last_check_grant, coalesce(f.floor, 0), case when f.floor > 0 then f.key_version else 0 end,
       coalesce((extract(epoch from now() - f.raised_at) * 1000)::bigint, 1000000000000)
from unnest(%b::text[], %b::text[], %b::int[]) with ordinality as w (workspace_id, connection_id, record_class, n)
left join connection_keys k using (workspace_id, connection_id)
left join deks d on d.workspace_id = k.workspace_id and d.version = k.dek_version
left join floors f on f.workspace_id = w.workspace_id and f.connection_id = w.connection_id
    and f.record_class = w.record_class
order by w.n
"""
# Everything that a plain read is judged by, and the key that it opens with, has to stand as it was looked up before.
_COMMIT_IF = """
insert into audit_outbox (events)
select %b::bytea[] where %b::int = (
    select count(*)
    from unnest(%b::text[], %b::text[], %b::int[], %b::text[], %b::int[], %b::int[], %b::bytea[], %b::text[], %b::bigint[], %b::bigint[],
        %b::int[]) as w (workspace_id, connection_id, record_class, state, version, dek_version, wrapped, dek_state, fence, floor,
        sealed_under)
    join connection_keys k on k.workspace_id = w.workspace_id and k.connection_id = w.connection_id
    join deks d on d.workspace_id = k.workspace_id and d.version = k.dek_version
    left join floors f on f.workspace_id = w.workspace_id and f.connection_id = w.connection_id
        and f.record_class = w.record_class
    where k.state = w.state and k.version = w.version and k.dek_version = w.dek_version and k.wrapped = w.wrapped
        and d.state = w.dek_state and d.customer_key_id = '' and k.fence = w.fence and coalesce(f.floor, 0) = w.floor
        and case when f.floor > 0 then f.key_version else 0 end = w.sealed_under)
"""
# A batch is one statement, and so one round trip and one transaction. Rows are locked in one order, floors before keys.
_MARKED = """
marked as (
    update connection_keys k set fence = greatest(k.fence, m.fence),
        last_forced_ms = greatest(k.last_forced_ms, case when m.forced <> '' then m.now_ms end),
        last_forced_grant = coalesce(nullif(m.forced, ''), k.last_forced_grant),
        last_check_ms = greatest(k.last_check_ms, case when m.checked <> '' then m.now_ms end),
        last_check_grant = coalesce(nullif(m.checked, ''), k.last_check_grant)
    from (select k.workspace_id, k.connection_id, w.fence, w.forced, w.checked, w.now_ms
        from unnest(%b::text[], %b::text[], %b::bigint[], %b::text[], %b::text[], %b::bigint[])
            as w (workspace_id, connection_id, fence, forced, checked, now_ms)
        join connection_keys k using (workspace_id, connection_id) order by 1, 2 for update of k) as m
    where k.workspace_id = m.workspace_id and k.connection_id = m.connection_id)
insert into audit_outbox (events) values (%b)
"""
_RAISE_FLOORS = f"""
with raised as (
    insert into floors (workspace_id, connection_id, record_class, floor, key_version, raised_at)
    select w.*, now() from unnest(%b::text[], %b::text[], %b::int[], %b::bigint[], %b::int[]) as w order by 1, 2, 3
    on conflict (workspace_id, connection_id, record_class) do update
    set floor = excluded.floor, key_version = excluded.key_version,
        raised_at = case when excluded.floor > floors.floor then now() else floors.raised_at end
    where floors.floor <= excluded.floor),
{_MARKED}"""
_PREPARE = f"""
with prepared as (
    insert into floors (workspace_id, connection_id, record_class, prepared, prepared_key_version)
    select w.* from unnest(%b::text[], %b::text[], %b::int[], %b::bigint[], %b::int[]) as w order by 1, 2, 3
    on conflict (workspace_id, connection_id, record_class)
    do update set prepared = excluded.prepared, prepared_key_version = excluded.prepared_key_version, prepared_at = now()
    where floors.prepared <= excluded.prepared),
{_MARKED}"""
_ACKNOWLEDGE = """
with raised as (
    update floors f set floor = greatest(f.floor, a.version),
        raised_at = case when a.version > f.floor then now() else f.raised_at end,
        key_version = case when f.prepared = a.version then f.prepared_key_version else f.key_version end
    from (select f.workspace_id, f.connection_id, f.record_class, w.version
        from unnest(%b::text[], %b::text[], %b::int[], %b::bigint[]) as w (workspace_id, connection_id, record_class, version)
        join floors f using (workspace_id, connection_id, record_class)
        where f.prepared >= w.version order by 1, 2, 3 for update of f) as a
    where f.workspace_id = a.workspace_id and f.connection_id = a.connection_id and f.record_class = a.record_class),
noted as (
    update connection_keys k set refresh_not_before_ms = n.not_before
    from (select k.workspace_id, k.connection_id, w.not_before
        from unnest(%b::text[], %b::text[], %b::bigint[]) as w (workspace_id, connection_id, not_before)
        join connection_keys k using (workspace_id, connection_id) order by 1, 2 for update of k) as n
    where k.workspace_id = n.workspace_id and k.connection_id = n.connection_id)
insert into audit_outbox (events) values (%b)
"""
_PUT_KEY = """
with dek as (select version from deks where workspace_id = %s and version = %s and state = 'primary' for share)
insert into connection_keys (workspace_id, connection_id, version, dek_version, wrapped, state)
select %s, %s, %s, dek.version, %s, 'active' from dek on conflict do nothing
"""
_RETIRED = """
select dek_version, wrapped from retired_connection_keys
where workspace_id = %s and connection_id = %s and version = %s
"""


class KeyTable:
    """Connection keys and floors in PostgreSQL.

    Args:
        database: keyservice's own database.
        outbox: Where events go, in the same transaction.
    """

    def __init__(self, database: Database, outbox: Outbox) -> None:
        self._database = database
        self._outbox = outbox

    async def look_up(self, wanted: Sequence[Wanted]) -> list[KeyRow | None]:
        """Gives what is known of each; None: there is no such connection key."""
        names = (
            [each.workspace for each in wanted],
            [each.connection for each in wanted],
            [int(each.record_class) for each in wanted],
        )
        async with self._database.hot() as connection:
            rows = await (await connection.execute(_LOOK_UP, names, binary=True)).fetchall()
        return [_key_row(row) for row in rows]

    async def put_key(self, workspace: str, connection: str, row: KeyRow) -> None:
        """Stores a first connection key, unless another process did meanwhile or its DEK is not primary any more."""
        async with self._database.hot() as hot:
            names = (workspace, row.dek_version, workspace, connection, row.version, row.wrapped)
            await hot.execute(_PUT_KEY, names)

    async def retired(self, workspace: str, connection: str, version: int) -> tuple[int, bytes] | None:
        """Gives the DEK version and wrapped form of an older version of a connection's key."""
        async with self._database.hot() as hot:
            row = await (await hot.execute(_RETIRED, (workspace, connection, version))).fetchone()
        return (int(row[0]), bytes(row[1])) if row else None  # type: ignore[call-overload]

    def require_room(self, entry: AuditEntry) -> None:
        """Returns when there is room for the event of an act.

        Raises:
            AuditBacklogError: There is none, and the act gives or uses access.
        """
        self._outbox.require_room([entry])

    async def commit(self, entries: Sequence[AuditEntry], steps: Sequence[Step], now_ms: int) -> None:
        """Makes events durable, with what the releases change, in one transaction."""
        if not entries:
            return
        async with self._database.hot() as connection:
            if not steps:
                await self._outbox.append_hot(connection, entries)
                return
            # All of a batch reads, or all of it writes: a floor must not be raised by what was only prepared.
            (direction,) = {step.wanted.direction for step in steps}
            values = (*columns(_floors(steps), 5), *columns(_marks(steps, now_ms), 6), self._outbox.encode(entries))
            await connection.execute(_RAISE_FLOORS if direction is Direction.READ else _PREPARE, values)
        self._outbox.note(entries)

    async def commit_if(self, entries: Sequence[AuditEntry], wanted: Sequence[Wanted], rows: Sequence[KeyRow]) -> bool:
        """Makes events durable in one statement that finds every row as given; False: one differs, nothing was written."""
        expected = [
            (
                each.workspace,
                each.connection,
                int(each.record_class),
                row.facts.state.value,
                row.version,
                row.dek_version,
                row.wrapped,
                row.dek_state.value,
                row.facts.fence,
                row.facts.floor,
                row.facts.record_key_version,
            )
            for each, row in zip(wanted, rows, strict=True)
        ]
        values = (self._outbox.encode(entries), len(expected), *columns(expected, 11))
        async with self._database.hot() as connection:
            written = await connection.execute(_COMMIT_IF, values)
        if not written.rowcount:
            return False
        self._outbox.note(entries)
        return True

    async def acknowledge(self, items: Sequence[tuple[str, str, int, int, int]], entries: Sequence[AuditEntry]) -> None:
        """Raises floors to committed versions, never above what was prepared.

        Args:
            items: Workspace, connection, class, version, refresh not before (ms).
            entries: The events.
        """
        versions: dict[tuple[str, str, int], int] = {}
        not_before: dict[tuple[str, str], int] = {}
        for workspace, connection_id, record_class, version, earliest in items:
            name = (workspace, connection_id, record_class)
            versions[name] = max(version, versions.get(name, 0))
            if earliest:
                not_before[workspace, connection_id] = earliest
        values = (
            *columns([(*name, version) for name, version in versions.items()], 4),
            *columns([(*name, earliest) for name, earliest in not_before.items()], 3),
            self._outbox.encode(entries),
        )
        async with self._database.hot() as connection:
            await connection.execute(_ACKNOWLEDGE, values)
        self._outbox.note(entries)

    async def set_state(self, workspace: str, connection_id: str, state: KeyState, entry: AuditEntry) -> int:
        """Restricts or destroys a connection key, all versions of it.

        A destroyed key is overwritten in its row, which stays as a tombstone: a later first write must not make the
        key anew.

        Returns:
            The number of the order by which all replicas forget a destroyed key; 0: there is nothing to forget.
        """
        async with self._database.transaction() as connection:
            await connection.execute(
                sa.text(
                    "insert into connection_keys (workspace_id, connection_id, version, dek_version, wrapped, state)"
                    " values (:workspace, :connection, 1, 0, ''::bytea, 'destroyed')"
                    " on conflict (workspace_id, connection_id) do update set"
                    " state = case when connection_keys.state = 'destroyed' then 'destroyed' else :state end,"
                    " wrapped = case when :state = 'destroyed' then ''::bytea else connection_keys.wrapped end"
                ).bindparams(workspace=workspace, connection=connection_id, state=state.value)
            )
            await self._outbox.append(connection, entry)
            if state is not KeyState.DESTROYED:
                return 0
            retired = sa.text(
                "delete from retired_connection_keys where workspace_id = :workspace and connection_id = :connection"
            )
            await connection.execute(retired.bindparams(workspace=workspace, connection=connection_id))
            return await order_to_forget(connection, workspace, connection_id)

    async def keep(self, workspace: str, connection_id: str, until: datetime, entry: AuditEntry) -> bool:
        """Keeps a key that is not destroyed; False: it is, or was never made. What was kept is not kept longer."""
        return await self._change(
            "update connection_keys set state = 'kept', kept_until = least(kept_until, :until)"
            " where workspace_id = :workspace and connection_id = :connection"
            " and state in ('active', 'restricted', 'kept')",
            {"workspace": workspace, "connection": connection_id, "until": until},
            entry,
        )

    async def restore(self, workspace: str, connection_id: str, entry: AuditEntry) -> bool:
        """Makes a kept key active again while that is possible; False: it is not. One that is active stays so."""
        return await self._change(
            "update connection_keys set state = 'active', kept_until = null where workspace_id = :workspace"
            " and connection_id = :connection and (state = 'active' or (state = 'kept' and kept_until > now()))",
            {"workspace": workspace, "connection": connection_id},
            entry,
        )

    async def outlived(self, most: int) -> list[tuple[str, str]]:
        """Gives workspaces and connections whose keys were kept long enough, whatever was said of them since."""
        async with self._database.statement() as connection:
            rows = await connection.execute(
                sa.text(
                    "select workspace_id, connection_id from connection_keys where kept_until <= now()"
                    " and state <> 'destroyed' order by kept_until limit :most"
                ),
                {"most": most},
            )
            return [(row.workspace_id, row.connection_id) for row in rows]

    async def _change(self, statement: str, values: dict[str, Any], entry: AuditEntry) -> bool:
        async with self._database.transaction() as connection:
            result = await connection.execute(sa.text(statement), values)
            if result.rowcount:
                await self._outbox.append(connection, entry)
        return bool(result.rowcount)


def _floors(steps: Sequence[Step]) -> list[tuple[str, str, int, int, int]]:
    """Gives the newest version of each record, as a statement takes a row once."""
    newest: dict[tuple[str, str, int], tuple[int, int]] = {}
    for step in steps:
        wanted = step.wanted
        name = (wanted.workspace, wanted.connection, int(wanted.record_class))
        newest[name] = max(newest.get(name, (0, 0)), (wanted.version, step.key_version))
    return [(*name, *versions) for name, versions in newest.items()]


def _marks(steps: Sequence[Step], now_ms: int) -> list[tuple[str, str, int, str, str, int]]:
    """Gives what is noted with connection keys: the newest fence, and the grants of a forced refresh and of a check."""
    marks: dict[tuple[str, str], tuple[int, str, str]] = {}
    for step in steps:
        if step.fence or step.forced or step.check:
            name = (step.wanted.workspace, step.wanted.connection)
            fence, forced, check = marks.get(name, (0, "", ""))
            marks[name] = (max(fence, step.fence), step.forced or forced, step.check or check)
    return [(*name, *mark, now_ms) for name, mark in marks.items()]


def _key_row(row: Sequence[Any]) -> KeyRow | None:
    if row[0] is None:
        return None
    (
        state,
        version,
        dek_version,
        wrapped,
        dek_state,
        outer,
        fence,
        not_before,
        forced,
        forced_grant,
        check,
        check_grant,
        floor,
        sealed_under,
        age,
    ) = row
    facts = KeyFacts(
        state=KeyState(state),
        floor=floor,
        fence=fence,
        refresh_not_before_ms=not_before,
        last_forced_ms=forced,
        last_forced_grant=forced_grant,
        last_check_ms=check,
        last_check_grant=check_grant,
        key_version=version,
        record_key_version=sealed_under,
        floor_age_ms=age,
    )
    return KeyRow(facts, version, dek_version, bytes(wrapped), _DEK_STATES[dek_state], bool(outer))


# A tombstone has no DEK.
_DEK_STATES: dict[str | None, KeyVersionState] = {
    None: KeyVersionState.DESTROYED,
    **{state.value: state for state in KeyVersionState},
}
