"""What rules may rely on in coordinator's tables. The same suite over the double and over PostgreSQL."""

from __future__ import annotations

import asyncio
import dataclasses
import datetime as dt
import secrets
import types
from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa
from authpipe_oauth_coordinator.domain.words import (
    Connection,
    DeviceFlow,
    Ending,
    Failing,
    Health,
    Flow,
    Lease,
    Left,
    ProviderConfig,
    State,
    TokenOutcome,
    Unfinished,
)
from authpipe_providers import Endpoints, load_catalog
from authpipe_sensitive import AuditEntry
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

Entry = Callable[[str], AuditEntry]
HOUR = 3600.0
DUE = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
LEFT = Left(Unfinished.SPOOLED, 1, dt.datetime(2026, 1, 1, tzinfo=dt.UTC), retries=1)


def fresh() -> str:
    return f"con_{secrets.token_hex(8)}"


async def test_of_many_who_want_a_lease_at_once_one_gets_it(tables: Any, entry: Entry) -> None:
    name = fresh()
    fences = await asyncio.gather(
        *(tables.leases.acquire_lease("ws", name, f"holder-{n}", HOUR, entry("REFRESH_BEGUN")) for n in range(6))
    )
    assert sorted(fences, key=str) == [Lease(1), None, None, None, None, None]


async def test_a_lease_that_ran_out_is_passed_on_with_a_higher_fence(tables: Any, entry: Entry) -> None:
    name = fresh()
    assert await tables.leases.acquire_lease("ws", name, "slow", 0, entry("REFRESH_BEGUN")) == Lease(1)
    await asyncio.sleep(0.01)
    assert await tables.leases.acquire_lease("ws", name, "quick", HOUR, entry("REFRESH_BEGUN")) == Lease(2)
    beat = await tables.leases.extend_leases([("ws", name, 1), ("ws", name, 2), ("ws", fresh(), 1)], HOUR)
    assert beat == {("ws", name, 2)}, "whoever was passed over has no heartbeat"


async def test_a_heartbeat_that_comes_late_does_not_take_back_a_lease_that_was_given_back(
    tables: Any, entry: Entry
) -> None:
    name = fresh()
    await tables.leases.acquire_lease("ws", name, "one", HOUR, entry("REFRESH_BEGUN"))
    await tables.leases.end_lease("ws", name, 1, Ending(), entry("REFRESH_FAILED"))
    assert await tables.leases.extend_leases([("ws", name, 1)], HOUR) == set()
    assert await tables.leases.acquire_lease("ws", name, "two", HOUR, entry("REFRESH_BEGUN")) == Lease(2)


async def test_who_was_passed_over_changes_nothing_when_it_ends(
    tables: Any, entry: Entry, connection: Callable[..., Connection]
) -> None:
    made = connection(fresh(), state=State.ACTIVE)
    await tables.connections.add_connection(made, entry("CONNECTION_CREATED"))
    await tables.leases.acquire_lease("ws", made.id, "slow", 0, entry("REFRESH_BEGUN"))
    await asyncio.sleep(0.01)
    await tables.leases.acquire_lease("ws", made.id, "quick", HOUR, entry("REFRESH_BEGUN"))
    late = TokenOutcome("", ("late",), dt.datetime(2030, 1, 1, tzinfo=dt.UTC), refreshable=True)
    assert not await tables.leases.note_left("ws", made.id, 1, LEFT)
    await tables.leases.end_lease("ws", made.id, 1, Ending(late, left=LEFT), entry("TOKEN_REFRESHED"))
    assert await tables.leases.get_left("ws", made.id) == Left()
    found = await tables.connections.get_connection("ws", made.id)
    assert (found.scopes, found.expires_at) == (("a",), None)
    assert await tables.leases.acquire_lease("ws", made.id, "third", HOUR, entry("REFRESH_BEGUN")) is None


