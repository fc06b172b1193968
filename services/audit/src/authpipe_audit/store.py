"""SQL for the log: insert and select, nothing else. The role has no right to update or delete."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa

from authpipe_audit.domain.tree import Frontier, commitment, leaf_hash
from authpipe_database import Database

_LOCK = 0x7472_6565


@dataclass(frozen=True, slots=True)
class NewEvent:
    """An event about to be appended: its columns, and its bytes as they are committed to."""

    event_id: str
    workspace: str
    name: int
    target: str
    time: datetime
    body: bytes


class Store:
    """The log in PostgreSQL.

    Args:
        database: audit's own database.
        randomness: Gives random bytes, for salts.
    """

    def __init__(self, database: Database, randomness: Callable[[int], bytes]) -> None:
        self._database = database
        self._randomness = randomness

    async def append(self, events: Sequence[NewEvent]) -> int:
        """Appends events that are not there yet, in one transaction; gives the size of the tree."""
        async with self._database.hot() as connection, connection.transaction():
            # One appender at a time: the order of leaves is the order of commits.
            await connection.execute("select pg_advisory_xact_lock(%s)", (_LOCK,))
            known_rows = await (
                await connection.execute(
                    "select event_id from events where event_id = any(%b)", ([event.event_id for event in events],)
                )
            ).fetchall()
            known = {row[0] for row in known_rows}
            frontier = await self._frontier(connection)
            fresh = [event for event in events if event.event_id not in known]
            if not fresh:
                return frontier.size
            first = frontier.size
            salts = [self._randomness(32) for _ in fresh]
            hashes = []
            for event, salt in zip(fresh, salts, strict=True):
                hashed = leaf_hash(commitment(salt, event.body))
                frontier.append(hashed)
                hashes.append(hashed)
            await connection.execute(
                "insert into events (leaf_index, event_id, workspace_id, name, target, time, body, salt, leaf_hash)"
                " select * from unnest(%b::bigint[], %b::text[], %b::text[], %b::int[], %b::text[],"
                " %b::timestamptz[], %b::bytea[], %b::bytea[], %b::bytea[])",
                (
                    list(range(first, first + len(fresh))),
                    [event.event_id for event in fresh],
                    [event.workspace for event in fresh],
                    [event.name for event in fresh],
                    [event.target for event in fresh],
                    [event.time for event in fresh],
                    [event.body for event in fresh],
                    salts,
                    hashes,
                ),
            )
            await connection.execute(
                "insert into tree_heads (size, frontier) values (%s, %s)", (frontier.size, frontier.roots)
            )
            return frontier.size

    async def frontier(self) -> Frontier:
        """Gives the tree as it stands."""
        async with self._database.hot() as connection:
            return await self._frontier(connection)

    async def _frontier(self, connection: object) -> Frontier:
        cursor = await connection.execute("select size, frontier from tree_heads order by size desc limit 1")  # type: ignore[attr-defined]
        row = await cursor.fetchone()
        return Frontier(row[0], [bytes(root) for root in row[1]]) if row else Frontier()

    async def put_checkpoint(self, size: int, note: str) -> None:
        """Keeps a signed checkpoint."""
        async with self._database.hot() as connection:
            await connection.execute(
                "insert into checkpoints (size, note) values (%s, %s) on conflict do nothing", (size, note)
            )

    async def checkpoint(self) -> tuple[int, str] | None:
        """Gives the newest signed checkpoint and its size."""
        async with self._database.hot() as connection:
            row = await (
                await connection.execute("select size, note from checkpoints order by size desc limit 1")
            ).fetchone()
        return (int(row[0]), str(row[1])) if row else None  # type: ignore[call-overload]

    async def list_events(  # one per filter
        self,
        workspace: str,
        *,
        name: int,
        target: str,
        since: datetime | None,
        until: datetime | None,
        before: int | None,
        limit: int,
    ) -> list[tuple[int, bytes]]:
        """Gives leaf index and body of a workspace's events, newest first."""
        conditions = ["workspace_id = :workspace"]
        values: dict[str, object] = {"workspace": workspace, "limit": limit}
        for condition, key, value in (
            ("name = :name", "name", name or None),
            ("target = :target", "target", target or None),
            ("time >= :since", "since", since),
            ("time < :until", "until", until),
            ("leaf_index < :before", "before", before),
        ):
            if value is not None:
                conditions.append(condition)
                values[key] = value
        query = (
            "select leaf_index, body from events where "
            + " and ".join(conditions)
            + " order by leaf_index desc"  # fixed conditions
            " limit :limit"
        )
        async with self._database.transaction() as connection:
            rows = (await connection.execute(sa.text(query), values)).all()
        return [(int(row.leaf_index), bytes(row.body)) for row in rows]
