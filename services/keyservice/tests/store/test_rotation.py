"""Rotation of the KEK step by step: who may do what when, replicas that die or race at each step, rows that do not open."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
import sqlalchemy as sa
from authpipe_database import Database
from authpipe_keyservice.domain import kek_versions, rewrapping
from authpipe_keyservice.domain.kek_versions import KekVersion, KeyVersionState, is_second_request, require_move
from authpipe_keyservice.errors import (
    ErasedError,
    GracePeriodError,
    HsmUnavailableError,
    KekDisabledError,
    KekInUseError,
    KekStateError,
    NoSuchKeyError,
)
from authpipe_keyservice.store import DekTable, KekTable
from authpipe_keyservice.store import deks as deks_store
from authpipe_keyservice.store import keks as keks_store
from authpipe_sensitive import DomainError

Events = Callable[[], Awaitable[list[str]]]
DAY = 86_400.0
S = KeyVersionState


async def states(node: Any) -> dict[int, str]:
    return {each.version: each.state.value for each in await node.table.versions()}


async def fill(node: Any, workspaces: int) -> dict[str, bytes]:
    """Makes DEKs; gives what each opens to."""
    for number in range(workspaces):
        await node.dek_table.put_dek(f"ws_{number:05}", await node.deks.make(f"ws_{number:05}", 1))
    return await opened(node, workspaces)


async def opened(node: Any, workspaces: int) -> dict[str, bytes]:
    """Opens every DEK anew, from what is stored."""
    node.cache.forget("", "")
    names = [f"ws_{number:05}" for number in range(workspaces)]
    return {name: bytes((await node.deks.open(name, 1)).key.expose()) for name in names}


async def bury(database: Database, node: Any) -> None:
    """Lets a replica not have been seen for too long."""
    async with database.transaction() as connection:
        gone = sa.text("update replicas set seen_at = now() - interval '11 seconds' where replica_id = :id")
        await connection.execute(gone.bindparams(id=node.replica.name))


async def test_the_first_replica_makes_the_first_version_and_the_second_finds_it(stage: Any, events: Events) -> None:
    token = stage.token()
    first, second = stage.node(token), stage.node(token)
    await first.settle()
    await second.settle()
    assert await states(first) == {1: "primary"}
    assert first.keyring.primary() == second.keyring.primary() == 1
    assert await events() == ["KEK_PREPARED", "KEK_PROMOTED"]


async def test_replicas_that_start_at_once_make_one_version(stage: Any, events: Events) -> None:
    token = stage.token()
    nodes = [stage.node(token) for _ in range(4)]
    await asyncio.gather(*(node.settle() for node in nodes))
    for node in nodes:
        await node.settle()
    assert await states(nodes[0]) == {1: "primary"}
    assert list(token.keys) == ["kek-user-credentials-1"]
    assert await events() == ["KEK_PREPARED", "KEK_PROMOTED"]


@pytest.mark.promise("P06")
async def test_a_version_rotates_by_itself_when_it_is_old_and_not_before(stage: Any) -> None:
    clock = stage.clock()
    node = stage.node(stage.token(), clock, rotate_days=90)
    await node.settle()
    clock.now += 89 * DAY
    await node.settle()
    assert await states(node) == {1: "primary"}
    clock.now += 2 * DAY
    await node.settle()
    assert await states(node) == {1: "disabled", 2: "primary"}


@pytest.mark.promise("P06")
async def test_a_replica_whose_token_lacks_the_new_version_holds_it_back(stage: Any) -> None:
    shared, other = stage.token(), stage.token()
    good, bad = stage.node(shared), stage.node(other)
    await good.settle()
    other.keys = dict(shared.keys)  # as the token was, before
    await bad.settle()
    await good.rotation.rotate("operator:a", "r")
    for _ in range(3):
        await good.settle()
        await bad.settle()
    assert (await states(good))[2] == "prepared"
    assert await good.table.unproven(2) == [bad.replica.name]
    other.keys = shared.keys
    await bad.settle()
    assert (await states(good))[2] == "primary"


async def test_a_replica_that_was_away_during_a_promotion_wraps_nothing_with_what_it_remembers(
    stage: Any, clean: Database
) -> None:
    token = stage.token()
    here, away = stage.node(token), stage.node(token)
    await here.settle()
    await away.settle()
    await bury(clean, away)
    await here.rotation.rotate("operator:a", "r")
    await here.settle()
    assert await states(here) == {1: "disabled", 2: "primary"}
    # It remembers version 1 as primary: what it wraps with it is not stored.
    assert away.keyring.primary() == 1
    assert await away.dek_table.put_dek("ws_late", await away.deks.make("ws_late", 1)) is None
    # Asked for a key, it looks again and uses version 2.
    await away.deks.new_key("ws_late", "con", 1)
    row = await away.dek_table.get_dek("ws_late", 1)
    assert row is not None
    assert row.kek_version == 2


async def test_a_replica_that_missed_a_promotion_still_rotates_a_dek(stage: Any, clean: Database) -> None:
    token = stage.token()
    here, away = stage.node(token), stage.node(token)
    await here.settle()
    await away.settle()
    await here.deks.new_key("ws_one", "con", 1)
    await bury(clean, away)
    await here.rotation.rotate("operator:a", "r")
    await here.settle()
    assert away.keyring.primary() == 1
    assert await away.workspaces.rotate_dek("ws_one", "operator:a", "r") == 2
    row = await away.dek_table.get_dek("ws_one", 2)
    assert row is not None
    assert row.kek_version == 2


@pytest.mark.case(8)
@pytest.mark.promise("P06")
@pytest.mark.parametrize("fails_at", range(1, 14))
async def test_a_rotation_killed_at_each_step_is_finished_by_another_replica(
    fails_at: int, stage: Any, clean: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rewrapping, "CHUNK", 4)
    monkeypatch.setattr(rewrapping, "BATCH", 8)
    token = stage.token()
    node = stage.node(token)
    await node.settle()
    before = await fill(node, 20)
    await node.rotation.rotate("operator:a", "r")
    token.calls, token.fails_at = 0, fails_at
    died = False
    try:
        await node.settle()
    except stage.killed:
        died = True
    assert died or token.calls < fails_at
    token.fails_at = 0
    assert await opened(node, 20) == before, "killed there, every DEK opens"
    other = stage.node(token)
    await bury(clean, node)
    await other.settle()
    await other.settle()
    assert await states(other) == {1: "disabled", 2: "primary"}
    assert await other.table.counts() == {2: 20}
    assert await opened(other, 20) == before
    assert sorted(token.keys) == ["kek-user-credentials-1", "kek-user-credentials-2"], "one key for each version"


@pytest.mark.case(8)
async def test_two_rewrappers_that_race_leave_every_dek_readable(stage: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rewrapping, "CHUNK", 2)
    token = stage.token()
    one, two = stage.node(token), stage.node(token)
    await one.settle()
    await two.settle()
    before = await fill(one, 40)
    await one.rotation.rotate("operator:a", "r")
    await one.rotation.advance()
    await two.rotation.advance()
    await one.rotation.advance()
    await two.keyring.refresh()
    assert one.keyring.primary() == two.keyring.primary() == 2

    @contextlib.asynccontextmanager
    async def both(_: object) -> AsyncIterator[bool]:
        yield True

    monkeypatch.setattr(DekTable, "alone", both)
    done = await asyncio.gather(one.rewrapping.run(), two.rewrapping.run())
    assert sum(each.swapped for each in done) == 40, "each DEK was swapped once"
    assert await opened(one, 40) == before
    assert await opened(two, 40) == before
    assert await one.table.counts() == {2: 40}


async def test_progress_says_how_many_are_left(stage: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("authpipe_keyservice.domain.rewrapping.BATCH", 3)
    node = stage.node(stage.token())
    await node.settle()
    for number in range(7):
        await node.deks.new_key(f"ws_{number}", "con", 1)
    await node.rotation.rotate("operator:a", "r")
    await node.settle()
    assert node.rewrapped == [(3, 4), (3, 1), (1, 0)]


async def test_while_one_replica_rewraps_the_other_leaves_it_alone(stage: Any) -> None:
    token = stage.token()
    one, two = stage.node(token), stage.node(token)
    await one.settle()
    await two.settle()
    await fill(one, 3)
    await one.rotation.rotate("operator:a", "r")
    for node in (one, two, one, two):
        await node.rotation.advance()
    async with two.dek_table.alone() as alone:
        assert alone
        assert await one.rewrapping.run() == (0, 0)
    assert (await one.rewrapping.run()).swapped == 3


async def test_a_dek_row_that_was_changed_holds_its_version_in_use_and_no_other_dek_back(
    stage: Any, clean: Database
) -> None:
    node = stage.node(stage.token())
    await node.settle()
    await fill(node, 5)
    async with clean.transaction() as connection:
        await connection.execute(
            sa.text(
                "update deks set wrapped = (select wrapped from deks where workspace_id = 'ws_00001')"
                " where workspace_id = 'ws_00003'"
            )
        )
    await node.rotation.rotate("operator:a", "r")
    for _ in range(3):
        await node.rotation.advance()
    done = await node.rewrapping.run()
    assert (done.swapped, done.refused) == (4, 1)
    await node.rotation.advance()
    assert await states(node) == {1: "active", 2: "primary"}
    with pytest.raises(KekInUseError):
        await node.rotation.disable(1, "operator:a", "r")


async def test_a_dek_on_a_disabled_or_destroyed_version_does_not_open_and_no_rewrapper_stumbles_over_it(
    stage: Any, clean: Database
) -> None:
    clock = stage.clock()
    node = stage.node(stage.token(), clock, grace_days=0)
    await node.settle()
    await fill(node, 3)
    row = await node.dek_table.get_dek("ws_00001", 1)
    assert row is not None
    await node.rotation.rotate("operator:a", "r")
    await node.settle()
    assert await states(node) == {1: "disabled", 2: "primary"}

    async def put_back() -> None:
        async with clean.transaction() as connection:
            old = sa.text("update deks set kek_version = 1, wrapped = :wrapped where workspace_id = 'ws_00001'")
            await connection.execute(old.bindparams(wrapped=row.wrapped))

    await put_back()
    node.cache.forget("", "")
    with pytest.raises(KekDisabledError):
        await node.deks.open("ws_00001", 1)
    assert await node.rewrapping.run() == (0, 1)
    await node.rotation.enable(1, "operator:a", "r")
    await node.keyring.refresh()
    assert (await node.rewrapping.run()).swapped == 1
    await node.rotation.disable(1, "operator:a", "r")
    assert not await node.rotation.destroy(1, "operator:a", "r")
    assert await node.rotation.destroy(1, "operator:b", "r")
    await put_back()
    with pytest.raises(ErasedError):
        await node.deks.open("ws_00001", 1)
    assert await node.rewrapping.run() == (0, 1)
    assert "kek-user-credentials-1" not in node.token.keys


async def test_a_version_that_a_dek_came_to_meanwhile_is_not_destroyed(stage: Any, clean: Database) -> None:
    node = stage.node(stage.token(), grace_days=0)
    await node.settle()
    await fill(node, 1)
    row = await node.dek_table.get_dek("ws_00000", 1)
    assert row is not None
    await node.rotation.rotate("operator:a", "r")
    await node.settle()
    assert not await node.rotation.destroy(1, "operator:a", "r")
    async with clean.transaction() as connection:
        old = sa.text("update deks set kek_version = 1, wrapped = :wrapped")
        await connection.execute(old.bindparams(wrapped=row.wrapped))
    assert not await node.rotation.destroy(1, "operator:b", "r")
    assert (await states(node))[1] == "disabled"


async def test_a_destruction_that_died_before_the_token_was_touched_is_finished_later(stage: Any) -> None:
    token = stage.token()
    node = stage.node(token, grace_days=0)
    await node.settle()
    await node.rotation.rotate("operator:a", "r")
    await node.settle()
    await node.rotation.destroy(1, "operator:a", "r")
    token.calls, token.fails_at = 0, 1
    with pytest.raises(stage.killed):
        await node.rotation.destroy(1, "operator:b", "r")
    assert (await states(node))[1] == "destroyed"
    token.fails_at = 0
    await node.rotation.advance()
    assert list(token.keys) == ["kek-user-credentials-2"]


async def test_a_primary_version_whose_key_is_not_found_is_an_outage_and_no_key_is_made_in_its_place(
    stage: Any, clean: Database
) -> None:
    token = stage.token()
    node = stage.node(token)
    await node.settle()
    token.keys.clear()
    async with clean.transaction() as connection:
        await connection.execute(sa.text("update kek_versions set canary = ''"))
    with pytest.raises(HsmUnavailableError):
        await stage.node(token).settle()
    assert token.keys == {}


def test_the_table_of_moves_is_the_one_in_the_docstring() -> None:
    possible = []
    for state, to in itertools.product(S, S):
        try:
            require_move(KekVersion(1, state, b"", 0), to)
        except KekStateError:
            continue
        possible.append(f"{state.value} {to.value}")
    lines = [line.split()[:2] for line in (kek_versions.__doc__ or "").splitlines() if line.startswith("    ")]
    assert sorted(possible) == sorted(" ".join(words) for words in lines if words[0] not in {"from", "–"})


@pytest.mark.parametrize(
    ("version", "operator", "now", "second"),
    [
        (KekVersion(1, S.DISABLED, b"", 0, disabled=100), "a", 199, GracePeriodError),
        (KekVersion(1, S.DISABLED, b"", 0, disabled=100), "a", 200, False),
        (KekVersion(1, S.DISABLED, b"", 0, disabled=100, first_destroyer="a", destruction_asked=200), "a", 201, False),
        (KekVersion(1, S.DISABLED, b"", 0, disabled=100, first_destroyer="a", destruction_asked=200), "b", 201, True),
        (
            KekVersion(1, S.DISABLED, b"", 0, disabled=100, first_destroyer="a", destruction_asked=200),
            "b",
            200 + DAY,
            False,
        ),
        (KekVersion(1, S.PREPARED, b"", 0, first_destroyer="a", destruction_asked=200), "b", 201, True),
        (KekVersion(1, S.PRIMARY, b"", 0, first_destroyer="a", destruction_asked=200), "b", 201, KekStateError),
        (KekVersion(1, S.ACTIVE, b"", 0, first_destroyer="a", destruction_asked=200), "b", 201, KekStateError),
        (KekVersion(1, S.DESTROYED, b"", 0, first_destroyer="a", destruction_asked=200), "b", 201, KekStateError),
    ],
)
def test_who_may_destroy_what_when(version: KekVersion, operator: str, now: float, second: Any) -> None:
    if isinstance(second, bool):
        assert is_second_request(version, operator, now, 100) is second
        return
    with pytest.raises(second):
        is_second_request(version, operator, now, 100)


async def test_what_does_not_exist_is_said_to(stage: Any) -> None:
    node = stage.node(stage.token())
    await node.settle()
    for act in (node.rotation.disable, node.rotation.enable, node.rotation.destroy):
        with pytest.raises(NoSuchKeyError):
            await act(7, "operator:a", "r")


MUTANTS: dict[str, tuple[Callable[..., Any], Any, str, Any]] = {
    "promoted though a replica has not opened it": (
        test_a_replica_whose_token_lacks_the_new_version_holds_it_back,
        KekTable,
        "unproven",
        lambda *_: _nothing(),
    ),
    "a DEK is stored whatever its KEK version": (
        test_a_replica_that_was_away_during_a_promotion_wraps_nothing_with_what_it_remembers,
        deks_store,
        "_PUT",
        deks_store._PUT.replace("and state = 'primary'", ""),  # noqa: SLF001  # the control
    ),
    "swapped without comparing": (
        test_two_rewrappers_that_race_leave_every_dek_readable,
        deks_store,
        "_SWAP",
        deks_store._SWAP.replace("and d.wrapped = n.old", ""),  # noqa: SLF001  # the control
    ),
    "disabled though a DEK is on it": (
        test_a_dek_row_that_was_changed_holds_its_version_in_use_and_no_other_dek_back,
        keks_store,
        "_DRAINED",
        "cast(:version as int) > 0",
    ),
}


async def _nothing() -> list[str]:
    return []


@pytest.mark.case(7)
@pytest.mark.case(8)
@pytest.mark.parametrize("name", MUTANTS)
async def test_the_attacks_see_a_rotation_with_a_control_switched_off(
    name: str, stage: Any, clean: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    attack, where, what, instead = MUTANTS[name]
    assert getattr(where, what) != instead, "the control is not written like this any more: mend the mutant"
    monkeypatch.setattr(where, what, instead)
    given = {"stage": stage, "clean": clean, "monkeypatch": monkeypatch}
    wanted = {each: given[each] for each in inspect.signature(attack).parameters}
    with pytest.raises((AssertionError, pytest.fail.Exception, DomainError)):
        await attack(**wanted)