@pytest.mark.case(10)
async def test_of_refreshes_that_end_at_once_each_changes_its_own_connection_and_who_was_passed_over_none(
    tables: Any, entry: Entry, connection: Callable[..., Connection]
) -> None:
    made = [connection(fresh(), state=State.ACTIVE) for _ in range(6)]
    for each in made:
        await tables.connections.add_connection(each, entry("CONNECTION_CREATED"))
    takes = [tables.leases.acquire_lease("ws", each.id, "one", HOUR, entry("REFRESH_BEGUN")) for each in made]
    assert await asyncio.gather(*takes) == [Lease(1)] * 6
    noted = [tables.leases.note_left("ws", each.id, 1 + (each is made[2]), LEFT) for each in made]
    assert await asyncio.gather(*noted) == [True, True, False, True, True, True]
    ends = dt.datetime(2030, 1, 1, tzinfo=dt.UTC)
    outcomes = [TokenOutcome("", (each.id,), ends, refreshable=True, metadata=(("of", each.id),)) for each in made]
    await asyncio.gather(
        *(
            tables.leases.end_lease(
                "ws", each.id, 1 + (each is made[4]), Ending(outcome, left=Left(), due=ends), entry("TOKEN_REFRESHED")
            )
            for each, outcome in zip(made, outcomes, strict=True)
        )
    )
    for each in made:
        found = await tables.connections.get_connection("ws", each.id)
        refreshed = each is not made[4]
        assert found.scopes == ((each.id,) if refreshed else ("a",))
        assert found.metadata == ((("of", each.id),) if refreshed else ())
        assert await tables.leases.get_left("ws", each.id) == (Left() if refreshed else LEFT)
        free = await tables.leases.acquire_lease("ws", each.id, "two", HOUR, entry("REFRESH_BEGUN"))
        assert (free is not None) is refreshed


async def test_a_refresh_that_failed_for_good_asks_for_a_new_authorization(
    tables: Any, entry: Entry, connection: Callable[..., Connection]
) -> None:
    made = connection(fresh(), state=State.ACTIVE)
    await tables.connections.add_connection(made, entry("CONNECTION_CREATED"))
    lease = await tables.leases.acquire_lease("ws", made.id, "one", HOUR, entry("REFRESH_BEGUN"))
    await tables.leases.end_lease("ws", made.id, lease.fence, Ending(reauth="INVALID_GRANT"), entry("REFRESH_FAILED"))
    found = await tables.connections.get_connection("ws", made.id)
    assert (found.state, found.state_reason) == (State.NEEDS_REAUTH, "INVALID_GRANT")
    assert await tables.leases.acquire_lease("ws", made.id, "two", HOUR, entry("REFRESH_BEGUN")) == Lease(2)


async def test_what_a_refresh_left_is_found_by_the_next_holder_until_it_is_cleared(tables: Any, entry: Entry) -> None:
    name = fresh()
    assert await tables.leases.get_left("ws", name) == Left()
    await tables.leases.acquire_lease("ws", name, "dies", 0, entry("REFRESH_BEGUN"))
    assert await tables.leases.note_left("ws", name, 1, LEFT)
    await asyncio.sleep(0.01)
    found = await tables.leases.acquire_lease("ws", name, "next", HOUR, entry("REFRESH_BEGUN"))
    assert found == Lease(2, LEFT)
    await tables.leases.end_lease("ws", name, 2, Ending(), entry("REFRESH_FAILED"))
    assert await tables.leases.get_left("ws", name) == LEFT, "where nothing new is known, it stays"
    await tables.leases.acquire_lease("ws", name, "third", HOUR, entry("REFRESH_BEGUN"))
    await tables.leases.end_lease("ws", name, 3, Ending(left=Left()), entry("REFRESH_FAILED"))
    assert await tables.leases.get_left("ws", name) == Left()


@pytest.mark.promise("P14")
async def test_a_state_is_used_once_however_many_come_at_once(tables: Any, entry: Entry) -> None:
    state = secrets.token_bytes(32)
    endpoints = Endpoints("i", "a", "t", "r", "none", iss_required=True)
    flow = Flow("ws", fresh(), "pc", "user", bytes(32), "https://x", endpoints, dt.datetime(2030, 1, 1, tzinfo=dt.UTC))
    await tables.flows.add_flow(state, flow, entry("FLOW_BEGUN"))
    found = await asyncio.gather(*(tables.flows.use_flow(state, lambda _: entry("FLOW_STATE_USED")) for _ in range(6)))
    assert [each for each in found if each is not None] == [flow]
    assert await tables.flows.use_flow(secrets.token_bytes(32), lambda _: entry("FLOW_STATE_USED")) is None


