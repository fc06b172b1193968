"""Customers' keys over real tables: leases, withdrawal, outage, moves killed at each step, and nobody waiting for another."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import sqlalchemy as sa
from authpipe_database import Database
from authpipe_keyservice.domain import customer_keys
from authpipe_keyservice.domain.customer_keys import CustomerKeys
from authpipe_keyservice.domain.deks import Deks
from authpipe_keyservice.domain.keys import dek_aad
from authpipe_keyservice.errors import (
    CustomerKeyPendingError,
    CustomerKeyUnavailableError,
    CustomerKeyUnfitError,
    CustomerKmsUnavailableError,
    KeyTamperedError,
    NoSuchKeyError,
)
from authpipe_sensitive import DomainError

Events = Callable[[], Awaitable[list[str]]]
ACT = ("operator:a", "r")


async def bound(stage: Any, node: Any, name: str = "own", workspace: str = "ws_a") -> Any:
    """Binds a customer's key; gives its KMS."""
    kms = stage.kms.setdefault(name, stage.customer_kms())
    await node.bindings.bind(workspace, "aws", {"kms": name}, *ACT)
    return kms


async def opened(node: Any, workspace: str = "ws_a") -> bytes:
    node.cache.forget("", "")
    return bytes((await node.deks.open(workspace, 1)).key.expose())


async def layer(node: Any, workspace: str = "ws_a") -> str:
    row = await node.dek_table.get_dek(workspace, 1)
    return str(row.customer_key_id)


async def unwrapped() -> None:
    """Waits until nothing is being unwrapped."""
    while any(task.get_name() == "unwrap" for task in asyncio.all_tasks()):
        await asyncio.sleep(0.005)


@pytest.mark.promise("P18")
async def test_neither_the_hsm_nor_the_customers_key_alone_opens_a_dek(stage: Any) -> None:
    node = stage.node(stage.token())
    await node.settle()
    kms = await bound(stage, node)
    row = await node.dek_table.get_dek("ws_a", 1)
    aad = dek_aad("user-credentials", "ws_a", 1)
    with pytest.raises(KeyTamperedError):
        await node.token.unwrap("kek-user-credentials-1", row.wrapped, aad)
    inner = await kms.unwrap(row.wrapped, node.customer_keys.context("ws_a", 1))
    key = (await node.deks.open("ws_a", 1)).key
    assert await node.token.unwrap("kek-user-credentials-1", inner, aad)
    assert len(inner) == 60, "what the customer's KMS opens is what the HSM wrapped"
    assert key.expose() not in inner
    with pytest.raises(KeyTamperedError):
        await kms.unwrap(row.wrapped, node.customer_keys.context("ws_b", 1))


@pytest.mark.promise("P18")
async def test_from_none_to_one_to_another_and_back_the_dek_stays_what_it_is(stage: Any, events: Events) -> None:
    node = stage.node(stage.token())
    await node.settle()
    await node.deks.ensure("ws_a")
    dek = await opened(node)
    assert await layer(node) == ""
    await bound(stage, node, "first")
    first = await layer(node)
    assert first
    assert await opened(node) == dek
    await bound(stage, node, "second")
    assert await layer(node) not in {"", first}
    assert await opened(node) == dek
    await node.bindings.unbind("ws_a", *ACT)
    assert await layer(node) == ""
    assert await opened(node) == dek
    states = [each.state.value for each in await node.customer_key_table.listed("ws_a")]
    assert states == ["retired", "retired"]
    with pytest.raises(NoSuchKeyError):
        await node.bindings.unbind("ws_a", *ACT)
    told = [each for each in await events() if each.startswith("CUSTOMER_KEY") or each == "DEK_MOVED"]
    forget = "CUSTOMER_KEY_FORGOTTEN"
    assert told == [
        *("CUSTOMER_KEY_BOUND", "DEK_MOVED", forget),
        *("CUSTOMER_KEY_BOUND", "DEK_MOVED", "CUSTOMER_KEY_RETIRED", forget),
        *("CUSTOMER_KEY_UNBOUND", "DEK_MOVED", "CUSTOMER_KEY_RETIRED"),
    ]


@pytest.mark.promise("P18")
@pytest.mark.parametrize("fails_after", range(1, 12))
async def test_a_switch_killed_at_each_call_leaves_a_dek_that_opens_and_is_finished_later(
    fails_after: int, stage: Any
) -> None:
    token = stage.token()
    node = stage.node(token)
    await node.settle()
    await node.deks.ensure("ws_a")
    dek = await opened(node)
    await bound(stage, node, "first")
    for kms in (stage.kms["first"], stage.kms.setdefault("second", stage.customer_kms())):
        kms.calls, kms.fails, kms.fails_after = 0, stage.killed(), fails_after // 2
    with contextlib.suppress(stage.killed):
        await bound(stage, node, "second")
    for kms in stage.kms.values():
        kms.fails = None
    assert await opened(node) == dek
    other = stage.node(token)
    await other.settle()
    await other.bindings.advance()
    assert await opened(other) == dek
    primary = await other.customer_key_table.primary("ws_a")
    assert await layer(other) == primary.key_id


