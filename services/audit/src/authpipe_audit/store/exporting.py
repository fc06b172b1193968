"""Reading what an export shows: the leaves of a workspace's chain, with the bodies that are still there."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import cast

from authpipe_audit.domain.attesting import StoredBatch
from authpipe_audit.domain.exporting import StoredLeaf
from authpipe_audit.domain.trails import Trail
from authpipe_database import Database


class ExportTable:
    """Leaves, bodies and checkpoints in PostgreSQL.

    Args:
        database: audit's own database.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    async def positions(
        self, trail: Trail, workspace: str, since: datetime | None, until: datetime | None, size: int
    ) -> tuple[int, int]:
        """Gives the first and last position of a workspace's events of a time; 0 and 0: there are none.

        What is older than every body that is still there is of a time before; without a beginning it is shown too.
        """
        async with self._database.hot() as connection:
            cursor = await connection.execute(
                "select coalesce(min(l.position), 0), coalesce(max(l.position), 0) from leaves l"
                " left join bodies b on b.trail = l.trail and b.leaf_index = l.leaf_index"
                " where l.workspace_id = %(workspace)s and l.trail = %(trail)s and l.leaf_index < %(size)s"
                " and (%(since)s::timestamptz is null or b.time >= %(since)s)"
                " and (%(until)s::timestamptz is null or b.time < %(until)s)",
                {"workspace": workspace, "trail": int(trail), "size": size, "since": since, "until": until},
            )
            (row,) = await cursor.fetchall()  # an aggregate has one
        return cast("int", row[0]), cast("int", row[1])

    async def leaf_of(self, trail: Trail, workspace: str, position: int) -> int:
        """Gives the index of the leaf at a position of a chain; -1: there is none."""
        return await self._number(
            "select leaf_index from leaves where workspace_id = %s and trail = %s and position = %s",
            (workspace, int(trail), position),
        )

    async def statement_before(self, trail: Trail, leaf: int) -> int:
        """Gives the leaf of the last statement of all chains before a leaf; -1: there is none."""
        return await self._number(
            "select leaf_index from bodies where trail = %s and name = 'CHAINS_STATED' and leaf_index < %s"
            " order by leaf_index desc limit 1",
            (int(trail), leaf),
        )

    async def statement_after(self, trail: Trail, leaf: int, size: int) -> int:
        """Gives the leaf of the first statement of all chains after a leaf, in a tree of a size; -1: there is none."""
        return await self._number(
            "select leaf_index from bodies where trail = %s and name = 'CHAINS_STATED' and leaf_index > %s"
            " and leaf_index < %s order by leaf_index limit 1",
            (int(trail), leaf, size),
        )

    async def last_retention(self, trail: Trail, workspace: str, size: int) -> int:
        """Gives the position of the last event that tells that bodies of a workspace are gone; -1: there is none."""
        return await self._number(
            "select l.position from bodies b join leaves l on l.trail = b.trail and l.leaf_index = b.leaf_index"
            " where b.workspace_id = %s and b.trail = %s and b.name = 'BODIES_EXPIRED' and b.leaf_index < %s"
            " order by l.position desc limit 1",
            (workspace, int(trail), size),
        )

    async def chain_leaves(
        self, trail: Trail, workspace: str, positions: tuple[int, int], leaves: tuple[int, int], limit: int
    ) -> list[StoredLeaf]:
        """Gives the leaves of a chain.

        Args:
            trail: Which.
            workspace: Whose.
            positions: From the first to the second.
            leaves: From the first index, and before the second.
            limit: At most so many.
        """
        return await self._leaves(
            "l.workspace_id = %s and l.trail = %s and l.position >= %s and l.position <= %s"
            " and l.leaf_index >= %s and l.leaf_index < %s order by l.position limit %s",
            (workspace, int(trail), *positions, *leaves, limit),
        )

    async def leaf(self, trail: Trail, index: int) -> StoredLeaf:
        """Gives one leaf, which is there."""
        (found,) = await self._leaves("l.trail = %s and l.leaf_index = %s", (int(trail), index))
        return found

    async def checkpoints(self, trail: Trail, size: int, amount: int) -> dict[int, str]:
        """Gives about so many checkpoints before a size, evenly spread, by their size."""
        async with self._database.hot() as connection:
            cursor = await connection.execute(
                "select distinct on (size * %(amount)s / %(size)s) size, note from checkpoints"
                " where trail = %(trail)s and size < %(size)s order by size * %(amount)s / %(size)s, size",
                {"trail": int(trail), "size": size, "amount": amount},
            )
            return {cast("int", row[0]): cast("str", row[1]) for row in await cursor.fetchall()}

    async def batches(self, trail: Trail, leaves: Sequence[int]) -> list[StoredBatch]:
        """Gives the batches that leaves are of, each once, in their order."""
        async with self._database.hot() as connection:
            values = {"trail": int(trail), "leaves": list(leaves)}
            rows = await (await connection.execute(_BATCHES, values, binary=True)).fetchall()
        return [
            StoredBatch(*cast("tuple[int, str, int, bytes, bytes]", row[:5]), tuple(cast("list[bytes]", row[5])))
            for row in rows
        ]

    async def _number(self, query: str, values: tuple[object, ...]) -> int:
        async with self._database.hot() as connection:
            row = await (await connection.execute(query.encode(), values)).fetchone()
        return cast("int", row[0]) if row else -1

    async def _leaves(self, where: str, values: tuple[object, ...]) -> list[StoredLeaf]:
        query = (
            "select l.leaf_index, l.position, l.entry, b.record, b.salt from leaves l"  # conditions are fixed texts
            f" left join bodies b on b.trail = l.trail and b.leaf_index = l.leaf_index where {where}"
        )
        async with self._database.hot() as connection:
            rows = await (await connection.execute(query.encode(), values, binary=True)).fetchall()
        return [
            StoredLeaf(
                cast("int", row[0]),
                cast("int", row[1]),
                cast("bytes", row[2]),
                cast("bytes", row[3] or b""),
                cast("bytes", row[4] or b""),
            )
            for row in rows
        ]


_BATCHES = """
with wanted as (
    select distinct (select first_leaf from batches where trail = %(trail)s and first_leaf <= leaf
                     order by first_leaf desc limit 1) as first_leaf
    from unnest(%(leaves)b::bigint[]) as leaf)
select b.first_leaf, b.emitter, b.first_sequence, b.hashes, b.signature, c.chain from wanted
cross join lateral (select * from batches where trail = %(trail)s and first_leaf = wanted.first_leaf offset 0) as b
join certificates c on c.digest = b.certificate order by b.first_leaf
"""
