"""Coalescing: what waits travels together, a lone item never waits, and one bad item harms no other."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
from authpipe_rpc import Coalescer
from authpipe_rpc.batching import BatchBrokenError


class Far:
    """A peer whose answers are let go by hand."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self._gates: list[asyncio.Event] = []

    async def send(self, items: Sequence[int]) -> list[int | Exception]:
        """Answers each item with its negative, odd thirteens with an error."""
        gate = asyncio.Event()
        self.batches.append(list(items))
        self._gates.append(gate)
        await gate.wait()
        return [ValueError("thirteen") if item == 13 else -item for item in items]

    def answer(self, batch: int) -> None:
        """Lets a batch go."""
        self._gates[batch].set()


async def until_batches(far: Far, count: int) -> None:
    """Waits until so many batches have departed."""
    async with asyncio.timeout(5):
        while len(far.batches) < count:  # what is waited for is what is tested
            await asyncio.sleep(0.001)


async def turns(count: int = 5) -> None:
    """Lets the loop turn."""
    for _ in range(count):
        await asyncio.sleep(0)


async def test_items_of_one_turn_travel_in_one_batch_and_each_gets_its_own_answer() -> None:
    far = Far()
    coalescer = Coalescer(far.send)
    tasks = [asyncio.create_task(coalescer.submit(item)) for item in (1, 2, 3)]
    await turns()
    assert far.batches == [[1, 2, 3]]
    far.answer(0)
    assert await asyncio.gather(*tasks) == [-1, -2, -3]


async def test_a_lone_item_departs_in_the_same_turn() -> None:
    far = Far()
    coalescer = Coalescer(far.send, patience_seconds=3600)
    task = asyncio.create_task(coalescer.submit(1))
    await turns()
    assert far.batches == [[1]]
    far.answer(0)
    assert await task == -1


async def test_a_second_batch_waits_until_it_is_as_large_as_the_one_in_flight() -> None:
    far = Far()
    coalescer = Coalescer(far.send, patience_seconds=3600)
    tasks = [asyncio.create_task(coalescer.submit(item)) for item in (1, 2)]
    await turns()
    tasks.append(asyncio.create_task(coalescer.submit(3)))
    await turns()
    assert far.batches == [[1, 2]], "one item does not travel alone beside a batch of two"
    tasks.append(asyncio.create_task(coalescer.submit(4)))
    await turns()
    assert far.batches == [[1, 2], [3, 4]]
    far.answer(0)
    far.answer(1)
    assert await asyncio.gather(*tasks) == [-1, -2, -3, -4]


async def test_beside_a_large_batch_goes_none_that_is_less_than_half_full_unless_that_one_is_held_up() -> None:
    far = Far()
    coalescer = Coalescer(far.send, largest=32, patience_seconds=3600)
    tasks = [asyncio.create_task(coalescer.submit(item)) for item in range(20, 28)]
    await turns()
    tasks += [asyncio.create_task(coalescer.submit(item)) for item in range(28, 36)]
    await turns()
    assert [len(batch) for batch in far.batches] == [8], "as many as are in flight, but few"
    await until_batches(far, 2)
    assert [len(batch) for batch in far.batches] == [8, 8], "the one in flight may hang"
    tasks += [asyncio.create_task(coalescer.submit(item)) for item in range(36, 52)]
    far.answer(0)
    await turns()
    assert [len(batch) for batch in far.batches] == [8, 8, 16], "half full, and there is room"
    far.answer(1)
    far.answer(2)
    await asyncio.gather(*tasks)


async def test_patience_ends() -> None:
    far = Far()
    coalescer = Coalescer(far.send, patience_seconds=0.001)
    tasks = [asyncio.create_task(coalescer.submit(item)) for item in (1, 2)]
    await turns()
    tasks.append(asyncio.create_task(coalescer.submit(3)))
    await until_batches(far, 2)
    assert far.batches == [[1, 2], [3]]
    far.answer(0)
    far.answer(1)
    assert await asyncio.gather(*tasks) == [-1, -2, -3]


async def test_those_who_come_back_together_travel_together_again() -> None:
    far = Far()
    coalescer = Coalescer(far.send, patience_seconds=3600)
    tasks = [asyncio.create_task(coalescer.submit(item)) for item in (1, 2)]
    await turns()
    far.answer(0)
    await turns()
    tasks.append(asyncio.create_task(coalescer.submit(3)))
    await turns()
    assert far.batches == [[1, 2]], "the second of the two is expected"
    tasks.append(asyncio.create_task(coalescer.submit(4)))
    await turns()
    assert far.batches == [[1, 2], [3, 4]]
    far.answer(1)
    assert await asyncio.gather(*tasks) == [-1, -2, -3, -4]


async def test_one_who_comes_back_alone_waits_for_nobody_the_second_time() -> None:
    far = Far()
    coalescer = Coalescer(far.send, patience_seconds=0.001)
    first = [asyncio.create_task(coalescer.submit(item)) for item in (1, 2)]
    await turns()
    far.answer(0)
    await asyncio.gather(*first)
    waits = asyncio.create_task(coalescer.submit(3))
    await until_batches(far, 2)
    far.answer(1)
    assert await waits == -3
    at_once = asyncio.create_task(coalescer.submit(4))
    await turns()
    assert far.batches[2:] == [[4]]
    far.answer(2)
    assert await at_once == -4


async def test_no_batch_is_larger_and_no_more_are_in_flight_than_allowed() -> None:
    far = Far()
    coalescer = Coalescer(far.send, largest=2, outstanding=2, patience_seconds=0)
    tasks = [asyncio.create_task(coalescer.submit(item)) for item in range(5)]
    await turns()
    assert far.batches == [[0, 1], [2, 3]]
    far.answer(0)
    far.answer(1)
    await until_batches(far, 3)
    assert far.batches[2:] == [[4]]
    far.answer(2)
    assert await asyncio.gather(*tasks) == [0, -1, -2, -3, -4]


async def test_one_bad_item_fails_alone() -> None:
    far = Far()
    coalescer = Coalescer(far.send)
    good, bad = asyncio.create_task(coalescer.submit(1)), asyncio.create_task(coalescer.submit(13))
    await turns()
    far.answer(0)
    assert await good == -1
    with pytest.raises(ValueError, match="thirteen"):
        await bad


async def test_a_batch_that_fails_fails_for_each_and_the_next_one_departs() -> None:
    calls = 0

    async def send(items: Sequence[int]) -> list[int | Exception]:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise ConnectionError
        return list(items)

    coalescer = Coalescer(send)
    first = await asyncio.gather(coalescer.submit(1), coalescer.submit(2), return_exceptions=True)
    assert [type(each) for each in first] == [ConnectionError, ConnectionError]
    assert await coalescer.submit(3) == 3


async def test_answers_that_do_not_match_the_items_leave_nobody_waiting() -> None:
    async def send(_: Sequence[int]) -> list[int | Exception]:
        return [1]

    coalescer = Coalescer(send)
    both = await asyncio.gather(coalescer.submit(1), coalescer.submit(2), return_exceptions=True)
    assert [type(each) for each in both] == [BatchBrokenError, BatchBrokenError]


async def test_a_caller_that_gave_up_does_not_disturb_the_others() -> None:
    far = Far()
    coalescer = Coalescer(far.send)
    gone, stays = asyncio.create_task(coalescer.submit(1)), asyncio.create_task(coalescer.submit(2))
    await turns()
    gone.cancel()
    await turns()
    far.answer(0)
    assert await stays == -2
    assert gone.cancelled()
