"""Disconnect: withheld first, erased last, finished by whoever finds it unfinished."""

from __future__ import annotations

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

ACTING = Acting("ws", "api_key:key_1", "req_1")
ZERO = dt.timedelta(0)
START = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
ENDPOINTS = Endpoints(
    "https://as.example", "https://as.example/a", "https://as.example/t", "", "none", iss_required=True
)
CONFIG = ProviderConfig("ws", "pc", "as.example", "AS", "client", ("a",), ("https://x",), ENDPOINTS, bytes(32), START)


@pytest.mark.promise("P11")
async def test_disconnect_withholds_before_it_revokes_and_erases_last(stage: Any) -> None:
    found = await stage.replica("one").disconnect(ACTING, "con")
    assert found.state is State.DISCONNECTED
    assert stage.withheld[0] == "con"
    assert len(stage.revoked) == 1
    assert stage.erased == ["con"]
    assert stage.events() == ["CONNECTION_DISCONNECTING", "TOKEN_REVOKED", "CONNECTION_DISCONNECTED"]


@pytest.mark.promise("P11")
async def test_a_provider_that_cannot_revoke_now_is_asked_again_and_then_the_rest_goes_on(stage: Any) -> None:
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
async def test_a_disconnect_that_died_half_way_is_finished_by_running_it_again(stage: Any) -> None:
    stage.vault_away = True
    with pytest.raises(stage.away):
        await stage.replica("dies").disconnect(ACTING, "con")
    assert stage.tables.connections["ws", "con"].state is State.DISCONNECTING
    stage.vault_away = False
    for _ in range(2):
        await stage.replica("next").finish(stage.tables.connections["ws", "con"], ACTING)
    assert stage.tables.connections["ws", "con"].state is State.DISCONNECTED
    assert stage.events().count("CONNECTION_DISCONNECTED") == 1


async def test_a_draft_that_is_activated_while_it_is_swept_keeps_its_credential(stage: Any) -> None:
    stage.change(state=State.DRAFT)
    seen = stage.tables.connections["ws", "con"]
    stage.change(state=State.ACTIVE)
    await stage.replica("sweeper").finish(seen, ACTING)
    assert (stage.withheld, stage.erased) == ([], [])
    assert stage.tables.connections["ws", "con"].state is State.ACTIVE


async def test_a_draft_that_was_left_is_closed_and_erased(stage: Any) -> None:
    stage.change(state=State.DRAFT)
    await stage.replica("sweeper").finish(stage.tables.connections["ws", "con"], ACTING)
    assert stage.erased == ["con"]
    assert stage.revoked == []
    assert stage.tables.connections["ws", "con"].state is State.DISCONNECTED
