"""SQL for records and fences. The hot select goes over psycopg directly (FACTS)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import sqlalchemy as sa
from psycopg import AsyncCursor

from authpipe_database import Database, Outbox, columns
from authpipe_recordstore.domain.records import SERVABLE_NUMBERS
from authpipe_recordstore.domain.reusing import Use
from authpipe_recordstore.domain.words import Digest, GONE, Record, Ref
from authpipe_recordstore.domain.writing import Stands, Version, Write, decide
from authpipe_sensitive import AuditEntry, DomainError

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

# Whoever writes records of a connection has this row first, so that what is read next stays so.
_LOCK = """
insert into connection_states (workspace_id, connection_id, fence, state)
select w.workspace_id, w.connection_id, 0, 'active' from unnest(%b::text[], %b::text[]) as w (workspace_id, connection_id)
order by 1, 2
on conflict (workspace_id, connection_id) do update set fence = connection_states.fence
returning workspace_id, connection_id, fence, state
"""
_STORED = """
select r.workspace_id, r.connection_id, r.record_class, r.version, case when r.version = w.version then r.record end
from unnest(%b::text[], %b::text[], %b::int[], %b::bigint[]) as w (workspace_id, connection_id, record_class, version)
join records r using (workspace_id, connection_id, record_class)
"""
_CARRY_OUT = """
with fenced as (
    update connection_states s set fence = w.fence
    from unnest(%b::text[], %b::text[], %b::bigint[]) as w (workspace_id, connection_id, fence)
    where s.workspace_id = w.workspace_id and s.connection_id = w.connection_id and s.fence < w.fence),
ended as (
    delete from records r using unnest(%b::text[], %b::text[], %b::int[]) as w (workspace_id, connection_id, record_class)
    where r.workspace_id = w.workspace_id and r.connection_id = w.connection_id and r.record_class = w.record_class),
stored as (
    insert into records (workspace_id, connection_id, record_class, version, record, provider, hosts_digest, masked,
        expires_at, fence)
    select * from unnest(%b::text[], %b::text[], %b::int[], %b::bigint[], %b::bytea[], %b::text[], %b::bytea[],
        %b::text[], %b::timestamptz[], %b::bigint[])
    on conflict (workspace_id, connection_id, record_class) do update set version = excluded.version,
        record = excluded.record, provider = excluded.provider, hosts_digest = excluded.hosts_digest,
        masked = excluded.masked, expires_at = excluded.expires_at, fence = excluded.fence)
insert into audit_outbox (events) values (%b)
"""
# Looks and writes at once: what comes back is what was written, the events of what stands; of nothing else there is one.
_USE = """
insert into audit_outbox (events) select array_agg(w.event order by w.n)
from unnest(%b::text[], %b::text[], %b::int[], %b::bigint[], %b::bytea[], %b::bytea[]) with ordinality
    as w (workspace_id, connection_id, record_class, version, digest, event, n)
join records r using (workspace_id, connection_id, record_class, version)
left join connection_states c using (workspace_id, connection_id)
where sha256(r.record) = w.digest and coalesce(c.state, 'active') = 'active' having count(*) > 0
returning events
"""


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

    async def digests(self, refs: Sequence[Ref], after: Ref | None, limit: int) -> list[Digest]:
        """Gives digests of records that are named; of none: of so many behind one, in the store's order."""
        async with self._database.hot() as connection:
            if refs:
                cursor = await connection.execute(_DIGESTS_OF, (*columns(refs, 3),), binary=True)
            else:
                cursor = await connection.execute(_DIGESTS_AFTER, (*(after or ("", "", -1)), limit), binary=True)
            return [Digest(Ref(*row[:3]), row[3], row[4]) for row in await _rows(cursor)]

    async def note(self, entries: Sequence[AuditEntry]) -> None:
        """Makes events durable."""
        async with self._database.hot() as connection:
            await self._outbox.append_hot(connection, entries)

    async def use(self, uses: Sequence[Use]) -> list[bool]:
        """Makes the events durable of what is stored just so and is active; says which are."""
        entries = [use.entry for use in uses]
        events = self._outbox.encode(entries)
        names = [(*use.ref, use.version, use.digest) for use in uses]
        async with self._database.hot() as connection:
            row = await (await connection.execute(_USE, (*columns(names, 5), events), binary=True)).fetchone()
        written = set(map(bytes, cast("list[bytes]", row[0]))) if row else set()
        stands = [event in written for event in events]
        if row:
            self._outbox.note([entry for entry, stood in zip(entries, stands, strict=True) if stood])
        return stands

    async def put(self, writes: Sequence[Write]) -> list[DomainError | None]:
        """Carries out writes, with their events; gives per write why it was not carried out."""
        names = sorted({name for write in writes for name in write.fences()})
        # A batch may name a record twice: as it was put before, and as the one that follows.
        wanted = {(*each.ref, each.version) for write in writes for each in write.records}
        wanted |= {(*ref, 0) for write in writes for ref, _ in write.ended}
        async with self._database.hot() as connection, connection.transaction():
            locked = await connection.execute(_LOCK, (*columns(names, 2),), binary=True)
            stands = {(row[0], row[1]): Stands(row[2], row[3]) for row in await _rows(locked)}
            found = await connection.execute(_STORED, columns([*wanted], 4), binary=True)
            # Those with the bytes come last, and count.
            rows = sorted(await _rows(found), key=lambda row: row[4] is not None)
            stored = {Ref(*row[:3]): Version(row[3], row[4]) for row in rows}
            decided = decide(writes, stands, stored)
            if None in decided.answers:
                fences = [(*name, fence) for name, fence in sorted(decided.fences.items())]
                records = [(*each.ref, *each[1:-1]) for _, each in sorted(decided.records.items())]
                await connection.execute(
                    _CARRY_OUT,
                    (
                        *columns(fences, 3),
                        *columns(sorted(decided.ended), 3),
                        *columns(records, len(Record._fields) + 1),
                        self._outbox.encode(decided.entries),
                    ),
                )
        self._outbox.note(decided.entries)
        return decided.answers

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
                    # One that is active already was taken back before, or else it was never written.
                    "update connection_states c set state = 'active' where workspace_id = :workspace"
                    " and connection_id = :connection and (state = 'kept' or (state = 'active' and exists (select 1 from"
                    " records r where r.workspace_id = c.workspace_id and r.connection_id = c.connection_id)))"
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


async def _rows(cursor: AsyncCursor[Any]) -> list[Any]:
    return await cursor.fetchall()


def _record(row: Sequence[Any]) -> Record | None:
    if row[0] is None:
        # What was here and is gone is told apart from what never was: the customer hears "disconnected".
        return GONE if row[10] else None
    return Record(Ref(row[0], row[1], row[2]), row[3], row[4], row[5], row[6], row[7], row[8], row[9], row[10])


_DIGESTS_OF = """
select r.workspace_id, r.connection_id, r.record_class, r.version, encode(sha256(r.record), 'hex')
from unnest(%b::text[], %b::text[], %b::int[]) as w(workspace_id, connection_id, record_class)
join records r using (workspace_id, connection_id, record_class)
"""
_DIGESTS_AFTER = """
select workspace_id, connection_id, record_class, version, encode(sha256(record), 'hex') from records
where (workspace_id, connection_id, record_class) > (%s, %s, %s)
order by workspace_id, connection_id, record_class limit %s
"""