@pytest.mark.promise("P18")
async def test_two_that_bind_at_once_leave_one_primary_and_a_dek_under_it(stage: Any) -> None:
    token = stage.token()
    one, two = stage.node(token), stage.node(token)
    await one.settle()
    await two.settle()
    await one.deks.ensure("ws_a")
    dek = await opened(one)
    await asyncio.gather(bound(stage, one, "first"), bound(stage, two, "second"), return_exceptions=True)
    await one.bindings.advance()
    primary = await one.customer_key_table.primary("ws_a")
    assert await layer(one) == primary.key_id
    assert await opened(one) == await opened(two) == dek


@pytest.mark.promise("P18")
async def test_a_key_that_is_not_fit_or_says_no_is_not_bound(stage: Any, events: Events) -> None:
    node = stage.node(stage.token())
    await node.settle()
    for error in (CustomerKeyUnavailableError(), CustomerKmsUnavailableError(), CustomerKeyUnfitError()):
        stage.kms["bad"] = stage.customer_kms()
        stage.kms["bad"].fails = error
        with pytest.raises(type(error)):
            await bound(stage, node, "bad")
        assert await node.customer_key_table.primary("ws_a") is None
    assert "CUSTOMER_KEY_BOUND" not in await events()


@pytest.mark.promise("P18")
@pytest.mark.case(27)
async def test_withdrawn_is_refused_at_the_latest_when_the_lease_ends_and_told_once(stage: Any, events: Events) -> None:
    clock = stage.clock()
    node = stage.node(stage.token(), clock)
    await node.settle()
    kms = await bound(stage, node)
    held = await node.deks.open("ws_a", 1)
    assert held.until == clock.now + 60
    kms.fails = CustomerKeyUnavailableError()
    clock.now += 59
    assert (await node.deks.open("ws_a", 1)).key is held.key, "the lease is used to its end"
    clock.now += 1
    for _ in range(3):
        with pytest.raises(CustomerKeyUnavailableError):
            await node.deks.open("ws_a", 1)
    assert (await node.customer_key_table.primary("ws_a")).withdrawn
    kms.fails = None
    clock.now += 2
    await node.deks.open("ws_a", 1)
    assert not (await node.customer_key_table.primary("ws_a")).withdrawn
    told = [each for each in await events() if each in {"CUSTOMER_KEY_WITHDRAWN", "CUSTOMER_KEY_RESTORED"}]
    assert told == ["CUSTOMER_KEY_WITHDRAWN", "CUSTOMER_KEY_RESTORED"]


@pytest.mark.promise("P18")
@pytest.mark.case(27)
async def test_a_lease_in_use_is_renewed_and_a_renewal_that_is_refused_ends_it_at_once(stage: Any) -> None:
    clock = stage.clock()
    node = stage.node(stage.token(), clock)
    await node.settle()
    kms = await bound(stage, node)
    first = await node.deks.open("ws_a", 1)
    clock.now += 31
    assert node.cache.is_to_renew(first)
    await node.deks.renew("ws_a", 1)
    await unwrapped()
    assert (await node.deks.open("ws_a", 1)).until == clock.now + 60
    # An outage leaves the lease; a no ends it.
    clock.now += 31
    kms.fails = CustomerKmsUnavailableError()
    await node.deks.renew("ws_a", 1)
    await unwrapped()
    assert (await node.deks.open("ws_a", 1)).until == clock.now + 29
    clock.now += 2
    kms.fails = CustomerKeyUnavailableError()
    await node.deks.renew("ws_a", 1)
    await unwrapped()
    with pytest.raises(CustomerKeyUnavailableError):
        await node.deks.open("ws_a", 1)


@pytest.mark.case(27)
async def test_an_outage_is_not_a_withdrawal(stage: Any, events: Events) -> None:
    clock = stage.clock()
    node = stage.node(stage.token(), clock)
    await node.settle()
    kms = await bound(stage, node)
    await node.deks.open("ws_a", 1)
    kms.fails = CustomerKmsUnavailableError()
    clock.now += 61
    with pytest.raises(CustomerKmsUnavailableError):
        await node.deks.open("ws_a", 1)
    assert not (await node.customer_key_table.primary("ws_a")).withdrawn
    assert "CUSTOMER_KEY_WITHDRAWN" not in await events()


@pytest.mark.promise("P18")
@pytest.mark.case(27)
async def test_forget_asks_the_kms_again_on_every_replica(stage: Any) -> None:
    token = stage.token()
    one, two = stage.node(token), stage.node(token)
    await one.settle()
    await two.settle()
    kms = await bound(stage, one)
    for node in (one, two):
        await node.deks.open("ws_a", 1)
    kms.fails = CustomerKeyUnavailableError()
    forgetting = asyncio.create_task(one.bindings.forget("ws_a", *ACT))
    while not forgetting.done():
        await two.replica.obey()
        await asyncio.sleep(0.01)
    assert await forgetting == 0, "both have said that they forgot"
    for node in (one, two):
        with pytest.raises(CustomerKeyUnavailableError):
            await node.deks.open("ws_a", 1)


