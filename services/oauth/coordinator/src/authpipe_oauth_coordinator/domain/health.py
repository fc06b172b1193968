"""Whether credentials are good, asked of their Providers with harmless requests; and when API keys are to be replaced.

A Provider that does not answer, or answers something else, says nothing of a credential. One that says no is asked again a
minute later, and a token that can be refreshed is refreshed before: only then the connection needs to be connected again.
"""

from __future__ import annotations

import asyncio
import dataclasses
import enum
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Protocol

from authpipe_envelope import RecordClass
from authpipe_oauth_coordinator.domain.ports import Clock, ConfigStore, ConnectionStore, Job, Worker
from authpipe_oauth_coordinator.domain.refreshing import Refreshing, client_of
from authpipe_oauth_coordinator.domain.words import (
    Acting,
    Connection,
    Health,
    HealthOutcome,
    Kind,
    ProviderConfig,
    Renewal,
    State,
)
from authpipe_oauth_coordinator.errors import CheckTooSoonError, DisconnectedError, NotCheckableError, NotFoundError
from authpipe_providers import Endpoints, Entry
from authpipe_sensitive import AuditEntry, DomainError, get_log

REFUSED = "CREDENTIAL_REFUSED"
# keyservice opens a credential for a check once a minute at most.
_INTERVAL = timedelta(seconds=61)
# After so many refusals in a row it is believed.
_BELIEVED = 2
_CLASSES = {
    Kind.OAUTH2: RecordClass.ACCESS,
    Kind.OAUTH1: RecordClass.OAUTH1,
    Kind.API_KEY: RecordClass.API_KEY,
    Kind.BASIC: RecordClass.BASIC,
}
# So long before an API key ends it is time to replace it.
ROTATION_NOTICE = timedelta(days=14)
_MOST_TURNS = 50
_NOWHERE = Endpoints("", "", "", "", "none", iss_required=False)


class _Way(enum.Enum):
    """How a credential is tried: as its Provider's entry says, by RFC 7662, or at userinfo."""

    REQUEST = "request"
    INTROSPECTION = "introspection"
    USERINFO = "userinfo"


class CheckTable(Protocol):
    """Connections whose credential is to be tried."""

    async def claim_checks(self, most: int, seconds: float) -> list[Connection]:
        """Takes up connections whose check is due, fairly; they are not due again for some seconds."""

    async def rest_checks(self, connections: Sequence[Connection]) -> None:
        """Has connections not tried by themselves any more, but for those that became due anew since they were taken up."""

    async def tell_rotations(self, notice: timedelta, entry: Callable[[Connection], AuditEntry]) -> int:
        """Leaves an event for each API key that ends soon, once; gives how many."""


