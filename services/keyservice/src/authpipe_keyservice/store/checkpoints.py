"""The newest checkpoint signed for each log."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

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
        async with self._database.hot() as connection, connection.transaction():
            await connection.execute(_ROW, (wanted.origin,))
            found = await connection.execute(_SIGNED, (wanted.origin,), binary=True)
            size, root = cast("tuple[int, bytes]", await found.fetchone())
            judge(Checkpoint(wanted.origin, size, root) if root else None)
            await connection.execute(_REPLACE, (wanted.size, wanted.root, wanted.origin))


# A row to lock, also for the first.
_ROW = "insert into signed_checkpoints (origin, tree_size, root_hash) values (%s, 0, '') on conflict do nothing"
_SIGNED = "select tree_size, root_hash from signed_checkpoints where origin = %s for update"
_REPLACE = "update signed_checkpoints set tree_size = %s, root_hash = %b where origin = %s"
