"""Reading the log for detectors, and what they remember: with a role of its own, that can change nothing of the log."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import cast

import psycopg

from authpipe_audit.domain.detecting.traps import Honeytoken
from authpipe_audit.domain.detecting.watching import Profile
from authpipe_audit.domain.detecting.words import Seen, State, Subject
from authpipe_audit.domain.trails import Trail
from authpipe_database import Database, columns
from authpipe_transparency import Record, parse_time

_LOCK = 0x7761_7463
# Of whom nothing happened for so long is forgotten; but not which connections are decoys.
_FORGOTTEN = timedelta(days=30)
_KEPT = Honeytoken.word
_Connection = psycopg.AsyncConnection[tuple[object, ...]]


class Turn:
    """One turn, in one transaction.

    Args:
        connection: Where.
    """

    def __init__(self, connection: _Connection) -> None:
        self._connection = connection

    async def read(self, trail: Trail, limit: int) -> list[Seen]:
        """Gives the next events of a trail that nobody has looked at."""
        cursor = await self._connection.execute(_READ, (int(trail), limit), binary=True)
        return [
            seen_of(trail, cast("int", index), Record(cast("bytes", record)))
            for index, record in await cursor.fetchall()
        ]

    async def states(self, profiles: Sequence[Profile]) -> dict[Profile, State]:
        """Gives what is remembered; of whom nothing is, does not stand in it."""
        names = [(each.detector, each.subject.workspace, each.subject.name) for each in profiles]
        cursor = await self._connection.execute(_STATES, columns(names, 3))
        return {
            Profile(cast("str", row[0]), Subject(cast("str", row[1]), cast("str", row[2]))): json.loads(
                cast("str", row[3])
            )
            for row in await cursor.fetchall()
        }

    async def remember(self, states: Mapping[Profile, State], seen: Seen) -> None:
        """Remembers states, and that everything up to an event of its trail was looked at."""
        rows = [
            (profile.detector, profile.subject.workspace, profile.subject.name, json.dumps(state))
            for profile, state in states.items()
        ]
        at = datetime.fromtimestamp(seen.at, UTC)
        if rows:
            await self._connection.execute(_REMEMBER, (at, *columns(rows, 4)))
        await self._connection.execute(
            "update watched set next_leaf = %s where trail = %s", (seen.leaf_index + 1, int(seen.trail))
        )
        await self._connection.execute(
            "delete from profiles where seen_at < %s and detector <> %s", (at - _FORGOTTEN, _KEPT)
        )


class WatchedLog:
    """The log in PostgreSQL, as those see it who watch.

    Args:
        database: audit's own database, as the role that watches.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[Turn | None]:
        """Begins a turn; None: another replica is at it."""
        async with self._database.hot() as connection, connection.transaction():
            cursor = await connection.execute("select pg_try_advisory_xact_lock(%s, 0)", (_LOCK,))
            row = await cursor.fetchone()
            yield Turn(connection) if row and row[0] else None


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
    )


_READ = """
select b.leaf_index, b.record from bodies b where b.trail = %s
and b.leaf_index >= (select next_leaf from watched w where w.trail = b.trail) order by b.leaf_index limit %s
"""
_STATES = """
select p.detector, p.workspace_id, p.subject, p.state
from unnest(%b::text[], %b::text[], %b::text[]) as n(detector, workspace_id, subject)
join profiles p using (detector, workspace_id, subject)
"""
_REMEMBER = """
insert into profiles (seen_at, detector, workspace_id, subject, state)
select %s, * from unnest(%b::text[], %b::text[], %b::text[], %b::text[])
on conflict (detector, workspace_id, subject) do update set state = excluded.state, seen_at = excluded.seen_at
"""
