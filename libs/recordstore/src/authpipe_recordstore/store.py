"""SQL for records and fences. The hot select goes over psycopg directly (FACTS)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from authpipe_database import Database, Outbox
from authpipe_recordstore.domain.records import GONE, SERVABLE_NUMBERS, TRANSIENT_NUMBERS, Record, Ref
from authpipe_recordstore.errors import FenceError, VersionConflictError, WithheldError
from authpipe_sensitive import AuditEntry

_FIND = f"""
select r.workspace_id, r.connection_id, r.record_class, r.version, r.record, r.provider, r.hosts_digest, r.masked,
       r.expires_at, r.fence, coalesce(c.state, 'active') <> 'active'
from unnest(%b::text[], %b::text[], %b::int[]) with ordinality as w (workspace_id, connection_id, record_class, n)
left join records r on r.workspace_id = w.workspace_id and r.connection_id = w.connection_id
     and (r.record_class = w.record_class
          or (w.record_class = 0 and r.record_class in ({", ".join(map(str, SERVABLE_NUMBERS))})))
left join connection_states c on c.workspace_id = w.workspace_id and c.connection_id = w.connection_id
order by w.n
"""  # the numbers of an enum, not input

_LOCK = sa.text(
    "insert into connection_states (workspace_id, connection_id, fence, state)"
    " values (:workspace, :connection, :fence, 'active')"
    " on conflict (workspace_id, connection_id)"
    " do update set fence = greatest(connection_states.fence, excluded.fence)"
    " returning fence, state"
)
_INSERT = sa.text(
    "insert into records (workspace_id, connection_id, record_class, version, record, provider, hosts_digest, masked,"
    " expires_at, fence) values (:workspace, :connection, :class, :version, :record, :provider, :hosts, :masked,"
    " :expires, :fence) on conflict (workspace_id, connection_id, record_class) do update set fence = excluded.fence"
    " where records.version = excluded.version and records.record = excluded.record"
)
_UPDATE = sa.text(
    "update records set version = :version, record = :record, provider = :provider, hosts_digest = :hosts,"
    " masked = :masked, expires_at = :expires, fence = :fence where workspace_id = :workspace"
    " and connection_id = :connection and record_class = :class"
    " and (version = :version - 1 or (version = :version and record = :record))"
)
_DELETE_ONE = sa.text(
    "delete from records where workspace_id = :workspace and connection_id = :connection and record_class = :class"
)


class Store:
    """A store's tables in PostgreSQL.

    Args:
        database: Its own database.
        outbox: Where events go, in the same transaction.
    """

    def __init__(self, database: Database, outbox: Outbox) -> None:
        self._database = database
        self._outbox = outbox

    async def find(self, refs: Sequence[Ref]) -> list[Record | None]:
        """Gives records, or None where there is none."""
        names = (
            [ref.workspace for ref in refs],
            [ref.connection for ref in refs],
            [ref.record_class for ref in refs],
        )
        async with self._database.hot() as connection:
            rows = await (await connection.execute(_FIND, names, binary=True)).fetchall()
        return [_record(row) for row in rows]

    async def put(
        self, records: Sequence[Record], consumed: Sequence[tuple[Ref, int]], entries: Sequence[AuditEntry]
    ) -> None:
        """Stores all records over the version before, in one transaction with the events.

        Raises:
            VersionConflictError: A version before is not the one stored.
            FenceError: A newer fence is known.
            WithheldError: The connection is being disconnected, or gone.
        """
        async with self._database.transaction() as connection:
            fences = {(ref.workspace, ref.connection): fence for ref, fence in consumed}
            fences |= {(record.ref.workspace, record.ref.connection): record.fence for record in records}
            for (workspace, connection_id), fence in sorted(fences.items()):
                state = (
                    await connection.execute(
                        _LOCK, {"workspace": workspace, "connection": connection_id, "fence": fence}
                    )
                ).one()
                if state.state != "active":
                    raise WithheldError
                if state.fence > fence:
                    raise FenceError
            for record in records:
                values = {
                    **_name(record.ref),
                    "version": record.version,
                    "record": record.data,
                    "provider": record.provider,
                    "hosts": record.hosts,
                    "masked": record.masked,
                    "expires": record.expires_at,
                    "fence": record.fence,
                }
                # The same bytes may be put again: an answer of ours may have been lost.
                result = await connection.execute(_INSERT if record.version == 1 else _UPDATE, values)
                if result.rowcount != 1 and record.ref.record_class in TRANSIENT_NUMBERS:
                    # A transient record is deleted when it has been used, but its versions go on.
                    result = await connection.execute(_INSERT, values)
                if result.rowcount != 1:
                    raise VersionConflictError
            for ref, _ in consumed:
                await connection.execute(_DELETE_ONE, _name(ref))
            await self._outbox.append(connection, *entries)

    async def withhold(self, workspace: str, connection_id: str, entry: AuditEntry) -> None:
        """Marks a connection as not to be served or written."""
        await self._set_state(workspace, connection_id, "withheld", entry)

    async def delete(self, workspace: str, connection_id: str, entry: AuditEntry) -> int:
        """Deletes a connection's records and leaves a mark that it is gone; gives how many there were."""
        return await self._set_state(workspace, connection_id, "deleted", entry)

    async def keep(self, workspace: str, connection_id: str, entry: AuditEntry) -> None:
        """Marks a connection as kept: nothing of it is served or written."""
        await self._set_state(workspace, connection_id, "kept", entry)

    async def restore(self, workspace: str, connection_id: str, entry: AuditEntry) -> bool:
        """Marks a kept connection as active; False: it is neither."""
        async with self._database.transaction() as connection:
            result = await connection.execute(
                sa.text(
                    "update connection_states set state = 'active' where workspace_id = :workspace"
                    " and connection_id = :connection and state in ('kept', 'active')"
                ),
                {"workspace": workspace, "connection": connection_id},
            )
            if result.rowcount:
                await self._outbox.append(connection, entry)
        return bool(result.rowcount)

    async def _set_state(self, workspace: str, connection_id: str, state: str, entry: AuditEntry) -> int:
        names = {"workspace": workspace, "connection": connection_id}
        deleted = 0
        async with self._database.transaction() as connection:
            await connection.execute(
                sa.text(
                    "insert into connection_states (workspace_id, connection_id, fence, state)"
                    " values (:workspace, :connection, 0, :state)"
                    " on conflict (workspace_id, connection_id) do update set state ="
                    " case when connection_states.state = 'deleted' then 'deleted' else excluded.state end"
                ),
                {**names, "state": state},
            )
            if state == "deleted":
                result = await connection.execute(
                    sa.text("delete from records where workspace_id = :workspace and connection_id = :connection"),
                    names,
                )
                deleted = result.rowcount
            await self._outbox.append(connection, entry)
        return deleted


def _name(ref: Ref) -> dict[str, Any]:
    return {"workspace": ref.workspace, "connection": ref.connection, "class": ref.record_class}


def _record(row: Sequence[Any]) -> Record | None:
    if row[0] is None:
        # What was here and is gone is told apart from what never was: the customer hears "disconnected".
        return GONE if row[10] else None
    return Record(Ref(row[0], row[1], row[2]), row[3], row[4], row[5], row[6], row[7], row[8], row[9], row[10])
