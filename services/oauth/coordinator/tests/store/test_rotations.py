"""Rotations on a real PostgreSQL: each token once, whoever dies, races, or refuses."""

from __future__ import annotations

import asyncio
import datetime as dt
import secrets
from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa
from authpipe_database import Database, Outbox
from authpipe_oauth_coordinator.domain.rotating import Rotating, Rotation, Target
from authpipe_oauth_coordinator.domain.words import Acting, Connection, Kind, State
from authpipe_oauth_coordinator.errors import NotFoundError, RefreshFailedError
from authpipe_oauth_coordinator.store import ConnectionTable, RotationTable
from authpipe_sensitive import AuditEntry, Label
from authpipe_transparency import decode_event

Make = Callable[..., Connection]


class Refreshing:
    """A refresh that works, or does not; notes who was refreshed."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.refreshed: list[str] = []
        self.fails: set[str] = set()
        self.hangs: set[str] = set()
        self.hanging: set[str] = set()
        self.cause = "PROVIDER_UNAVAILABLE"

    async def once(self, acting: Acting, connection: Connection, *, forced: bool) -> None:
        """Refreshes."""
        assert forced
        assert acting.request_id == "req"
        if connection.id in self.hangs:
            self.hanging.add(connection.id)
            await asyncio.Event().wait()
        self.refreshed.append(connection.id)
        if connection.id in self.fails:
            raise RefreshFailedError(cause=Label(self.cause))
        async with self._database.transaction() as database:
            await database.execute(
                sa.text("update connections set refreshed_at = now() where id = :id"), {"id": connection.id}
            )


class Stage:
    """A workspace with connections, and any number of replicas."""

    def __init__(self, database: Database, make: Make, entry: Callable[[str], AuditEntry]) -> None:
        self.database, self._make, self._entry = database, make, entry
        self.workspace = f"ws_{secrets.token_hex(6)}"
        own = (database, Outbox())
        self.table, self.connections = RotationTable(*own), ConnectionTable(*own)
        self.refreshing = Refreshing(database)
        self.acting = Acting(self.workspace, "api_key:key_1", "req")

    def replica(self, per_provider: int = 50) -> Rotating:
        """Gives another replica."""
        refreshing: Any = self.refreshing
        return Rotating(
            self.table, self.connections, refreshing, lambda prefix: f"{prefix}_{secrets.token_hex(12)}",
            most=100, per_provider=per_provider, claim_seconds=60,
        )  # fmt: skip

    async def add(self, amount: int = 1, **changes: Any) -> list[str]:
        """Adds connections that were refreshed an hour ago."""
        ago = dt.datetime.now(dt.UTC) - dt.timedelta(hours=1)
        given = {"workspace": self.workspace, "state": State.ACTIVE, "refreshed_at": ago} | changes
        made = [self._make(f"con_{secrets.token_hex(8)}", **given) for _ in range(amount)]
        for each in made:
            await self.connections.add_connection(each, self._entry("CONNECTION_CREATED"))
        return [each.id for each in made]

    async def begin(self, **target: str) -> Rotation:
        """Begins one."""
        now = dt.datetime.now(dt.UTC)
        return await self.replica().begin(self.acting, Target(self.workspace, **target), now, dry_run=False)

    async def sql(self, statement: str) -> None:
        """Changes what is stored of this workspace."""
        async with self.database.transaction() as database:
            await database.execute(sa.text(statement), {"workspace": self.workspace})

    async def told(self, name: str) -> list[dict[str, str]]:
        """Gives the events of this workspace."""
        async with self.database.transaction() as database:
            rows = await database.scalars(sa.text("select events from audit_outbox order by id"))
            events = [decode_event(bytes(event)) for row in rows for event in row]
        return [each for each in events if each["name"] == name and each.get("workspace") == self.workspace]


@pytest.fixture
async def stage(database: Database, connection: Make, entry: Callable[[str], AuditEntry]) -> Stage:
    """A workspace with connections, and nothing that another test has begun."""
    made = Stage(database, connection, entry)
    async with database.transaction() as connected:
        await connected.execute(sa.text("delete from rotation_items"))
        await connected.execute(sa.text("update rotations set ended_at = now() where ended_at is null"))
    return made


async def turn(*replicas: Rotating) -> None:
    await asyncio.gather(*(each.run() for each in replicas))
    await asyncio.gather(*(each.finish() for each in replicas))
    await asyncio.gather(*(each.run() for each in replicas))


@pytest.mark.promise("P27")
async def test_two_replicas_at_once_rotate_each_token_once_and_tell_the_end_once(stage: Stage) -> None:
    wanted = await stage.add(40)
    begun = await stage.begin()
    assert begun.total == 40
    await turn(stage.replica(), stage.replica())
    assert sorted(stage.refreshing.refreshed) == sorted(wanted)
    done = await stage.replica().get(stage.workspace, begun.id)
    assert (done.rotated, done.failed, done.ended_at is not None) == (40, 0, True)
    (told,) = await stage.told("ROTATION_ENDED")
    assert (told["count"], told["outcome"], told["target"]) == ("40", "SUCCEEDED", stage.workspace)


@pytest.mark.promise("P27")
async def test_what_a_replica_took_up_and_did_not_end_is_somebody_elses_after_a_while(stage: Stage) -> None:
    wanted = await stage.add(3)
    await stage.begin()
    stage.refreshing.hangs = set(wanted)
    dead = stage.replica()
    assert await dead.run() == 3
    async with asyncio.timeout(20):
        while stage.refreshing.hanging != set(wanted):
            await asyncio.sleep(0.01)
    stage.refreshing.hangs = set()
    living = stage.replica()
    assert await living.run() == 0, "it may live"
    await stage.sql("update rotation_items set claimed_until = now() where workspace_id = :workspace")
    await turn(living)
    assert sorted(stage.refreshing.refreshed) == sorted(wanted)
    assert len(await stage.told("ROTATION_ENDED")) == 1


@pytest.mark.promise("P27")
async def test_a_token_that_cannot_be_rotated_is_tried_again_and_then_told(stage: Stage) -> None:
    good, bad = await stage.add(2)
    stage.refreshing.fails = {bad}
    begun = await stage.begin()
    for _ in range(7):
        await turn(stage.replica())
        await stage.sql("update rotation_items set claimed_until = now() where workspace_id = :workspace")
    assert stage.refreshing.refreshed.count(bad) == 6
    assert stage.refreshing.refreshed.count(good) == 1
    done = await stage.replica().get(stage.workspace, begun.id)
    assert (done.rotated, done.failed) == (1, 1)
    (told,) = await stage.told("ROTATION_ENDED")
    assert (told["outcome"], told["reason"]) == ("FAILED", "TOKENS_NOT_ROTATED")


@pytest.mark.promise("P27")
async def test_however_long_a_part_of_ours_is_away_a_rotation_does_not_give_up(stage: Stage) -> None:
    (token,) = await stage.add()
    stage.refreshing.fails, stage.refreshing.cause = {token}, "DEPENDENCY_UNAVAILABLE"
    begun = await stage.begin()
    for _ in range(9):
        await turn(stage.replica())
        await stage.sql("update rotation_items set claimed_until = now() where workspace_id = :workspace")
    assert (await stage.replica().get(stage.workspace, begun.id)).ended_at is None
    stage.refreshing.fails = set()
    await turn(stage.replica())
    assert (await stage.replica().get(stage.workspace, begun.id)).rotated == 1


async def test_what_is_disconnected_meanwhile_needs_no_rotation_and_what_needs_its_user_has_failed(
    stage: Stage,
) -> None:
    gone, asks = await stage.add(2)
    begun = await stage.begin()
    await stage.sql(f"update connections set state = 'disconnected' where id = '{gone}' and workspace_id = :workspace")
    await stage.sql(f"update connections set state = 'needs_reauth' where id = '{asks}' and workspace_id = :workspace")
    await turn(stage.replica())
    done = await stage.replica().get(stage.workspace, begun.id)
    assert (stage.refreshing.refreshed, done.rotated, done.failed) == ([], 1, 1)


async def test_what_somebody_else_refreshed_since_it_began_is_not_refreshed_again(stage: Stage) -> None:
    await stage.add()
    await stage.begin()
    await stage.sql("update connections set refreshed_at = now() where workspace_id = :workspace")
    await turn(stage.replica())
    assert stage.refreshing.refreshed == []
    assert len(await stage.told("ROTATION_ENDED")) == 1


async def test_one_provider_gets_no_more_in_a_turn_than_it_may(stage: Stage) -> None:
    await stage.add(10, provider="slow.example")
    await stage.add(3, provider="quick.example")
    await stage.begin()
    assert await stage.replica(per_provider=4).run() == 7


@pytest.mark.promise("P27")
async def test_only_what_can_be_refreshed_is_counted_and_a_dry_run_does_nothing(stage: Stage) -> None:
    await stage.add(2)
    await stage.add(1, kind=Kind.API_KEY, refreshable=False)
    await stage.add(1, state=State.NEEDS_REAUTH)
    await stage.add(1, state=State.DISCONNECTED)
    now = dt.datetime.now(dt.UTC)
    dry = await stage.replica().begin(stage.acting, Target(stage.workspace), now, dry_run=True)
    assert (dry.id, dry.total, dry.irreplaceable) == ("", 2, 2)
    assert await stage.told("ROTATION_BEGUN") == []
    assert await stage.replica().run() == 0


async def test_a_rotation_of_nothing_ends_at_once_and_of_what_is_not_there_is_refused(stage: Stage) -> None:
    begun = await stage.begin()
    await stage.replica().run()
    assert (await stage.replica().get(stage.workspace, begun.id)).ended_at is not None
    for target in ({"connection": "con_nothing"}, {"config": "pc_nothing"}):
        with pytest.raises(NotFoundError):
            await stage.begin(**target)
    with pytest.raises(NotFoundError):
        await stage.replica().get("ws_other", begun.id)


@pytest.mark.promise("P27")
async def test_everything_is_told_to_each_workspace_in_its_own_chain(stage: Stage) -> None:
    await stage.add(2)
    operator = Acting("", "operator:operator/first", "req")
    await stage.replica().begin(operator, Target(""), dt.datetime.now(dt.UTC), dry_run=False)
    (told,) = await stage.told("ROTATION_BEGUN")
    assert (told["count"], told["target"], told["actor"]) == ("2", "all", "operator:operator/first")
    await turn(stage.replica(per_provider=5000))
