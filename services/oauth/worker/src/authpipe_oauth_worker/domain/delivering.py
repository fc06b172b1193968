"""Delivering answers from this worker's disk to vault, once it is back, also after a restart of this process."""

from __future__ import annotations

from collections.abc import Callable

from authpipe_consumer.words import Consumer, PackedWrite
from authpipe_oauth_worker.domain.ports import Coordinator, Kept, Spool
from authpipe_sensitive import DomainError, Status, get_log

# Nobody waits for an answer any more: it was found elsewhere, a token was sent since, its connection is gone.
_OUT_OF_DATE = {"ANSWER_NOT_AWAITED", "FENCE_OUTDATED", "CONNECTION_DISCONNECTED", "RECORD_VERSION_CONFLICT"}


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
        delivered = 0
        for kept in self._spool.waiting():
            write = self._vault.unpack(kept.packed)
            if write is None:
                get_log().error("an answer on the disk cannot be read")
                continue
            try:
                await self._deliver(kept, write)
            except DomainError as error:
                if error.reason in _OUT_OF_DATE:
                    get_log().warning("an answer on the disk is out of date", error=error)
                    self._spool.remove(kept.name)
                elif error.status is Status.UNAVAILABLE:
                    break  # whoever is away is away for the others too
                else:
                    get_log().warning("an answer was not delivered", error=error)
                continue
            delivered += 1
        return delivered

    async def _deliver(self, kept: Kept, write: PackedWrite) -> None:
        name = (write.workspace, write.connection, write.fence)
        request_id = self._new_id()
        grant = await self._coordinator.claim_answer(*name, request_id)
        # Each of the next steps may be the last one: all of them can be done again.
        await self._vault.put([write.write], [], grant, request_id)
        await self._coordinator.report_answer(*name, request_id)
        self._spool.remove(kept.name)
        get_log().info("an answer was delivered from the disk")
