"""A stage for coordinator's rules: tables, a worker, vault, an audit log and a clock handed in, and what happened."""

from __future__ import annotations

import asyncio
import dataclasses
import datetime as dt
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest
from authpipe_envelope import RecordClass
from authpipe_oauth_coordinator.domain.answers import Answers
from authpipe_oauth_coordinator.domain.connections import Connections
from authpipe_oauth_coordinator.domain.device_flows import DeviceFlows
from authpipe_oauth_coordinator.domain.disconnecting import Disconnecting
from authpipe_oauth_coordinator.domain.entries import Entries
from authpipe_oauth_coordinator.domain.health import HealthChecks
from authpipe_oauth_coordinator.domain.imports import Imports
from authpipe_oauth_coordinator.domain.leasing import Leasing
from authpipe_oauth_coordinator.domain.ports import Job
from authpipe_oauth_coordinator.domain.refreshing import Refreshing
from authpipe_oauth_coordinator.domain.resealing import Resealing
from authpipe_oauth_coordinator.domain.words import (
    Acting,
    BegunDevice,
    Connection,
    HealthOutcome,
    ProviderConfig,
    RevokeOutcome,
    State,
    TokenOutcome,
)
from authpipe_providers import Endpoints, Entry
from authpipe_oauth_coordinator.errors import AuditUnavailableError, NeedsReauthError, RefreshFailedError
from authpipe_sensitive import DomainError, Status

ACTING = Acting("ws", "api_key:key_1", "req_1")
START = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
ENDPOINTS = Endpoints(
    "https://as.example",
    "https://as.example/a",
    "https://as.example/t",
    "https://as.example/r",
    "none",
    iss_required=True,
)
CONFIG = ProviderConfig("ws", "pc", "as.example", "AS", "client", ("a",), ("https://x",), ENDPOINTS, bytes(32), START)


class AwayError(DomainError):
    """A peer is away."""

    reason = "DEPENDENCY_UNAVAILABLE"
    status = Status.UNAVAILABLE


