"""coordinator's tables twice: as a double in memory and in PostgreSQL. One suite runs over both, so that the double is true."""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import authpipe_oauth_coordinator
import pytest
from authpipe_database import Database, Outbox
from authpipe_oauth_coordinator.domain.words import (
    Connection,
    DeviceFlow,
    Ending,
    Failing,
    Flow,
    Health,
    Kind,
    Lease,
    Left,
    ProviderConfig,
    State,
    TokenOutcome,
)
from authpipe_providers import Endpoints
from authpipe_oauth_coordinator.store import ConfigTable, ConnectionTable, FlowTable, LeaseTable
from authpipe_sensitive import AuditEntry
from authpipe_testing.database import own_database

ENDPOINTS = Endpoints(
    "https://as.example",
    "https://as.example/a",
    "https://as.example/t",
    "https://as.example/r",
    "none",
    iss_required=True,
)


@dataclass
class FakeTables:
    """The tables in memory, with the same promises: a change and its event are one step."""

    events: list[AuditEntry] = field(default_factory=list)
    connections: dict[tuple[str, str], Connection] = field(default_factory=dict)
    configs: dict[tuple[str, str], ProviderConfig] = field(default_factory=dict)
    leases: dict[tuple[str, str], tuple[str, int, float]] = field(default_factory=dict)
    left: dict[tuple[str, str], Left] = field(default_factory=dict)
    flows: dict[bytes, Flow] = field(default_factory=dict)
    used: set[bytes] = field(default_factory=set)
    devices: dict[tuple[str, str], DeviceFlow] = field(default_factory=dict)
    checks: dict[tuple[str, str], dt.datetime | None] = field(default_factory=dict)
    now: Callable[[], dt.datetime] = lambda: dt.datetime.now(dt.UTC)

    async def get_config(self, workspace: str, config_id: str) -> ProviderConfig | None:
        return self.configs.get((workspace, config_id))

    async def note(self, entry: AuditEntry) -> None:
        self.events.append(entry)

    async def add_connection(self, connection: Connection, entry: AuditEntry) -> None:
        self.connections[connection.workspace, connection.id] = connection
        self.events.append(entry)

    async def get_connection(self, workspace: str, connection_id: str) -> Connection | None:
        return self.connections.get((workspace, connection_id))

    async def activate(
        self, workspace: str, connection_id: str, outcome: TokenOutcome, due: dt.datetime | None, entry: AuditEntry
    ) -> Connection | None:
        found = self.connections.get((workspace, connection_id))
        if found is None or found.state is not State.DRAFT:
            return None
        made = dataclasses.replace(
            found,
            state=State.ACTIVE,
            scopes=outcome.scopes,
            expires_at=outcome.expires_at,
            refreshable=outcome.refreshable,
            refresh_due_at=due,
        )
        self.connections[workspace, connection_id] = made
        self.events.append(entry)
        return made

    async def move(
        self,
        workspace: str,
        connection_id: str,
        sources: tuple[State, ...],
        target: State,
        reason: str,
        entry: AuditEntry,
        keep_until: dt.datetime | None = None,
    ) -> bool:
        found = self.connections.get((workspace, connection_id))
        if found is None or found.state not in sources:
            return False
        due = self.now() if target is State.ACTIVE and found.refreshable else found.refresh_due_at
        self.connections[workspace, connection_id] = dataclasses.replace(
            found, state=target, state_reason=reason, failing=None, keep_until=keep_until, refresh_due_at=due
        )
        self.events.append(entry)
        return True

    async def postpone(
        self, workspace: str, connection_id: str, reason: str, attempts: int, due: dt.datetime, entry: AuditEntry
    ) -> None:
        found = self.connections[workspace, connection_id]
        if found.state is State.DISCONNECTING:
            since = found.failing.since if found.failing is not None else self.now()
            failing = Failing(reason, since, attempts, due)
            self.connections[workspace, connection_id] = dataclasses.replace(
                found, state_reason=reason, refresh_due_at=None, failing=failing
            )
        self.events.append(entry)

    async def tell_rotations(self, _notice: dt.timedelta, _entry: Callable[[Connection], AuditEntry]) -> int:
        return 0

    async def claim_checks(self, most: int, seconds: float) -> list[Connection]:
        due = [name for name in self.connections if self.checks.get(name, self.now()) == self.now()][:most]
        self.checks |= dict.fromkeys(due, self.now() + dt.timedelta(seconds=seconds))
        return [self.connections[name] for name in due]

    async def rest_checks(self, connections: Sequence[Connection]) -> None:
        self.checks |= {(each.workspace, each.id): None for each in connections}

    async def note_health(
        self,
        checked: Connection,
        health: Health,
        due: dt.datetime | None,
        rotate_at: dt.datetime | None,
        entry: AuditEntry,
    ) -> None:
        found = self.connections[checked.workspace, checked.id]
        if found.state in {State.ACTIVE, State.NEEDS_REAUTH}:
            found = dataclasses.replace(found, health=health, rotate_at=rotate_at)
        if found.state is State.ACTIVE and health.refusals > 1:
            found = dataclasses.replace(found, state=State.NEEDS_REAUTH, state_reason=health.reason)
        elif (found.state, found.state_reason, health.state) == (State.NEEDS_REAUTH, "CREDENTIAL_REFUSED", "passing"):
            found = dataclasses.replace(found, state=State.ACTIVE, state_reason="")
        self.connections[checked.workspace, checked.id] = found
        self.checks[checked.workspace, checked.id] = due
        self.events.append(entry)

    async def change_secrets(
        self, config: ProviderConfig, classes: tuple[int, ...], entry: AuditEntry
    ) -> ProviderConfig | None:
        found = self.configs[config.workspace, config.id]
        if found.secret_classes != config.secret_classes:
            return None
        self.configs[config.workspace, config.id] = dataclasses.replace(found, secret_classes=classes)
        self.events.append(entry)
        return self.configs[config.workspace, config.id]

    async def add_device(self, flow: DeviceFlow, draft: Connection, entry: AuditEntry) -> None:
        self.devices[flow.workspace, flow.connection_id] = flow
        await self.add_connection(draft, entry)

    async def get_device(self, workspace: str, connection_id: str) -> DeviceFlow | None:
        return self.devices.get((workspace, connection_id))

    async def note_device(self, flow: DeviceFlow) -> None:
        self.devices[flow.workspace, flow.connection_id] = flow

    async def claim_devices(self, most: int) -> list[DeviceFlow]:
        return [each for each in self.devices.values() if each.status == "pending"][:most]

    async def add_flow(self, state_hash: bytes, flow: Flow, entry: AuditEntry) -> None:
        self.flows[state_hash] = flow
        self.events.append(entry)

    async def use_flow(self, state_hash: bytes, entry: Callable[[Flow], AuditEntry]) -> Flow | None:
        flow = self.flows.get(state_hash)
        if flow is None or state_hash in self.used:
            return None
        self.used.add(state_hash)
        self.events.append(entry(flow))
        return flow

    async def acquire_lease(
        self, workspace: str, connection_id: str, holder: str, seconds: float, entry: AuditEntry
    ) -> Lease | None:
        _, fence, until = self.leases.get((workspace, connection_id), ("", 0, float("-inf")))
        now = self.now().timestamp()
        if until >= now:
            return None
        self.leases[workspace, connection_id] = (holder, fence + 1, now + seconds)
        self.events.append(entry)
        return Lease(fence + 1, await self.get_left(workspace, connection_id))

    async def note_left(self, workspace: str, connection_id: str, fence: int, left: Left) -> bool:
        _, newest, _ = self.leases.get((workspace, connection_id), ("", 0, 0.0))
        if newest == fence:
            self.left[workspace, connection_id] = left
        return newest == fence

    async def get_left(self, workspace: str, connection_id: str) -> Left:
        return self.left.get((workspace, connection_id), Left())

    async def extend_leases(self, held: Sequence[tuple[str, str, int]], seconds: float) -> set[tuple[str, str, int]]:
        alive = set()
        for workspace, connection_id, fence in held:
            holder, newest, lives_until = self.leases.get((workspace, connection_id), ("", 0, 0.0))
            if newest == fence and lives_until > float("-inf"):
                self.leases[workspace, connection_id] = (holder, fence, self.now().timestamp() + seconds)
                alive.add((workspace, connection_id, fence))
        return alive

    async def end_lease(
        self,
        workspace: str,
        connection_id: str,
        fence: int,
        ending: Ending,
        entry: AuditEntry | None,
    ) -> None:
        holder, newest, _ = self.leases.get((workspace, connection_id), ("", 0, 0.0))
        if newest == fence:
            if ending.left is not None:
                self.left[workspace, connection_id] = ending.left
            self.leases[workspace, connection_id] = (holder, fence, float("-inf"))
            found = self.connections.get((workspace, connection_id))
            tokens = ending.tokens
            if found is not None and tokens is not None and found.state in {State.ACTIVE, State.NEEDS_REAUTH}:
                found = dataclasses.replace(
                    found,
                    state=State.ACTIVE,
                    state_reason="",
                    expires_at=tokens.expires_at,
                    refreshable=tokens.refreshable,
                    scopes=tokens.scopes or found.scopes,
                    refreshed_at=self.now(),
                    refresh_due_at=ending.due,
                    failing=None,
                    metadata=tuple(sorted((dict(found.metadata) | dict(tokens.metadata)).items())),
                )
            if found is not None and ending.failing is not None:
                found = dataclasses.replace(found, refresh_due_at=ending.due, failing=ending.failing)
            if found is not None and ending.reauth and found.state is State.ACTIVE:
                found = dataclasses.replace(found, state=State.NEEDS_REAUTH, state_reason=ending.reauth)
            if found is not None:
                self.connections[workspace, connection_id] = found
        if entry is not None:
            self.events.append(entry)


