"""How many record keys may leave in a minute: per workspace and per signer. Crossing it refuses and raises the alarm."""

from __future__ import annotations

from typing import Protocol


class Budget(Protocol):
    """Counts within fixed windows."""

    async def take(self, name: str, amount: int) -> bool:
        """Takes from the budget of this name; False: there is not so much left."""


class Budgets:
    """The budgets of releases, and of events about refused attempts.

    Args:
        per_workspace: Releases a minute of one workspace.
        per_signer: Releases a minute under grants of one signer.
        refusals: Events about refused attempts; beyond it they are counted, not written, so that a flood of refusals
            does not become a flood of writes.
    """

    def __init__(self, per_workspace: Budget, per_signer: Budget, refusals: Budget) -> None:
        self._per_workspace = per_workspace
        self._per_signer = per_signer
        self._refusals = refusals

    async def allow_release(self, workspace: str, signer: str, amount: int) -> bool:
        """Says whether so many more keys may be released."""
        return await self._per_workspace.take(workspace, amount) and await self._per_signer.take(signer, amount)

    async def note_refusal(self, workspace: str) -> bool:
        """Says whether this refusal is written as an event of its own."""
        return await self._refusals.take(workspace, 1)