class Stage:
    """The parts around the rules, and what happened."""

    away = AwayError

    def __init__(self, fake: Any, expires_in: float = -1) -> None:
        self.tables = fake
        self.now = START
        fake.now = self.clock
        fake.configs["ws", "pc"] = CONFIG
        self._processes: dict[str, Refreshing] = {}
        self.jobs: list[Job] = []
        self.revoked: list[Job] = []
        self.resealed: list[tuple[str, tuple[RecordClass, ...], int]] = []
        self.withheld: list[str] = []
        self.erased: list[str] = []
        self.audit_away = self.vault_away = self.worker_away = False
        self.hold = asyncio.Event()
        self.hold.set()
        self.answer: TokenOutcome | DomainError = TokenOutcome("", (), START + dt.timedelta(hours=1), refreshable=True)
        self.health: HealthOutcome | DomainError = HealthOutcome()
        self.polled: TokenOutcome | DomainError = TokenOutcome("AUTHORIZATION_PENDING")
        self.begun = BegunDevice("", "ABCD", "https://as.example/device", "", 600, 5)
        self.kept: list[tuple[str, dt.datetime]] = []
        self.restored: list[str] = []
        self.checked: list[Job] = []
        self.checked_rotation = False
        self.found: TokenOutcome = TokenOutcome("ANSWER_AWAITED", nothing_sent=True)
        self.revocation: RevokeOutcome | DomainError = RevokeOutcome(revoked=True)
        self.expires = START + dt.timedelta(seconds=expires_in)

    def clock(self) -> dt.datetime:
        return self.now

    def replica(self, name: str, patience: dt.timedelta = dt.timedelta(seconds=2)) -> Connections:
        return Connections(self.tables, self.tables, self.refreshing(name), lambda *_: "a grant", self.clock, patience)

    def disconnecting(self) -> Disconnecting:
        day = dt.timedelta(days=1)
        new_id, jitter = (lambda kind: f"{kind}_new"), (lambda: 0.0)
        return Disconnecting(self.tables, self.tables, self, self, self.clock, new_id, jitter, 30.0, day, 30 * day)

    def imports(self, catalog: Mapping[str, Entry] | None = None) -> Imports:
        entries = Entries(NoEntries(), catalog or {})  # type: ignore[arg-type]
        new_id = lambda kind: f"{kind}_new"  # noqa: E731
        return Imports(self.tables, entries, self.tables, self.refreshing("imports"), self.clock, new_id, lambda: 0.0)

    def devices(self) -> DeviceFlows:
        new_id = lambda kind: f"{kind}_new"  # noqa: E731
        audit = Audit(self)
        return DeviceFlows(self.tables, self.tables, self.tables, self, audit, self.clock, new_id, lambda: 0.0)

    def checks(self) -> HealthChecks:
        new_id, jitter = (lambda kind: f"{kind}_new"), (lambda: 0.5)
        every = dt.timedelta(days=1)
        refreshing = self.refreshing("checks")
        return HealthChecks(self.tables, self.tables, self.tables, refreshing, self, self.clock, new_id, jitter, every)

    def refreshing(self, name: str) -> Refreshing:
        """Gives the rules of a process that began long ago, the same for the same name."""
        if name not in self._processes:
            now, self.now = self.now, self.now - dt.timedelta(hours=1)
            self._processes[name] = self.just_begun(name)
            self.now = now
        return self._processes[name]

    def just_begun(self, name: str) -> Refreshing:
        """Gives the rules of a process that begins now."""
        leasing = Leasing(self.tables, name, 30.0)
        return Refreshing(
            self.tables, self.tables, leasing, self, Audit(self), self.clock, dt.timedelta(minutes=15), lambda: 0.0
        )

    def answers(self) -> Answers:
        def sign(_: Acting, connection: str, thumbprint: str, fence: int) -> str:
            return f"{connection}/{thumbprint}/{fence}"

        return Answers(self.tables, self.tables, self.refreshing("answers"), sign)

    def resealing(self, name: str) -> Resealing:
        leasing = Leasing(self.tables, name, 30.0)
        return Resealing(self.tables, self.tables, leasing, self, Audit(self), self.clock)

    # The worker.
    async def refresh(self, job: Job) -> TokenOutcome:
        self.jobs.append(job)
        hold = self.hold
        await hold.wait()
        self.now += dt.timedelta(seconds=1)
        answer = self.answer if job.spend else self.found
        if isinstance(answer, DomainError):
            raise answer
        return answer

    async def reseal(self, _: Acting, target: str, classes: Sequence[RecordClass], fence: int) -> int:
        self.resealed.append((target, tuple(classes), fence))
        if self.vault_away:
            raise AwayError
        return len(classes)

    async def revoke(self, job: Job) -> RevokeOutcome:
        self.revoked.append(job)
        if isinstance(self.revocation, DomainError):
            raise self.revocation
        return self.revocation

    async def begin_device(self, job: Job) -> BegunDevice:
        self.jobs.append(job)
        return self.begun

    async def poll_device(self, job: Job) -> TokenOutcome:
        self.jobs.append(job)
        if isinstance(self.polled, DomainError):
            raise self.polled
        return self.polled

    async def check(self, job: Job, *, rotation: bool) -> HealthOutcome:
        self.checked.append(job)
        self.checked_rotation = rotation
        if isinstance(self.health, DomainError):
            raise self.health
        return self.health

    # vault.
    async def keep(self, _: str, connection: str, until: dt.datetime, __: str) -> None:
        if self.vault_away:
            raise AwayError
        self.kept.append((connection, until))

    async def restore(self, grant: str, _: str) -> None:
        if self.vault_away:
            raise AwayError
        self.restored.append(grant)

    async def withhold(self, _: str, connection: str, __: str) -> None:
        if self.vault_away:
            raise AwayError
        self.withheld.append(connection)

    async def delete(self, _: str, connection: str, __: str) -> None:
        self.erased.append(connection)

    async def require_reachable(self) -> None:
        if self.worker_away:
            raise AwayError

    def change(self, **changes: Any) -> None:
        self.tables.connections["ws", "con"] = dataclasses.replace(self.tables.connections["ws", "con"], **changes)

    async def ask(self) -> str:
        """Asks for a fresh token; gives why there is none, or nothing."""
        try:
            await self.replica("any").ensure_fresh(ACTING, "con", dt.timedelta(0), force=False)
        except RefreshFailedError as error:
            return str(error.metadata.get("cause", ""))
        except NeedsReauthError:
            return "NEEDS_REAUTH"
        return ""

    def events(self) -> list[str]:
        return [each.name for each in self.tables.events]


class NoEntries:
    """No Provider is described by a workspace."""

    async def get_entry(self, _: str, __: str) -> None:
        return None


class Audit:
    """The audit log of a stage."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage

    async def require_reachable(self) -> None:
        if self._stage.audit_away:
            raise AuditUnavailableError


@pytest.fixture
def stage(fake: Any, connection: Callable[..., Connection]) -> Stage:
    made = Stage(fake)
    fake.connections["ws", "con"] = connection(
        "con", state=State.ACTIVE, expires_at=made.expires, refreshed_at=START - dt.timedelta(hours=1)
    )
    return made
