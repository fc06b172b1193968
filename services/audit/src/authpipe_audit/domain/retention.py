"""Retention: bodies that are older than their workspace's policy go, with their salts; leaves stay, and the tree verifies.

The policy is the newest AUDIT_RETENTION_SET that authority has logged for the workspace. First the log says that bodies up
to a position are expired, then they are deleted, by another role than the one that appends; whoever dies in between goes on
where the log says. What the log needs itself (statements, policies, these very events) is not deleted.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, Protocol

from authpipe_audit.domain.growing import Batch
from authpipe_audit.domain.reading import new_event
from authpipe_audit.domain.stating import EMITTER, SignedEvents
from authpipe_audit.domain.trails import Trail
from authpipe_transparency import Head, encode_event, time_text

_NANOSECONDS = 10**9


class Old(NamedTuple):
    """What a workspace has in a trail that may go.

    Args:
        workspace: Whose.
        announced: Up to which position the log says that bodies are expired; 0: it says nothing.
        position: Up to which position every body is older than the policy; 0: none is.
    """

    workspace: str
    announced: int
    position: int


class Stored(Protocol):
    """What is stored."""

    async def policies(self) -> dict[str, int]:
        """Gives the days of each workspace that has a policy."""

    async def workspaces(self, trail: Trail) -> list[str]:
        """Gives the workspaces that have bodies in a trail."""

    async def old(self, trail: Trail, workspace: str, before: dt.datetime) -> Old:
        """Gives what a workspace has that is older than a time."""

    async def delete_bodies(self, trail: Trail, workspace: str, position: int) -> int:
        """Deletes the bodies up to a position, but what the log needs; gives how many there were."""


class Appending(Protocol):
    """The log."""

    async def append_of(self, trail: Trail, make: Callable[[int, Mapping[str, Head], int], Batch]) -> int:
        """Appends one batch that is made of the trail as it stands, in one step."""


class Retention:
    """Keeps to the policies.

    Args:
        stored: What is stored.
        log: The log.
        sign: Signs events as this process.
        nanoseconds: Since the epoch.
        randomness: Gives random bytes, for the ids of events.
        usual_days: Of workspaces without a policy of their own.
    """

    def __init__(  # one per part
        self,
        stored: Stored,
        log: Appending,
        sign: Callable[[int, Sequence[bytes]], SignedEvents],
        nanoseconds: Callable[[], int],
        randomness: Callable[[int], bytes],
        usual_days: int,
    ) -> None:
        self._stored = stored
        self._log = log
        self._sign = sign
        self._nanoseconds = nanoseconds
        self._randomness = randomness
        self._usual_days = usual_days

    async def expire(self, trail: Trail) -> int:
        """Deletes what is to go from a trail; gives how many bodies.

        Raises:
            DomainError: The log or its database is away. What is left is done the next time.
        """
        policies, deleted = await self._stored.policies(), 0
        for workspace in await self._stored.workspaces(trail):
            if not workspace:
                continue  # of the installation itself everything is kept
            days = policies.get(workspace, self._usual_days)
            before = self._nanoseconds() - days * 86_400 * _NANOSECONDS
            old = await self._stored.old(trail, workspace, dt.datetime.fromtimestamp(before / _NANOSECONDS, dt.UTC))
            if old.position > old.announced:
                await self._announce(trail, old, days, time_text(before))
            if position := max(old.position, old.announced):
                deleted += await self._stored.delete_bodies(trail, workspace, position)
        return deleted

    async def _announce(self, trail: Trail, old: Old, days: int, until: str) -> None:
        event = encode_event(
            {
                "actor": f"service:{EMITTER}",
                "count": old.position,
                "id": self._randomness(16).hex(),
                "name": "BODIES_EXPIRED",
                "outcome": "SUCCEEDED",
                "target": f"days:{days}",
                "time": time_text(self._nanoseconds()),
                "until": until,
                "workspace": old.workspace,
            }
        )

        def make(_: int, __: Mapping[str, Head], sequence: int) -> Batch:
            signed = self._sign(sequence, [event])
            return Batch(EMITTER, sequence, [new_event(event)], signed.signature, signed.chain)

        await self._log.append_of(trail, make)
