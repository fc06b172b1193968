"""What a batch of releases changes is one statement: each record once, the newest of it, floors never down, in one order."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import sqlalchemy as sa
from authpipe_database import Database, Outbox
from authpipe_envelope import RecordClass
from authpipe_keyservice.domain.release import Direction, Wanted
from authpipe_keyservice.domain.asking import Step
from authpipe_keyservice.store import KeyTable
from authpipe_sensitive import AuditEntry

RELEASED = AuditEntry(name="WRITE_KEY_RELEASED", outcome="SUCCEEDED", actor="service:test", request_id="r")
ACCESS, REFRESH = RecordClass.ACCESS, RecordClass.REFRESH


@pytest.fixture
async def keys(stage: Any, clean: Database) -> KeyTable:  # the stage has no key on it
    """A table with six keys in it that are active."""
    async with clean.transaction() as connection:
        await connection.execute(
            sa.text(
                "insert into connection_keys (workspace_id, connection_id, version, dek_version, wrapped, state)"
                " select 'ws', 'con_' || n, 1, 1, 'wrapped', 'active' from generate_series(0, 5) as n"
            )
        )
    return KeyTable(clean, Outbox())


def step(connection: str, version: int, direction: Direction = Direction.WRITE, **more: Any) -> Step:
    wanted = Wanted("ws", connection, more.pop("record_class", ACCESS), version, direction)
    return Step(wanted, **({"key_version": 1, "fence": 0, "forced": "", "check": ""} | more))


async def facts(keys: KeyTable, connection: str, record_class: RecordClass = ACCESS) -> Any:
    (row,) = await keys.look_up([Wanted("ws", connection, record_class, 1, Direction.READ)])
    assert row is not None
    return row.facts


async def test_of_a_record_that_is_twice_in_a_batch_the_newest_version_counts(keys: KeyTable) -> None:
    await keys.commit([RELEASED], [step("con_0", 3), step("con_0", 2), step("con_0", 3, fence=7)], 50)
    await keys.acknowledge([("ws", "con_0", int(ACCESS), each, 0) for each in (3, 2)], [RELEASED])
    assert (await facts(keys, "con_0")).floor == 3
    assert (await facts(keys, "con_0")).fence == 7


@pytest.mark.case(2)
async def test_a_floor_goes_neither_down_nor_above_what_was_prepared(keys: KeyTable) -> None:
    await keys.commit([RELEASED], [step("con_0", 5), step("con_1", 1)], 50)
    acknowledged = [("ws", "con_0", int(ACCESS), 4, 0), ("ws", "con_1", int(ACCESS), 9, 0)]
    await keys.acknowledge(acknowledged, [RELEASED])
    await keys.acknowledge([("ws", "con_0", int(ACCESS), 2, 0)], [RELEASED])
    assert [(await facts(keys, each)).floor for each in ("con_0", "con_1")] == [4, 0]
    reads = [step("con_0", 6, Direction.READ), step("con_0", 3, Direction.READ)]
    await keys.commit([RELEASED], reads, 50)
    await keys.commit([RELEASED], [step("con_0", 5, Direction.READ)], 50)
    assert (await facts(keys, "con_0")).floor == 6


async def test_what_a_batch_notes_of_a_key_takes_nothing_back(keys: KeyTable) -> None:
    await keys.commit([RELEASED], [step("con_0", 1, forced="g1", fence=4), step("con_0", 1, record_class=REFRESH)], 70)
    await keys.commit([RELEASED], [step("con_0", 2, check="g2", fence=3)], 90)
    found = await facts(keys, "con_0")
    assert (found.fence, found.last_forced_ms, found.last_check_ms) == (4, 70, 90)
    assert (found.last_forced_grant, found.last_check_grant) == ("g1", "g2")
    # A replica whose clock is behind does not set back when it was.
    await keys.commit([RELEASED], [step("con_0", 3, forced="g3")], 60)
    assert ((await facts(keys, "con_0")).last_forced_ms, (await facts(keys, "con_0")).last_forced_grant) == (70, "g3")


async def test_an_acknowledgement_says_from_when_on_a_token_may_be_refreshed(keys: KeyTable) -> None:
    await keys.commit([RELEASED], [step("con_0", 1), step("con_0", 1, record_class=REFRESH)], 50)
    both = [("ws", "con_0", int(ACCESS), 1, 0), ("ws", "con_0", int(REFRESH), 1, 12_345)]
    await keys.acknowledge(both, [RELEASED])
    assert (await facts(keys, "con_0")).refresh_not_before_ms == 12_345
    assert [(await facts(keys, "con_0", each)).floor for each in (ACCESS, REFRESH)] == [1, 1]


async def test_batches_that_meet_on_the_same_keys_in_another_order_end(keys: KeyTable) -> None:
    names = [f"con_{number}" for number in range(6)]

    async def one(order: list[str], number: int) -> None:
        await keys.commit([RELEASED], [step(each, number, fence=number) for each in order], 50)
        items = [("ws", each, int(ACCESS), number, 60) for each in order]
        await keys.acknowledge(items, [RELEASED])
        await keys.commit([RELEASED], [step(each, number, Direction.READ) for each in order], 50)

    await asyncio.gather(*(one(names[:: 1 if number % 2 else -1], number) for number in range(1, 13)))
    assert {(await facts(keys, each)).floor for each in names} == {12}
