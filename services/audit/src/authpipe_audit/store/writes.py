"""What the log says is stored: of each record its newest write that no deletion followed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, cast

from authpipe_audit.domain.trails import Trail
from authpipe_database import Database, columns


class Name(NamedTuple):
    """A record: the tenant, the connection or provider configuration, the class as the log writes it."""

    workspace: str
    target: str
    record_class: str


class LoggedWrite(NamedTuple):
    """A write: its leaf, and the body that opens it."""

    name: Name
    leaf: int
    entry: bytes
    record: bytes
    salt: bytes


class WriteTable:
    """Writes in PostgreSQL.

    Args:
        database: audit's own database.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    async def writes(self, trail: Trail, names: Sequence[Name], after: Name | None, limit: int) -> list[LoggedWrite]:
        """Gives the writes of records that are named; of none: of so many behind one, in an order of its own.

        A page may be empty of writes and not the last: it is the last when it ends nowhere.
        """
        async with self._database.hot() as connection:
            if names:
                cursor = await connection.execute(_OF, (*columns(names, 3), int(trail)), binary=True)
            else:
                values = {"trail": int(trail), "limit": limit}
                values |= dict(zip(("w", "t", "c"), after or ("", "", ""), strict=True))  # type: ignore[arg-type]
                cursor = await connection.execute(_AFTER, values, binary=True)
            rows = await cursor.fetchall()
        return [
            LoggedWrite(
                Name(cast("str", row[0]), cast("str", row[1]), cast("str", row[2])),
                cast("int", row[3]),
                cast("bytes", row[4]),
                cast("bytes", row[5] or b""),
                cast("bytes", row[6] or b""),
            )
            for row in rows
        ]


_LIVES = """
n.version > 0 and n.record_class <> '' and not exists (
    -- Along the primary key, and not along all that was written since.
    select from writes d where d.trail = n.trail and d.workspace_id = n.workspace_id and d.target = n.target
    and d.record_class = '' and d.leaf_index + 0 > n.leaf_index)
"""
_SHOWN = "n.workspace_id, n.target, n.record_class, n.leaf_index, l.entry, b.record, b.salt"
_JOINED = """
join leaves l on l.trail = n.trail and l.leaf_index = n.leaf_index
left join bodies b on b.trail = n.trail and b.leaf_index = n.leaf_index
"""
_OF = f"""
select {_SHOWN} from unnest(%b::text[], %b::text[], %b::text[]) as w(workspace_id, target, record_class)
cross join lateral (
    select * from writes x where x.trail = %s and x.workspace_id = w.workspace_id and x.target = w.target
    and x.record_class = w.record_class order by x.leaf_index desc limit 1) as n
{_JOINED} where {_LIVES}
"""
# From one record to the next along the primary key: however often a record was written, it is looked at once.
_AFTER = f"""
with recursive each as (
    (select workspace_id, target, record_class, 1 as number from writes where trail = %(trail)s
     and (workspace_id, target, record_class) > (%(w)s, %(t)s, %(c)s)
     order by workspace_id, target, record_class limit 1)
    union all
    select following.workspace_id, following.target, following.record_class, each.number + 1 from each
    cross join lateral (
        select workspace_id, target, record_class from writes x where x.trail = %(trail)s
        and (x.workspace_id, x.target, x.record_class) > (each.workspace_id, each.target, each.record_class)
        order by x.workspace_id, x.target, x.record_class limit 1) as following
    where each.number < %(limit)s)
select {_SHOWN} from each cross join lateral (
    select * from writes x where x.trail = %(trail)s and x.workspace_id = each.workspace_id and x.target = each.target
    and x.record_class = each.record_class order by x.leaf_index desc limit 1) as n
{_JOINED} order by each.number
"""
