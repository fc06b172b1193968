"""What customers bring: a credential, or what tokens are asked for with; then the first token is asked for at once."""

from __future__ import annotations

import dataclasses
import datetime as dt
from typing import Any

import pytest
from authpipe_oauth_coordinator.domain.imports import Brought
from authpipe_oauth_coordinator.domain.words import Acting, Kind, Renewal, State, TokenOutcome
from authpipe_oauth_coordinator.errors import GrantNotOfferedError, MalformedError, NotFoundError
from authpipe_providers import Entry, Placement, parse

ACTING = Acting("ws", "api_key:key_1", "req_1")
START = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
TWO_STEP = parse(
    {
        "name": "acme",
        "display_name": "Acme",
        "documentation": ["https://acme.example/docs"],
        "two_step": {
            "url": "https://acme.example/login",
            "fields": {"user": "{username}", "pass": "{password}"},
            "credentials": {"username": {"title": "User"}, "password": {"title": "Password"}},
            "answer": {"access_token": "/session/token"},
        },
    }
)
KEYS = Entry("keys", "Keys", api_key=Placement(), key_life_days=90)
CATALOG = {"acme": TWO_STEP, "keys": KEYS}


def brought(kind: Kind = Kind.OAUTH2, **more: Any) -> Brought:
    given = {"end_user_id": "ada", "provider": "", "config_id": "pc", "allowed_hosts": (), "values": {}, **more}
    return Brought(kind=kind, **given)


@pytest.fixture
def offers(stage: Any) -> Any:
    """A stage whose Provider gives tokens for a key of the connection's own."""
    config = stage.tables.configs["ws", "pc"]
    entry = dataclasses.replace(config.entry, grants=("jwt_bearer",))
    stage.tables.configs["ws", "pc"] = dataclasses.replace(config, entry=entry)
    return stage


async def test_what_tokens_are_asked_for_with_asks_for_the_first_one_at_once(offers: Any) -> None:
    rules = offers.imports()
    draft = await rules.draft(ACTING, brought(renewal=Renewal.JWT_BEARER))
    assert (draft.state, draft.renewal, draft.scopes) == (State.DRAFT, Renewal.JWT_BEARER, ("a",))
    offers.answer = dataclasses.replace(offers.answer, expires_at=START + dt.timedelta(hours=1))
    made = await rules.activate(ACTING, draft.id, TokenOutcome("", (), None, refreshable=True))
    assert (made.state, made.expires_at) == (State.ACTIVE, START + dt.timedelta(hours=1))
    assert [(job.renewal, job.purpose) for job in offers.jobs] == [(Renewal.JWT_BEARER, "refresh")]


@pytest.mark.parametrize("failure", ["CONNECTION_FAILED", "INVALID_CLIENT", "INVALID_GRANT"])
async def test_a_first_token_that_is_not_given_shows_and_the_connection_stands(failure: str, offers: Any) -> None:
    rules = offers.imports()
    draft = await rules.draft(ACTING, brought(renewal=Renewal.JWT_BEARER))
    offers.answer = TokenOutcome(failure)
    made = await rules.activate(ACTING, draft.id, TokenOutcome("", (), None, refreshable=True))
    assert made.failing.reason == failure
    assert made.state is (State.NEEDS_REAUTH if failure == "INVALID_GRANT" else State.ACTIVE)


async def test_a_provider_is_not_asked_in_a_way_that_it_does_not_offer(stage: Any) -> None:
    with pytest.raises(GrantNotOfferedError):
        await stage.imports().draft(ACTING, brought(renewal=Renewal.JWT_BEARER))
    with pytest.raises(GrantNotOfferedError):
        await stage.imports(CATALOG).draft(ACTING, brought(renewal=Renewal.TWO_STEP, provider="keys", config_id=""))
    with pytest.raises(NotFoundError):
        await stage.imports().draft(ACTING, brought(config_id="other"))
    with pytest.raises(MalformedError):
        await stage.imports().draft(ACTING, brought(Kind.API_KEY, provider="x", config_id="", renewal=Renewal.TWO_STEP))


async def test_a_two_step_token_needs_no_client_and_is_asked_for_where_its_entry_says(stage: Any) -> None:
    rules = stage.imports(CATALOG)
    draft = await rules.draft(ACTING, brought(renewal=Renewal.TWO_STEP, provider="acme", config_id=""))
    await rules.activate(ACTING, draft.id, TokenOutcome("", (), None, refreshable=True))
    job = stage.jobs[0]
    assert (job.config.id, job.config.provider, job.authenticate) == ("", "acme", False)
    assert job.endpoints.token_endpoint == "https://acme.example/login"


@pytest.mark.promise("P36")
async def test_when_an_api_key_ends_is_what_the_customer_says_or_the_entry(stage: Any) -> None:
    rules = stage.imports(CATALOG)
    given = START + dt.timedelta(days=5)
    said = await rules.draft(ACTING, brought(Kind.API_KEY, provider="keys", config_id="", rotate_at=given))
    known = await rules.draft(ACTING, brought(Kind.API_KEY, provider="keys", config_id=""))
    other = await rules.draft(ACTING, brought(Kind.API_KEY, provider="x", config_id="", allowed_hosts=("x.example",)))
    assert (said.rotate_at, known.rotate_at, other.rotate_at) == (given, START + dt.timedelta(days=90), None)
    with pytest.raises(MalformedError):
        await rules.draft(ACTING, brought(Kind.BASIC, provider="x", config_id="", rotate_at=given))
