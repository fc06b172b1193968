"""Coalescing: all requests of one event-loop turn share one rpc.

A call costs 400-650 µs on both ends together, whatever is in it (FACTS), so what waits travels together. At most
`outstanding` batches are in flight; what comes meanwhile is the next batch. Items fail one by one: a batch that fails as
a whole fails for each of its items.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

ItemT = TypeVar("ItemT")
AnswerT = TypeVar("AnswerT")


class Coalescer(Generic[ItemT, AnswerT]):
    """Collects items and sends them in batches.

    Args:
        send: Sends a batch and gives one answer per item, in order; an answer may be an exception.
        largest: How many items a batch has at most.
        outstanding: How many batches are in flight at most.
    """

    def __init__(
        self,
        send: Callable[[Sequence[ItemT]], Awaitable[Sequence[AnswerT | Exception]]],
        largest: int = 64,
        outstanding: int = 2,
    ) -> None:
        self._send = send
        self._largest = largest
        self._free = outstanding
        self._waiting: list[tuple[ItemT, asyncio.Future[AnswerT]]] = []
        self._scheduled = False
        self._tasks: set[asyncio.Task[None]] = set()

    async def submit(self, item: ItemT) -> AnswerT:
        """Sends an item with the next batch and waits for its answer.

        Raises:
            Exception: What the batch, or this item in it, failed with.
        """
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[AnswerT] = loop.create_future()
        self._waiting.append((item, answer))
        if not self._scheduled and self._free:
            self._scheduled = True
            loop.call_soon(self._flush)
        return await answer

    def _flush(self) -> None:
        self._scheduled = False
        while self._free and self._waiting:
            batch, self._waiting = self._waiting[: self._largest], self._waiting[self._largest :]
            self._free -= 1
            task = asyncio.get_running_loop().create_task(self._carry(batch), name="coalesced batch")
            self._tasks.add(task)
            task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._free += 1
        self._flush()

    async def _carry(self, batch: list[tuple[ItemT, asyncio.Future[AnswerT]]]) -> None:
        answers: Sequence[AnswerT | Exception]
        try:
            answers = await self._send([item for item, _ in batch])
        except asyncio.CancelledError:
            for _, future in batch:
                future.cancel()
            raise
        except Exception as error:  # it is handed to every item, not swallowed  # noqa: BLE001  # handed on or shown with an incident id, never swallowed
            answers = [error] * len(batch)
        for (_, future), answer in zip(batch, answers, strict=True):
            if future.done():
                continue
            if isinstance(answer, Exception):
                future.set_exception(answer)
            else:
                future.set_result(answer)
