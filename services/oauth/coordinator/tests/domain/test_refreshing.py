"""EnsureFresh and disconnect, told with tables, a worker and a clock handed in: one refresh, whoever asks and whoever dies."""

from __future__ import annotations

import asyncio
import dataclasses
import datetime as dt
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from authpipe_envelope import RecordClass
from authpipe_oauth_coordinator.domain.answers import Answers
from authpipe_oauth_coordinator.domain.connections import Connections
from authpipe_oauth_coordinator.domain.leasing import Leasing
from authpipe_oauth_coordinator.domain.ports import Job
from authpipe_oauth_coordinator.domain.refreshing import Refreshing
from authpipe_oauth_coordinator.domain.resealing import Resealing
from authpipe_oauth_coordinator.domain.schedule import Schedule
from authpipe_oauth_coordinator.domain.words import (
    Acting,
    Connection,
    Endpoints,
    Kind,
    Left,
    ProviderConfig,
    RevokeOutcome,
    State,
    TokenOutcome,
    Unfinished,
)
from authpipe_oauth_coordinator.errors import (
    AnswerNotAwaitedError,
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
        self.audit_away = self.vault_away = self.worker_away = False
        self.hold = asyncio.Event()
        self.hold.set()
        self.answer: TokenOutcome | DomainError = TokenOutcome("", (), START + dt.timedelta(hours=1), refreshable=True)
        self.revocation = RevokeOutcome(revoked=True)
        self.expires = START + dt.timedelta(seconds=expires_in)

    def clock(self) -> dt.datetime:
        return self.now

    def replica(self, name: str) -> Connections:
        return Connections(
            self.tables,
            self.tables,
            self.refreshing(name),
            self,
            self,
            self.clock,
            lambda kind: f"{kind}_new",
            30.0,
            lambda: 0.0,
        )

    def refreshing(self, name: str) -> Refreshing:
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
        if isinstance(self.answer, DomainError):
            raise self.answer
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

    async def require_reachable(self) -> None:
        if self.worker_away:
            raise AwayError

    def events(self) -> list[str]:
        return [each.name for each in self.tables.events]


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


LOST = TokenOutcome("PROVIDER_ANSWER_LOST")


async def refresh(stage: Stage) -> str:
    """Asks for a fresh token; gives why there is none, or nothing."""
    try:
        await stage.replica("any").ensure_fresh(ACTING, "con", ZERO, force=False)
    except RefreshFailedError as error:
        return str(error.metadata.get("cause", ""))
    except NeedsReauthError:
        return "NEEDS_REAUTH"
    return ""


@pytest.mark.promise("P36")
@pytest.mark.case(23)
async def test_that_a_token_is_about_to_be_sent_is_written_down_before_it_is(stage: Stage) -> None:
    stage.hold.clear()
    asking = asyncio.create_task(refresh(stage))
    while not stage.jobs:
        await asyncio.sleep(0.001)
    assert stage.tables.left["ws", "con"] == Left(Unfinished.SPENT, 1, START)
    stage.hold.set()
    assert await asking == ""
    assert stage.tables.left["ws", "con"] == Left(), "and ended is ended"


@pytest.mark.promise("P36")
@pytest.mark.case(23)
async def test_an_answer_that_was_lost_is_looked_for_then_the_token_is_sent_once_more_then_the_user_is_asked(
    stage: Stage,
) -> None:
    stage.answer = LOST
    assert await refresh(stage) == "PROVIDER_ANSWER_LOST"
    stage.answer = TokenOutcome("ANSWER_AWAITED", nothing_sent=True)
    assert await refresh(stage) == "ANSWER_AWAITED"
    assert [job.spend for job in stage.jobs] == [True, False], "for half a minute the token is not sent again"
    stage.now += dt.timedelta(seconds=31)
    stage.answer = TokenOutcome("INVALID_GRANT")
    assert await refresh(stage) == "NEEDS_REAUTH"
    assert [job.spend for job in stage.jobs] == [True, False, True]
    assert stage.tables.connections["ws", "con"].state_reason == "REFRESH_ANSWER_LOST", "nobody did anything wrong"


@pytest.mark.promise("P36")
@pytest.mark.case(23)
async def test_a_provider_that_never_saw_the_token_takes_it_when_it_is_sent_once_more(stage: Stage) -> None:
    good, stage.answer = stage.answer, LOST
    await refresh(stage)
    stage.now += dt.timedelta(seconds=31)
    stage.answer = good
    assert await refresh(stage) == ""
    assert stage.tables.left["ws", "con"] == Left()


@pytest.mark.promise("P36")
async def test_a_token_whose_answer_is_lost_twice_is_not_sent_a_third_time(stage: Stage) -> None:
    stage.answer = LOST
    await refresh(stage)
    stage.now += dt.timedelta(seconds=31)
    await refresh(stage)
    stage.now += dt.timedelta(seconds=3_600)
    assert await refresh(stage) == "NEEDS_REAUTH"
    assert len(stage.jobs) == 2
    assert stage.tables.connections["ws", "con"].state_reason == "REFRESH_ANSWER_LOST"


@pytest.mark.promise("P36")
async def test_a_worker_that_dies_with_the_token_in_hand_is_an_answer_that_is_lost(stage: Stage) -> None:
    stage.answer = AwayError()
    assert await refresh(stage) == "PROVIDER_ANSWER_LOST"
    assert stage.tables.left["ws", "con"].unfinished is Unfinished.SPENT


@pytest.mark.promise("P36")
@pytest.mark.case(24)
async def test_with_no_worker_there_nothing_is_written_down_and_the_token_is_not_spent(stage: Stage) -> None:
    stage.worker_away = True
    with pytest.raises(AwayError):
        await stage.replica("any").ensure_fresh(ACTING, "con", ZERO, force=False)
    assert (stage.tables.leases, stage.tables.left) == ({}, {})


@pytest.mark.promise("P36")
async def test_what_was_not_sent_leaves_what_was_left_before(stage: Stage) -> None:
    stage.answer = TokenOutcome("CONNECTION_FAILED", nothing_sent=True)
    assert await refresh(stage) == "CONNECTION_FAILED"
    assert stage.tables.left["ws", "con"] == Left()
    stage.answer = TokenOutcome("ANSWER_SPOOLED")
    await refresh(stage)
    spooled = stage.tables.left["ws", "con"]
    stage.now += dt.timedelta(seconds=901)
    stage.answer = TokenOutcome("CONNECTION_FAILED", nothing_sent=True)
    await refresh(stage)
    assert stage.jobs[-1].spend
    assert stage.tables.left["ws", "con"] == spooled, "the answer on the disk can still be claimed, and the retry made"


@pytest.mark.promise("P36")
@pytest.mark.case(23)
async def test_an_answer_on_a_workers_disk_is_claimed_reported_and_judged_at_once(stage: Stage) -> None:
    good, stage.answer = stage.answer, TokenOutcome("ANSWER_SPOOLED")
    assert await refresh(stage) == "ANSWER_SPOOLED"
    answers = stage.answers()
    for _ in range(2):  # a worker that died after it stored it does all of it again
        assert await answers.claim(ACTING, "con", 1, "thumb") == "con/thumb/1"
    stage.answer = good
    await answers.report(ACTING, "con", 1)
    while stage.events()[-1] != "TOKEN_REFRESHED":
        await asyncio.sleep(0.001)
    assert stage.jobs[-1].spend is False, "the answer was found, the token was not sent again"
    for act in (answers.claim(ACTING, "con", 1, "thumb"), answers.report(ACTING, "con", 1)):
        with pytest.raises(AnswerNotAwaitedError):
            await act


@pytest.mark.promise("P36")
@pytest.mark.case(23)
async def test_a_refresh_that_had_stored_its_tokens_before_it_died_is_followed_by_a_new_one_at_once(
    stage: Stage,
) -> None:
    good, stage.answer = stage.answer, AwayError()
    await refresh(stage)
    answers = iter([TokenOutcome("REFRESH_TOKEN_NEWER", nothing_sent=True), good])
    noted: list[Left] = []

    async def answer(job: Job) -> TokenOutcome:
        stage.jobs.append(job)
        noted.append(stage.tables.left["ws", "con"])
        return next(answers)

    stage.refresh = answer  # type: ignore[method-assign]
    assert await refresh(stage) == ""
    assert [(job.spend, job.spent_fence) for job in stage.jobs[1:]] == [(False, 1), (True, 1)]
    assert [left.fence for left in noted] == [1, 2], "that the new token is sent is written down under the new fence"
    assert stage.tables.left["ws", "con"] == Left()


@pytest.mark.promise("P36")
async def test_a_connection_whose_refresh_token_may_be_spent_is_not_sealed_again(stage: Stage) -> None:
    stage.answer = LOST
    await refresh(stage)
    sealing = asyncio.create_task(stage.resealing("one").connection(ACTING, "con"))
    await asyncio.sleep(0.01)
    stage.now += dt.timedelta(seconds=31)
    with pytest.raises(LeaseHeldError):
        await sealing
    assert stage.resealed == []


@pytest.mark.promise("P36")
async def test_an_answer_of_a_lease_whose_token_was_sent_again_since_or_of_no_lease_is_not_taken(stage: Stage) -> None:
    stage.answer = LOST
    await refresh(stage)
    stage.now += dt.timedelta(seconds=31)
    await refresh(stage)
    for fence in (0, 1, 3):
        with pytest.raises(AnswerNotAwaitedError):
            await stage.answers().claim(ACTING, "con", fence, "thumb")
    assert await stage.answers().claim(ACTING, "con", 2, "thumb")
    change(stage, state=State.DISCONNECTING)
    with pytest.raises(AnswerNotAwaitedError):
        await stage.answers().claim(ACTING, "con", 2, "thumb")


@pytest.mark.promise("P36")
async def test_a_new_token_says_when_it_is_due_and_a_failure_when_it_is_tried_again(stage: Stage) -> None:
    assert await refresh(stage) == ""
    found = stage.tables.connections["ws", "con"]
    assert found.refresh_due_at == stage.answer.expires_at - (stage.answer.expires_at - stage.now) / 5
    change(stage, expires_at=stage.now)
    stage.answer = TokenOutcome("PROVIDER_UNAVAILABLE", retry_after_seconds=120)
    await refresh(stage)
    found = stage.tables.connections["ws", "con"]
    assert (found.refresh_due_at, found.refresh_attempts) == (stage.now + dt.timedelta(seconds=120), 1)


BOUNDS: dict[str, Any] = {"most": 2, "per_provider": 50, "claim_seconds": 60.0}


class Due:
    """A table of what is due."""

    def __init__(self, *connections: Connection) -> None:
        self.waiting = list(connections)
        self.asked: list[int] = []

    async def claim_due(self, most: int, _: int, __: float) -> list[Connection]:
        self.asked.append(most)
        taken, self.waiting = self.waiting[:most], self.waiting[most:]
        return taken


@pytest.mark.promise("P36")
async def test_what_is_due_is_refreshed_though_nobody_asks_and_a_slow_provider_holds_up_only_its_own(
    stage: Stage,
) -> None:
    for name in ("con", "con_b", "con_c"):
        stage.tables.connections["ws", name] = dataclasses.replace(stage.tables.connections["ws", "con"], id=name)
    table = Due(*stage.tables.connections.values())
    schedule = Schedule(table, stage.refreshing("one"), lambda kind: f"{kind}_1", **BOUNDS)
    stage.hold.clear()
    assert await schedule.run() == 2
    assert await schedule.run() == 0, "no more than that at once"
    stage.hold.set()
    await schedule.finish()
    assert await schedule.run() == 1
    await schedule.finish()
    assert stage.events().count("TOKEN_REFRESHED") == 3
    assert {each.acting.actor for each in stage.jobs} == {"service:oauth/coordinator"}
    assert table.asked == [2, 2]


@pytest.mark.promise("P36")
async def test_a_scheduled_refresh_that_fails_does_not_end_the_schedule(stage: Stage) -> None:
    stage.audit_away = True
    schedule = Schedule(Due(stage.tables.connections["ws", "con"]), stage.refreshing("one"), str, **BOUNDS)
    assert await schedule.run() == 1
    await schedule.finish()
    assert stage.jobs == []
