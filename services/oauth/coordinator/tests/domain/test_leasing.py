"""One heartbeat keeps all leases of a process, whatever happens to one of them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import pytest
from authpipe_database import DatabaseUnavailableError
from authpipe_oauth_coordinator.domain.leasing import Leasing

Held = tuple[str, str, int]


class Beats:
    """A table of leases that notes the heartbeats, and says whose lease was passed on."""

    def __init__(self) -> None:
        self.beats: list[set[Held]] = []
        self.lost: set[Held] = set()
        self.away = False

    async def extend_leases(self, held: Sequence[Held], _: float) -> set[Held]:
        self.beats.append(set(held))
        if self.away:
            raise DatabaseUnavailableError
        return set(held) - self.lost


@pytest.fixture
def beats() -> Beats:
    return Beats()


def leasing(beats: Any) -> Leasing:
    return Leasing(beats, "one", 0.03)


async def test_a_thousand_leases_have_one_heartbeat_and_none_when_they_are_given_back(beats: Beats) -> None:
    keeping = leasing(beats)
    with ExitStack() as stack:
        for number in range(1_000):
            stack.enter_context(keeping.kept("ws", f"con_{number}", 1))
        await asyncio.sleep(0.015)
        assert [len(each) for each in beats.beats] == [1_000]
    await asyncio.sleep(0.03)
    assert len(beats.beats) == 1


async def test_what_was_passed_on_is_not_kept_any_more_and_what_is_left_is(beats: Beats) -> None:
    keeping = leasing(beats)
    beats.lost = {("ws", "lost", 1)}
    with keeping.kept("ws", "lost", 1), keeping.kept("ws", "held", 7):
        await asyncio.sleep(0.025)
    assert beats.beats[:2] == [{("ws", "lost", 1), ("ws", "held", 7)}, {("ws", "held", 7)}]


async def test_a_database_that_is_away_for_a_beat_does_not_end_the_heart(beats: Beats) -> None:
    keeping = leasing(beats)
    beats.away = True
    with keeping.kept("ws", "con", 1):
        await asyncio.sleep(0.015)
        beats.away = False
        await asyncio.sleep(0.02)
        assert beats.beats[-1] == {("ws", "con", 1)}
        assert len(beats.beats) > 1


async def test_a_lease_that_is_taken_after_all_were_given_back_has_a_heartbeat_too(beats: Beats) -> None:
    keeping = leasing(beats)
    with keeping.kept("ws", "first", 1):
        pass
    await asyncio.sleep(0.03)
    with keeping.kept("ws", "second", 2):
        await asyncio.sleep(0.025)
    assert beats.beats
    assert set.union(*beats.beats) == {("ws", "second", 2)}