# draft → active ⇄ needs_reauth; each of them → disconnecting → disconnected or ⇄ kept (domain/words).
MOVES = {
    State.DRAFT: {State.DISCONNECTING},
    State.ACTIVE: {State.DISCONNECTING},
    State.NEEDS_REAUTH: {State.DISCONNECTING},
    State.DISCONNECTING: {State.DISCONNECTED, State.KEPT},
    State.DISCONNECTED: set[State](),
    State.KEPT: {State.ACTIVE, State.DISCONNECTING},
}
_RULES = [
    ((State.ACTIVE, State.NEEDS_REAUTH), State.DISCONNECTING),
    ((State.DISCONNECTING,), State.DISCONNECTED),
    ((State.DRAFT,), State.DISCONNECTING),
    ((State.DISCONNECTING,), State.KEPT),
    ((State.KEPT,), State.ACTIVE),
    ((State.KEPT,), State.DISCONNECTING),
]


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    steps=st.lists(
        st.one_of(
            st.sampled_from(range(len(_RULES))).map(lambda rule: ("move", rule)),
            st.just(("activate", 0)),
            st.sampled_from([("lease", 0), ("lease", 3600)]),
            st.integers(0, 3).map(lambda back: ("extend", back)),
            st.integers(0, 3).map(lambda back: ("end", back)),
            st.integers(0, 3).map(lambda back: ("fail", back)),
            st.integers(0, 3).map(lambda back: ("left", back)),
            st.integers(0, 2).map(lambda refusals: ("check", refusals)),
        ),
        max_size=14,
    )
)
async def test_postgresql_does_what_the_double_does_and_states_move_only_along_their_table(
    steps: list[tuple[str, int]], fake: Any, database: Any, entry: Entry, connection: Callable[..., Connection]
) -> None:
    from authpipe_database import Outbox
    from authpipe_oauth_coordinator.store import ConnectionTable, LeaseTable

    real = (ConnectionTable(database, Outbox()), LeaseTable(database, Outbox()))
    made = connection(fresh())
    for table in (fake, real[0]):
        await table.add_connection(made, entry("CONNECTION_DRAFTED"))
    fence, before = 0, State.DRAFT
    for act, number in steps:
        answers = []
        for connections, leases in ((fake, fake), real):
            answers.append(await _step(connections, leases, made.id, act, number, fence, entry))
        assert answers[0] == answers[1], (act, number)
        if act == "lease" and answers[0] is not None:
            assert answers[0].fence == fence + 1, "a fence never comes again"
            fence += 1
        # An expired lease is passed on in the next moment, by either clock.
        await asyncio.sleep(0.001)
        states = [(await table.get_connection("ws", made.id)) for table in (fake, real[0])]
        assert states[0].state is states[1].state
        after = states[0].state
        reached = (
            MOVES[before]
            | {before}
            | {
                State.DRAFT: {State.ACTIVE},
                State.ACTIVE: {State.NEEDS_REAUTH},
                State.NEEDS_REAUTH: {State.ACTIVE},
            }.get(before, set())
        )
        assert after in reached, (before, after)
        before = after


