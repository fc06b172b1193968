"""The newest checkpoint signed for each log."""

from __future__ import annotations

import sqlalchemy as sa

from authpipe_database import Database


class CheckpointTable:
    """Signed checkpoints in PostgreSQL.

    Args:
        database: keyservice's own database.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    async def last_checkpoint(self, origin: str) -> tuple[int, bytes]:
        """Gives size and root of the newest signed tree; 0 and nothing before the first."""
        async with self._database.transaction() as connection:
            row = (
                await connection.execute(
                    sa.text("select tree_size, root_hash from signed_checkpoints where origin = :origin").bindparams(
                        origin=origin
                    )
                )
            ).one_or_none()
        return (int(row.tree_size), bytes(row.root_hash)) if row else (0, b"")

    async def put_checkpoint(self, origin: str, size: int, root: bytes) -> None:
        """Remembers a tree before it is signed, so that a crash cannot make us sign a smaller one."""
        async with self._database.transaction() as connection:
            await connection.execute(
                sa.text(
                    "insert into signed_checkpoints (origin, tree_size, root_hash) values (:origin, :size, :root)"
                    " on conflict (origin) do update set tree_size = :size, root_hash = :root"
                    " where signed_checkpoints.tree_size <= :size"
                ).bindparams(origin=origin, size=size, root=root)
            )
