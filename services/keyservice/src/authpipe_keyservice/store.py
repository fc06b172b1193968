"""SQL for keyservice's own tables. The hot select and insert go over psycopg directly (FACTS)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from authpipe_database import Database, Outbox
from authpipe_keyservice.domain.release import Direction, KeyFacts, KeyState, Wanted
from authpipe_keyservice.domain.releasing import DekRow, KeyRow, Step
from authpipe_sensitive import AuditEntry

_LOOK_UP = """
select k.state, k.version, k.dek_version, k.wrapped, k.fence, k.refresh_not_before_ms, k.last_forced_ms,
       k.last_check_ms, coalesce(f.floor, 0)
from unnest(%b::text[], %b::text[], %b::int[]) with ordinality as w (workspace_id, connection_id, record_class, n)
left join connection_keys k using (workspace_id, connection_id)
left join floors f using (workspace_id, connection_id, record_class)
order by w.n
"""
_RAISE_FLOOR = """
insert into floors (workspace_id, connection_id, record_class, floor) values (%s, %s, %s, %s)
on conflict (workspace_id, connection_id, record_class) do update set floor = greatest(floors.floor, excluded.floor)
"""
_PREPARE = """
insert into floors (workspace_id, connection_id, record_class, prepared) values (%s, %s, %s, %s)
on conflict (workspace_id, connection_id, record_class)
do update set prepared = greatest(floors.prepared, excluded.prepared)
"""
_MARK = """
update connection_keys set fence = greatest(fence, %s),
    last_forced_ms = case when %s then %s else last_forced_ms end,
    last_check_ms = case when %s then %s else last_check_ms end
where workspace_id = %s and connection_id = %s
"""


class Store:
    """keyservice's tables in PostgreSQL.

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

    async def get_dek(self, workspace: str, version: int) -> DekRow | None:
        """Gives one DEK of a workspace; version 0: the newest."""
        async with self._database.hot() as connection:
            row = await (
                await connection.execute(
                    "select version, kek_version, wrapped from deks where workspace_id = %s and (version = %s or %s = 0)"
                    " order by version desc limit 1",
                    (workspace, version, version),
                )
            ).fetchone()
        return DekRow(int(row[0]), int(row[1]), bytes(row[2])) if row else None  # type: ignore[call-overload,]

    async def put_dek(self, workspace: str, row: DekRow) -> DekRow:
        """Stores a first DEK, or gives the one that another process stored meanwhile."""
        async with self._database.hot() as connection:
            await connection.execute(
                "insert into deks (workspace_id, version, kek_version, wrapped) values (%s, %s, %s, %s)"
                " on conflict do nothing",
                (workspace, row.version, row.kek_version, row.wrapped),
            )
        return await self.get_dek(workspace, 0) or row

    async def put_key(self, workspace: str, connection: str, row: KeyRow) -> None:
        """Stores a first connection key, unless another process did meanwhile."""
        async with self._database.hot() as hot:
            await hot.execute(
                "insert into connection_keys (workspace_id, connection_id, version, dek_version, wrapped, state)"
                " values (%s, %s, %s, %s, %s, 'active') on conflict do nothing",
                (workspace, connection, row.version, row.dek_version, row.wrapped),
            )

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
                    name = (wanted.workspace, wanted.connection, int(wanted.record_class), wanted.version)
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
                        "update floors set floor = greatest(floor, :version) where workspace_id = :workspace"
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

    async def set_state(self, workspace: str, connection_id: str, state: KeyState, entry: AuditEntry) -> None:
        """Restricts or destroys a connection key.

        A destroyed key is overwritten in its row, which stays as a tombstone: a later first write must not make the
        key anew.
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

    async def describe(self, workspace: str) -> tuple[int, int, int]:
        """Gives the KEK version and version of a workspace's newest DEK, and how many connection keys there are."""
        async with self._database.transaction() as connection:
            dek = (
                await connection.execute(
                    sa.text(
                        "select kek_version, version from deks where workspace_id = :workspace"
                        " order by version desc limit 1"
                    ).bindparams(workspace=workspace)
                )
            ).one_or_none()
            count = await connection.scalar(
                sa.text(
                    "select count(*) from connection_keys where workspace_id = :workspace and state <> 'destroyed'"
                ).bindparams(workspace=workspace)
            )
        return (int(dek.kek_version), int(dek.version), int(count or 0)) if dek else (0, 0, int(count or 0))

    async def last_checkpoint(self, origin: str) -> tuple[int, bytes]:
        """Gives size and root of the newest signed tree; 0 and nothing before the first."""
        async with self._database.transaction() as connection:
            row = (
                await connection.execute(
                    sa.text("select tree_size, root_hash from signed_checkpoints where origin = :origin").bindparams(
                        origin=origin
                    )
                )
            ).one_or_none()
        return (int(row.tree_size), bytes(row.root_hash)) if row else (0, b"")

    async def put_checkpoint(self, origin: str, size: int, root: bytes) -> None:
        """Remembers a tree before it is signed, so that a crash cannot make us sign a smaller one."""
        async with self._database.transaction() as connection:
            await connection.execute(
                sa.text(
                    "insert into signed_checkpoints (origin, tree_size, root_hash) values (:origin, :size, :root)"
                    " on conflict (origin) do update set tree_size = :size, root_hash = :root"
                    " where signed_checkpoints.tree_size <= :size"
                ).bindparams(origin=origin, size=size, root=root)
            )


def _key_row(row: Sequence[Any]) -> KeyRow | None:
    if row[0] is None:
        return None
    state, version, dek_version, wrapped, fence, not_before, forced, check, floor = row
    facts = KeyFacts(KeyState(state), floor, fence, not_before, forced, check)
    return KeyRow(facts, version, dek_version, bytes(wrapped))