async def _step(connections: Any, leases: Any, name: str, act: str, number: int, fence: int, entry: Entry) -> object:
    match act:
        case "move":
            sources, target = _RULES[number]
            return await connections.move("ws", name, sources, target, "R", entry("CONNECTION_DISCONNECTING"))
        case "activate":
            found = await connections.activate(
                "ws", name, TokenOutcome("", ("s",), None, refreshable=True), DUE, entry("CONNECTION_CREATED")
            )
            return found is not None
        case "lease":
            return await leases.acquire_lease("ws", name, "h", float(number), entry("REFRESH_BEGUN"))
        case "extend":
            return await leases.extend_leases([("ws", name, max(1, fence - number))], HOUR)
        case "end":
            outcome = TokenOutcome("", ("t",), None, refreshable=True)
            return await leases.end_lease(
                "ws", name, max(1, fence - number), Ending(outcome, left=Left(), due=DUE), entry("TOKEN_REFRESHED")
            )
        case "check":
            health = Health(
                "failing" if number else "passing",
                "CREDENTIAL_REFUSED" if number else "",
                DUE,
                number,
                ever_passed=not number,
            )
            checked = await connections.get_connection("ws", name)
            await connections.note_health(checked, health, DUE, None, entry("HEALTH_CHECK_PASSED"))
            found = await connections.get_connection("ws", name)
            return found.health, found.state_reason
        case "left":
            noted = await leases.note_left("ws", name, max(1, fence - number), LEFT._replace(fence=fence))
            return noted, await leases.get_left("ws", name)
        case _:
            failing = Failing("INVALID_GRANT", DUE, number + 1, DUE)
            ending = Ending(reauth="INVALID_GRANT" if number else "", due=DUE, failing=failing)
            return await leases.end_lease("ws", name, max(1, fence - number), ending, entry("REFRESH_FAILED"))


async def test_which_client_secrets_are_in_use_changes_once_and_what_failed_is_tried_at_once(
    database: Any, entry: Entry, connection: Callable[..., Connection]
) -> None:
    from authpipe_database import Outbox
    from authpipe_oauth_coordinator.store import ConfigTable, ConnectionTable

    configs, connections = ConfigTable(database, Outbox()), ConnectionTable(database, Outbox())
    endpoints = Endpoints("i", "a", "t", "r", "client_secret_basic", iss_required=True)
    known = load_catalog()["github"]
    config = ProviderConfig("ws", f"pc_{fresh()}", "p", "P", "c", (), ("https://x",), endpoints, bytes(32), DUE, known)
    assert config.secret_classes == (6,)
    await configs.add_draft_config(config, entry("PROVIDER_CONFIG_DRAFTED"))
    await configs.activate_config("ws", config.id, entry("PROVIDER_CONFIG_CREATED"))
    later = dt.datetime(2100, 1, 1, tzinfo=dt.UTC)
    made = dataclasses.replace(
        connection(fresh(), state=State.ACTIVE, refresh_due_at=later),
        provider_config_id=config.id,
        refreshable=True,
    )
    await connections.add_connection(made, entry("CONNECTION_CREATED"))
    async with database.transaction() as sql:
        failed = sa.text("update connections set refresh_failure = 'INVALID_CLIENT' where id = :id")
        await sql.execute(failed, {"id": made.id})
    both = await asyncio.gather(
        *(configs.change_secrets(config, (9, 6), entry("CLIENT_SECRET_ADDED")) for _ in range(4))
    )
    assert [each.secret_classes for each in both if each is not None] == [(9, 6)], "one of them has changed it"
    found = await configs.get_config("ws", config.id)
    assert found is not None
    assert found.secret_classes == (9, 6)
    tried = await connections.get_connection("ws", made.id)
    assert tried is not None
    assert tried.refresh_due_at is not None
    assert tried.refresh_due_at < later, "what failed for its client's sake is tried again now"
    assert await configs.change_secrets(found, (9,), entry("CLIENT_SECRET_RETIRED")) is not None
    assert await configs.change_secrets(found, (9,), entry("CLIENT_SECRET_RETIRED")) is None


