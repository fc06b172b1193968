"""Delivering answers from this worker's disk to vault, once it is back, also after a restart of this process."""

from __future__ import annotations

import asyncio
import enum
from collections.abc import Callable
from itertools import islice

from authpipe_consumer.words import Consumer, PackedWrite
from authpipe_oauth_worker.domain.ports import Coordinator, Kept, Spool
from authpipe_sensitive import DomainError, Status, get_log

# Nobody waits for an answer any more: it was found elsewhere, a token was sent since, its connection is gone.
_OUT_OF_DATE = {"ANSWER_NOT_AWAITED", "FENCE_OUTDATED", "CONNECTION_DISCONNECTED", "RECORD_VERSION_CONFLICT"}


# After an outage many wait, and whoever is asked for their tokens waits for them: they go together, and their writes in batches.
_AT_ONCE = 32


class _End(enum.Enum):
    """How an attempt to deliver ended."""

    DELIVERED = "delivered"
    NOT_DELIVERED = "not_delivered"
    AWAY = "away"


class Delivering:
    """Delivers what waits.

    Args:
        spool: The answers.
        vault: The consumer of user credentials.
        coordinator: Gives the grant to store one, and has it judged.
        new_id: Makes a request id.
    """

    def __init__(self, spool: Spool, vault: Consumer, coordinator: Coordinator, new_id: Callable[[], str]) -> None:
        self._spool = spool
        self._vault = vault
        self._coordinator = coordinator
        self._new_id = new_id

    async def run(self) -> int:
        """Tries to deliver each answer once; gives how many were delivered. The rest waits for the next turn."""
        delivered, at_once = 0, 1
        waiting = iter(self._spool.waiting())
        while some := list(islice(waiting, at_once)):
            # The first one alone: it tells whether anybody is there.
            at_once = _AT_ONCE
            ended = await asyncio.gather(*map(self._try, some))
            delivered += ended.count(_End.DELIVERED)
            if _End.AWAY in ended:
                break  # whoever is away is away for the others too
        return delivered

    async def _try(self, kept: Kept) -> _End:
        write = self._vault.unpack(kept.packed)
        if write is None:
            get_log().error("an answer on the disk cannot be read")
            return _End.NOT_DELIVERED
        try:
            await self._deliver(kept, write)
        except DomainError as error:
            if error.reason in _OUT_OF_DATE:
                get_log().warning("an answer on the disk is out of date", error=error)
                self._spool.remove(kept.name)
            elif error.status is Status.UNAVAILABLE:
                return _End.AWAY
            else:
                get_log().warning("an answer was not delivered", error=error)
            return _End.NOT_DELIVERED
        return _End.DELIVERED

    async def _deliver(self, kept: Kept, write: PackedWrite) -> None:
        name = (write.workspace, write.connection, write.fence)
        request_id = self._new_id()
        grant = await self._coordinator.claim_answer(*name, request_id)
        # Each of the next steps may be the last one: all of them can be done again.
        await self._vault.put([write.write], [], grant, request_id)
        await self._coordinator.report_answer(*name, request_id)
        self._spool.remove(kept.name)
        get_log().info("an answer was delivered from the disk")
