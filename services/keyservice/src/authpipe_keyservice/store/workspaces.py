"""Keys of workspaces on their way: new versions, moves from one to the next, erasure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql
from sqlalchemy.ext.asyncio import AsyncConnection

from authpipe_database import Database, Outbox
from authpipe_envelope import TRANSIENT
from authpipe_keyservice.domain.deks import DekRow
from authpipe_keyservice.domain.kek_versions import KeyVersionState
from authpipe_keyservice.domain.workspaces import KeyInPlace, MovedKey
from authpipe_keyservice.store.replicas import order_to_forget
from authpipe_sensitive import AuditEntry

# A transient record is used up or given up within a day of the release of its write key.
_HOLDS = f"""
    f.workspace_id = r.workspace_id and f.connection_id = r.connection_id
    and ((f.floor > 0 and f.key_version <= r.version and f.record_class <> all('{{{",".join(str(int(each)) for each in TRANSIENT)}}}'))
        or (f.prepared > f.floor and f.prepared_key_version <= r.version
            and (f.record_class <> all('{{{",".join(str(int(each)) for each in TRANSIENT)}}}')
                or f.prepared_at > to_timestamp(:now) - interval '1 day')))
"""
_MOVE = """
with dek as (select version from deks where workspace_id = :workspace and version = :dek_version
             and state = 'primary' for share)
update {table} k set wrapped = n.new, dek_version = dek.version
from dek, unnest(cast(:connections as text[]), cast(:versions as int[]), :old, :new) as n (connection_id, version, old, new)
where k.workspace_id = :workspace and k.connection_id = n.connection_id and k.version = n.version and k.wrapped = n.old
"""
_KEYS_ON = """
select connection_id, version, wrapped from connection_keys
where workspace_id = :workspace and dek_version = :version and state <> 'destroyed'
union all
select connection_id, version, wrapped from retired_connection_keys
where workspace_id = :workspace and dek_version = :version
limit :limit
"""
_AWAITS = """
select exists (select from workspace_erasures where not done and due_at <= to_timestamp(:now))
    or exists (select from deks where state = 'primary' and created_at < to_timestamp(:before))
    or exists (select from deks where state = 'active')
    or exists (select from retired_connection_keys)
