"""How many record keys may leave: per workspace, signer and consumer, and of how many workspaces. Crossing it refuses.

Each bound has an amount a minute and one a second (the burst). The number of distinct workspaces a minute is what tells
an ordinary load from somebody who goes through all of them: workspaces that were seen in this minute are served on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

_MINUTE = 60.0


class Budget(Protocol):
    """Counts within fixed windows."""

    async def take(self, name: str, amount: int) -> bool:
        """Takes from the budget of this name; False: there is not so much left."""


class DistinctWorkspaces:
    """Of how many workspaces one signer has keys released in a minute.

    Args:
        most: How many at most.
        clock: Gives seconds.
    """

    def __init__(self, most: int, clock: Callable[[], float]) -> None:
        self._most = most
        self._clock = clock
        self._began = clock()
        self._seen: dict[str, set[str]] = {}

    def allows(self, signer: str, workspace: str) -> bool:
        """Says whether keys of a workspace may be released; one that was seen in this minute stays allowed."""
        now = self._clock()
        if now - self._began >= _MINUTE:
            self._began = now
            self._seen.clear()
        seen = self._seen.setdefault(signer, set())
        if workspace not in seen:
            if len(seen) >= self._most:
                return False
            seen.add(workspace)
        return True


class Budgets:
    """The budgets of releases, and of events about refused attempts.

    Args:
        per_workspace: Releases of one workspace.
        per_signer: Releases under grants of one signer.
        per_consumer: Releases to one consumer.
        workspaces: Of how many workspaces a signer has keys released.
        refusals: Events about refused attempts; beyond it they are counted, not written, so that a flood of refusals
            does not become a flood of writes.
        alarms: Events about clocks, one in a while for each signer.
    """

    def __init__(
        self,
        *,
        per_workspace: Sequence[Budget],
        per_signer: Sequence[Budget],
        per_consumer: Sequence[Budget],
        workspaces: DistinctWorkspaces,
        refusals: Budget,
        alarms: Budget,
    ) -> None:
        self._per_workspace = per_workspace
        self._per_signer = per_signer
        self._per_consumer = per_consumer
        self._workspaces = workspaces
        self._refusals = refusals
        self._alarms = alarms

    async def exceeded(self, workspace: str, signer: str, consumer: str, amount: int) -> str:
        """Takes so many releases from all budgets; gives the bound that they cross, or nothing."""
        if not self._workspaces.allows(signer, workspace):
            return "workspaces"
        # The narrowest first: what one workspace has too much of costs no other.
        if not await _take(self._per_workspace, workspace, amount):
            return "workspace"
        if not await _take(self._per_consumer, consumer, amount):
            return "consumer"
        return "" if await _take(self._per_signer, signer, amount) else "signer"

    async def note_refusal(self, workspace: str) -> bool:
        """Says whether this refusal is written as an event of its own."""
        return await self._refusals.take(workspace, 1)

    async def note_clock(self, signer: str) -> bool:
        """Says whether a signer's clock is put on record once more."""
        return await self._alarms.take(signer, 1)


async def _take(budgets: Iterable[Budget], name: str, amount: int) -> bool:
    for budget in budgets:
        if not await budget.take(name, amount):
            return False
    return True
