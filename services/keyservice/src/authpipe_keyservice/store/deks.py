"""DEKs: of releases, and on their way from one KEK version to the next."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from authpipe_database import Database, Outbox
from authpipe_keyservice.domain.kek_versions import KeyVersionState
from authpipe_keyservice.domain.deks import DekRow
from authpipe_keyservice.domain.rewrapping import StaleDek, SwappedDek
from authpipe_sensitive import AuditEntry

_ONE_REWRAPPER = 73
# A DEK is put only while its KEK version is primary: the lock is shared with whoever else does, and excludes whoever moves
# the version. Nothing is put for a workspace that is being erased.
_PUT = """
with kek as (select version from kek_versions where version = %s and state = 'primary' for share)
insert into deks (workspace_id, version, kek_version, wrapped, customer_key_id)
select %s, %s, kek.version, %s, %s from kek
where not exists (select from workspace_erasures e where e.workspace_id = %s)
on conflict do nothing
"""
_STALE = """
select workspace_id, version, kek_version, wrapped from deks
where kek_version between 1 and %b - 1 and customer_key_id = '' and (workspace_id, version) > (%b, %b)
order by workspace_id, version limit %b
"""
_COUNT_STALE = "select count(*) from deks where kek_version between 1 and %s - 1 and customer_key_id = ''"
_SWAP = """
with kek as (select version from kek_versions where version = %b and state in ('primary', 'active') for share)
update deks d set wrapped = n.new, kek_version = kek.version
from kek, unnest(%b::text[], %b::int[], %b::bytea[], %b::bytea[]) as n (workspace_id, version, old, new)
where d.workspace_id = n.workspace_id and d.version = n.version and d.wrapped = n.old
"""


class DekTable:
    """DEKs in PostgreSQL.

    Args:
        database: keyservice's own database.
        outbox: Where events go, in the same transaction.
    """

    def __init__(self, database: Database, outbox: Outbox) -> None:
        self._database = database
        self._outbox = outbox

    async def get_dek(self, workspace: str, version: int) -> DekRow | None:
        """Gives one DEK of a workspace; version 0: the newest."""
        async with self._database.hot() as connection:
            row = await (
                await connection.execute(
                    "select version, kek_version, wrapped, state, customer_key_id from deks where workspace_id = %s"
                    " and (version = %s or %s = 0) order by version desc limit 1",
                    (workspace, version, version),
                )
            ).fetchone()
        return _dek(row) if row else None

    async def put_dek(self, workspace: str, row: DekRow) -> DekRow | None:
        """Stores a first DEK, or gives the one that another process stored meanwhile.

        Returns:
            None: nothing was stored, since the KEK version is not primary any more or the workspace is being erased.
        """
        async with self._database.hot() as connection:
            await connection.execute(
                _PUT, (row.kek_version, workspace, row.version, row.wrapped, row.customer_key_id, workspace)
            )
        return await self.get_dek(workspace, 0)

    @asynccontextmanager
    async def alone(self) -> AsyncIterator[bool]:
        """Gives, for the time of a block, whether this is the one replica that re-wraps."""
        async with self._database.hot() as connection:
            got = await connection.execute("select pg_try_advisory_lock(%s)", (_ONE_REWRAPPER,))
            alone = await got.fetchone() == (True,)
            try:
                yield alone
            finally:
                if alone:
                    await connection.execute("select pg_advisory_unlock(%s)", (_ONE_REWRAPPER,))

    async def count_stale(self, primary: int) -> int:
        """Gives how many DEKs are on an older version than the primary one."""
        async with self._database.hot() as connection:
            row: Any = await (await connection.execute(_COUNT_STALE, (primary,))).fetchone()
        return int(row[0])

    async def stale(self, primary: int, after: tuple[str, int], limit: int) -> list[StaleDek]:
        """Gives DEKs that are on an older version than the primary one, by workspace and version, from after a name."""
        async with self._database.hot() as connection:
            rows: list[Any] = await (await connection.execute(_STALE, (primary, *after, limit), binary=True)).fetchall()
        return [
            StaleDek(workspace, version, kek_version, bytes(wrapped))
            for workspace, version, kek_version, wrapped in rows
        ]

    async def swap(self, deks: Sequence[SwappedDek], kek_version: int, entry: AuditEntry) -> int:
        """Stores new wrapped forms where the old ones still stand and the version still wraps; gives how many."""
        columns = ([dek.workspace for dek in deks], [dek.version for dek in deks])
        wrapped = ([dek.old for dek in deks], [dek.new for dek in deks])
        async with self._database.hot() as connection, connection.transaction():
            swapped = (await connection.execute(_SWAP, (kek_version, *columns, *wrapped))).rowcount
            if swapped:
                await self._outbox.append_hot(connection, (entry,))
        return swapped


def _dek(row: Any) -> DekRow:
    version, kek_version, wrapped, state, customer_key_id = row
    return DekRow(int(version), int(kek_version), bytes(wrapped), KeyVersionState(state), customer_key_id)
