"""SQL for the keys of end users' pseudonyms, and for forgetting an end user."""

from __future__ import annotations

import sqlalchemy as sa

from authpipe_database import Database, Outbox
from authpipe_sensitive import AuditEntry

# Whatever table names an end user.
_NAMING = ("connections", "flows", "connect_sessions")


class SubjectTable:
    """Keys of pseudonyms in PostgreSQL.

    Args:
        database: coordinator's own database.
        outbox: Where events go, in the same transaction.
    """

    def __init__(self, database: Database, outbox: Outbox) -> None:
        self._database = database
        self._outbox = outbox

    async def key_of(self, workspace: str, end_user_id: str, fresh: bytes) -> bytes:
        """Gives the key of an end user; the fresh one, if there was none. Of two at once both get the same."""
        names = {"workspace": workspace, "end_user": end_user_id, "fresh": fresh}
        async with self._database.transaction() as connection:
            await connection.execute(
                sa.text(
                    "insert into subjects (workspace_id, end_user_id, subject_key) values (:workspace, :end_user, :fresh)"
                    " on conflict do nothing"
                ),
                names,
            )
            found = await connection.scalar(
                sa.text("select subject_key from subjects where workspace_id = :workspace and end_user_id = :end_user"),
                names,
            )
        return bytes(found or fresh)

    async def connections_of(self, workspace: str, end_user_id: str) -> list[str]:
        """Gives the connections of an end user that are not erased yet."""
        async with self._database.transaction() as connection:
            found = await connection.scalars(
                sa.text(
                    "select id from connections where workspace_id = :workspace and end_user_id = :end_user"
                    " and state not in ('disconnected', 'draft') order by id"
                ),
                {"workspace": workspace, "end_user": end_user_id},
            )
            return [str(each) for each in found]

    async def forget(self, workspace: str, end_user_id: str, entry: AuditEntry) -> None:
        """Destroys an end user's key and takes the id out of every row, with the event of it."""
        names = {"workspace": workspace, "end_user": end_user_id}
        async with self._database.transaction() as connection:
            for table in _NAMING:
                await connection.execute(
                    sa.text(
                        f"update {table} set end_user_id = ''"  # a fixed name
                        " where workspace_id = :workspace and end_user_id = :end_user"
                    ),
                    names,
                )
            await connection.execute(
                sa.text("delete from subjects where workspace_id = :workspace and end_user_id = :end_user"), names
            )
            await self._outbox.append(connection, entry)
