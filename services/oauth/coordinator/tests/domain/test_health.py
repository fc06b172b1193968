"""Credentials are tried; a Provider that says no is asked again before it is believed; one that says nothing proves nothing."""

from __future__ import annotations

import dataclasses
import datetime as dt
from typing import Any

import pytest
from authpipe_envelope import RecordClass
from authpipe_oauth_coordinator.domain.words import Acting, Connection, HealthOutcome, Kind, Renewal, State
from authpipe_oauth_coordinator.errors import CheckTooSoonError, DisconnectedError, NotCheckableError
from authpipe_providers import Api, Entry, HealthCheck, Placement, RotationCheck

ACTING = Acting("ws", "api_key:key_1", "req_1")
START = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
MINUTE = dt.timedelta(seconds=61)
API = Entry(
    "acme",
    "Acme",
    api=Api(("https://api.acme.example",)),
    api_key=Placement(),
    health=HealthCheck("GET", "https://api.acme.example/me"),
)
REFUSED = HealthOutcome("CREDENTIAL_REFUSED", refused=True)


@pytest.fixture
def key(stage: Any) -> Any:
    """A stage with an API key of a Provider that has a harmless request."""
    stage.change(kind=Kind.API_KEY, refreshable=False, expires_at=None, provider_config_id="", entry=API)
    return stage


async def check(stage: Any) -> Any:
    stage.now += MINUTE
    return await stage.checks().check(ACTING, "con")


@pytest.mark.promise("P36")
async def test_a_credential_that_is_good_passes_and_says_when(key: Any) -> None:
    found = await check(key)
    assert (found.health.state, found.health.reason, found.health.at) == ("passing", "", key.now)
    assert key.checked[0].purpose == "health_check"
    assert key.checked[0].record_class is RecordClass.API_KEY
    assert key.events()[-1] == "HEALTH_CHECK_PASSED"
    assert key.tables.checks["ws", "con"] == key.now + dt.timedelta(days=1), "and is tried again in a day"


@pytest.mark.promise("P36")
async def test_one_refusal_changes_no_state_two_in_a_row_do_and_a_good_answer_changes_it_back(key: Any) -> None:
    key.health = REFUSED
    once = await check(key)
    assert (once.state, once.health.state) == (State.ACTIVE, "failing")
    assert key.tables.checks["ws", "con"] == key.now + MINUTE, "it is confirmed as soon as it may be"
    twice = await check(key)
    assert (twice.state, twice.state_reason) == (State.NEEDS_REAUTH, "CREDENTIAL_REFUSED")
    key.health = HealthOutcome()
    again = await check(key)
    assert (again.state, again.state_reason, again.health.state) == (State.ACTIVE, "", "passing")


@pytest.mark.promise("P36")
async def test_a_good_answer_between_two_refusals_counts(key: Any) -> None:
    for outcome in (REFUSED, HealthOutcome(), REFUSED):
        key.health = outcome
        found = await check(key)
    assert found.state is State.ACTIVE


@pytest.mark.promise("P36")
async def test_a_provider_that_is_away_says_nothing_of_a_credential(key: Any) -> None:
    for reason in ("PROVIDER_UNAVAILABLE", "CONNECTION_FAILED", "PROVIDER_SLOW_DOWN", "PROVIDER_CIRCUIT_OPEN"):
        key.health = HealthOutcome(reason)
        found = await check(key)
        assert (found.state, found.health.state, found.health.reason) == (State.ACTIVE, "unknown", reason)
    key.health = REFUSED
    await check(key)
    key.health = HealthOutcome("TIMEOUT")
    await check(key)
    key.health = REFUSED
    assert (await check(key)).state is State.NEEDS_REAUTH, "what it said before still counts"


@pytest.mark.promise("P36")
async def test_a_token_that_is_refused_before_it_ends_is_refreshed_and_tried_again(stage: Any) -> None:
    config = stage.tables.configs["ws", "pc"]
    stage.tables.configs["ws", "pc"] = dataclasses.replace(config, entry=API)
    stage.change(expires_at=START + dt.timedelta(hours=1))
    stage.health = REFUSED
    assert (await check(stage)).state is State.ACTIVE
    assert [(job.purpose, job.forced) for job in stage.jobs] == [("refresh", True)]
    stage.health = HealthOutcome()
    assert (await check(stage)).health.state == "passing"


@pytest.mark.promise("P36")
async def test_a_token_that_has_ended_is_refreshed_first(stage: Any) -> None:
    config = stage.tables.configs["ws", "pc"]
    stage.tables.configs["ws", "pc"] = dataclasses.replace(config, entry=API)
    assert (await check(stage)).health.state == "passing"
    assert [job.forced for job in stage.jobs] == [False]


@pytest.mark.promise("P36")
async def test_when_an_api_key_ends_is_asked_too_and_kept(key: Any) -> None:
    check_at = RotationCheck("https://api.acme.example/key", "/expires_at")
    key.change(entry=dataclasses.replace(API, rotation_check=check_at))
    ends = START + dt.timedelta(days=10)
    key.health = HealthOutcome(rotate_at=ends)
    assert (await check(key)).rotate_at == ends
    assert key.checked[0].purpose == "rotation_check"
    key.health = HealthOutcome()
    assert (await check(key)).rotate_at == ends, "one that does not say so another time takes nothing back"


async def test_it_is_tried_once_a_minute_and_only_what_can_be(key: Any) -> None:
    await check(key)
    with pytest.raises(CheckTooSoonError):
        await key.checks().check(ACTING, "con")
    key.change(entry=None)
    with pytest.raises(NotCheckableError):
        await check(key)
    key.change(kind=Kind.WEBHOOK_SECRET, entry=API)
    with pytest.raises(NotCheckableError):
        await check(key)
    key.change(state=State.DISCONNECTING)
    with pytest.raises(DisconnectedError):
        await check(key)