@pytest.mark.case(22)
async def test_a_notice_stands_since_it_was_first_given_and_goes_with_the_metadata_that_is_taken(
    database: Any, entry: Entry
) -> None:
    from authpipe_database import Outbox
    from authpipe_oauth_coordinator.store import ConfigTable

    configs = ConfigTable(database, Outbox())
    endpoints = Endpoints("i", "a", "t", "r", "none", iss_required=True, dpop=True, temporary_endpoint="x")
    known = load_catalog()["github"]
    config = ProviderConfig(
        "ws", f"pc_{fresh()}", "p", "P", "c", (), ("https://x",), endpoints, bytes(32), DUE, known, discovered=True
    )
    await configs.add_draft_config(config, entry("PROVIDER_CONFIG_DRAFTED"))
    made = await configs.activate_config("ws", config.id, entry("PROVIDER_CONFIG_CREATED"))
    assert made is not None
    assert (made.endpoints, made.notice, made.noticed_at) == (endpoints, "", None)
    since = set()
    for _ in range(2):
        await configs.note_config(config, "HOSTS_CHANGED", entry("PROVIDER_CONFIG_CHANGED"))
        found = await configs.get_config("ws", config.id)
        assert found is not None
        assert found.notice == "HOSTS_CHANGED"
        since.add(found.noticed_at)
    assert len(since - {None}) == len(since) == 1
    await configs.change_endpoints(made, entry("PROVIDER_CONFIG_CHANGED"))
    assert await configs.get_config("ws", config.id) == made
    await configs.note_config(config, "HOSTS_CHANGED", entry("PROVIDER_CONFIG_CHANGED"))
    await configs.note_config(config, "", entry("PROVIDER_CONFIG_CHANGED"))
    assert await configs.get_config("ws", config.id) == made


async def test_a_device_flow_is_asked_about_once_in_its_interval_however_many_replicas_there_are(
    database: Any, entry: Entry, connection: Callable[..., Connection]
) -> None:
    from authpipe_database import Outbox
    from authpipe_oauth_coordinator.store import DeviceTable

    table = DeviceTable(database, Outbox())
    draft = connection(fresh(), state=State.DRAFT)
    flow = DeviceFlow("ws", draft.id, "pc", dt.datetime(2100, 1, 1, tzinfo=dt.UTC), 1, "pending")
    await table.add_device(flow, draft, entry("FLOW_BEGUN"))
    assert draft.id not in {each.connection_id for each in await table.claim_devices(100)}, "not before there is a code"
    await table.note_device(flow)
    assert await table.claim_devices(100) == [], "nor before its interval is over"
    await asyncio.sleep(1.1)
    found = [each for many in await asyncio.gather(*(table.claim_devices(100) for _ in range(4))) for each in many]
    assert found == [flow]
    slower = dataclasses.replace(flow, interval_seconds=3600)
    await table.note_device(slower)
    assert await table.get_device("ws", draft.id) == slower
    assert await table.get_device("ws_b", draft.id) is None
    await table.note_device(dataclasses.replace(flow, status="connected"))
    assert await table.claim_devices(100) == []


async def _due(tables: Any, connection: Callable[..., Connection], entry: Entry, workspace: str, **more: Any) -> str:
    made = dataclasses.replace(connection(fresh(), state=State.ACTIVE, refresh_due_at=DUE), workspace=workspace, **more)
    await tables.connections.add_connection(made, entry("CONNECTION_CREATED"))
    return made.id


async def test_what_is_due_is_taken_up_once_by_however_many_replicas_and_again_when_they_died(
    postgresql: Any, entry: Entry, connection: Callable[..., Connection]
) -> None:
    ids = {await _due(postgresql, connection, entry, "ws") for _ in range(40)}
    claim = postgresql.connections.claim_due
    taken = await asyncio.gather(*(claim(20, 1_000, 1_000, {}, 1.0) for _ in range(6)))
    found = [each.id for batch in taken for each in batch]
    while len(found) < 40:  # a row that another one looks at is skipped, and found the next time
        found += [each.id for each in await claim(20, 1_000, 1_000, {}, 1.0)]
    assert sorted(found) == sorted(ids)
    assert await claim(20, 1_000, 1_000, {}, 1.0) == []
    await asyncio.sleep(1.1)
    assert len(await claim(100, 1_000, 1_000, {}, 60.0)) == 40, "who took them up has died"


