"""Reading the trees: hashes of subtrees for proofs, tiles and entry bundles for whoever verifies from outside."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from authpipe_audit.domain.proving import Run, roots_of, runs_of
from authpipe_audit.domain.trails import Trail
from authpipe_audit.errors import LogDamagedError
from authpipe_database import Database, columns
from authpipe_transparency import ENTRIES, Range, Tile, bundle, leaf_hash


class TreeTable:
    """Leaves and tile hashes in PostgreSQL.

    Args:
        database: audit's own database.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    async def roots(self, trail: Trail, parts: Sequence[Range]) -> list[bytes]:
        """Gives the root hashes of subtrees.

        Raises:
            LogDamagedError: Hashes that must be there are not.
        """
        return roots_of(parts, await self._read(trail, runs_of(parts)))

    async def tile(self, trail: Trail, tile: Tile) -> bytes:
        """Gives a tile or an entry bundle as it is published.

        Raises:
            LogDamagedError: Hashes that must be there are not.
        """
        if tile.level == ENTRIES:
            return bundle(await self._entries(trail, tile.place * 256, tile.width))
        (hashes,) = await self._read(trail, [Run(tile.level, tile.place * 256, tile.width)])
        return b"".join(hashes)

    async def _entries(self, trail: Trail, first: int, count: int) -> list[bytes]:
        async with self._database.hot() as connection:
            cursor = await connection.execute(
                "select entry from leaves where trail = %s and leaf_index >= %s and leaf_index < %s order by leaf_index",
                (int(trail), first, first + count),
                binary=True,
            )
            entries = [cast("bytes", row[0]) for row in await cursor.fetchall()]
        if len(entries) != count:
            raise LogDamagedError
        return entries

    async def _read(self, trail: Trail, runs: Sequence[Run]) -> list[list[bytes]]:
        """Gives the hashes of each run."""
        found: list[list[bytes]] = [[] for _ in runs]
        async with self._database.hot() as connection:
            for above, query in ((False, _LEAVES), (True, _TILE_HASHES)):
                wanted = [(number, *run) for number, run in enumerate(runs) if (run.level > 0) == above]
                if not wanted:
                    continue
                cursor = await connection.execute(query, (*columns(wanted, 4), int(trail)), binary=True)
                for number, data in await cursor.fetchall():
                    hashed = cast("bytes", data)
                    found[cast("int", number)].append(hashed if above else leaf_hash(hashed))
        if [len(hashes) for hashes in found] != [run.width for run in runs]:
            raise LogDamagedError
        return found


# Each range for itself, along the primary key: joined, PostgreSQL may read the whole tree and compare.
_LEAVES = """
select w.number, l.entry from unnest(%b::int[], %b::int[], %b::bigint[], %b::bigint[]) as w(number, level, first, count)
cross join lateral (
    select leaf_index, entry from leaves where trail = %s and leaf_index >= w.first and leaf_index < w.first + w.count
    order by leaf_index offset 0) as l
order by w.number, l.leaf_index
"""
_TILE_HASHES = """
select w.number, h.hash from unnest(%b::int[], %b::int[], %b::bigint[], %b::bigint[]) as w(number, level, first, count)
cross join lateral (
    select hash_index, hash from tile_hashes
    where trail = %s and level = w.level and hash_index >= w.first and hash_index < w.first + w.count
    order by hash_index offset 0) as h
order by w.number, h.hash_index
"""