@pytest.mark.case(17)
@pytest.mark.case(27)
async def test_a_kms_that_hangs_is_asked_once_and_nobody_else_waits(stage: Any) -> None:
    node = stage.node(stage.token())
    await node.settle()
    kms = await bound(stage, node)
    await node.deks.ensure("ws_b")
    kms.calls, kms.hangs = 0, asyncio.Event()
    began = asyncio.get_running_loop().time()
    for _ in range(20):
        with pytest.raises(CustomerKeyPendingError):
            await node.deks.open("ws_a", 1, patient=False)
        await node.deks.open("ws_b", 1, patient=False)
    assert asyncio.get_running_loop().time() - began < 2
    while not kms.calls:
        await asyncio.sleep(0.005)
    assert kms.calls == 1, "single-flight: however many ask, the KMS is asked once"
    kms.hangs.set()
    await unwrapped()
    await node.deks.open("ws_a", 1, patient=False)


async def test_a_no_is_given_at_once_to_those_who_do_not_wait(stage: Any) -> None:
    node = stage.node(stage.token())
    await node.settle()
    kms = await bound(stage, node)
    kms.fails = CustomerKeyUnavailableError()
    with pytest.raises(CustomerKeyPendingError):
        await node.deks.open("ws_a", 1, patient=False)
    await unwrapped()
    kms.calls = 0
    for _ in range(10):
        with pytest.raises(CustomerKeyUnavailableError):
            await node.deks.open("ws_a", 1, patient=False)
    assert kms.calls == 0, "what was said a moment ago is repeated, not asked"


@pytest.mark.promise("P06")
@pytest.mark.promise("P18")
async def test_a_kek_rotation_reaches_deks_under_customers_keys_and_waits_for_one_that_is_withdrawn(
    stage: Any,
) -> None:
    node = stage.node(stage.token())
    await node.settle()
    for name in ("good", "gone"):
        await bound(stage, node, name, f"ws_{name}")
    before = {name: await opened(node, f"ws_{name}") for name in ("good", "gone")}
    stage.kms["gone"].fails = CustomerKeyUnavailableError()
    await node.rotation.rotate(*ACT)
    await node.settle()
    await node.bindings.advance()
    assert await node.table.counts() == {1: 1, 2: 1}
    stage.kms["gone"].fails = None
    await node.bindings.advance()
    assert await node.table.counts() == {2: 2}
    assert {name: await opened(node, f"ws_{name}") for name in before} == before


async def test_a_new_dek_version_of_a_workspace_comes_under_its_customers_key(stage: Any, clean: Database) -> None:
    node = stage.node(stage.token())
    await node.settle()
    await bound(stage, node)
    assert await node.workspaces.rotate_dek("ws_a", *ACT) == 2
    async with clean.transaction() as connection:
        ids = await connection.scalars(sa.text("select distinct customer_key_id from deks where state <> 'destroyed'"))
        assert list(ids) == [(await node.customer_key_table.primary("ws_a")).key_id]


async def _waits(self: Deks, workspace: str, row: Any, *, patient: bool) -> Any:
    assert isinstance(patient, bool)
    return await self._cache.get_or_unwrap((workspace, row.wrapped), self._unwrapper(workspace, row))


MUTANTS: dict[str, tuple[Callable[..., Any], Any, str, Any]] = {
    "a batch waits for a customer's KMS": (
        test_a_kms_that_hangs_is_asked_once_and_nobody_else_waits,
        Deks,
        "_open",
        _waits,
    ),
    "a lease has no end": (
        test_withdrawn_is_refused_at_the_latest_when_the_lease_ends_and_told_once,
        customer_keys,
        "LEASE_SECONDS",
        1e9,
    ),
    "an outage is taken for a withdrawal": (
        test_an_outage_is_not_a_withdrawal,
        customer_keys,
        "CustomerKeyUnavailableError",
        CustomerKmsUnavailableError,
    ),
    "a key need not prove itself": (
        test_a_key_that_is_not_fit_or_says_no_is_not_bound,
        CustomerKeys,
        "prove",
        lambda *_: _named(),
    ),
}


async def _named() -> str:
    return "double"


@pytest.mark.case(17)
@pytest.mark.case(27)
@pytest.mark.parametrize("name", MUTANTS)
async def test_the_attacks_see_a_control_that_is_switched_off(
    name: str, stage: Any, events: Events, monkeypatch: pytest.MonkeyPatch
) -> None:
    attack, where, what, instead = MUTANTS[name]
    assert getattr(where, what) != instead
    monkeypatch.setattr(where, what, instead)
    given = {"stage": stage, "events": events}
    wanted = {each: given[each] for each in inspect.signature(attack).parameters}
    with pytest.raises((AssertionError, pytest.fail.Exception, TimeoutError, DomainError)):
        await asyncio.wait_for(attack(**wanted), 5)
