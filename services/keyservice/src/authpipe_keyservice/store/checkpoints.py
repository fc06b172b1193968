"""The newest checkpoint signed for each log."""

from __future__ import annotations

from collections.abc import Callable

import sqlalchemy as sa

from authpipe_database import Database
from authpipe_transparency import Checkpoint


class CheckpointTable:
    """Signed checkpoints in PostgreSQL.

    Args:
        database: keyservice's own database.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    async def replace_checkpoint(self, wanted: Checkpoint, judge: Callable[[Checkpoint | None], None]) -> None:
        """Remembers a checkpoint as the newest of its log, before it is signed: a crash cannot make us sign another.

        Reading, judging and replacing are one step, also for two that come at once.

        Args:
            wanted: The one that is about to be signed.
            judge: Is given the one signed last, and raises when this one may not follow it.
        """
        async with self._database.transaction() as connection:
            # A row to lock, also for the first.
            await connection.execute(
                sa.text(
                    "insert into signed_checkpoints (origin, tree_size, root_hash) values (:origin, 0, '')"
                    " on conflict do nothing"
                ).bindparams(origin=wanted.origin)
            )
            row = (
                await connection.execute(
                    sa.text(
                        "select tree_size, root_hash from signed_checkpoints where origin = :origin for update"
                    ).bindparams(origin=wanted.origin)
                )
            ).one()
            judge(Checkpoint(wanted.origin, row.tree_size, bytes(row.root_hash)) if row.root_hash else None)
            await connection.execute(
                sa.text(
                    "update signed_checkpoints set tree_size = :size, root_hash = :root where origin = :origin"
                ).bindparams(origin=wanted.origin, size=wanted.size, root=wanted.root)
            )
