"""EnsureFresh and disconnect, told with tables, a worker and a clock handed in: one refresh, whoever asks and whoever dies."""

from __future__ import annotations

import asyncio
import dataclasses
import datetime as dt
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from authpipe_envelope import RecordClass
from authpipe_oauth_coordinator.domain.connections import Connections
from authpipe_oauth_coordinator.domain.leasing import Leasing
from authpipe_oauth_coordinator.domain.ports import Job
from authpipe_oauth_coordinator.domain.resealing import Resealing
from authpipe_oauth_coordinator.domain.words import (
    Acting,
    Connection,
    Endpoints,
    Kind,
    ProviderConfig,
    RevokeOutcome,
    State,
    TokenOutcome,
)
from authpipe_oauth_coordinator.errors import (
    AuditUnavailableError,
    DisconnectedError,
    LeaseHeldError,
    NeedsReauthError,
    NotFoundError,
    NotRefreshableError,
    RefreshFailedError,
    RefreshTooSoonError,
)
from authpipe_sensitive import DomainError, Status

ACTING = Acting("ws", "api_key:key_1", "req_1")
ZERO = dt.timedelta(0)
START = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
ENDPOINTS = Endpoints(
    "https://as.example", "https://as.example/a", "https://as.example/t", "", "none", iss_required=True
)
CONFIG = ProviderConfig("ws", "pc", "as.example", "AS", "client", ("a",), ("https://x",), ENDPOINTS, bytes(32), START)


class AwayError(DomainError):
    """A peer is away."""

    reason = "DEPENDENCY_UNAVAILABLE"
    status = Status.UNAVAILABLE


class Stage:
    """The parts around the rules, and what happened."""

    def __init__(self, fake: Any, expires_in: float = -1) -> None:
        self.tables = fake
        self.now = START
        fake.now = self.clock
        fake.configs["ws", "pc"] = CONFIG
        self.jobs: list[Job] = []
        self.revoked: list[Job] = []
        self.resealed: list[tuple[str, tuple[RecordClass, ...], int]] = []
        self.withheld: list[str] = []
        self.erased: list[str] = []
        self.audit_away = self.vault_away = False
        self.hold = asyncio.Event()
        self.hold.set()
        self.answer = TokenOutcome("", (), START + dt.timedelta(hours=1), refreshable=True)
        self.revocation = RevokeOutcome(revoked=True)
        self.expires = START + dt.timedelta(seconds=expires_in)

    def clock(self) -> dt.datetime:
        return self.now

    def replica(self, name: str) -> Connections:
        leasing = Leasing(self.tables, name, 30.0)
        return Connections(
            self.tables, self.tables, leasing, self, self, self, self.clock, lambda kind: f"{kind}_new", 30.0
        )

    def resealing(self, name: str) -> Resealing:
        return Resealing(self.tables, self.tables, Leasing(self.tables, name, 30.0), self, self, self.clock)

    # The worker.
    async def refresh(self, job: Job) -> TokenOutcome:
        self.jobs.append(job)
        hold = self.hold
        await hold.wait()
        self.now += dt.timedelta(seconds=1)
        return self.answer

    async def reseal(self, _: Acting, target: str, classes: Sequence[RecordClass], fence: int) -> int:
        self.resealed.append((target, tuple(classes), fence))
        if self.vault_away:
            raise AwayError
        return len(classes)

    async def revoke(self, job: Job) -> RevokeOutcome:
        self.revoked.append(job)
        return self.revocation

    # vault.
    async def withhold(self, _: str, connection: str, __: str) -> None:
        if self.vault_away:
            raise AwayError
        self.withheld.append(connection)

    async def delete(self, _: str, connection: str, __: str) -> None:
        self.erased.append(connection)

    # audit.
    async def require_reachable(self) -> None:
        if self.audit_away:
            raise AuditUnavailableError

    def events(self) -> list[str]:
        return [each.name for each in self.tables.events]


