"""Answers of Providers that wait on a worker's disk: who may still store one, and what then becomes of it."""

from __future__ import annotations

from functools import partial
import asyncio
from collections.abc import Callable

from authpipe_oauth_coordinator.domain.ports import ConnectionStore, LeaseStore
from authpipe_oauth_coordinator.domain.refreshing import Refreshing
from authpipe_oauth_coordinator.domain.words import audit_entry, Acting, Connection, State
from authpipe_oauth_coordinator.errors import AnswerNotAwaitedError
from authpipe_sensitive import DomainError, get_log

_entry = partial(audit_entry, purpose="refresh")


class Answers:
    """The rules over answers that wait.

    Args:
        connections: The table of connections.
        leases: The table of leases.
        refreshing: The rules over one refresh.
        sign: Signs the grant to store an answer: for whom, connection, thumbprint, fence.
    """

    def __init__(
        self,
        connections: ConnectionStore,
        leases: LeaseStore,
        refreshing: Refreshing,
        sign: Callable[[Acting, str, str, int], str],
    ) -> None:
        self._connections = connections
        self._leases = leases
        self._refreshing = refreshing
        self._sign = sign
        self._judging: set[asyncio.Task[None]] = set()

    async def claim(self, acting: Acting, connection_id: str, fence: int, thumbprint: str) -> str:
        """Gives the grant to store an answer.

        Raises:
            AnswerNotAwaitedError: Nobody waits for it: it was found elsewhere, a token was sent since, or its connection
                is disconnected.
        """
        await self._require_awaited(acting, connection_id, fence)
        await self._connections.note(_entry("ANSWER_CLAIMED", acting, connection_id))
        return self._sign(acting, connection_id, thumbprint, fence)

    async def report(self, acting: Acting, connection_id: str, fence: int) -> None:
        """Hears that an answer is stored, and has it judged.

        Raises:
            AnswerNotAwaitedError: Nobody waits for it.
        """
        connection = await self._require_awaited(acting, connection_id, fence)
        await self._connections.note(_entry("ANSWER_DELIVERED", acting, connection_id))
        task = asyncio.create_task(self._judge(acting, connection), name="judge a delivered answer")
        self._judging.add(task)
        task.add_done_callback(self._judging.discard)

    async def _require_awaited(self, acting: Acting, connection_id: str, fence: int) -> Connection:
        connection = await self._connections.get_connection(acting.workspace, connection_id)
        left = await self._leases.get_left(acting.workspace, connection_id)
        if connection is None or connection.state is not State.ACTIVE or fence == 0 or left.fence != fence:
            raise AnswerNotAwaitedError
        return connection

    async def _judge(self, acting: Acting, connection: Connection) -> None:
        try:
            await self._refreshing.once(acting, connection, forced=False)
        except DomainError as error:
            get_log().info("a delivered answer was not judged yet", error=error)
