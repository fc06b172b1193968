"""EnsureFresh: one refresh, whoever asks and whoever dies."""

from __future__ import annotations

import asyncio
import dataclasses
import datetime as dt
from typing import Any

import pytest
from authpipe_oauth_coordinator.domain.words import (
    Acting,
    ProviderConfig,
    State,
    TokenOutcome,
)
from authpipe_providers import Endpoints
from authpipe_oauth_coordinator.errors import (
    AuditUnavailableError,
    DisconnectedError,
    NeedsReauthError,
    NotRefreshableError,
    RefreshFailedError,
    RefreshTooSoonError,
)
from authpipe_sensitive import DomainError

ACTING = Acting("ws", "api_key:key_1", "req_1")
ZERO = dt.timedelta(0)
START = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
ENDPOINTS = Endpoints(
    "https://as.example", "https://as.example/a", "https://as.example/t", "", "none", iss_required=True
)
CONFIG = ProviderConfig("ws", "pc", "as.example", "AS", "client", ("a",), ("https://x",), ENDPOINTS, bytes(32), START)


@pytest.mark.promise("P36")
async def test_however_many_ask_on_however_many_replicas_there_is_one_refresh(stage: Any) -> None:
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
    assert all(each.refreshed for each in answers)
    assert {each.connection.expires_at for each in answers} == {stage.answer.expires_at}
    assert stage.events().count("TOKEN_REFRESHED") == 1


@pytest.mark.promise("P36")
async def test_a_caller_that_gives_up_does_not_end_a_refresh_whose_token_may_be_spent(stage: Any) -> None:
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
async def test_without_the_log_the_provider_is_not_called(stage: Any) -> None:
    stage.audit_away = True
    with pytest.raises(AuditUnavailableError):
        await stage.replica("one").ensure_fresh(ACTING, "con", ZERO, force=False)
    assert stage.jobs == []
    assert stage.tables.leases == {}


@pytest.mark.promise("P36")
async def test_a_token_that_lives_is_served_though_its_refresh_fails(stage: Any) -> None:
    stage.change(expires_at=START + dt.timedelta(minutes=5))
    stage.answer = TokenOutcome("PROVIDER_UNAVAILABLE")
    for _ in range(3):
        fresh = await stage.replica("one").ensure_fresh(ACTING, "con", dt.timedelta(minutes=10), force=False)
        assert (fresh.connection.state, fresh.refreshed, fresh.pending) == (State.ACTIVE, False, False)
        assert fresh.connection.failing.reason == "PROVIDER_UNAVAILABLE"
    assert stage.events()[-1] == "REFRESH_FAILED"
    assert len(stage.jobs) == 1, "whoever asks again while it backs off is not a request to the Provider"
    stage.now += dt.timedelta(seconds=2)
    stage.answer = TokenOutcome("", (), stage.now + dt.timedelta(hours=1), refreshable=True)
    fresh = await stage.replica("one").ensure_fresh(ACTING, "con", dt.timedelta(minutes=10), force=False)
    assert (fresh.refreshed, fresh.connection.failing) == (True, None)


@pytest.mark.promise("P36")
async def test_nobody_who_holds_a_living_token_waits_for_a_slow_provider(stage: Any) -> None:
    stage.change(expires_at=START + dt.timedelta(minutes=5))
    stage.hold.clear()
    replica = stage.replica("one", patience=dt.timedelta(milliseconds=20))
    fresh = await replica.ensure_fresh(ACTING, "con", dt.timedelta(minutes=10), force=False)
    assert (fresh.pending, fresh.refreshed) == (True, False)
    fresh = await replica.ensure_fresh(ACTING, "con", dt.timedelta(minutes=10), force=False)
    assert fresh.pending
    stage.hold.set()
    await asyncio.sleep(0.01)
    assert stage.events().count("TOKEN_REFRESHED") == 1
    assert len(stage.jobs) == 1, "it went on, and was one request"


