"""Appending: in order, once, without a gap; whoever appends at the same time, repeats, or dies in between."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from authpipe_audit.domain.growing import Batch
from authpipe_audit.domain.proving import runs_of
from authpipe_audit.domain.trails import Trail, trail_of
from authpipe_audit.errors import EventsDifferError, EventsMissingError, LogDamagedError
from authpipe_audit.store import Log, TreeTable
from authpipe_database import Database
from authpipe_sensitive import DomainError
from authpipe_transparency import (
    ENTRIES,
    Range,
    Record,
    Tile,
    chain_next,
    chain_start,
    commitment,
    leaf_hash,
    root_of,
    unbundle,
    unpack_hashes,
    verify_consistency,
    verify_inclusion,
)
from authpipe_transparency.merkle import consistency_ranges, full_subtrees, inclusion_ranges

NAME = "example.com/log"
TRAIL = Trail.USER_CREDENTIALS
Rows = Callable[[str], list[tuple[object, ...]]]


async def append(log: Log, *batches: Batch) -> list[int | DomainError]:
    return await log.append(TRAIL, batches)


@pytest.mark.promise("P31")
async def test_events_become_leaves_in_their_order_and_bodies_that_open_them(emit: Any, log: Log, rows: Rows) -> None:
    sent = [emit.event(str(number), f"ws_{number % 2}") for number in range(7)]
    assert await append(log, emit.batch(1, *sent[:4]), emit.batch(5, *sent[4:])) == [4, 7]
    stored = rows("select leaf_index, entry, workspace_id, position, chain from leaves order by leaf_index")
    bodies = rows("select record, salt from bodies order by leaf_index")
    chains = {workspace: chain_start(f"{NAME}/user-credentials", workspace) for workspace in ("ws_0", "ws_1")}
    hashes = []
    for index, (row, (record, salt)) in enumerate(zip(stored, bodies, strict=True)):
        leaf, entry, workspace, position, chain = row
        assert commitment(bytes(salt), bytes(record)) == bytes(entry)  # type: ignore[call-overload]
        read = Record(bytes(record))  # type: ignore[call-overload]
        assert (leaf, read.sequence, read.event, read.emitter) == (index, index + 1, sent[index], "vault")
        hashes.append(leaf_hash(bytes(entry)))  # type: ignore[call-overload]
        chains[str(workspace)] = chain_next(chains[str(workspace)], hashes[-1])
        assert (position, bytes(chain)) == (index // 2 + 1, chains[str(workspace)])  # type: ignore[call-overload]
    assert (await log.frontier(TRAIL)).root() == root_of(hashes)
    heads = await log.heads(TRAIL, 7)
    assert {workspace: head.chain for workspace, head in heads.items()} == chains
    assert (await log.heads(TRAIL, 6))["ws_0"].position == 3


@pytest.mark.promise("P31")
async def test_a_repeat_is_compared_and_dropped_and_what_comes_after_it_is_sent_again(
    emit: Any, log: Log, rows: Rows
) -> None:
    one, two, three = emit.event("1"), emit.event("2"), emit.event("3")
    await append(log, emit.batch(1, one, two))
    assert await append(log, emit.batch(1, one, two)) == [2]
    assert await append(log, emit.batch(2, two, three)) == [2], "a batch that begins with a repeat adds nothing"
    assert await append(log, emit.batch(3, three)) == [3]
    assert rows("select count(*) from leaves") == [(3,)]


@pytest.mark.case(29)
@pytest.mark.promise("P31")
async def test_an_emitters_event_that_was_dropped_shows_as_a_gap_and_an_invented_one_as_a_difference(
    emit: Any, log: Log, rows: Rows
) -> None:
    await append(log, emit.batch(1, emit.event("1"), emit.event("2")))
    gap, good = await append(
        log, emit.batch(4, emit.event("4")), emit.batch(1, emit.event("1"), emitter="keyservice/user-credentials")
    )
    assert isinstance(gap, EventsMissingError)
    assert good == 1, "one emitter's gap does not touch another's events"
    (other,) = await append(log, emit.batch(2, emit.event("2"), emit.event("3")))
    assert isinstance(other, EventsDifferError)
    assert rows("select count(*) from leaves") == [(3,)]


async def test_a_repeat_of_what_has_no_body_any_more_is_dropped(
    emit: Any, log: Log, rows: Rows, superuser: psycopg.Connection[tuple[object, ...]]
) -> None:
    one, two = emit.event("1"), emit.event("2")
    await append(log, emit.batch(1, one, two))
    superuser.execute("delete from bodies where leaf_index = 0")
    assert await append(log, emit.batch(1, one, two)) == [2]
    assert rows("select count(*) from leaves") == [(2,)]


@pytest.mark.promise("P31")
async def test_replicas_that_append_at_once_make_one_tree(emit: Any, database: Database, rows: Rows) -> None:
    replicas = [Log(database, NAME, os.urandom) for _ in range(4)]
    emitters = ("vault", "keyservice/user-credentials")
    sent = {emitter: [emit.event(f"{number}", f"ws_{number % 3}") for number in range(40)] for emitter in emitters}
    # One for each connection of the pool: nobody waits for one.
    at_once = asyncio.Semaphore(6)

    async def deliver(emitter: str, number: int) -> None:
        # As relays do: the same again and again, through whichever replica, until it is there.
        while True:
            each = emit.batch(number + 1, sent[emitter][number], emitter=emitter)
            async with at_once:
                (answer,) = await replicas[(number + len(emitter)) % 4].append(TRAIL, [each])
            if isinstance(answer, int):
                return
            assert isinstance(answer, EventsMissingError)
            await asyncio.sleep(0.005)

    async with asyncio.TaskGroup() as delivering:
        for number in range(40):
            for emitter in emitters:
                delivering.create_task(deliver(emitter, number))
    stored = rows(
        "select l.leaf_index, l.entry, b.record from leaves l join bodies b using (trail, leaf_index) order by 1"
    )
    assert [row[0] for row in stored] == list(range(80))
    for emitter in emitters:
        own = [record for row in stored if (record := Record(bytes(row[2]))).emitter == emitter]  # type: ignore[call-overload]
        assert [record.sequence for record in own] == list(range(1, 41))
        assert [record.event for record in own] == sent[emitter]
    root = root_of([leaf_hash(bytes(row[1])) for row in stored])  # type: ignore[call-overload]
    assert (await replicas[0].frontier(TRAIL)).root() == root
    for workspace in range(3):
        positions = rows(f"select position from leaves where workspace_id = 'ws_{workspace}' order by leaf_index")
        assert [row[0] for row in positions] == list(range(1, len(positions) + 1))


async def test_a_head_that_is_remembered_wrongly_is_read_again(
    emit: Any, log: Log, database: Database, rows: Rows
) -> None:
    await append(log, emit.batch(1, emit.event("1")))
    await Log(database, NAME, os.urandom).append(
        TRAIL, [emit.batch(2, emit.event("2")), emit.batch(3, emit.event("3"))]
    )
    assert await append(log, emit.batch(4, emit.event("4"))) == [4]
    assert rows("select array_agg(position order by leaf_index) from leaves") == [([1, 2, 3, 4],)]


async def test_tiles_bundles_and_proofs_are_those_of_the_tree(emit: Any, log: Log, database: Database) -> None:
    tree, size = TreeTable(database), 70_000
    # Two tiles of level 1 and a part of level 2, from the fewest rows that make them.
    first = 1
    while first <= size:
        amount = min(5000, size - first + 1)
        await append(log, emit.batch(first, *[emit.event("r") for _ in range(amount)]))
        first += amount
    bundles = [
        unbundle(await tree.tile(TRAIL, Tile(ENTRIES, number, min(256, size - 256 * number)))) for number in range(274)
    ]
    leaves = [leaf_hash(entry) for entries in bundles for entry in entries]
    assert len(leaves) == size
    roots = [root_of(leaves[at : at + 256]) for at in range(0, 273 * 256, 256)]
    assert unpack_hashes(await tree.tile(TRAIL, Tile(0, 273, 112))) == leaves[273 * 256 :]
    assert unpack_hashes(await tree.tile(TRAIL, Tile(1, 0, 256))) == roots[:256]
    assert unpack_hashes(await tree.tile(TRAIL, Tile(1, 1, 17))) == roots[256:]
    assert unpack_hashes(await tree.tile(TRAIL, Tile(2, 0, 1))) == [root_of(roots[:256])]
    root = (await log.frontier(TRAIL)).root()
    assert root == root_of(leaves)
    for index in (0, 255, 256, 65_535, 65_536, size - 1):
        path = await tree.roots(TRAIL, inclusion_ranges(index, size))
        verify_inclusion(index, size, leaves[index], path, root)
    for old in (1, 255, 256, 4097, 65_536, 69_999):
        proof = await tree.roots(TRAIL, consistency_ranges(old, size))
        verify_consistency(old, root_of(leaves[:old]), size, root, proof)
    # However large the part, few hashes are read for it.
    assert sum(run.width for run in runs_of(full_subtrees(Range(0, size)))) < 600


async def test_a_leaf_or_tile_that_is_not_there_is_damage_and_not_an_answer(
    emit: Any, log: Log, database: Database, superuser: psycopg.Connection[tuple[object, ...]]
) -> None:
    await append(log, emit.batch(1, *[emit.event("r") for _ in range(300)]))
    tree = TreeTable(database)
    superuser.execute("delete from tile_hashes")
    with pytest.raises(LogDamagedError):
        await tree.roots(TRAIL, [Range(0, 256)])
    superuser.execute("delete from leaves where leaf_index = 290")
    with pytest.raises(LogDamagedError):
        await tree.tile(TRAIL, Tile(ENTRIES, 1, 44))


@pytest.mark.promise("P10")
def test_a_store_that_was_taken_over_writes_to_its_own_trail() -> None:
    assert trail_of("vault") == trail_of("keyservice/user-credentials") == Trail.USER_CREDENTIALS
    assert trail_of("clientsecrets") == trail_of("keyservice/client-secrets") == Trail.CLIENT_SECRETS
    assert {trail_of(each) for each in ("oauth/coordinator", "gateway/authority", "audit")} == {Trail.CONTROL}
