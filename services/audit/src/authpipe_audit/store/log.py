"""Appending: what comes at one moment for one trail is one transaction, in which its tree grows."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import cast

import psycopg

from authpipe_audit.domain.growing import Batch, Growth, TrailHead, require_same
from authpipe_audit.domain.trails import Trail
from authpipe_audit.store.finding import number_of
from authpipe_database import Database, columns
from authpipe_sensitive import DomainError
from authpipe_transparency import Frontier, Head, Record, leaf_hash

_LOCK = 0x7472_6565
_MOST_KNOWN = 200_000
_SELF = "audit"
_Connection = psycopg.AsyncConnection[tuple[object, ...]]


@dataclass(slots=True)
class Own:
    """A transaction in which audit appends events of its own.

    Args:
        connection: Where other rows are written that commit with them.
        sequence: The number of the first event.
        batch: What is appended; None: nothing.
    """

    connection: _Connection
    sequence: int
    batch: Batch | None = None


class Log:
    """The log in PostgreSQL.

    Args:
        database: audit's own database.
        name: The log's name, which the origins of its trails begin with.
        randomness: Gives random bytes, for salts.
    """

    def __init__(self, database: Database, name: str, randomness: Callable[[int], bytes]) -> None:
        self._database = database
        self._name = name
        self._randomness = randomness
        # Where each trail stood after our last transaction. It is believed as long as the tree in the database has that
        # size and that frontier: then nobody else has appended.
        self._known: dict[Trail, TrailHead] = {}

    async def append(self, trail: Trail, batches: Sequence[Batch]) -> list[int | DomainError]:
        """Appends batches to a trail, in one transaction.

        Gives for each the number of its emitter's last event that is in the log now, or why nothing of it is. A batch
        that begins with what is there already adds nothing: its signature is one over all of it.
        """
        async with self._database.hot() as connection, connection.transaction():
            # One appender at a time: the order of leaves is the order of commits.
            await connection.execute("select pg_advisory_xact_lock(%s, %s)", (_LOCK, int(trail)))
            head = await self._head(connection, trail, batches)
            growth = Growth.after(head)
            answers: list[int | DomainError] = []
            for batch in batches:
                try:
                    if batch.first_sequence <= growth.last_sequence(batch.emitter):
                        require_same(batch, await _logged(connection, trail, batch))
                    else:
                        growth.add(batch, trail.origin(self._name), self._randomness)
                    answers.append(growth.last_sequence(batch.emitter))
                except DomainError as error:
                    answers.append(error)
            if growth.leaves:
                await _write(connection, growth)
        self._known[trail] = growth.committed()
        return answers

    async def append_of(self, trail: Trail, make: Callable[[int, Mapping[str, Head], int], Batch]) -> int:
        """Appends one batch that is made of the trail as it stands, in one step; gives the size of the tree then.

        Args:
            trail: Which.
            make: Makes it of the size of the tree, the head of every workspace's chain, and the next number of audit.
        """
        async with self._database.hot() as connection, connection.transaction():
            await connection.execute("select pg_advisory_xact_lock(%s, %s)", (_LOCK, int(trail)))
            size = (await _frontier(connection, trail)).size
            sequence = (await _sequences(connection, trail, [_SELF])).get(_SELF, 0) + 1
            batch = make(size, await _heads(connection, trail, size), sequence)
            growth = Growth.after(await self._head(connection, trail, [batch]))
            growth.add(batch, trail.origin(self._name), self._randomness)
            await _write(connection, growth)
        self._known[trail] = growth.committed()
        return growth.frontier.size

    @asynccontextmanager
    async def own(self, trail: Trail) -> AsyncIterator[Own]:
        """Begins a transaction in which events of audit itself are appended to a trail, beside rows of another table."""
        async with self._database.hot() as connection, connection.transaction():
            await connection.execute("select pg_advisory_xact_lock(%s, %s)", (_LOCK, int(trail)))
            sequence = (await _sequences(connection, trail, [_SELF])).get(_SELF, 0) + 1
            own = Own(connection, sequence)
            yield own
            if own.batch is None:
                return
            growth = Growth.after(await self._head(connection, trail, [own.batch]))
            growth.add(own.batch, trail.origin(self._name), self._randomness)
            await _write(connection, growth)
        self._known[trail] = growth.committed()

    async def frontier(self, trail: Trail) -> Frontier:
        """Gives a trail's tree as it stands."""
        async with self._database.hot() as connection:
            return await _frontier(connection, trail)

    async def last_sequence(self, trail: Trail, emitter: str) -> int:
        """Gives the number of an emitter's last event in a trail; 0: there is none."""
        async with self._database.hot() as connection:
            return (await _sequences(connection, trail, [emitter])).get(emitter, 0)

    async def heads(self, trail: Trail, size: int) -> dict[str, Head]:
        """Gives the head of every workspace's chain in the tree of a size."""
        async with self._database.hot() as connection:
            return await _heads(connection, trail, size)

    async def _head(self, connection: _Connection, trail: Trail, batches: Sequence[Batch]) -> TrailHead:
        frontier = await _frontier(connection, trail)
        known = self._known.get(trail)
        if known is None or (known.frontier.size, known.frontier.roots) != (frontier.size, frontier.roots):
            known = TrailHead(trail, frontier, {}, {})
        if len(known.chains) > _MOST_KNOWN:
            known.chains.clear()
        workspaces = {event.workspace for batch in batches for event in batch.events} - known.chains.keys()
        if workspaces:
            known.chains |= await _chains(connection, trail, workspaces)
        emitters = {batch.emitter for batch in batches} - known.sequences.keys()
        if emitters:
            known.sequences |= await _sequences(connection, trail, emitters)
        return known