async def test_a_workspace_with_many_does_not_hold_up_one_with_few(
    postgresql: Any, entry: Entry, connection: Callable[..., Connection]
) -> None:
    for number in range(30):
        await _due(postgresql, connection, entry, "ws_many", refresh_due_at=DUE + dt.timedelta(seconds=number))
    few = {await _due(postgresql, connection, entry, "ws_few", refresh_due_at=DUE + dt.timedelta(days=1))}
    taken = await postgresql.connections.claim_due(5, 1_000, 1_000, {}, 60.0)
    assert few <= {each.id for each in taken}


async def test_a_provider_gets_no_more_in_a_second_than_it_is_to_whoever_asks(
    postgresql: Any, entry: Entry, connection: Callable[..., Connection]
) -> None:
    for _ in range(10):
        await _due(postgresql, connection, entry, "ws", provider="slow.example")
    other = await _due(postgresql, connection, entry, "ws", provider="other.example")
    first = await postgresql.connections.claim_due(100, 4, 1_000, {}, 60.0)
    assert sorted(each.provider for each in first) == ["other.example"] + ["slow.example"] * 4
    assert other in {each.id for each in first}
    assert await postgresql.connections.claim_due(100, 4, 1_000, {}, 60.0) == []
    await asyncio.sleep(1.1)
    assert len(await postgresql.connections.claim_due(100, 4, 1_000, {}, 60.0)) == 4


async def test_of_a_provider_no_more_than_its_share_is_taken_up_with_what_is_under_way(
    postgresql: Any, entry: Entry, connection: Callable[..., Connection]
) -> None:
    for provider in ("slow.example", "slower.example", "full.example"):
        for _ in range(5):
            await _due(postgresql, connection, entry, "ws", provider=provider)
    await _due(postgresql, connection, entry, "ws", provider="other.example")
    taken = await postgresql.connections.claim_due(100, 1_000, 3, {"full.example": 3, "slower.example": 1}, 60.0)
    assert sorted(each.provider for each in taken) == [
        "other.example", *["slow.example"] * 3, *["slower.example"] * 2
    ]  # fmt: skip


async def test_a_check_that_nobody_can_make_is_taken_up_once_and_again_when_it_is_connected_again(
    postgresql: Any, database: Any, entry: Entry, connection: Callable[..., Connection]
) -> None:
    table = postgresql.connections
    async with database.transaction() as sql:
        await sql.execute(sa.text("update connections set health_due_at = null"))  # those of other tests
    ids = {await _due(postgresql, connection, entry, "ws") for _ in range(3)}
    claimed = await table.claim_checks(10, 0.2)
    assert {each.id for each in claimed} == ids
    anew = claimed[0]
    await table.move("ws", anew.id, (State.ACTIVE,), State.NEEDS_REAUTH, "R", entry("REFRESH_FAILED"))
    await table.move("ws", anew.id, (State.NEEDS_REAUTH,), State.ACTIVE, "", entry("CONNECTION_CREATED"))
    await table.rest_checks(claimed)
    await asyncio.sleep(0.3)
    assert [each.id for each in await table.claim_checks(10, HOUR)] == [anew.id]


async def test_what_is_not_due_not_active_or_not_refreshable_is_not_taken_up(
    postgresql: Any, entry: Entry, connection: Callable[..., Connection]
) -> None:
    for more in (
        {"refresh_due_at": dt.datetime(2100, 1, 1, tzinfo=dt.UTC)},
        {"refresh_due_at": None},
        {"state": State.NEEDS_REAUTH},
        {"state": State.DISCONNECTING},
        {"refreshable": False},
    ):
        await _due(postgresql, connection, entry, "ws", **more)
    assert await postgresql.connections.claim_due(100, 100, 1_000, {}, 60.0) == []


@pytest.fixture
async def postgresql(database: Any) -> Any:
    """The tables in PostgreSQL, without a connection in them that is due."""
    from authpipe_database import Outbox
    from authpipe_oauth_coordinator.store import ConnectionTable

    async with database.transaction() as sql:
        await sql.execute(sa.text("update connections set refresh_due_at = null, claimed_at = null"))
    return types.SimpleNamespace(connections=ConnectionTable(database, Outbox()))
