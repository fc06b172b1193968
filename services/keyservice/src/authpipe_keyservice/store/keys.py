"""Connection keys and floors: what a release looks up and what it changes."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from authpipe_database import Database, Outbox
from authpipe_keyservice.domain.kek_versions import KeyVersionState
from authpipe_keyservice.domain.release import Direction, KeyFacts, KeyState, Wanted
from authpipe_keyservice.domain.releasing import KeyRow, Step
from authpipe_keyservice.store.replicas import order_to_forget
from authpipe_sensitive import AuditEntry

_LOOK_UP = """
select k.state, k.version, k.dek_version, k.wrapped, d.state, d.customer_key_id <> '', k.fence, k.refresh_not_before_ms, k.last_forced_ms,
       k.last_check_ms, coalesce(f.floor, 0), case when f.floor > 0 then f.key_version else 0 end,
       coalesce((extract(epoch from now() - f.raised_at) * 1000)::bigint, 1000000000000)
from unnest(%b::text[], %b::text[], %b::int[]) with ordinality as w (workspace_id, connection_id, record_class, n)
left join connection_keys k using (workspace_id, connection_id)
left join deks d on d.workspace_id = k.workspace_id and d.version = k.dek_version
left join floors f on f.workspace_id = w.workspace_id and f.connection_id = w.connection_id
    and f.record_class = w.record_class
order by w.n
"""
_RAISE_FLOOR = """
insert into floors (workspace_id, connection_id, record_class, floor, key_version, raised_at)
values (%s, %s, %s, %s, %s, now())
on conflict (workspace_id, connection_id, record_class) do update
set floor = greatest(floors.floor, excluded.floor), key_version = excluded.key_version,
    raised_at = case when excluded.floor > floors.floor then now() else floors.raised_at end
where floors.floor <= excluded.floor
"""
_PREPARE = """
insert into floors (workspace_id, connection_id, record_class, prepared, prepared_key_version)
values (%s, %s, %s, %s, %s)
on conflict (workspace_id, connection_id, record_class)
do update set prepared = excluded.prepared, prepared_key_version = excluded.prepared_key_version, prepared_at = now()
where floors.prepared <= excluded.prepared
"""
_MARK = """
update connection_keys set fence = greatest(fence, %s),
    last_forced_ms = case when %s then %s else last_forced_ms end,
    last_check_ms = case when %s then %s else last_check_ms end
where workspace_id = %s and connection_id = %s
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

    async def commit(self, entries: Sequence[AuditEntry], steps: Sequence[Step], now_ms: int) -> None:
        """Makes events durable, with what the releases change, in one transaction."""
        if not entries:
            return
        async with self._database.hot() as connection:
            if not steps:
                await self._outbox.append_hot(connection, entries)
                return
            async with connection.transaction():
                for step in sorted(steps, key=lambda each: (each.wanted.workspace, each.wanted.connection)):
                    wanted = step.wanted
                    name = (
                        wanted.workspace,
                        wanted.connection,
                        int(wanted.record_class),
                        wanted.version,
                        step.key_version,
                    )
                    await connection.execute(_RAISE_FLOOR if wanted.direction is Direction.READ else _PREPARE, name)
                    if step.fence or step.forced or step.check:
                        await connection.execute(
                            _MARK,
                            (
                                step.fence,
                                step.forced,
                                now_ms,
                                step.check,
                                now_ms,
                                wanted.workspace,
                                wanted.connection,
                            ),
                        )
                await self._outbox.append_hot(connection, entries)

    async def acknowledge(self, items: Sequence[tuple[str, str, int, int, int]], entries: Sequence[AuditEntry]) -> None:
        """Raises floors to committed versions, never above what was prepared.

        Args:
            items: Workspace, connection, class, version, refresh not before (ms).
            entries: The events.
        """
        async with self._database.transaction() as connection:
            for workspace, connection_id, record_class, version, not_before in items:
                await connection.execute(
                    sa.text(
                        "update floors set floor = greatest(floor, :version),"
                        " raised_at = case when :version > floor then now() else raised_at end,"
                        " key_version = case when prepared = :version then prepared_key_version else key_version end"
                        " where workspace_id = :workspace"
                        " and connection_id = :connection and record_class = :class and prepared >= :version"
                    ).bindparams(
                        version=version,
                        workspace=workspace,
                        connection=connection_id,
                        **{"class": record_class},
                    )
                )
                if not_before:
                    await connection.execute(
                        sa.text(
                            "update connection_keys set refresh_not_before_ms = :not_before"
                            " where workspace_id = :workspace and connection_id = :connection"
                        ).bindparams(not_before=not_before, workspace=workspace, connection=connection_id)
                    )
            await self._outbox.append(connection, *entries)

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
        async with self._database.transaction() as connection:
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
        check,
        floor,
        sealed_under,
        age,
    ) = row
    facts = KeyFacts(KeyState(state), floor, fence, not_before, forced, check, version, sealed_under, age)
    return KeyRow(facts, version, dek_version, bytes(wrapped), _DEK_STATES[dek_state], bool(outer))


# A tombstone has no DEK.
_DEK_STATES: dict[str | None, KeyVersionState] = {
    None: KeyVersionState.DESTROYED,
    **{state.value: state for state in KeyVersionState},
}