async def _frontier(connection: _Connection, trail: Trail) -> Frontier:
    cursor = await connection.execute(
        "select size, frontier from tree_heads where trail = %s order by size desc limit 1", (int(trail),), binary=True
    )
    row = await cursor.fetchone()
    return Frontier(cast("int", row[0]), cast("list[bytes]", row[1])) if row else Frontier()


async def _chains(connection: _Connection, trail: Trail, workspaces: Iterable[str]) -> dict[str, Head]:
    cursor = await connection.execute(
        "select w, l.position, l.chain from unnest(%b::text[]) as w cross join lateral ("
        " select position, chain from leaves where workspace_id = w and trail = %s order by position desc limit 1) as l",
        (list(workspaces), int(trail)),
        binary=True,
    )
    return {cast("str", row[0]): Head(cast("int", row[1]), cast("bytes", row[2])) for row in await cursor.fetchall()}


async def _sequences(connection: _Connection, trail: Trail, emitters: Iterable[str]) -> dict[str, int]:
    cursor = await connection.execute(
        "select e, b.last from unnest(%b::text[]) as e cross join lateral ("
        " select first_sequence + events - 1 as last from batches where trail = %s and emitter = e"
        " order by first_sequence desc limit 1) as b",
        (list(emitters), int(trail)),
    )
    return {cast("str", row[0]): cast("int", row[1]) for row in await cursor.fetchall()}


async def _heads(connection: _Connection, trail: Trail, size: int) -> dict[str, Head]:
    cursor = await connection.execute(_HEADS, {"trail": int(trail), "size": size}, binary=True)
    rows = await cursor.fetchall()
    return {cast("str", row[0]): Head(cast("int", row[1]), cast("bytes", row[2])) for row in rows}


async def _logged(connection: _Connection, trail: Trail, batch: Batch) -> dict[int, bytes]:
    """Gives, by sequence number, what was logged under the numbers of a batch and has its body still."""
    cursor = await connection.execute(
        "select d.record from batches b join bodies d on d.trail = b.trail"
        " and d.leaf_index >= b.first_leaf + greatest(0, %s - b.first_sequence)"
        " and d.leaf_index < b.first_leaf + least(b.events, %s + 1 - b.first_sequence)"
        " where b.trail = %s and b.emitter = %s and b.first_sequence <= %s and b.first_sequence + b.events > %s",
        (
            batch.first_sequence,
            batch.last_sequence,
            int(trail),
            batch.emitter,
            batch.last_sequence,
            batch.first_sequence,
        ),
        binary=True,
    )
    records = [Record(cast("bytes", row[0])) for row in await cursor.fetchall()]
    return {record.sequence: record.event for record in records}


async def _write(connection: _Connection, growth: Growth) -> None:
    await _write_leaves(connection, growth)
    await _write_bodies(connection, growth)
    await _write_writes(connection, growth)
    await _write_batches(connection, growth)
    await _write_tree(connection, growth)


