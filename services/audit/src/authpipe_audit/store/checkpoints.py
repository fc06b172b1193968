"""Signed checkpoints, and the cosignatures of witnesses: all of them are kept."""

from __future__ import annotations

from typing import cast

from authpipe_audit.domain.trails import Trail
from authpipe_database import Database


class CheckpointTable:
    """Checkpoints in PostgreSQL.

    Args:
        database: audit's own database.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    async def put_checkpoint(self, trail: Trail, size: int, note: str) -> None:
        """Keeps a signed checkpoint. Of a size that has one, the first stays: they are of the same tree."""
        async with self._database.hot() as connection:
            await connection.execute(
                "insert into checkpoints (trail, size, note) values (%s, %s, %s) on conflict do nothing",
                (int(trail), size, note),
            )

    async def put_cosignature(self, trail: Trail, size: int, witness: str, line: str) -> None:
        """Keeps a witness's cosignature of a checkpoint that we have; the first of each witness stays."""
        async with self._database.hot() as connection:
            await connection.execute(
                "insert into cosignatures (trail, size, witness, line) values (%s, %s, %s, %s) on conflict do nothing",
                (int(trail), size, witness, line),
            )

    async def newest(self, trail: Trail, cosignatures: int = 0) -> tuple[int, str]:
        """Gives the size and note of the newest checkpoint with so many cosignatures; 0 and nothing: there is none.

        The note has all cosignatures that are there.
        """
        return await self._one(_NEWEST, {"trail": int(trail), "cosignatures": cosignatures})

    async def note(self, trail: Trail, size: int) -> str:
        """Gives the checkpoint of a size, with all its cosignatures; empty: there is none."""
        return (await self._one(_OF_SIZE, {"trail": int(trail), "size": size}))[1]

    async def _one(self, query: str, values: dict[str, int]) -> tuple[int, str]:
        async with self._database.hot() as connection:
            row = await (await connection.execute(query.encode(), values)).fetchone()
        return (cast("int", row[0]), cast("str", row[1])) if row else (0, "")


_LINES = """
coalesce((select string_agg(line, '' order by witness) from cosignatures s where s.trail = c.trail and s.size = c.size), '')
"""
_NEWEST = f"""
select size, note || {_LINES} from checkpoints c where trail = %(trail)s
and (select count(*) from cosignatures s where s.trail = c.trail and s.size = c.size) >= %(cosignatures)s
order by size desc limit 1
"""
_OF_SIZE = f"select size, note || {_LINES} from checkpoints c where trail = %(trail)s and size = %(size)s"
