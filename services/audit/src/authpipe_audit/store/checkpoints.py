"""Signed checkpoints: all of them are kept."""

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

    async def newest(self, trail: Trail) -> tuple[int, str]:
        """Gives the size and note of the newest checkpoint; 0 and nothing before the first."""
        async with self._database.hot() as connection:
            cursor = await connection.execute(
                "select size, note from checkpoints where trail = %s order by size desc limit 1", (int(trail),)
            )
            row = await cursor.fetchone()
        return (cast("int", row[0]), cast("str", row[1])) if row else (0, "")