@dataclass(frozen=True)
class Tables:
    """The tables under test."""

    configs: ConfigTable | FakeTables
    connections: ConnectionTable | FakeTables
    flows: FlowTable | FakeTables
    leases: LeaseTable | FakeTables


@pytest.fixture
def fake() -> FakeTables:
    """The double."""
    return FakeTables()


@pytest.fixture(scope="session")
async def database(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Database]:
    """A database of coordinator's own."""
    migrations = Path(authpipe_oauth_coordinator.__file__).parent / "migrations"
    with own_database(tmp_path_factory.mktemp("database"), "coordinator", migrations) as (config, _):
        made = Database(config)
        await made.open()
        yield made
        await made.close()


@pytest.fixture(params=["double", "PostgreSQL"])
async def tables(request: pytest.FixtureRequest, fake: FakeTables, database: Database) -> Tables:
    """Both, one after the other."""
    if request.param == "double":
        return Tables(fake, fake, fake, fake)
    own = (database, Outbox())
    return Tables(ConfigTable(*own), ConnectionTable(*own), FlowTable(*own), LeaseTable(*own))


def _connection(name: str, **changes: object) -> Connection:
    now = dt.datetime.now(dt.UTC)
    made = Connection(
        workspace="ws",
        id=name,
        state=State.DRAFT,
        state_reason="",
        state_at=now,
        kind=Kind.OAUTH2,
        provider="as.example",
        provider_config_id="pc",
        end_user_id="user",
        scopes=("a",),
        expires_at=None,
        refreshable=True,
        hosts=bytes(32),
        refreshed_at=now,
        created_at=now,
    )
    return dataclasses.replace(made, **changes)  # type: ignore[arg-type]


@pytest.fixture
def connection() -> Callable[..., Connection]:
    """Makes connections."""
    return _connection


def _entry(name: str) -> AuditEntry:
    return AuditEntry(name=name, outcome="SUCCEEDED", actor="service:test", request_id="r", workspace_id="ws")


@pytest.fixture
def entry() -> Callable[[str], AuditEntry]:
    """Makes events."""
    return _entry
