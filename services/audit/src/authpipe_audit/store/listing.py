"""Reading events: a page of a workspace's, by what they are found by."""

from __future__ import annotations

from typing import NamedTuple

import sqlalchemy as sa

from authpipe_audit.domain.pages import Place, Wanted
from authpipe_audit.store.finding import number_of, value_of
from authpipe_database import Database


class Stored(NamedTuple):
    """An event as it is stored."""

    place: Place
    record: bytes


class Listing:
    """Bodies in PostgreSQL.

    Args:
        database: audit's own database.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    async def list_events(self, wanted: Wanted, limit: int) -> list[Stored]:
        """Gives events, newest first."""
        conditions = ["workspace_id = :workspace"]
        values: dict[str, object] = {"workspace": wanted.workspace, "limit": limit}
        as_of = []
        for trail, size in wanted.sizes.items():
            if wanted.trail in (None, trail):
                as_of.append(f"(trail = {int(trail)} and leaf_index < :size_{int(trail)})")
                values[f"size_{int(trail)}"] = size
        conditions.append(f"({' or '.join(as_of)})")
        for condition, key, value in (
            ("name = :name", "name", wanted.name or None),
            ("outcome = :outcome", "outcome", wanted.outcome or None),
            ("actor = :actor", "actor", wanted.actor or None),
            ("target = :target", "target", wanted.target or None),
            ("position(:some_id in record) > 0", "some_id", value_of(wanted.some_id) if wanted.some_id else None),
            ("time >= :since", "since", wanted.since),
            ("time < :until", "until", wanted.until),
        ):
            if value is not None:
                conditions.append(condition)
                values[key] = value
        # Two ids can have one number; and of what is found by its ids it may be another one that is looked for.
        for number, some_id in enumerate(filter(None, (wanted.target, wanted.some_id))):
            conditions.append(f"found_by @> array[cast(:number_{number} as bigint)]")
            values[f"number_{number}"] = number_of(wanted.workspace, some_id)
        if wanted.after is not None:
            conditions.append("(time, trail, leaf_index) < (:time, :trail, :leaf_index)")
            values |= wanted.after._asdict()
        query = (
            "select time, trail, leaf_index, record from bodies where "  # conditions are fixed texts
            + " and ".join(conditions)
            + " order by time desc, trail desc, leaf_index desc limit :limit"
        )
        async with self._database.transaction() as connection:
            rows = (await connection.execute(sa.text(query), values)).all()
        return [Stored(Place(row.time, row.trail, row.leaf_index), bytes(row.record)) for row in rows]