@pytest.fixture
def stage(fake: Any, connection: Callable[..., Connection]) -> Stage:
    made = Stage(fake)
    fake.connections["ws", "con"] = connection(
        "con", state=State.ACTIVE, expires_at=made.expires, refreshed_at=START - dt.timedelta(hours=1)
    )
    return made


def change(stage: Stage, **changes: Any) -> None:
    stage.tables.connections["ws", "con"] = dataclasses.replace(stage.tables.connections["ws", "con"], **changes)


@pytest.mark.promise("P36")
async def test_however_many_ask_on_however_many_replicas_there_is_one_refresh(stage: Stage) -> None:
    replicas = [stage.replica(f"replica-{number}") for number in range(4)]
    stage.hold.clear()
    callers = [
        asyncio.create_task(replica.ensure_fresh(ACTING, "con", ZERO, force=False))
        for replica in replicas
        for _ in range(10)
    ]
    await asyncio.sleep(0.05)
    stage.hold.set()
    answers = await asyncio.gather(*callers)
    assert len(stage.jobs) == 1
    assert all(refreshed for _, refreshed in answers)
    assert {found.expires_at for found, _ in answers} == {stage.answer.expires_at}
    assert stage.events().count("TOKEN_REFRESHED") == 1


@pytest.mark.promise("P36")
async def test_a_caller_that_gives_up_does_not_end_a_refresh_whose_token_may_be_spent(stage: Stage) -> None:
    replica = stage.replica("one")
    stage.hold.clear()
    caller = asyncio.create_task(replica.ensure_fresh(ACTING, "con", ZERO, force=False))
    await asyncio.sleep(0.01)
    caller.cancel()
    stage.hold.set()
    await asyncio.sleep(0.01)
    assert stage.events()[-1] == "TOKEN_REFRESHED"


@pytest.mark.promise("P36")
@pytest.mark.case(24)
async def test_without_the_log_the_provider_is_not_called(stage: Stage) -> None:
    stage.audit_away = True
    with pytest.raises(AuditUnavailableError):
        await stage.replica("one").ensure_fresh(ACTING, "con", ZERO, force=False)
    assert stage.jobs == []
    assert stage.tables.leases == {}


@pytest.mark.promise("P36")
async def test_a_token_that_lives_is_served_though_its_refresh_fails(stage: Stage) -> None:
    change(stage, expires_at=START + dt.timedelta(minutes=5))
    stage.answer = TokenOutcome("PROVIDER_UNAVAILABLE")
    found, refreshed = await stage.replica("one").ensure_fresh(ACTING, "con", dt.timedelta(minutes=10), force=False)
    assert (found.state, refreshed) == (State.ACTIVE, False)
    assert stage.events()[-1] == "REFRESH_FAILED"


async def test_a_token_that_ended_is_not_and_the_reason_is_told(stage: Stage) -> None:
    stage.answer = TokenOutcome("PROVIDER_UNAVAILABLE")
    with pytest.raises(RefreshFailedError):
        await stage.replica("one").ensure_fresh(ACTING, "con", ZERO, force=False)
    stage.answer = TokenOutcome("INVALID_GRANT")
    with pytest.raises(NeedsReauthError):
        await stage.replica("one").ensure_fresh(ACTING, "con", ZERO, force=False)
    assert stage.tables.connections["ws", "con"].state is State.NEEDS_REAUTH
    with pytest.raises(NeedsReauthError):
        await stage.replica("one").ensure_fresh(ACTING, "con", ZERO, force=False)
    assert len(stage.jobs) == 2, "a refresh token that the Provider refused is not sent again"


