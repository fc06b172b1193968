"""What cannot be revoked may be kept sealed, for thirty days at most; it opens for nobody until it is taken back (promise P12)."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest
from authpipe_oauth_coordinator.domain.words import Acting, Kind, State
from authpipe_oauth_coordinator.errors import NotKeptError

ACTING = Acting("ws", "api_key:key_1", "req_1")
START = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
MONTH = dt.timedelta(days=30)


def state(stage: Any) -> tuple[State, str]:
    found = stage.tables.connections["ws", "con"]
    return found.state, found.state_reason


@pytest.fixture
def key(stage: Any) -> Any:
    """A stage with an API key, which nobody can revoke."""
    stage.change(kind=Kind.API_KEY, refreshable=False)
    return stage


@pytest.mark.promise("P12")
async def test_what_cannot_be_revoked_is_kept_where_it_is_asked_for_and_taken_back_under_its_own_id(key: Any) -> None:
    rules = key.disconnecting()
    kept = await rules.disconnect(ACTING, "con", MONTH)
    assert state(key) == (State.KEPT, "NOT_REVOCABLE")
    assert kept.keep_until == START + MONTH
    assert key.withheld[0] == "con", "from the first second nothing is served"
    assert (key.kept, key.erased) == ([("con", START + MONTH)], [])
    key.now += MONTH - dt.timedelta(seconds=1)
    taken = await rules.reconnect(ACTING, "con", "a grant of authority's")
    assert (taken.id, taken.state, taken.keep_until) == ("con", State.ACTIVE, None)
    assert key.restored == ["a grant of authority's"]
    assert key.events()[-2:] == ["CONNECTION_KEPT", "CONNECTION_RESTORED"]


@pytest.mark.promise("P12")
async def test_nothing_is_kept_longer_than_the_installation_allows(key: Any) -> None:
    kept = await key.disconnecting().disconnect(ACTING, "con", dt.timedelta(days=400))
    assert kept.keep_until == START + MONTH


@pytest.mark.promise("P12")
@pytest.mark.promise("P11")
async def test_what_can_be_revoked_is_revoked_and_erased_whatever_is_asked_for(stage: Any) -> None:
    await stage.disconnecting().disconnect(ACTING, "con", MONTH)
    assert state(stage) == (State.DISCONNECTED, "REVOKED")
    assert (stage.kept, stage.erased) == ([], ["con"])


@pytest.mark.promise("P12")
async def test_without_asking_nothing_is_kept(key: Any) -> None:
    await key.disconnecting().disconnect(ACTING, "con")
    assert state(key) == (State.DISCONNECTED, "NOT_REVOCABLE")
    assert (key.kept, key.erased) == ([], ["con"])


@pytest.mark.promise("P12")
async def test_when_it_is_over_it_is_not_taken_back_and_it_is_erased(key: Any) -> None:
    rules = key.disconnecting()
    await rules.disconnect(ACTING, "con", dt.timedelta(days=1))
    key.now += dt.timedelta(days=1)
    with pytest.raises(NotKeptError):
        await rules.reconnect(ACTING, "con", "a grant")
    assert key.restored == [], "vault was not asked"
    await rules.finish(key.tables.connections["ws", "con"], ACTING)
    assert state(key) == (State.DISCONNECTED, "KEPT_LONG_ENOUGH")
    assert key.erased == ["con"]


@pytest.mark.promise("P12")
async def test_what_is_kept_can_be_erased_before_and_is_not_kept_longer_by_asking_again(key: Any) -> None:
    rules = key.disconnecting()
    await rules.disconnect(ACTING, "con", dt.timedelta(days=1))
    again = await rules.disconnect(ACTING, "con", MONTH)
    assert again.keep_until == START + dt.timedelta(days=1)
    await rules.disconnect(ACTING, "con")
    assert state(key) == (State.DISCONNECTED, "NOT_REVOCABLE")
    assert key.erased == ["con"]


@pytest.mark.promise("P12")
async def test_vault_away_when_it_is_to_be_kept_leaves_it_withheld_and_it_is_kept_by_trying_again(key: Any) -> None:
    rules = key.disconnecting()
    key.vault_away = True
    with pytest.raises(key.away):
        await rules.disconnect(ACTING, "con", MONTH)
    assert state(key)[0] is State.DISCONNECTING
    key.vault_away = False
    await rules.finish(key.tables.connections["ws", "con"], ACTING)
    assert state(key)[0] is State.KEPT


@pytest.mark.promise("P12")
async def test_vault_away_when_it_is_taken_back_changes_nothing(key: Any) -> None:
    rules = key.disconnecting()
    await rules.disconnect(ACTING, "con", MONTH)
    key.vault_away = True
    with pytest.raises(key.away):
        await rules.reconnect(ACTING, "con", "a grant")
    assert state(key)[0] is State.KEPT
    key.vault_away = False
    assert (await rules.reconnect(ACTING, "con", "a grant")).state is State.ACTIVE
    assert (await rules.reconnect(ACTING, "con", "a grant")).state is State.ACTIVE, "twice is once"


async def test_what_is_erased_or_active_was_not_kept(stage: Any) -> None:
    rules = stage.disconnecting()
    assert (await rules.reconnect(ACTING, "con", "a grant")).state is State.ACTIVE
    await rules.disconnect(ACTING, "con", MONTH)
    with pytest.raises(NotKeptError):
        await rules.reconnect(ACTING, "con", "a grant")
