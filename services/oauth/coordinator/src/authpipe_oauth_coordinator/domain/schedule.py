"""Refreshing before anybody asks: every token that can be, some time before it ends (promise P36).

Due connections are taken up in batches by any number of replicas, a few of each workspace and Provider at a time, so that
none waits behind another's million; and a Provider that is slow gets a share of what is under way, so that it holds up its
own alone. Who takes one up pushes it into the future first: should it die, another one does it.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Protocol

from authpipe_oauth_coordinator.domain.refreshing import Refreshing
from authpipe_oauth_coordinator.domain.words import Acting, Connection
from authpipe_sensitive import DomainError, get_log


# What one Provider may have of what is under way: a quarter.
_SHARES = 4


class DueTable(Protocol):
    """Connections that are due."""

    async def claim_due(
        self, most: int, per_provider: int, share: int, going: Mapping[str, int], seconds: float
    ) -> list[Connection]:
        """Takes up connections that are due, fairly; they are not due again for some seconds.

        Args:
            most: How many at most.
            per_provider: How many of one Provider in a second, by all replicas.
            share: How many of one Provider at most, with those that are under way.
            going: How many of each Provider are under way.
            seconds: After what time they are due again.
        """


class Schedule:
    """Refreshes what is due.

    Args:
        table: Connections that are due.
        refreshing: The rules over one refresh.
        new_id: Makes an id with a prefix.
        most: How many are taken up at once.
        per_provider: How many requests a second one Provider gets, from all replicas together.
        claim_seconds: After what time somebody else takes up what this replica took up and did not end.
    """

    def __init__(
        self,
        table: DueTable,
        refreshing: Refreshing,
        new_id: Callable[[str], str],
        *,
        most: int,
        per_provider: int,
        claim_seconds: float,
    ) -> None:
        self._table = table
        self._refreshing = refreshing
        self._new_id = new_id
        self._most = most
        self._per_provider = per_provider
        self._claim_seconds = claim_seconds
        self._share = max(1, most // _SHARES)
        self._going: dict[asyncio.Task[None], str] = {}

    async def run(self) -> int:
        """Takes up what is due and there is room for; gives how many. It does not wait for slow Providers."""
        room = self._most - len(self._going)
        if room <= 0:
            return 0
        going = Counter(self._going.values())
        try:
            claimed = await self._table.claim_due(room, self._per_provider, self._share, going, self._claim_seconds)
        except DomainError:
            self._refreshing.note_trouble()
            raise
        for connection in claimed:
            task = asyncio.create_task(self._refresh(connection), name="scheduled refresh")
            self._going[task] = connection.provider
            task.add_done_callback(self._going.pop)
        return len(claimed)

    async def finish(self) -> None:
        """Waits for what was taken up."""
        await asyncio.gather(*self._going)

    async def _refresh(self, connection: Connection) -> None:
        acting = Acting(connection.workspace, "service:oauth/coordinator", self._new_id("req"))
        try:
            await self._refreshing.once(acting, connection, forced=False)
        except DomainError as error:
            get_log().info("a scheduled refresh failed, it is tried again", error=error)
