"""Reading the log for detectors, and what they remember: with a role of its own, that can change nothing of the log."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import cast

import psycopg

from authpipe_audit.domain.detecting.traps import is_decoy
from authpipe_audit.domain.detecting.watching import Part
from authpipe_audit.domain.detecting.words import Profile, Seen, Subject
from authpipe_audit.domain.trails import Trail
from authpipe_database import Database, columns
from authpipe_transparency import Record, parse_time

_LOCK = 0x7761_7463
_AT_ONCE = 1000
# Of whom nothing happened for so long is forgotten; but not which connections are decoys.
_FORGOTTEN = timedelta(days=30)
_Connection = psycopg.AsyncConnection[tuple[object, ...]]


class WatchedLog:
    """The log in PostgreSQL, as those see it who watch.

    Args:
        database: audit's own database, as the role that watches.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    @asynccontextmanager
    async def alone(self) -> AsyncIterator[Alone | None]:
        """Begins to watch; None: another replica does. Whoever loses the connection does not watch any more."""
        async with self._database.hot() as connection:
            cursor = await connection.execute("select pg_try_advisory_lock(%s, 0)", (_LOCK,))
            row = await cursor.fetchone()
            if not row or not row[0]:
                yield None
                return
            try:
                yield Alone(connection)
            finally:
                # With the connection the lock is gone too.
                with suppress(psycopg.OperationalError, psycopg.InterfaceError):
                    await connection.execute("select pg_advisory_unlock(%s, 0)", (_LOCK,))


class Alone:
    """What the only one sees who watches.

    Args:
        connection: On which the lock is held: everything is read and written on this one.
    """

    def __init__(self, connection: _Connection) -> None:
        self._connection = connection

    async def begins(self) -> dict[Trail, int]:
        """Gives the leaf of each trail up to which everything was looked at."""
        cursor = await self._connection.execute("select trail, next_leaf from watched")
        return {Trail(cast("int", trail)): cast("int", leaf) for trail, leaf in await cursor.fetchall()}

    async def read(self, trail: Trail, first_leaf: int, names: Collection[str], leaves: int) -> Part:
        """Gives the events of these names among so many leaves."""
        # First how far there are any: an index that is committed is before all that are not.
        cursor = await self._connection.execute(_NEWEST, (int(trail), first_leaf), binary=True)
        row = await cursor.fetchone()
        newest = cast("int", row[0]) if row else first_leaf - 1
        next_leaf = min(newest + 1, first_leaf + leaves)
        if next_leaf == first_leaf:
            return Part([], first_leaf, is_last=True)
        cursor = await self._connection.execute(_READ, (int(trail), first_leaf, next_leaf, list(names)), binary=True)
        events = [
            seen_of(trail, cast("int", index), Record(cast("bytes", record)))
            for index, record in await cursor.fetchall()
        ]
        return Part(events, next_leaf, is_last=next_leaf > newest)

    async def profiles(self, subjects: Sequence[Subject]) -> dict[Subject, Profile]:
        """Gives what is written down; of whom nothing is, does not stand in it."""
        cursor = await self._connection.execute(_PROFILES, columns(subjects, 2))
        return {
            Subject(cast("str", row[0]), cast("str", row[1])): json.loads(cast("str", row[2]))
            for row in await cursor.fetchall()
        }

    async def remember(self, profiles: Mapping[Subject, Profile], next_leaves: Mapping[Trail, int], now: int) -> None:
        """Writes down profiles and how far each trail was looked at, all or nothing; forgets of whom long nothing happened."""
        subjects = list(profiles)
        at = datetime.fromtimestamp(now, UTC)
        async with self._connection.transaction():
            # A part at a time: to write down thousands takes long enough to hold up everything else.
            for first in range(0, len(subjects), _AT_ONCE):
                rows = [
                    (*subject, is_decoy(profiles[subject]), json.dumps(profiles[subject]))
                    for subject in subjects[first : first + _AT_ONCE]
                ]
                await self._connection.execute(_REMEMBER, (at, *columns(rows, 4)))
            places = [(int(trail), leaf) for trail, leaf in next_leaves.items()]
            await self._connection.execute(_WATCHED, columns(places, 2))
            await self._connection.execute(
                "delete from profiles where seen_at < %s and not is_decoy", (at - _FORGOTTEN,)
            )


def seen_of(trail: Trail, index: int, record: Record) -> Seen:
    """Gives an event as detectors see it."""
    time = parse_time(record["time"])
    return Seen(
        trail,
        index,
        record.emitter,
        int(time.timestamp()),
        record["name"],
        record.get("workspace", ""),
        record["actor"],
        record.get("target", ""),
        record.get("purpose", ""),
        record.get("reason", ""),
        record.get("source", ""),
        record.get("provider", ""),
        time.microsecond,
        len(record.get("records", "-").split()),
    )


_NEWEST = "select leaf_index from bodies where trail = %s and leaf_index >= %s order by leaf_index desc limit 1"
_READ = """
select leaf_index, record from bodies where trail = %s and leaf_index >= %s and leaf_index < %s and name = any(%s)
order by leaf_index
"""
_WATCHED = """
update watched w set next_leaf = n.next_leaf from unnest(%b::smallint[], %b::bigint[]) as n(trail, next_leaf)
where w.trail = n.trail
"""
_PROFILES = """
select p.workspace_id, p.subject, p.states from unnest(%b::text[], %b::text[]) as n(workspace_id, subject)
join profiles p using (workspace_id, subject)
"""
_REMEMBER = """
insert into profiles (seen_at, workspace_id, subject, is_decoy, states)
select %s, * from unnest(%b::text[], %b::text[], %b::bool[], %b::text[])
on conflict (workspace_id, subject) do update
set states = excluded.states, is_decoy = excluded.is_decoy, seen_at = excluded.seen_at
"""
