"""A person agrees on another device: it is asked about until they have, have not, or it is over (RFC 8628)."""

from __future__ import annotations

import dataclasses
import datetime as dt
from typing import Any

import pytest
from authpipe_oauth_coordinator.domain.words import Acting, BegunDevice, State, TokenOutcome
from authpipe_oauth_coordinator.errors import ExchangeError, GrantNotOfferedError, NotFoundError

ACTING = Acting("ws", "api_key:key_1", "req_1")
START = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)


@pytest.fixture
def offered(stage: Any) -> Any:
    """A stage whose Provider has a device authorization endpoint."""
    config = stage.tables.configs["ws", "pc"]
    endpoints = dataclasses.replace(config.endpoints, device_endpoint="https://as.example/device")
    entry = dataclasses.replace(config.entry, grants=("device_code",))
    stage.tables.configs["ws", "pc"] = dataclasses.replace(config, endpoints=endpoints, entry=entry)
    return stage


def made(stage: Any) -> Any:
    return stage.tables.connections["ws", "con_new"]


async def test_it_is_asked_about_until_the_person_has_agreed(offered: Any) -> None:
    rules = offered.devices()
    flow, begun = await rules.begin(ACTING, "pc", "ada", {})
    assert (begun.user_code, flow.expires_at) == ("ABCD", START + dt.timedelta(seconds=600))
    assert made(offered).state is State.DRAFT, "nobody sees it yet"
    await rules.run()
    assert (await rules.get(ACTING, "con_new")).status == "pending"
    offered.polled = TokenOutcome("", ("a",), START + dt.timedelta(hours=1), refreshable=True)
    await rules.run()
    assert (await rules.get(ACTING, "con_new")).status == "connected"
    assert (made(offered).state, made(offered).end_user_id) == (State.ACTIVE, "ada")
    asked = len(offered.jobs)
    await rules.run()
    assert len(offered.jobs) == asked, "and not again"
    assert [job.purpose for job in offered.jobs] == ["store", "exchange", "exchange"]


@pytest.mark.parametrize(
    ("failure", "status"), [("ACCESS_DENIED", "denied"), ("EXPIRED_TOKEN", "expired"), ("INVALID_GRANT", "denied")]
)
async def test_a_person_who_does_not_agree_leaves_nothing(failure: str, status: str, offered: Any) -> None:
    rules = offered.devices()
    await rules.begin(ACTING, "pc", "ada", {})
    offered.polled = TokenOutcome(failure)
    await rules.run()
    assert (await rules.get(ACTING, "con_new")).status == status
    assert (made(offered).state, made(offered).state_reason) == (State.DISCONNECTING, failure), "it is swept"


async def test_a_provider_that_wants_fewer_requests_gets_fewer(offered: Any) -> None:
    rules = offered.devices()
    await rules.begin(ACTING, "pc", "ada", {})
    offered.polled = TokenOutcome("PROVIDER_SLOW_DOWN")
    for seconds in (10, 15):
        await rules.run()
        assert (await rules.get(ACTING, "con_new")).interval_seconds == seconds
    assert (await rules.get(ACTING, "con_new")).status == "pending"


async def test_a_part_that_is_away_ends_nothing(offered: Any) -> None:
    rules = offered.devices()
    await rules.begin(ACTING, "pc", "ada", {})
    for answer in (offered.away(), TokenOutcome("PROVIDER_UNAVAILABLE"), TokenOutcome("CONNECTION_FAILED")):
        offered.polled = answer
        await rules.run()
        assert (await rules.get(ACTING, "con_new")).status == "pending"


async def test_when_it_is_over_nobody_is_asked(offered: Any) -> None:
    rules = offered.devices()
    await rules.begin(ACTING, "pc", "ada", {})
    asked = len(offered.jobs)
    offered.now += dt.timedelta(seconds=600)
    await rules.run()
    assert (await rules.get(ACTING, "con_new")).status == "expired"
    assert len(offered.jobs) == asked


async def test_what_cannot_be_begun_says_so(stage: Any, offered: Any) -> None:
    offered.begun = BegunDevice("INVALID_CLIENT")
    with pytest.raises(ExchangeError):
        await offered.devices().begin(ACTING, "pc", "ada", {})
    with pytest.raises(NotFoundError):
        await offered.devices().begin(ACTING, "other", "ada", {})
    config = stage.tables.configs["ws", "pc"]
    stage.tables.configs["ws", "pc"] = dataclasses.replace(config, entry=dataclasses.replace(config.entry, grants=()))
    with pytest.raises(GrantNotOfferedError):
        await stage.devices().begin(ACTING, "pc", "ada", {})