@pytest.mark.promise("P36")
async def test_a_holder_that_was_thought_dead_is_passed_over_and_changes_nothing_when_it_wakes(stage: Stage) -> None:
    stage.hold.clear()
    stale = dataclasses.replace(stage.answer, scopes=("stale",))
    slept = asyncio.create_task(stage.replica("sleeper").ensure_fresh(ACTING, "con", ZERO, force=False))
    await asyncio.sleep(0.01)
    # It is stopped, so its heartbeat is too, and the lease runs out; the next one gets it.
    stage.now += dt.timedelta(seconds=31)
    asleep, stage.hold = stage.hold, asyncio.Event()
    stage.hold.set()
    _, refreshed = await stage.replica("next").ensure_fresh(ACTING, "con", ZERO, force=False)
    assert refreshed
    assert [job.fence for job in stage.jobs] == [1, 2]
    written = stage.tables.connections["ws", "con"]
    stage.answer = stale
    asleep.set()
    await slept
    assert stage.tables.connections["ws", "con"] == written


@pytest.mark.parametrize(
    ("changes", "force", "error"),
    [
        ({"state": State.DISCONNECTING}, False, DisconnectedError),
        ({"state": State.DISCONNECTED}, True, DisconnectedError),
        ({"refreshable": False}, True, NotRefreshableError),
        ({"refreshable": False}, False, NeedsReauthError),
        ({"refreshed_at": START - dt.timedelta(seconds=9)}, True, RefreshTooSoonError),
    ],
)
async def test_what_cannot_be_refreshed_is_told_and_the_provider_is_not_called(
    changes: dict[str, Any], force: bool, error: type[DomainError], stage: Stage
) -> None:
    change(stage, **changes)
    with pytest.raises(error):
        await stage.replica("one").ensure_fresh(ACTING, "con", ZERO, force=force)
    assert stage.jobs == []


@pytest.mark.promise("P11")
async def test_disconnect_withholds_before_it_revokes_and_erases_last(stage: Stage) -> None:
    found = await stage.replica("one").disconnect(ACTING, "con")
    assert found.state is State.DISCONNECTED
    assert stage.withheld[0] == "con"
    assert len(stage.revoked) == 1
    assert stage.erased == ["con"]
    assert stage.events() == ["CONNECTION_DISCONNECTING", "TOKEN_REVOKED", "CONNECTION_DISCONNECTED"]


@pytest.mark.promise("P11")
async def test_a_provider_that_cannot_revoke_now_is_asked_again_and_then_the_rest_goes_on(stage: Stage) -> None:
    stage.revocation = RevokeOutcome(revoked=False, failure="PROVIDER_UNAVAILABLE", retryable=True)
    replica = stage.replica("one")
    assert (await replica.disconnect(ACTING, "con")).state is State.DISCONNECTING
    assert stage.erased == []
    connection = stage.tables.connections["ws", "con"]
    for _ in range(2):
        await replica.finish(connection, ACTING)
    assert len(stage.revoked) == 3
    assert stage.erased == ["con"]
    assert stage.tables.connections["ws", "con"].state is State.DISCONNECTED


@pytest.mark.promise("P11")
async def test_a_disconnect_that_died_half_way_is_finished_by_running_it_again(stage: Stage) -> None:
    stage.vault_away = True
    with pytest.raises(AwayError):
        await stage.replica("dies").disconnect(ACTING, "con")
    assert stage.tables.connections["ws", "con"].state is State.DISCONNECTING
    stage.vault_away = False
    for _ in range(2):
        await stage.replica("next").finish(stage.tables.connections["ws", "con"], ACTING)
    assert stage.tables.connections["ws", "con"].state is State.DISCONNECTED
    assert stage.events().count("CONNECTION_DISCONNECTED") == 1


async def test_a_draft_that_is_activated_while_it_is_swept_keeps_its_credential(stage: Stage) -> None:
    change(stage, state=State.DRAFT)
    seen = stage.tables.connections["ws", "con"]
    change(stage, state=State.ACTIVE)
    await stage.replica("sweeper").finish(seen, ACTING)
    assert (stage.withheld, stage.erased) == ([], [])
    assert stage.tables.connections["ws", "con"].state is State.ACTIVE


