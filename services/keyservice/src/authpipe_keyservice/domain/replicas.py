"""Replicas: each says that it lives, forgets the keys it is told to forget, and says so.

A release looks up the state of its keys in the database each time, so a key that was destroyed is refused by every
replica from that moment. Being told is what overwrites the copy that a replica still holds in its memory.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import NamedTuple, Protocol

from authpipe_keyservice.domain.keys import KeyCache

_LOOK_SECONDS = 0.02


class Order(NamedTuple):
    """An order to forget keys.

    Args:
        number: Rising.
        workspace: The tenant.
        connection: The connection; empty: everything of the workspace.
    """

    number: int
    workspace: str
    connection: str


class ReplicaTable(Protocol):
    """Replicas in keyservice's own database."""

    async def beat(self, replica: str) -> bool:
        """Says that a replica is alive; True: it was not among the living, so it has missed orders."""

    async def orders(self, replica: str) -> list[Order]:
        """Gives the orders that a replica has not obeyed yet, oldest first."""

    async def obey(self, replica: str, order: int) -> None:
        """Notes that a replica has obeyed all orders up to one."""

    async def outstanding(self, order: int) -> int:
        """Gives how many live replicas have not obeyed an order."""


class Replica:
    """This replica among the others.

    Args:
        name: Its id, new with each start.
        table: The replicas.
        cache: Its unwrapped keys.
        clock: Gives seconds.
    """

    def __init__(self, name: str, table: ReplicaTable, cache: KeyCache, clock: Callable[[], float]) -> None:
        self.name = name
        self._table = table
        self._cache = cache
        self._clock = clock

    async def beat(self) -> bool:
        """Says that this replica lives, and obeys what it was told; True: it was given up meanwhile, or is new."""
        missed = await self._table.beat(self.name)
        if missed:
            self._cache.forget("", "")
        await self.obey()
        return missed

    async def obey(self) -> None:
        """Overwrites the keys that it was told to forget, then says so."""
        orders = await self._table.orders(self.name)
        for order in orders:
            self._cache.forget(order.workspace, order.connection)
        if orders:
            await self._table.obey(self.name, orders[-1].number)

    async def all_obeyed(self, order: int, within_seconds: float = 1.0) -> int:
        """Waits until all live replicas have obeyed an order; gives how many have not in time."""
        await self.obey()
        ends = self._clock() + within_seconds
        while (outstanding := await self._table.outstanding(order)) and self._clock() < ends:  # noqa: ASYNC110  # others obey
            await asyncio.sleep(_LOOK_SECONDS)
        return outstanding