@pytest.mark.promise("P36")
async def test_a_token_that_ended_is_asked_of_the_provider_no_oftener_than_it_backs_off(stage: Any) -> None:
    stage.answer = TokenOutcome("PROVIDER_SLOW_DOWN", retry_after_seconds=60)
    for _ in range(5):
        with pytest.raises(RefreshFailedError) as refused:
            await stage.replica("one").ensure_fresh(ACTING, "con", ZERO, force=False)
        assert refused.value.metadata["cause"] == "PROVIDER_SLOW_DOWN"
    assert len(stage.jobs) == 1
    stage.now += dt.timedelta(seconds=61)
    with pytest.raises(RefreshFailedError):
        await stage.replica("one").ensure_fresh(ACTING, "con", ZERO, force=False)
    assert len(stage.jobs) == 2


async def test_what_the_customer_has_to_mend_leaves_the_connection_and_is_tried_again(stage: Any) -> None:
    stage.change(expires_at=START + dt.timedelta(minutes=5))
    stage.answer = TokenOutcome("INVALID_CLIENT")
    with pytest.raises(RefreshFailedError):
        await stage.replica("one").ensure_fresh(ACTING, "con", ZERO, force=True)
    found = stage.tables.connections["ws", "con"]
    assert (found.state, found.failing.reason) == (State.ACTIVE, "INVALID_CLIENT")
    assert found.refresh_due_at > stage.now
    # Whoever has mended it need not wait.
    stage.answer = TokenOutcome("", (), stage.now + dt.timedelta(hours=1), refreshable=True)
    assert (await stage.replica("one").ensure_fresh(ACTING, "con", ZERO, force=True)).refreshed


async def test_a_token_that_ended_is_not_and_the_reason_is_told(stage: Any) -> None:
    stage.answer = TokenOutcome("PROVIDER_UNAVAILABLE")
    with pytest.raises(RefreshFailedError):
        await stage.replica("one").ensure_fresh(ACTING, "con", ZERO, force=False)
    stage.now += dt.timedelta(seconds=1)
    stage.answer = TokenOutcome("INVALID_GRANT")
    with pytest.raises(NeedsReauthError):
        await stage.replica("one").ensure_fresh(ACTING, "con", ZERO, force=False)
    assert stage.tables.connections["ws", "con"].state is State.NEEDS_REAUTH
    with pytest.raises(NeedsReauthError):
        await stage.replica("one").ensure_fresh(ACTING, "con", ZERO, force=False)
    assert len(stage.jobs) == 2, "a refresh token that the Provider refused is not sent again"


@pytest.mark.promise("P36")
async def test_a_holder_that_was_thought_dead_is_passed_over_and_changes_nothing_when_it_wakes(stage: Any) -> None:
    stage.hold.clear()
    stale = dataclasses.replace(stage.answer, scopes=("stale",))
    slept = asyncio.create_task(stage.replica("sleeper").ensure_fresh(ACTING, "con", ZERO, force=False))
    await asyncio.sleep(0.01)
    # It is stopped, so its heartbeat is too, and the lease runs out; the next one gets it.
    stage.now += dt.timedelta(seconds=62)
    asleep, stage.hold = stage.hold, asyncio.Event()
    stage.hold.set()
    assert (await stage.replica("next").ensure_fresh(ACTING, "con", ZERO, force=False)).refreshed
    assert [(job.fence, job.spend) for job in stage.jobs] == [(1, True), (2, False), (2, True)]
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
    changes: dict[str, Any], force: bool, error: type[DomainError], stage: Any
) -> None:
    stage.change(**changes)
    with pytest.raises(error):
        await stage.replica("one").ensure_fresh(ACTING, "con", ZERO, force=force)
    assert stage.jobs == []


@pytest.mark.promise("P36")
async def test_a_new_token_says_when_it_is_due_and_a_failure_when_it_is_tried_again(stage: Any) -> None:
    assert await stage.ask() == ""
    found = stage.tables.connections["ws", "con"]
    assert found.refresh_due_at == stage.answer.expires_at - (stage.answer.expires_at - stage.now) / 5
    stage.change(expires_at=stage.now)
    stage.answer = TokenOutcome("PROVIDER_UNAVAILABLE", retry_after_seconds=120)
    await stage.ask()
    found = stage.tables.connections["ws", "con"]
    assert (found.refresh_due_at, found.failing.attempts) == (stage.now + dt.timedelta(seconds=120), 1)
