"""Records are sealed again under the lease of their connection, with events and without a refresh in between."""

from __future__ import annotations

import asyncio
import datetime as dt
from typing import Any

import pytest
from authpipe_envelope import RecordClass
from authpipe_oauth_coordinator.domain.words import (
    Acting,
    Kind,
    ProviderConfig,
    State,
)
from authpipe_providers import Endpoints
from authpipe_oauth_coordinator.errors import (
    AuditUnavailableError,
    DisconnectedError,
    LeaseHeldError,
    NotFoundError,
)

ACTING = Acting("ws", "api_key:key_1", "req_1")
ZERO = dt.timedelta(0)
START = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
ENDPOINTS = Endpoints(
    "https://as.example", "https://as.example/a", "https://as.example/t", "", "none", iss_required=True
)
CONFIG = ProviderConfig("ws", "pc", "as.example", "AS", "client", ("a",), ("https://x",), ENDPOINTS, bytes(32), START)

TOKENS = (RecordClass.ACCESS, RecordClass.REFRESH, RecordClass.DPOP_KEY)


async def test_records_are_sealed_again_under_the_lease_so_that_no_refresh_comes_between(stage: Any) -> None:
    stage.change(refreshed_at=START - dt.timedelta(hours=1))
    stage.hold.clear()
    refreshing = asyncio.create_task(stage.replica("one").ensure_fresh(ACTING, "con", ZERO, force=False))
    await asyncio.sleep(0.01)
    sealing = asyncio.create_task(stage.resealing("two").connection(ACTING, "con"))
    await asyncio.sleep(0.01)
    assert stage.resealed == [], "a refresh holds the lease"
    stage.hold.set()
    await refreshing
    assert await sealing == 3, "the tokens, and the key that they may be bound to"
    assert stage.resealed == [("con", TOKENS, 2)]
    assert stage.events()[-2:] == ["RESEAL_BEGUN", "RECORDS_RESEALED"]
    assert await stage.resealing("three").connection(ACTING, "con") == 3, "the lease was given back"


async def test_a_lease_that_is_held_for_half_a_minute_is_said_to_be(stage: Any) -> None:
    stage.tables.leases["ws", "con"] = ("other", 1, float("inf"))
    sealing = asyncio.create_task(stage.resealing("two").connection(ACTING, "con"))
    await asyncio.sleep(0.01)
    stage.now += dt.timedelta(seconds=31)
    with pytest.raises(LeaseHeldError):
        await sealing
    assert stage.resealed == []


async def test_sealing_again_that_fails_leaves_its_event_and_gives_the_lease_back(stage: Any) -> None:
    stage.vault_away = True
    with pytest.raises(stage.away):
        await stage.resealing("one").connection(ACTING, "con")
    assert (stage.events()[-1], stage.tables.events[-1].reason) == ("RECORDS_RESEALED", "DEPENDENCY_UNAVAILABLE")
    stage.vault_away = False
    assert await stage.resealing("two").connection(ACTING, "con") == 3


@pytest.mark.case(24)
async def test_without_the_log_nothing_is_sealed_again(stage: Any) -> None:
    stage.audit_away = True
    for act in (
        stage.resealing("one").connection(ACTING, "con"),
        stage.resealing("one").provider_config(ACTING, "pc"),
    ):
        with pytest.raises(AuditUnavailableError):
            await act
    assert stage.resealed == []


async def test_which_records_there_are_depends_on_the_kind(stage: Any) -> None:
    stage.change(kind=Kind.WEBHOOK_SECRET)
    await stage.resealing("one").connection(ACTING, "con")
    await stage.resealing("one").provider_config(ACTING, "pc")
    assert stage.resealed == [
        ("con", (RecordClass.WEBHOOK_SECRET,), 1),
        ("pc", (RecordClass.CLIENT_SECRET, RecordClass.CLIENT_SECRET_2), 0),
    ]


async def test_what_is_not_there_or_gone_is_not_sealed_again(stage: Any) -> None:
    with pytest.raises(NotFoundError):
        await stage.resealing("one").connection(ACTING, "con_other")
    with pytest.raises(NotFoundError):
        await stage.resealing("one").provider_config(ACTING, "pc_other")
    stage.change(state=State.DRAFT)
    with pytest.raises(NotFoundError):
        await stage.resealing("one").connection(ACTING, "con")
    stage.change(state=State.DISCONNECTING)
    with pytest.raises(DisconnectedError):
        await stage.resealing("one").connection(ACTING, "con")
    assert stage.resealed == []
