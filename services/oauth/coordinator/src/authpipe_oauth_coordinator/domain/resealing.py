"""Sealing records again at once, after their connection key was rotated on a suspicion."""

from __future__ import annotations

from functools import partial
import asyncio
from datetime import timedelta

from authpipe_envelope import CLIENT_SECRETS, RecordClass
from authpipe_oauth_coordinator.domain.leasing import Leasing
from authpipe_oauth_coordinator.domain.ports import AuditLog, Clock, ConfigStore, ConnectionStore, Worker
from authpipe_oauth_coordinator.domain.words import audit_entry, Acting, Kind, State, Unfinished
from authpipe_oauth_coordinator.errors import DisconnectedError, LeaseHeldError, NotFoundError
from authpipe_sensitive import DomainError

_WAIT_SECONDS = 0.1
_GIVE_UP = timedelta(seconds=30)
_CLASSES = {
    Kind.OAUTH2: (RecordClass.ACCESS, RecordClass.REFRESH, RecordClass.DPOP_KEY),
    Kind.OAUTH1: (RecordClass.OAUTH1,),
    Kind.API_KEY: (RecordClass.API_KEY,),
    Kind.BASIC: (RecordClass.BASIC,),
    Kind.WEBHOOK_SECRET: (RecordClass.WEBHOOK_SECRET,),
}
_entry = partial(audit_entry, purpose="reseal")


class Resealing:
    """Has records sealed again, under the lease of their connection, so that no refresh comes between.

    Args:
        configs: The table of provider configurations.
        connections: The table of connections.
        leasing: Leases of connections.
        worker: The worker.
        audit: The audit log.
        clock: Gives the time, with zone.
    """

    def __init__(
        self,
        configs: ConfigStore,
        connections: ConnectionStore,
        leasing: Leasing,
        worker: Worker,
        audit: AuditLog,
        clock: Clock,
    ) -> None:
        self._configs = configs
        self._connections = connections
        self._leasing = leasing
        self._worker = worker
        self._audit = audit
        self._clock = clock

    async def connection(self, acting: Acting, connection_id: str) -> int:
        """Has the records of a connection sealed again; gives how many were not on the newest key version.

        Raises:
            NotFoundError: There is no such connection.
            DisconnectedError: It is disconnected: its key is destroyed, or about to be.
            LeaseHeldError: Somebody else writes its records, for half a minute by now.
        """
        found = await self._connections.get_connection(acting.workspace, connection_id)
        if found is None or found.state is State.DRAFT:
            raise NotFoundError
        if found.state in {State.DISCONNECTING, State.DISCONNECTED}:
            raise DisconnectedError
        await self._audit.require_reachable()
        fence = await self._acquire(acting, connection_id)
        count, failure = 0, None
        try:
            with self._leasing.kept(acting.workspace, connection_id, fence):
                count = await self._worker.reseal(acting, connection_id, _CLASSES[found.kind], fence)
        except DomainError as error:
            failure = error
        entry = _entry("RECORDS_RESEALED", acting, connection_id, reason=failure.reason if failure else "")
        await self._leasing.end(acting.workspace, connection_id, fence, None, entry)
        if failure is not None:
            raise failure
        return count

    async def provider_config(self, acting: Acting, config_id: str) -> int:
        """Has the client secret of a provider configuration sealed again; gives whether it was on an older key version.

        Raises:
            NotFoundError: There is no such provider configuration.
        """
        config = await self._configs.get_config(acting.workspace, config_id)
        if config is None:
            raise NotFoundError
        classes = tuple(sorted(CLIENT_SECRETS))  # also the one that is out of use: its key is to go
        await self._audit.require_reachable()
        await self._connections.note(_entry("RESEAL_BEGUN", acting, config_id))
        try:
            # No lease: the store takes a version only over the one before, so whoever is late changes nothing.
            count = await self._worker.reseal(acting, config_id, classes, 0)
        except DomainError as error:
            await self._connections.note(_entry("RECORDS_RESEALED", acting, config_id, reason=error.reason))
            raise
        await self._connections.note(_entry("RECORDS_RESEALED", acting, config_id))
        return count

    async def _acquire(self, acting: Acting, connection_id: str) -> int:
        give_up = self._clock() + _GIVE_UP
        while True:
            entry = _entry("RESEAL_BEGUN", acting, connection_id)
            lease = await self._leasing.acquire(acting.workspace, connection_id, entry)
            if lease is not None and lease.left.unfinished is Unfinished.NOTHING:
                return lease.fence
            if lease is not None:
                # The refresh token may be spent: sealed again it would look like the one that came for it.
                await self._leasing.end(acting.workspace, connection_id, lease.fence)
            if self._clock() > give_up:
                raise LeaseHeldError
            await asyncio.sleep(_WAIT_SECONDS)
