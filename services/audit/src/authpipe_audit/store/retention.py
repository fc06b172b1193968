"""Deleting bodies: with a role of its own, that can do nothing else. The role that appends cannot delete."""

from __future__ import annotations

from datetime import datetime
from typing import cast

from authpipe_audit.domain.retention import Old
from authpipe_audit.domain.trails import Trail
from authpipe_database import Database
from authpipe_transparency import Record

_MANY = 5000
_KEPT = "('CHAINS_STATED', 'AUDIT_RETENTION_SET', 'BODIES_EXPIRED')"


class RetentionTable:
    """Bodies in PostgreSQL, as those see them who delete.

    Args:
        database: audit's own database, as the role that appends.
        deleting: The same, as the role that deletes.
    """

    def __init__(self, database: Database, deleting: Database) -> None:
        self._database = database
        self._deleting = deleting

    async def policies(self) -> dict[str, int]:
        """Gives the days of each workspace that has a policy: the newest that authority has logged."""
        async with self._database.hot() as connection:
            cursor = await connection.execute(
                "select workspace_id, record from bodies where trail = %s and name = 'AUDIT_RETENTION_SET'"
                " order by leaf_index",
                (int(Trail.CONTROL),),
                binary=True,
            )
            rows = await cursor.fetchall()
        policies = {}
        for workspace, data in rows:
            record = Record(cast("bytes", data))
            if record.emitter == "gateway/authority":
                policies[cast("str", workspace)] = int(record["count"])
        return policies

    async def workspaces(self, trail: Trail) -> list[str]:
        """Gives the workspaces that have bodies in a trail."""
        async with self._database.hot() as connection:
            cursor = await connection.execute(_WORKSPACES, {"trail": int(trail)})
            return [cast("str", row[0]) for row in await cursor.fetchall()]

    async def old(self, trail: Trail, workspace: str, before: datetime) -> Old:
        """Gives what a workspace has that is older than a time: up to before the first that is not."""
        values = {"trail": int(trail), "workspace": workspace, "before": before}
        async with self._database.hot() as connection:
            (row,) = await (await connection.execute(_OLD, values, binary=True)).fetchall()
        announced = int(Record(cast("bytes", row[1]))["count"]) if row[1] else 0
        return Old(workspace, announced, cast("int", row[0]))

    async def delete_bodies(self, trail: Trail, workspace: str, position: int) -> int:
        """Deletes the bodies up to a position, but what the log needs; gives how many there were."""
        async with self._deleting.hot() as connection:
            await connection.execute(_PRUNE, (int(trail), workspace))
        deleted = 0
        while True:
            async with self._deleting.hot() as connection:
                cursor = await connection.execute(_DELETE, (workspace, int(trail), position, _MANY))
                deleted += cursor.rowcount
                if cursor.rowcount < _MANY:
                    return deleted


_WORKSPACES = """
with recursive each as (
    select min(workspace_id) as workspace_id from leaves
    union all
    select (select min(workspace_id) from leaves l where l.workspace_id > each.workspace_id) from each
    where each.workspace_id is not null)
select workspace_id from each where workspace_id is not null
and exists (select from bodies b where b.workspace_id = each.workspace_id and b.trail = %(trail)s)
"""
# The first that is not old ends it, whatever is behind: bodies go from the beginning of the chain, without a hole.
_OLD = f"""
select case when exists (
    select from bodies where workspace_id = %(workspace)s and trail = %(trail)s and time < %(before)s
    and name not in {_KEPT})
then coalesce(
    (select min(l.position) - 1 from bodies b join leaves l on l.trail = b.trail and l.leaf_index = b.leaf_index
     where b.workspace_id = %(workspace)s and b.trail = %(trail)s and b.time >= %(before)s),
    (select max(position) from leaves where workspace_id = %(workspace)s and trail = %(trail)s))
else 0 end,
(select record from bodies where workspace_id = %(workspace)s and trail = %(trail)s and name = 'BODIES_EXPIRED'
 order by leaf_index desc limit 1)
"""
_DELETE = f"""
delete from bodies b using (
    select d.trail, d.leaf_index from bodies d join leaves l on l.trail = d.trail and l.leaf_index = d.leaf_index
    where d.workspace_id = %s and d.trail = %s and l.position <= %s and d.name not in {_KEPT}
    and not exists (select from writes w where w.trail = d.trail and w.leaf_index = d.leaf_index) limit %s) as old
where b.trail = old.trail and b.leaf_index = old.leaf_index
"""
# Of each record its newest write stays, by which the store is compared with the log; and nothing of one that was deleted.
_PRUNE = """
delete from writes w where w.trail = %s and w.workspace_id = %s and (
    exists (select from writes n where n.trail = w.trail and n.workspace_id = w.workspace_id and n.target = w.target
            and n.leaf_index > w.leaf_index and (n.record_class = w.record_class or n.record_class = ''))
    or (w.version = 0 and not exists (select from writes o where o.trail = w.trail and o.workspace_id = w.workspace_id
            and o.target = w.target and o.leaf_index < w.leaf_index)))
"""
