"""The bounds of releases: each alone, with what it leaves to others; and clocks that differ."""

from __future__ import annotations

import dataclasses
from collections import Counter
from typing import Any

import pytest
from authpipe_grants import Grant, GrantTimeError
from authpipe_keyservice.domain.budgets import Budgets, DistinctWorkspaces
from authpipe_keyservice.domain.clocks import require_clock

GRANT = Grant(
    issuer="gateway/authority",
    audience=("user-credentials/eu",),
    consumer="gateway/edge",
    consumer_thumbprint="thumb",
    purpose="serve",
    workspace="ws_a",
    connections=("con_a",),
    classes=(1,),
    fence=0,
    forced=False,
    actor="api_key:k",
    request_id="r",
    grant_id="g",
    issued_at=1_000,
    expires_at=1_060,
)


class Fixed:
    """A budget of one window that never ends."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._taken: Counter[str] = Counter()

    async def take(self, name: str, amount: int) -> bool:
        if self._taken[name] + amount > self._most:
            return False
        self._taken[name] += amount
        return True


def budgets(**most: int) -> Budgets:
    def of(name: str) -> list[Any]:
        return [Fixed(most.get(name, 10**9))]

    return Budgets(
        per_workspace=of("workspace"),
        per_signer=of("signer"),
        per_consumer=of("consumer"),
        workspaces=DistinctWorkspaces(most.get("workspaces", 10**9), lambda: 0.0),
        refusals=Fixed(10**9),
        alarms=Fixed(1),
    )


@pytest.mark.promise("P26")
@pytest.mark.case(12)
async def test_each_bound_refuses_by_its_name_and_leaves_the_others_to_others() -> None:
    for bound, other in (
        ("workspace", ("ws_b", "authority", "edge")),
        ("signer", ("ws_a", "coordinator", "edge")),
        ("consumer", ("ws_a", "authority", "worker")),
    ):
        bounds = budgets(**{bound: 10})
        assert await bounds.exceeded("ws_a", "authority", "edge", 10) == ""
        assert await bounds.exceeded("ws_a", "authority", "edge", 1) == bound
        assert await bounds.exceeded(*other, 10) == ""


@pytest.mark.promise("P26")
@pytest.mark.case(12)
async def test_who_goes_through_all_workspaces_is_stopped_and_those_seen_before_are_served_on() -> None:
    bounds = budgets(workspaces=100)
    answers = [await bounds.exceeded(f"ws_{number}", "authority", "edge", 1) for number in range(1_000)]
    assert answers == [""] * 100 + ["workspaces"] * 900
    assert await bounds.exceeded("ws_7", "authority", "edge", 50) == "", "who was seen before is served"
    assert await bounds.exceeded("ws_999", "coordinator", "worker", 1) == "", "another signer has its own"


async def test_the_count_of_workspaces_begins_anew_each_minute() -> None:
    now = [0.0]
    distinct = DistinctWorkspaces(2, lambda: now[0])
    assert [distinct.allows("s", name) for name in "abc"] == [True, True, False]
    now[0] = 59.9
    assert not distinct.allows("s", "c")
    now[0] = 60.0
    assert distinct.allows("s", "c")


@pytest.mark.parametrize(
    ("age", "alarm"),
    [(0, False), (15, False), (20, False), (22, True), (45, True), (-5, False), (-7, True), (-30, True)],
)
def test_a_clock_that_differs_by_more_than_five_seconds_is_an_alarm(age: int, alarm: bool) -> None:
    assert (require_clock(GRANT, 1_000 + age) > 0) is alarm


@pytest.mark.parametrize("age", [47, 59, -32])
def test_a_clock_that_differs_by_more_than_thirty_is_refused_and_named(age: int) -> None:
    with pytest.raises(GrantTimeError) as refused:
        require_clock(GRANT, 1_000 + age)
    assert refused.value.metadata["ahead_s"] == -age
    assert "clocks" in refused.value.sentence()
    recovered = dataclasses.replace(GRANT, issued_at=1_000 + age, expires_at=1_060 + age)
    assert require_clock(recovered, 1_000 + age) == 0


@pytest.mark.case(12)
async def test_the_attack_sees_bounds_that_bound_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(DistinctWorkspaces, "allows", lambda *_: True)
    with pytest.raises(AssertionError):
        await test_who_goes_through_all_workspaces_is_stopped_and_those_seen_before_are_served_on()