class HealthChecks:
    """Tries credentials.

    Args:
        configs: The table of provider configurations.
        connections: The table of connections.
        table: Connections whose check is due.
        refreshing: The rules over one refresh.
        worker: The worker.
        clock: Gives the time, with zone.
        new_id: Makes an id with a prefix.
        jitter: Gives a random number from 0 to 1.
        every: How often each credential is tried by itself.
        most: How many at once.
    """

    def __init__(
        self,
        configs: ConfigStore,
        connections: ConnectionStore,
        table: CheckTable,
        refreshing: Refreshing,
        worker: Worker,
        clock: Clock,
        new_id: Callable[[str], str],
        jitter: Callable[[], float],
        every: timedelta,
        most: int = 20,
    ) -> None:
        self._configs = configs
        self._connections = connections
        self._table = table
        self._refreshing = refreshing
        self._worker = worker
        self._clock = clock
        self._new_id = new_id
        self._jitter = jitter
        self._every = every
        self._most = most

    async def check(self, acting: Acting, connection_id: str) -> Connection:
        """Tries a credential now; gives the connection with what came of it.

        Raises:
            NotFoundError: There is no such connection.
            DisconnectedError: It is disconnected.
            NotCheckableError: Nobody knows a harmless request for it.
            CheckTooSoonError: It was tried within the last minute.
        """
        connection = await self._connections.get_connection(acting.workspace, connection_id)
        if connection is None or connection.state is State.DRAFT:
            raise NotFoundError
        if connection.state not in {State.ACTIVE, State.NEEDS_REAUTH}:
            raise DisconnectedError
        if connection.health is not None and self._clock() - connection.health.at < _INTERVAL:
            raise CheckTooSoonError
        await self._try(acting, connection)
        return await self._connections.get_connection(acting.workspace, connection_id) or connection

    async def run(self) -> None:
        """Tries what is due, and tells of API keys that end soon."""
        system = Acting("", "service:oauth/coordinator", self._new_id("req"))
        await self._table.tell_rotations(ROTATION_NOTICE, lambda each: _entry("ROTATION_DUE", system, each, ""))
        # What nobody can try stands in no one's way. However much of it there is, a process that ends is not held up by it.
        for _ in range(_MOST_TURNS):
            if not await self._turn():
                return

    async def _turn(self) -> bool:
        """Tries some of what is due; says whether nothing of it could be tried and there may be more."""
        claimed = await self._table.claim_checks(self._most, 3 * _INTERVAL.total_seconds())
        tried = await asyncio.gather(*map(self._scheduled, claimed))
        # Their Providers' entries are pinned: they do not become checkable until they are connected again.
        cannot = [each for each, could in zip(claimed, tried, strict=True) if not could]
        if cannot:
            await self._table.rest_checks(cannot)
        return len(cannot) == self._most

    async def _scheduled(self, connection: Connection) -> bool:
        """Tries one; gives False where nobody can."""
        acting = Acting(connection.workspace, "service:oauth/coordinator", self._new_id("req"))
        try:
            await self._try(acting, connection)
        except NotCheckableError:
            return False
        except DomainError as error:
            get_log().info("a credential was not tried, it is tried again", error=error)
        return True

    async def _try(self, acting: Acting, connection: Connection) -> None:
        record_class = _CLASSES.get(connection.kind)
        config = await self._client(connection)
        if record_class is None or config is None or (way := _way(config, connection, record_class)) is None:
            raise NotCheckableError
        if connection.kind is Kind.OAUTH2:
            connection = await self._living(acting, connection)
        before = connection.health
        rotation = config.entry.rotation_check is not None and connection.kind is Kind.API_KEY
        if way is not _Way.REQUEST:
            config = dataclasses.replace(config, entry=dataclasses.replace(config.entry, health=None))
        job = Job(
            acting,
            connection.id,
            config,
            config.endpoints,
            purpose="rotation_check" if rotation else "health_check",
            authenticate=connection.kind is Kind.OAUTH1 or way is _Way.INTROSPECTION,
            values=connection.values,
            record_class=record_class,
        )
        outcome = await self._worker.check(job, rotation=rotation)
        health, due = self._judge(before, outcome, way)
        name = "HEALTH_CHECK_FAILED" if outcome.failure else "HEALTH_CHECK_PASSED"
        entry = _entry(name, acting, connection, outcome.failure)
        rotate_at = outcome.rotate_at or connection.rotate_at
        await self._connections.note_health(connection, health, due, rotate_at, entry)
        if 0 < health.refusals < _BELIEVED:
            await self._refresh(acting, connection)

    def _judge(self, before: Health | None, outcome: HealthOutcome, way: _Way) -> tuple[Health, datetime]:
        now = self._clock()
        refusals, ever_passed = (before.refusals, before.ever_passed) if before is not None else (0, False)
        usual = now + self._every * (0.75 + self._jitter() / 2)
        if not outcome.failure:
            return Health("passing", "", now, ever_passed=True), usual
        if outcome.refused and way is not _Way.REQUEST and not ever_passed:
            # A Provider may say so of every token, as one that does not let our client ask (RFC 7662, section 2.2).
            return Health("unknown", REFUSED, now), usual
        if outcome.refused:
            # Asked again as soon as it may be; after that a good answer is waited for as usual.
            confirmed = refusals + 1 >= _BELIEVED
            due = now + (self._every if confirmed else _INTERVAL)
            return Health("failing", REFUSED, now, min(refusals + 1, _BELIEVED), ever_passed), due
        return Health("unknown", outcome.failure, now, refusals, ever_passed), now + self._every / 4

    async def _living(self, acting: Acting, connection: Connection) -> Connection:
        """Has a token refreshed that has ended: what is tried is one that should be good."""
        ended = connection.expires_at is not None and connection.expires_at <= self._clock()
        if not ended or not connection.refreshable or connection.state is not State.ACTIVE:
            return connection
        await self._refreshing.once(acting, connection, forced=False)
        return await self._connections.get_connection(connection.workspace, connection.id) or connection

    async def _refresh(self, acting: Acting, connection: Connection) -> None:
        """Has a token refreshed that its Provider does not take before it ends."""
        if connection.kind is not Kind.OAUTH2 or not connection.refreshable or connection.state is not State.ACTIVE:
            return
        try:
            await self._refreshing.once(acting, connection, forced=True)
        except DomainError as error:
            get_log().info("a token that was refused was not refreshed", error=error)

    async def _client(self, connection: Connection) -> ProviderConfig | None:
        """Gives the OAuth client of a connection; of one with a key, what is known of its Provider."""
        if connection.kind in {Kind.OAUTH2, Kind.OAUTH1}:
            return await client_of(self._configs, connection)
        entry = connection.entry or Entry("", "")
        config = ProviderConfig(
            connection.workspace,
            "",
            connection.provider,
            "",
            "",
            (),
            (),
            entry.endpoints or _NOWHERE,
            connection.hosts,
            connection.created_at,
            entry,
            (),
        )
        return config if connection.entry is not None else None


def _way(config: ProviderConfig, connection: Connection, record_class: RecordClass) -> _Way | None:
    """Says how a credential is tried; None: nobody knows a request whose answer says something of it."""
    known = config.endpoints
    health = config.entry.health
    if record_class is not RecordClass.ACCESS:
        return _Way.REQUEST if health is not None else None
    if health is not None and health.url != known.userinfo_endpoint:
        return _Way.REQUEST
    if known.introspection_endpoint and known.auth_method != "none":
        return _Way.INTROSPECTION
    # Userinfo refuses a good token as well, unless it is of a person who signed in (OpenID Connect Core 1.0, section 5.3).
    signed_in = connection.renewal is Renewal.REFRESH_TOKEN and "openid" in connection.scopes
    return _Way.USERINFO if known.userinfo_endpoint and signed_in else None


def _entry(name: str, acting: Acting, connection: Connection, reason: str) -> AuditEntry:
    return AuditEntry(
        name=name,
        outcome="FAILED" if reason else "SUCCEEDED",
        actor=acting.actor,
        request_id=acting.request_id,
        workspace_id=connection.workspace,
        target=connection.id,
        purpose="health_check" if name.startswith("HEALTH") else "rotation_check",
        reason=reason,
    )