"""


class WorkspaceTable:
    """Keys of workspaces in PostgreSQL.

    Args:
        database: keyservice's own database.
        outbox: Where events go, in the same transaction.
    """

    def __init__(self, database: Database, outbox: Outbox) -> None:
        self._database = database
        self._outbox = outbox

    async def newest(self, workspace: str) -> DekRow | None:
        """Gives a workspace's newest DEK."""
        statement = "select version, kek_version, wrapped, state, customer_key_id from deks where workspace_id = :workspace order by version desc limit 1"
        async with self._database.transaction() as connection:
            row = (await connection.execute(_text(statement, workspace=workspace))).one_or_none()
        return _dek(row) if row else None

    async def rotate_dek(self, workspace: str, old: int, new: DekRow, entry: AuditEntry) -> bool:
        """Stores a new primary DEK over an old one; False: the old one, or the KEK version, is not primary any more."""
        async with self._database.transaction() as connection:
            kek = "select version from kek_versions where version = :version and state = 'primary' for share"
            if await connection.scalar(_text(kek, version=new.kek_version)) is None:
                return False
            demoted = (
                "update deks set state = 'active' where workspace_id = :workspace and version = :old"
                " and state = 'primary'"
            )
            if (await connection.execute(_text(demoted, workspace=workspace, old=old))).rowcount != 1:
                return False
            added = (
                "insert into deks (workspace_id, version, kek_version, wrapped, customer_key_id)"
                " values (:workspace, :version, :kek_version, :wrapped, :key_id)"
            )
            names = {
                "workspace": workspace,
                "version": new.version,
                "kek_version": new.kek_version,
                "key_id": new.customer_key_id,
            }
            await connection.execute(_text(added, **names, wrapped=new.wrapped))
            await self._outbox.append(connection, entry)
        return True

    async def key_version(self, workspace: str, connection: str) -> int:
        """Gives the version of an active connection key; 0: there is none."""
        found = (
            "select version from connection_keys where workspace_id = :workspace and connection_id = :connection"
            " and state = 'active'"
        )
        async with self._database.transaction() as sql:
            return int(await sql.scalar(_text(found, workspace=workspace, connection=connection)) or 0)

    async def rotate_key(
        self, workspace: str, connection: str, old: int, dek_version: int, wrapped: bytes, entry: AuditEntry
    ) -> bool:
        """Stores a new version of a connection key and retires the old one; False: either moved meanwhile."""
        names = {"workspace": workspace, "connection": connection, "old": old}
        async with self._database.transaction() as sql:
            if not await _lock_dek(sql, workspace, dek_version):
                return False
            retired = (
                "insert into retired_connection_keys select workspace_id, connection_id, version, dek_version, wrapped"
                " from connection_keys where workspace_id = :workspace and connection_id = :connection"
                " and version = :old and state = 'active' for update"
            )
            if (await sql.execute(_text(retired, **names))).rowcount != 1:
                return False
            renewed = (
                "update connection_keys set version = :old + 1, dek_version = :dek_version, wrapped = :wrapped"
                " where workspace_id = :workspace and connection_id = :connection"
            )
            await sql.execute(_text(renewed, **names, dek_version=dek_version, wrapped=wrapped))
            await self._outbox.append(sql, entry)
        return True

    async def awaits(self, now: float, before: float) -> bool:
        """Says whether there is something to do; costs one statement in place of each step's own."""
        async with self._database.statement() as connection:
            return bool(await connection.scalar(_text(_AWAITS, now=now, before=before)))

    async def aged(self, before: float, limit: int) -> list[str]:
        """Gives workspaces whose primary DEK is older than a moment."""
        aged = (
            "select workspace_id from deks where state = 'primary' and created_at < to_timestamp(:before)"
            " order by created_at limit :limit"
        )
        async with self._database.transaction() as connection:
            return [str(each) for each in await connection.scalars(_text(aged, before=before, limit=limit))]

    async def leaving(self, limit: int) -> list[tuple[str, int, int]]:
        """Gives active DEKs: workspace, version, and the version that is primary."""
        leaving = (
            "select a.workspace_id, a.version, p.version as primary_version from deks a"
            " join deks p on p.workspace_id = a.workspace_id and p.state = 'primary'"
            " where a.state = 'active' order by a.workspace_id, a.version limit :limit"
        )
        async with self._database.transaction() as connection:
            rows = await connection.execute(_text(leaving, limit=limit))
            return [(row.workspace_id, int(row.version), int(row.primary_version)) for row in rows]

    async def keys_on(self, workspace: str, dek_version: int, limit: int) -> list[KeyInPlace]:
        """Gives connection keys that are wrapped by a DEK."""
        async with self._database.transaction() as connection:
            rows = await connection.execute(_text(_KEYS_ON, workspace=workspace, version=dek_version, limit=limit))
            return [KeyInPlace(row.connection_id, int(row.version), bytes(row.wrapped)) for row in rows]

    async def move_keys(self, workspace: str, keys: Sequence[MovedKey], dek_version: int, entry: AuditEntry) -> int:
        """Stores new wrapped forms where the old ones still stand; gives how many."""
        values = {
            "workspace": workspace,
            "dek_version": dek_version,
            "connections": [key.connection for key in keys],
            "versions": [key.version for key in keys],
        }
        wrapped = [
            sa.bindparam("old", [key.old for key in keys], type_=postgresql.ARRAY(sa.LargeBinary)),
            sa.bindparam("new", [key.new for key in keys], type_=postgresql.ARRAY(sa.LargeBinary)),
        ]
        moved = 0
        async with self._database.transaction() as connection:
            for table in ("connection_keys", "retired_connection_keys"):
                statement = sa.text(_MOVE.format(table=table)).bindparams(*wrapped, **values)
                moved += (await connection.execute(statement)).rowcount
            if moved:
                await self._outbox.append(connection, entry)
        return moved

    async def retire_dek(self, workspace: str, version: int, entry: AuditEntry) -> bool:
        """Destroys an active DEK; False: a connection key is on it."""
        names = {"workspace": workspace, "version": version}
        async with self._database.transaction() as connection:
            locked = "select state from deks where workspace_id = :workspace and version = :version for update"
            if await connection.scalar(_text(locked, **names)) != "active":
                return False
            if (await connection.execute(_text(_KEYS_ON, **names, limit=1))).first() is not None:
                return False
            retired = (
                "update deks set state = 'destroyed', kek_version = 0, customer_key_id = '', wrapped = ''::bytea"
                " where workspace_id = :workspace and version = :version"
            )
            await connection.execute(_text(retired, **names))
            await self._outbox.append(connection, entry)
            await order_to_forget(connection, workspace, "")
        return True

    async def retire_keys(self, now: float, limit: int, entry: AuditEntry) -> int:
        """Destroys older versions of connection keys that no record is on; gives how many."""
        statement = (
            "delete from retired_connection_keys where (workspace_id, connection_id, version) in ("
            " select workspace_id, connection_id, version from retired_connection_keys r"
            f" where not exists (select from floors f where {_HOLDS}) limit :limit)"
            " returning workspace_id, connection_id"
        )
        async with self._database.transaction() as connection:
            gone = (await connection.execute(_text(statement, now=now, limit=limit))).all()
            if gone:
                events = [entry._replace(workspace_id=each.workspace_id, target=each.connection_id) for each in gone]
                await self._outbox.append(connection, *events)
                for each in gone:
                    await order_to_forget(connection, each.workspace_id, each.connection_id)
        return len(gone)

    async def schedule(self, workspace: str, due: float, entry: AuditEntry) -> int:
        """Disables a workspace's DEKs, to be destroyed later; gives the order by which replicas forget them.

        An erasure that waits already keeps the earlier of both moments.
        """
        async with self._database.transaction() as connection:
            added = (
                "insert into workspace_erasures (workspace_id, due_at) values (:workspace, to_timestamp(:due))"
                " on conflict (workspace_id) do update set due_at = least(workspace_erasures.due_at, excluded.due_at)"
            )
            await connection.execute(_text(added, workspace=workspace, due=due))
            disabled = (
                "update deks set state = 'disabled' where workspace_id = :workspace and state in ('primary', 'active')"
            )
            await connection.execute(_text(disabled, workspace=workspace))
            await self._outbox.append(connection, entry)
            return await order_to_forget(connection, workspace, "")

    async def cancel(self, workspace: str, entry: AuditEntry) -> bool:
        """Enables a workspace's DEKs again; False: no erasure waits."""
        async with self._database.transaction() as connection:
            deleted = "delete from workspace_erasures where workspace_id = :workspace and not done"
            if (await connection.execute(_text(deleted, workspace=workspace))).rowcount != 1:
                return False
            for state, which in (
                ("active", "true"),
                ("primary", "version = (select max(version) from deks d where d.workspace_id = deks.workspace_id)"),
            ):
                enabled = (
                    f"update deks set state = '{state}' where workspace_id = :workspace"
                    f" and state in ('disabled', 'active') and {which}"
                )
                await connection.execute(_text(enabled, workspace=workspace))
            await self._outbox.append(connection, entry)
        return True

    async def due(self, now: float) -> list[str]:
        """Gives workspaces whose delay is over."""
        due = "select workspace_id from workspace_erasures where not done and due_at <= to_timestamp(:now)"
        async with self._database.transaction() as connection:
            return [str(each) for each in await connection.scalars(_text(due, now=now))]

    async def erase(self, workspace: str, entry: AuditEntry) -> None:
        """Overwrites a workspace's DEKs, once."""
        async with self._database.transaction() as connection:
            done = "update workspace_erasures set done = true where workspace_id = :workspace and not done"
            if (await connection.execute(_text(done, workspace=workspace))).rowcount != 1:
                return
            destroyed = "update deks set state = 'destroyed', kek_version = 0, customer_key_id = '', wrapped = ''::bytea where workspace_id = :workspace"
            await connection.execute(_text(destroyed, workspace=workspace))
            await self._outbox.append(connection, entry)

    async def describe(self, workspace: str) -> tuple[list[tuple[DekRow, int, float]], int, float]:
        """Gives DEKs, each with its number of connection keys and when it was made; all connection keys; erasure."""
        names = {"workspace": workspace}
        async with self._database.transaction() as connection:
            rows = await connection.execute(
                _text(
                    "select d.version, d.kek_version, d.state, d.customer_key_id, extract(epoch from d.created_at)::float8 as created,"
                    " (select count(*) from connection_keys k where k.workspace_id = d.workspace_id"
                    "  and k.dek_version = d.version and k.state <> 'destroyed') as keys"
                    " from deks d where d.workspace_id = :workspace order by d.version",
                    **names,
                )
            )
            deks = [
                (
                    DekRow(row.version, row.kek_version, b"", KeyVersionState(row.state), row.customer_key_id),
                    int(row.keys),
                    row.created,
                )
                for row in rows
            ]
            due = "select extract(epoch from due_at)::float8 from workspace_erasures where workspace_id = :workspace"
            erased = await connection.scalar(_text(due, **names))
        return deks, sum(keys for _, keys, _ in deks), float(erased or 0)


def _dek(row: Any) -> DekRow:
    state = KeyVersionState(row.state)
    return DekRow(row.version, row.kek_version, bytes(row.wrapped), state, row.customer_key_id)


async def _lock_dek(connection: AsyncConnection, workspace: str, version: int) -> bool:
    """Holds a DEK as primary until the transaction ends; False: it is not."""
    held = (
        "select version from deks where workspace_id = :workspace and version = :version"
        " and state = 'primary' for share"
    )
    return await connection.scalar(_text(held, workspace=workspace, version=version)) is not None


def _text(statement: str, **values: Any) -> sa.TextClause:
    return sa.text(statement).bindparams(**values)
