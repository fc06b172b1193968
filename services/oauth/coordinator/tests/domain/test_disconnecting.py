"""Disconnect: withheld first, erased last, finished by whoever finds it unfinished."""

from __future__ import annotations

import dataclasses
import datetime as dt
from typing import Any

import pytest
from authpipe_oauth_coordinator.domain.words import (
    Acting,
    ProviderConfig,
    RevokeOutcome,
    State,
)
from authpipe_providers import Endpoints
from authpipe_sensitive import DomainError, Status

ACTING = Acting("ws", "api_key:key_1", "req_1")
ZERO = dt.timedelta(0)
START = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
ENDPOINTS = Endpoints(
    "https://as.example", "https://as.example/a", "https://as.example/t", "", "none", iss_required=True
)
CONFIG = ProviderConfig("ws", "pc", "as.example", "AS", "client", ("a",), ("https://x",), ENDPOINTS, bytes(32), START)


class AwayError(DomainError):
    """The worker is away."""

    reason = "DEPENDENCY_UNAVAILABLE"
    status = Status.UNAVAILABLE


@pytest.mark.promise("P11")
async def test_disconnect_withholds_before_it_revokes_and_erases_last(stage: Any) -> None:
    found = await stage.disconnecting().disconnect(ACTING, "con")
    assert found.state is State.DISCONNECTED
    assert stage.withheld[0] == "con"
    assert len(stage.revoked) == 1
    assert stage.erased == ["con"]
    assert stage.events() == ["CONNECTION_DISCONNECTING", "TOKEN_REVOKED", "CONNECTION_DISCONNECTED"]


@pytest.mark.promise("P11")
@pytest.mark.case(26)
async def test_a_provider_that_cannot_revoke_now_is_asked_again_later_and_later_and_visibly(stage: Any) -> None:
    stage.revocation = RevokeOutcome(
        revoked=False, failure="PROVIDER_UNAVAILABLE", retryable=True, retry_after_seconds=90
    )
    disconnecting = stage.disconnecting()
    found = await disconnecting.disconnect(ACTING, "con")
    assert (found.state, found.state_reason) == (State.DISCONNECTING, "PROVIDER_UNAVAILABLE")
    assert found.failing.not_before == stage.now + dt.timedelta(seconds=90), "as the Provider asked"
    assert stage.withheld == ["con", "con"], "nothing is served from the first second"
    assert stage.erased == []
    stage.revocation = RevokeOutcome(revoked=False, failure="TIMEOUT", retryable=True)
    await disconnecting.finish(stage.tables.connections["ws", "con"], ACTING)
    assert stage.tables.connections["ws", "con"].failing.attempts == 2
    stage.revocation = RevokeOutcome(revoked=True)
    await disconnecting.finish(stage.tables.connections["ws", "con"], ACTING)
    found = stage.tables.connections["ws", "con"]
    assert (found.state, found.state_reason) == (State.DISCONNECTED, "REVOKED")
    assert stage.events().count("REVOCATION_FAILED") == 2
    assert stage.erased == ["con"]


@pytest.mark.promise("P11")
@pytest.mark.case(26)
@pytest.mark.parametrize(
    ("outcome", "waited", "reason"),
    [
        (RevokeOutcome(revoked=True), 0, "REVOKED"),
        (RevokeOutcome(revoked=False, failure="INVALID_CLIENT", retryable=False), 0, "REVOCATION_REFUSED"),
        (RevokeOutcome(revoked=False, failure="PROVIDER_UNAVAILABLE", retryable=True), 25, "REVOCATION_GIVEN_UP"),
        (AwayError(), 25, "REVOCATION_GIVEN_UP"),
    ],
)
async def test_however_a_revocation_ends_the_rest_is_erased_and_it_shows(
    outcome: Any, waited: int, reason: str, stage: Any
) -> None:
    stage.revocation = outcome
    stage.change(state=State.DISCONNECTING, state_at=stage.now - dt.timedelta(hours=waited))
    await stage.disconnecting().finish(stage.tables.connections["ws", "con"], ACTING)
    found = stage.tables.connections["ws", "con"]
    assert (found.state, found.state_reason) == (State.DISCONNECTED, reason)
    assert stage.erased == ["con"]


@pytest.mark.promise("P11")
async def test_where_there_is_no_way_to_revoke_nobody_is_asked(stage: Any) -> None:
    endpoints = dataclasses.replace(ENDPOINTS, revocation_endpoint="")
    stage.tables.configs["ws", "pc"] = dataclasses.replace(CONFIG, endpoints=endpoints)
    found = await stage.disconnecting().disconnect(ACTING, "con")
    assert (found.state, found.state_reason) == (State.DISCONNECTED, "NOT_REVOCABLE")
    assert stage.revoked == []


@pytest.mark.promise("P11")
async def test_a_disconnect_that_died_half_way_is_finished_by_running_it_again(stage: Any) -> None:
    stage.vault_away = True
    with pytest.raises(stage.away):
        await stage.disconnecting().disconnect(ACTING, "con")
    assert stage.tables.connections["ws", "con"].state is State.DISCONNECTING
    stage.vault_away = False
    for _ in range(2):
        await stage.disconnecting().finish(stage.tables.connections["ws", "con"], ACTING)
    assert stage.tables.connections["ws", "con"].state is State.DISCONNECTED
    assert stage.events().count("CONNECTION_DISCONNECTED") == 1


async def test_a_draft_that_is_activated_while_it_is_swept_keeps_its_credential(stage: Any) -> None:
    stage.change(state=State.DRAFT)
    seen = stage.tables.connections["ws", "con"]
    stage.change(state=State.ACTIVE)
    await stage.disconnecting().finish(seen, ACTING)
    assert (stage.withheld, stage.erased) == ([], [])
    assert stage.tables.connections["ws", "con"].state is State.ACTIVE


async def test_a_draft_that_was_left_is_closed_and_erased(stage: Any) -> None:
    stage.change(state=State.DRAFT)
    await stage.disconnecting().finish(stage.tables.connections["ws", "con"], ACTING)
    assert stage.erased == ["con"]
    assert stage.revoked == []
    assert stage.tables.connections["ws", "con"].state is State.DISCONNECTED
