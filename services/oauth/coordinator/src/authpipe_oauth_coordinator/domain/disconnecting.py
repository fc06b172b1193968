"""Disconnect: nothing is served from the first second; the Provider revokes; then everything is erased (promise P11; case 26).

    what the Provider answers            what is done                                        what the connection shows then
    done, or it knows no such token      erased                                              disconnected, REVOKED
    it has no way to revoke              erased                                              disconnected, NOT_REVOCABLE
                                         or, where it was asked for, kept sealed (P12)       kept, until when
    not now, or nothing                  asked again, later and later, at its Retry-After    disconnecting, and why
    no                                   erased                                              disconnected, REVOCATION_REFUSED
    not now for as long as is waited     erased                                              disconnected, REVOCATION_GIVEN_UP

Whoever disconnects waits five seconds at most. What is kept meanwhile is kept sealed, for revocation alone. What is kept to be
taken back opens for nobody, not for revocation either, and is erased after thirty days at most.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime, timedelta

from authpipe_oauth_coordinator.domain.due import LONGEST_ASKED, later
from authpipe_oauth_coordinator.domain.ports import Clock, ConfigStore, ConnectionStore, Job, Records, Worker
from authpipe_oauth_coordinator.domain.words import audit_entry, Acting, Connection, Kind, RevokeOutcome, State
from authpipe_oauth_coordinator.errors import NotFoundError, NotKeptError
from authpipe_sensitive import AuditEntry, DomainError, get_log
from authpipe_sensitive.duties import note_nothing_done

_AT_ONCE_SECONDS = 5.0
_NOT_REVOCABLE = "NOT_REVOCABLE"


class Disconnecting:
    """The rules over the end of connections.

    Args:
        configs: The table of provider configurations.
        connections: The table of connections.
        worker: The worker.
        vault: The store of user credentials.
        clock: Gives the time, with zone.
        new_id: Makes an id with a prefix.
        jitter: Gives a random number from 0 to 1.
        abandoned_seconds: After what time a disconnect or draft that nobody works on is taken up.
        patience: For how long a Provider is asked to revoke.
        longest_kept: For how long a connection may be kept to be taken back.
    """

    def __init__(
        self,
        configs: ConfigStore,
        connections: ConnectionStore,
        worker: Worker,
        vault: Records,
        clock: Clock,
        new_id: Callable[[str], str],
        jitter: Callable[[], float],
        abandoned_seconds: float,
        patience: timedelta,
        longest_kept: timedelta,
    ) -> None:
        self._configs = configs
        self._connections = connections
        self._worker = worker
        self._vault = vault
        self._clock = clock
        self._new_id = new_id
        self._jitter = jitter
        self._abandoned_seconds = abandoned_seconds
        self._patience = patience
        self._longest_kept = longest_kept

    async def disconnect(self, acting: Acting, connection_id: str, keep: timedelta = timedelta(0)) -> Connection:
        """Stops serving at once; revokes and erases or keeps, here if it is quick, else in the background.

        Args:
            acting: On whose behalf.
            connection_id: The connection.
            keep: For how long it is kept, to be taken back, where it cannot be revoked; as long as it may be, at most.
        """
        connection = await self._get(acting, connection_id)
        entry = _entry("CONNECTION_DISCONNECTING", acting, connection_id)
        kept = min(keep, self._longest_kept)
        until = self._clock() + kept if kept else None
        # Of what is kept already nothing is kept longer; it may be erased before.
        sources = (State.ACTIVE, State.NEEDS_REAUTH, *(() if until else (State.KEPT,)))
        moved_to = State.DISCONNECTING, "REQUESTED", entry, until
        await self._connections.move(acting.workspace, connection_id, sources, *moved_to)
        if connection.state is State.KEPT and until:
            return connection
        if connection.state is State.DISCONNECTED:
            return connection
        await self._vault.withhold(acting.workspace, connection_id, acting.request_id)
        moved = await self._get(acting, connection_id)
        task = asyncio.create_task(self.finish(moved, acting), name="finish disconnect")
        try:
            await asyncio.wait_for(asyncio.shield(task), _AT_ONCE_SECONDS)
        except TimeoutError:
            get_log().info("disconnect goes on in the background")
        return await self._get(acting, connection_id)

    async def finish(self, connection: Connection, acting: Acting) -> None:
        """Takes a disconnect to its end. May be run again at any point; what was done already does no harm."""
        workspace, connection_id = connection.workspace, connection.id
        try:
            if connection.state is State.DRAFT:
                # Closed before anything of it goes: an activation that comes now finds nothing to activate.
                entry = _entry("CONNECTION_DISCONNECTING", acting, connection_id)
                closed = (State.DRAFT,), State.DISCONNECTING, "ABANDONED"
                if not await self._connections.move(workspace, connection_id, *closed, entry):
                    return
            if connection.state is State.KEPT:
                entry = _entry("CONNECTION_DISCONNECTING", acting, connection_id)
                over = (State.KEPT,), State.DISCONNECTING, "KEPT_LONG_ENOUGH"
                if not await self._connections.move(workspace, connection_id, *over, entry):
                    return
            await self._vault.withhold(workspace, connection_id, acting.request_id)
            ended = await self._end(connection, acting)
            if not ended:
                return
            if ended == _NOT_REVOCABLE and connection.keep_until is not None and connection.state is not State.KEPT:
                await self._keep(connection, acting, connection.keep_until)
                return
            await self._vault.delete(workspace, connection_id, acting.request_id)
            entry = _entry("CONNECTION_DISCONNECTED", acting, connection_id)
            await self._connections.move(
                workspace, connection_id, (State.DISCONNECTING,), State.DISCONNECTED, ended, entry
            )
        except DomainError as error:
            get_log().warning("disconnect not finished, it is tried again", error=error)

    async def sweep(self) -> None:
        """Takes up disconnects to be tried again or interrupted, drafts nobody activated, and what was kept long enough."""
        for connection in await self._connections.unfinished(self._abandoned_seconds):
            acting = Acting(connection.workspace, "service:oauth/coordinator", self._new_id("req"))
            await self.finish(connection, acting)

    async def reconnect(self, acting: Acting, connection_id: str, grant: str) -> Connection:
        """Takes a connection back that was kept (promise P12). It keeps its id.

        Args:
            acting: On whose behalf.
            connection_id: The connection.
            grant: By which vault and keyservice take it back: authority's, not ours.

        Raises:
            NotKeptError: It is not kept, or not any more.
        """
        connection = await self._get(acting, connection_id)
        if connection.state is State.ACTIVE:
            note_nothing_done()
            return connection
        over = connection.keep_until is None or self._clock() >= connection.keep_until
        if connection.state is not State.KEPT or over:
            raise NotKeptError
        # Its key first: should we die, it is taken back by asking again, or erased when it is over.
        await self._vault.restore(grant, acting.request_id)
        entry = _entry("CONNECTION_RESTORED", acting, connection_id)
        await self._connections.move(acting.workspace, connection_id, (State.KEPT,), State.ACTIVE, "", entry)
        return await self._get(acting, connection_id)

    async def _keep(self, connection: Connection, acting: Acting, until: datetime) -> None:
        await self._vault.keep(connection.workspace, connection.id, until, acting.request_id)
        entry = _entry("CONNECTION_KEPT", acting, connection.id)
        source = (State.DISCONNECTING,)
        moved_to = State.KEPT, _NOT_REVOCABLE, entry, until
        await self._connections.move(connection.workspace, connection.id, source, *moved_to)

    async def _end(self, connection: Connection, acting: Acting) -> str:
        """Gives how a connection ended at its Provider, or nothing: it is asked again."""
        match connection.state:
            case State.DRAFT:
                return "ABANDONED"
            case State.KEPT:
                return "KEPT_LONG_ENOUGH"
            case _:
                return await self._revoke(connection, acting)

    async def _get(self, acting: Acting, connection_id: str) -> Connection:
        found = await self._connections.get_connection(acting.workspace, connection_id)
        if found is None or found.state is State.DRAFT:
            raise NotFoundError
        return found

    async def _revoke(self, connection: Connection, acting: Acting) -> str:
        """Revokes at the Provider; gives how that ended, or nothing: it is asked again."""
        config = await self._configs.get_config(connection.workspace, connection.provider_config_id)
        if connection.kind is not Kind.OAUTH2 or config is None:
            return _NOT_REVOCABLE
        if not config.endpoints.revocation_endpoint and config.entry.dialect.revocation is None:
            return _NOT_REVOCABLE
        job = Job(
            acting,
            connection.id,
            config,
            config.endpoints,
            purpose="revoke",
            authenticate=config.endpoints.auth_method != "none",
            values=connection.values,
            renewal=connection.renewal,
        )
        try:
            outcome = await self._worker.revoke(job)
        except DomainError as error:
            # A part of ours is away, or what was kept does not open any more.
            outcome = RevokeOutcome(revoked=False, failure=error.reason, retryable=True)
        if outcome.revoked:
            await self._connections.note(_entry("TOKEN_REVOKED", acting, connection.id))
            return "REVOKED"
        entry = _entry("REVOCATION_FAILED", acting, connection.id, reason=outcome.failure)
        now = self._clock()
        attempts = connection.failing.attempts if connection.failing is not None else 0
        if outcome.retryable and now - connection.state_at < self._patience:
            asked = min(timedelta(seconds=outcome.retry_after_seconds), LONGEST_ASKED)
            due = now + max(later(attempts + 1, self._jitter()), asked)
            await self._connections.postpone(
                connection.workspace, connection.id, outcome.failure, attempts + 1, due, entry
            )
            return ""
        await self._connections.note(entry)
        return "REVOCATION_GIVEN_UP" if outcome.retryable else "REVOCATION_REFUSED"


def _entry(name: str, acting: Acting, target: str, *, reason: str = "") -> AuditEntry:
    purpose = "revoke" if name in {"TOKEN_REVOKED", "REVOCATION_FAILED"} else ""
    return audit_entry(name, acting, target, reason=reason, purpose=purpose)
