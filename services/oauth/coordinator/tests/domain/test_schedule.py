"""What is due is refreshed though nobody asks."""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections import Counter
from collections.abc import Mapping
from typing import Any

import pytest
from authpipe_oauth_coordinator.domain.schedule import Schedule
from authpipe_oauth_coordinator.domain.words import (
    Acting,
    Connection,
    ProviderConfig,
)
from authpipe_providers import Endpoints

ACTING = Acting("ws", "api_key:key_1", "req_1")
ZERO = dt.timedelta(0)
START = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
ENDPOINTS = Endpoints(
    "https://as.example", "https://as.example/a", "https://as.example/t", "", "none", iss_required=True
)
CONFIG = ProviderConfig("ws", "pc", "as.example", "AS", "client", ("a",), ("https://x",), ENDPOINTS, bytes(32), START)

BOUNDS: dict[str, Any] = {"most": 8, "per_provider": 50, "claim_seconds": 60.0}


class Due:
    """A table of what is due."""

    def __init__(self, *connections: Connection) -> None:
        self.waiting = list(connections)
        self.asked: list[int] = []

    async def claim_due(self, most: int, _: int, share: int, going: Mapping[str, int], __: float) -> list[Connection]:
        self.asked.append(most)
        given = Counter(going)
        taken = []
        for each in [*self.waiting]:
            if given[each.provider] < share and len(taken) < most:
                given[each.provider] += 1
                taken.append(each)
                self.waiting.remove(each)
        return taken


@pytest.mark.promise("P36")
async def test_what_is_due_is_refreshed_though_nobody_asks_and_a_slow_provider_holds_up_only_its_own(
    stage: Any,
) -> None:
    for name in ("con", "con_b", "con_c", "con_d", "con_e"):
        stage.tables.connections["ws", name] = dataclasses.replace(stage.tables.connections["ws", "con"], id=name)
    table = Due(*stage.tables.connections.values())
    schedule = Schedule(table, stage.refreshing("one"), lambda kind: f"{kind}_1", **BOUNDS)
    stage.hold.clear()
    assert await schedule.run() == 2
    assert await schedule.run() == 0, "that Provider has its share"
    other = dataclasses.replace(stage.tables.connections["ws", "con"], id="con_other", provider="other.example")
    stage.tables.connections["ws", "con_other"] = other
    table.waiting.append(other)
    assert await schedule.run() == 1, "another one does not wait for it"
    stage.hold.set()
    await schedule.finish()
    assert await schedule.run() == 2
    await schedule.finish()
    assert await schedule.run() == 1
    await schedule.finish()
    assert stage.events().count("TOKEN_REFRESHED") == 6
    assert {each.acting.actor for each in stage.jobs} == {"service:oauth/coordinator"}
    assert table.asked == [8, 6, 6, 8, 8]


async def test_no_more_are_under_way_than_may_be(stage: Any) -> None:
    for number in range(6):
        made = dataclasses.replace(
            stage.tables.connections["ws", "con"], id=f"con_{number}", provider=f"{number}.example"
        )
        stage.tables.connections["ws", made.id] = made
    schedule = Schedule(
        Due(*stage.tables.connections.values()),
        stage.refreshing("one"),
        lambda kind: f"{kind}_1",
        **BOUNDS | {"most": 4},
    )
    stage.hold.clear()
    assert await schedule.run() == 4
    assert await schedule.run() == 0
    stage.hold.set()
    await schedule.finish()


@pytest.mark.promise("P36")
async def test_a_scheduled_refresh_that_fails_does_not_end_the_schedule(stage: Any) -> None:
    stage.audit_away = True
    schedule = Schedule(Due(stage.tables.connections["ws", "con"]), stage.refreshing("one"), str, **BOUNDS)
    assert await schedule.run() == 1
    await schedule.finish()
    assert stage.jobs == []