async def test_a_draft_that_was_left_is_closed_and_erased(stage: Stage) -> None:
    change(stage, state=State.DRAFT)
    await stage.replica("sweeper").finish(stage.tables.connections["ws", "con"], ACTING)
    assert stage.erased == ["con"]
    assert stage.revoked == []
    assert stage.tables.connections["ws", "con"].state is State.DISCONNECTED


TOKENS = (RecordClass.ACCESS, RecordClass.REFRESH)


async def test_records_are_sealed_again_under_the_lease_so_that_no_refresh_comes_between(stage: Stage) -> None:
    change(stage, refreshed_at=START - dt.timedelta(hours=1))
    stage.hold.clear()
    refreshing = asyncio.create_task(stage.replica("one").ensure_fresh(ACTING, "con", ZERO, force=False))
    await asyncio.sleep(0.01)
    sealing = asyncio.create_task(stage.resealing("two").connection(ACTING, "con"))
    await asyncio.sleep(0.01)
    assert stage.resealed == [], "a refresh holds the lease"
    stage.hold.set()
    await refreshing
    assert await sealing == 2
    assert stage.resealed == [("con", TOKENS, 2)]
    assert stage.events()[-2:] == ["RESEAL_BEGUN", "RECORDS_RESEALED"]
    assert await stage.resealing("three").connection(ACTING, "con") == 2, "the lease was given back"


async def test_a_lease_that_is_held_for_half_a_minute_is_said_to_be(stage: Stage) -> None:
    stage.tables.leases["ws", "con"] = ("other", 1, float("inf"))
    sealing = asyncio.create_task(stage.resealing("two").connection(ACTING, "con"))
    await asyncio.sleep(0.01)
    stage.now += dt.timedelta(seconds=31)
    with pytest.raises(LeaseHeldError):
        await sealing
    assert stage.resealed == []


async def test_sealing_again_that_fails_leaves_its_event_and_gives_the_lease_back(stage: Stage) -> None:
    stage.vault_away = True
    with pytest.raises(AwayError):
        await stage.resealing("one").connection(ACTING, "con")
    assert (stage.events()[-1], stage.tables.events[-1].reason) == ("RECORDS_RESEALED", "DEPENDENCY_UNAVAILABLE")
    stage.vault_away = False
    assert await stage.resealing("two").connection(ACTING, "con") == 2


@pytest.mark.case(24)
async def test_without_the_log_nothing_is_sealed_again(stage: Stage) -> None:
    stage.audit_away = True
    for act in (
        stage.resealing("one").connection(ACTING, "con"),
        stage.resealing("one").provider_config(ACTING, "pc"),
    ):
        with pytest.raises(AuditUnavailableError):
            await act
    assert stage.resealed == []


async def test_which_records_there_are_depends_on_the_kind(stage: Stage) -> None:
    change(stage, kind=Kind.WEBHOOK_SECRET)
    await stage.resealing("one").connection(ACTING, "con")
    await stage.resealing("one").provider_config(ACTING, "pc")
    assert stage.resealed == [
        ("con", (RecordClass.WEBHOOK_SECRET,), 1),
        ("pc", (RecordClass.CLIENT_SECRET,), 0),
    ]


async def test_what_is_not_there_or_gone_is_not_sealed_again(stage: Stage) -> None:
    with pytest.raises(NotFoundError):
        await stage.resealing("one").connection(ACTING, "con_other")
    with pytest.raises(NotFoundError):
        await stage.resealing("one").provider_config(ACTING, "pc_other")
    change(stage, state=State.DRAFT)
    with pytest.raises(NotFoundError):
        await stage.resealing("one").connection(ACTING, "con")
    change(stage, state=State.DISCONNECTING)
    with pytest.raises(DisconnectedError):
        await stage.resealing("one").connection(ACTING, "con")
    assert stage.resealed == []
