"""Connections that a person agrees to on another device (RFC 8628): begun by the backend, asked about until it is over.

The draft of the connection is there before the Provider is asked, so that whatever is left of a flow is swept with it.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta

from authpipe_envelope import hosts_digest
from authpipe_oauth_coordinator.domain.due import due_at
from authpipe_oauth_coordinator.domain.failures import Cure, meaning
from authpipe_oauth_coordinator.domain.ports import (
    AuditLog,
    Clock,
    ConfigStore,
    ConnectionStore,
    DeviceStore,
    Job,
    Worker,
)
from authpipe_oauth_coordinator.domain.words import (
    audit_entry,
    Acting,
    BegunDevice,
    Connection,
    DeviceFlow,
    Kind,
    ProviderConfig,
    State,
    TokenOutcome,
)
from authpipe_oauth_coordinator.errors import ExchangeError, GrantNotOfferedError, MalformedError, NotFoundError
from authpipe_providers import connection_hosts, require_values, urls
from authpipe_sensitive import DomainError, Label, get_log

_MOST_AT_ONCE = 50
# RFC 8628, section 3.5: five seconds more each time that it is asked for.
_SLOWER_SECONDS, _SLOWEST_SECONDS = 5, 120
_PENDING, _SLOW_DOWN = "AUTHORIZATION_PENDING", "PROVIDER_SLOW_DOWN"


class DeviceFlows:
    """The rules over device flows.

    Args:
        configs: The table of provider configurations.
        connections: The table of connections.
        devices: The table of device flows.
        worker: The worker.
        audit: The audit log.
        clock: Gives the time, with zone.
        new_id: Makes an id with a prefix.
        jitter: Gives a random number from 0 to 1.
    """

    def __init__(
        self,
        configs: ConfigStore,
        connections: ConnectionStore,
        devices: DeviceStore,
        worker: Worker,
        audit: AuditLog,
        clock: Clock,
        new_id: Callable[[str], str],
        jitter: Callable[[], float],
    ) -> None:
        self._configs = configs
        self._connections = connections
        self._devices = devices
        self._worker = worker
        self._audit = audit
        self._clock = clock
        self._new_id = new_id
        self._jitter = jitter

    async def begin(
        self, acting: Acting, config_id: str, end_user_id: str, values: Mapping[str, str]
    ) -> tuple[DeviceFlow, BegunDevice]:
        """Begins a flow; gives it with what the end user needs.

        Raises:
            NotFoundError: There is no such provider configuration.
            GrantNotOfferedError: Its Provider has no device authorization endpoint.
            ExchangeError: The Provider did not give a code.
        """
        if not 1 <= len(end_user_id) <= 200 or not end_user_id.isprintable():
            raise MalformedError(field=Label("end_user_id"))
        config = await self._configs.get_config(acting.workspace, config_id)
        if config is None:
            raise NotFoundError
        if "device_code" not in config.entry.grants or not config.endpoints.device_endpoint:
            raise GrantNotOfferedError
        await self._audit.require_reachable()
        now = self._clock()
        draft = _draft(acting, config, self._new_id("con"), end_user_id, values, now)
        flow = DeviceFlow(acting.workspace, draft.id, config.id, now + timedelta(minutes=1), 5, "pending")
        await self._devices.add_device(flow, draft, audit_entry("FLOW_BEGUN", acting, draft.id))
        begun = await self._worker.begin_device(self._job(acting, config, draft, "store"))
        if begun.failure:
            await self._devices.note_device(dataclasses.replace(flow, status="denied"))
            raise ExchangeError(provider_reason=Label(begun.failure))
        flow = dataclasses.replace(
            flow,
            expires_at=now + timedelta(seconds=begun.life_seconds),
            interval_seconds=begun.interval_seconds,
        )
        await self._devices.note_device(flow)
        return flow, begun

    async def get(self, acting: Acting, connection_id: str) -> DeviceFlow:
        """Says how far a flow is.

        Raises:
            NotFoundError: There is none.
        """
        found = await self._devices.get_device(acting.workspace, connection_id)
        if found is None:
            raise NotFoundError
        return found

    async def run(self) -> None:
        """Asks about every flow that may be asked about now."""
        claimed = await self._devices.claim_devices(_MOST_AT_ONCE)
        await asyncio.gather(*map(self._ask, claimed))

    async def _ask(self, flow: DeviceFlow) -> None:
        acting = Acting(flow.workspace, "service:oauth/coordinator", self._new_id("req"))
        try:
            await self._poll(acting, flow)
        except DomainError as error:
            get_log().info("a device flow was not asked about, it is tried again", error=error)

    async def _poll(self, acting: Acting, flow: DeviceFlow) -> None:
        config = await self._configs.get_config(flow.workspace, flow.provider_config_id)
        draft = await self._connections.get_connection(flow.workspace, flow.connection_id)
        if config is None or draft is None or draft.state is not State.DRAFT or self._clock() >= flow.expires_at:
            await self._end(acting, flow, "expired", "EXPIRED_TOKEN")
            return
        outcome = await self._worker.poll_device(self._job(acting, config, draft, "exchange"))
        if not outcome.failure:
            await self._connect(acting, flow, outcome)
        elif outcome.failure == _SLOW_DOWN:
            slower = min(flow.interval_seconds + _SLOWER_SECONDS, _SLOWEST_SECONDS)
            await self._devices.note_device(dataclasses.replace(flow, interval_seconds=slower))
        elif outcome.failure != _PENDING and meaning(outcome.failure).cure in {Cure.END_USER, Cure.CUSTOMER}:
            status = "expired" if outcome.failure == "EXPIRED_TOKEN" else "denied"
            await self._end(acting, flow, status, outcome.failure)

    async def _connect(self, acting: Acting, flow: DeviceFlow, outcome: TokenOutcome) -> None:
        entry = audit_entry("CONNECTION_CREATED", acting, flow.connection_id)
        due = due_at(self._clock(), outcome.expires_at, self._jitter()) if outcome.refreshable else None
        await self._connections.activate(flow.workspace, flow.connection_id, outcome, due, entry)
        await self._devices.note_device(dataclasses.replace(flow, status="connected"))

    async def _end(self, acting: Acting, flow: DeviceFlow, status: str, reason: str) -> None:
        entry = audit_entry("CONNECTION_FAILED", acting, flow.connection_id, reason=reason)
        # What was sealed for it goes with the draft, which is swept.
        moved_to = State.DISCONNECTING, reason, entry
        await self._connections.move(flow.workspace, flow.connection_id, (State.DRAFT,), *moved_to)
        await self._devices.note_device(dataclasses.replace(flow, status=status))

    def _job(self, acting: Acting, config: ProviderConfig, draft: Connection, purpose: str) -> Job:
        return Job(
            acting,
            draft.id,
            config,
            config.endpoints,
            purpose=purpose,
            authenticate=config.endpoints.auth_method != "none",
            scopes=config.scopes,
            values=draft.values,
        )


def _draft(
    acting: Acting,
    config: ProviderConfig,
    connection_id: str,
    end_user_id: str,
    values: Mapping[str, str],
    now: datetime,
) -> Connection:
    rules = config.entry.values
    kept = tuple(sorted(require_values(rules, values).items()))
    return Connection(
        workspace=acting.workspace,
        id=connection_id,
        state=State.DRAFT,
        state_reason="",
        # A draft is swept a quarter of an hour after this: not before the longest of these flows is over.
        state_at=now + timedelta(hours=1),
        kind=Kind.OAUTH2,
        provider=config.provider,
        provider_config_id=config.id,
        end_user_id=end_user_id,
        scopes=(),
        expires_at=None,
        refreshable=False,
        hosts=hosts_digest(connection_hosts(urls(config.entry), dict(kept), rules)),
        refreshed_at=now,
        created_at=now,
        values=kept,
    )