@pytest.mark.promise("P36")
async def test_what_nobody_can_try_is_no_check_that_failed_and_stands_before_nothing_that_can_be_tried(
    key: Any,
) -> None:
    good = key.tables.connections.pop(("ws", "con"))
    add_untriable(key, good, 50)
    key.tables.connections["ws", "con"] = good
    key.now += MINUTE
    await key.checks().run()
    assert key.events()[-1] == "HEALTH_CHECK_PASSED", "in the same turn"
    assert "HEALTH_CHECK_FAILED" not in key.events()
    assert [key.tables.checks["ws", f"cannot_{number}"] for number in range(50)] == [None] * 50


async def test_a_million_that_nobody_can_try_are_no_one_turn_that_a_process_has_to_end_first(key: Any) -> None:
    add_untriable(key, key.tables.connections.pop(("ws", "con")), 1_500)
    key.now += MINUTE
    await key.checks().run()
    assert len(key.tables.checks) == 1_000
    await key.checks().run()
    assert len(key.tables.checks) == 1_500


def add_untriable(key: Any, like: Connection, count: int) -> None:
    """Adds connections whose Providers have no harmless request."""
    for number in range(count):
        cannot = dataclasses.replace(like, id=f"cannot_{number}", entry=None)
        key.tables.connections["ws", cannot.id] = cannot


USERINFO = {"userinfo_endpoint": "https://as.example/u"}
INTROSPECTION = {"introspection_endpoint": "https://as.example/i"}


@pytest.mark.promise("P36")
@pytest.mark.parametrize(
    ("known", "authenticates"),
    [(USERINFO, False), (INTROSPECTION, True), (USERINFO | INTROSPECTION, True)],
    ids=["userinfo", "introspection", "both"],
)
async def test_a_provider_without_a_harmless_request_is_asked_by_introspection_or_else_userinfo(
    known: dict[str, str], authenticates: bool, stage: Any
) -> None:
    describe(stage, **known)
    stage.change(expires_at=START + dt.timedelta(hours=1), scopes=("openid",))
    await check(stage)
    assert stage.checked[-1].authenticate is authenticates


@pytest.mark.promise("P36")
async def test_a_key_is_tried_where_its_entry_says_also_where_that_is_userinfo(key: Any) -> None:
    config = key.tables.configs["ws", "pc"]
    endpoints = dataclasses.replace(config.endpoints, userinfo_endpoint=API.health.url)
    key.change(entry=dataclasses.replace(API, endpoints=endpoints))
    assert (await check(key)).health.state == "passing"
    assert key.checked[0].config.entry.health == API.health


@pytest.mark.promise("P36")
@pytest.mark.parametrize("known", [USERINFO, INTROSPECTION], ids=["userinfo", "introspection"])
async def test_a_provider_that_says_no_to_every_token_is_not_believed_and_one_that_said_yes_before_is(
    known: dict[str, str], stage: Any
) -> None:
    describe(stage, **known)
    stage.change(expires_at=START + dt.timedelta(hours=1), scopes=("openid",))
    stage.health = REFUSED
    for _ in range(3):
        found = await check(stage)
        assert (found.state, found.health.state, found.health.refusals) == (State.ACTIVE, "unknown", 0)
    assert not stage.jobs, "and no token is refreshed for it"
    stage.health = HealthOutcome()
    assert (await check(stage)).health.state == "passing"
    stage.health = HealthOutcome("TIMEOUT")
    await check(stage)
    stage.health = REFUSED
    assert (await check(stage)).health.state == "failing"
    assert (await check(stage)).state is State.NEEDS_REAUTH


@pytest.mark.promise("P36")
async def test_an_entry_whose_harmless_request_is_userinfo_is_no_reason_to_ask_it_with_the_token_of_a_machine(
    stage: Any,
) -> None:
    config = stage.tables.configs["ws", "pc"]
    entry = Entry("acme", "Acme", health=HealthCheck("GET", USERINFO["userinfo_endpoint"]))
    stage.tables.configs["ws", "pc"] = dataclasses.replace(config, entry=entry)
    describe(stage, **USERINFO)
    stage.change(expires_at=START + dt.timedelta(hours=1), scopes=("calendar",))
    with pytest.raises(NotCheckableError):
        await check(stage)
    describe(stage, **USERINFO, **INTROSPECTION)
    await check(stage)
    assert (stage.checked[-1].authenticate, stage.checked[-1].config.entry.health) == (True, None)


@pytest.mark.promise("P36")
@pytest.mark.parametrize(
    ("of_connection", "known"),
    [
        ({}, {}),
        ({"scopes": ("files",)}, USERINFO),
        ({"scopes": ("openid",), "renewal": Renewal.CLIENT_CREDENTIALS}, USERINFO),
        ({"scopes": ("openid",)}, INTROSPECTION | {"auth_method": "none"}),
    ],
    ids=["nothing is known", "nobody signed in", "the token of a machine", "a client that cannot prove itself"],
)
async def test_what_would_refuse_a_good_token_is_not_asked(
    of_connection: dict[str, Any], known: dict[str, str], stage: Any
) -> None:
    describe(stage, **known)
    stage.change(expires_at=START + dt.timedelta(hours=1), **of_connection)
    with pytest.raises(NotCheckableError):
        await check(stage)
    assert not stage.checked


def describe(stage: Any, **known: str) -> None:
    """Says what is known of the Provider of the stage's connection."""
    config = stage.tables.configs["ws", "pc"]
    endpoints = dataclasses.replace(config.endpoints, **({"auth_method": "client_secret_basic"} | known))
    stage.tables.configs["ws", "pc"] = dataclasses.replace(config, endpoints=endpoints)