async def _write_leaves(connection: _Connection, growth: Growth) -> None:
    trail = int(growth.trail)
    into = "copy leaves (trail, leaf_index, entry, workspace_id, position, chain) from stdin (format binary)"
    async with connection.cursor() as cursor, cursor.copy(into) as copy:
        copy.set_types(["int2", "int8", "bytea", "text", "int8", "bytea"])
        for leaf in growth.leaves:
            row = (trail, leaf.index, leaf.entry, leaf.event.workspace, leaf.head.position, leaf.head.chain)
            await copy.write_row(row)


async def _write_bodies(connection: _Connection, growth: Growth) -> None:
    trail = int(growth.trail)
    into = (
        "copy bodies (trail, leaf_index, workspace_id, time, name, outcome, actor, target, found_by, record, salt)"
        " from stdin (format binary)"
    )
    async with connection.cursor() as cursor, cursor.copy(into) as copy:
        copy.set_types(["int2", "int8", "text", "timestamptz", *["text"] * 4, "int8[]", "bytea", "bytea"])
        for leaf in growth.leaves:
            event = leaf.event
            shown = (event.workspace, event.time, event.name, event.outcome, event.actor, event.target)
            found_by = [number_of(event.workspace, each) for each in event.ids]
            await copy.write_row((trail, leaf.index, *shown, found_by, leaf.record, leaf.salt))


async def _write_writes(connection: _Connection, growth: Growth) -> None:
    """Writes which records were written or deleted, by which a store is compared with the log."""
    writes = [
        (leaf.event.workspace, leaf.event.target, leaf.event.write[0], leaf.index, leaf.event.write[1])
        for leaf in growth.leaves
        if leaf.event.write is not None
    ]
    if writes:
        await connection.execute(
            "insert into writes (trail, workspace_id, target, record_class, leaf_index, version)"
            " select %s, * from unnest(%b::text[], %b::text[], %b::text[], %b::bigint[], %b::bigint[])",
            (int(growth.trail), *columns(writes, 5)),
        )


async def _write_batches(connection: _Connection, growth: Growth) -> None:
    """Writes what emitters signed, and their certificates."""
    chains = {batch.chain: hashlib.sha256(b"".join(batch.chain)).digest() for _, batch in growth.batches}
    for chain, digest in chains.items():
        await connection.execute(
            "insert into certificates (digest, chain) values (%b, %b::bytea[]) on conflict do nothing",
            (digest, list(chain)),
        )
    batches = [
        (
            first,
            batch.emitter,
            batch.first_sequence,
            len(batch.events),
            b"".join(leaf_hash(event.event) for event in batch.events),
            batch.signature,
            chains[batch.chain],
        )
        for first, batch in growth.batches
    ]
    await connection.execute(
        "insert into batches (trail, first_leaf, emitter, first_sequence, events, hashes, signature, certificate)"
        " select %s, * from unnest(%b::bigint[], %b::text[], %b::bigint[], %b::int[], %b::bytea[], %b::bytea[], %b::bytea[])",
        (int(growth.trail), *columns(batches, 7)),
    )


async def _write_tree(connection: _Connection, growth: Growth) -> None:
    if growth.tile_hashes:
        await connection.execute(
            "insert into tile_hashes (trail, level, hash_index, hash)"
            " select %s, * from unnest(%b::smallint[], %b::bigint[], %b::bytea[])",
            (int(growth.trail), *columns(growth.tile_hashes, 3)),
        )
    await connection.execute(
        "insert into tree_heads (trail, size, frontier) values (%s, %s, %b)",
        (int(growth.trail), growth.frontier.size, growth.frontier.roots),
    )


# Each workspace once, by going through the index from one to the next; and of each the last leaf before the size.
_HEADS = """
with recursive each as (
    select min(workspace_id) as workspace_id from leaves
    union all
    select (select min(workspace_id) from leaves l where l.workspace_id > each.workspace_id) from each
    where each.workspace_id is not null)
select each.workspace_id, last.position, last.chain from each cross join lateral (
    select position, chain from leaves l where l.workspace_id = each.workspace_id and l.trail = %(trail)s
    and l.leaf_index < %(size)s order by position desc limit 1) as last
where each.workspace_id is not null
"""
