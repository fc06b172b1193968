"""Every half minute the log says, in an event of its own, where the chains of all workspaces stand in a trail.

An event that is left out of a workspace's chain then contradicts the log itself (authpipe_transparency.chains).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

from authpipe_audit.domain.growing import Batch, NewEvent
from authpipe_audit.domain.reading import new_event
from authpipe_audit.domain.trails import Trail
from authpipe_sensitive import DomainError
from authpipe_transparency import Frontier, Head, Leaf, encode_event, map_key, map_root, time_text

EMITTER = "audit"


class SignedEvents(NamedTuple):
    """Events as this process signed them; the fields of authpipe_grants.SignedBatch."""

    first_sequence: int
    events: Sequence[bytes]
    signature: bytes
    chain: tuple[bytes, ...]


class Heads(Protocol):
    """The chains."""

    async def heads(self, trail: Trail, size: int | None) -> tuple[int, dict[str, Head]]:
        """Gives the head of every workspace's chain in the tree of a size (none: as it stands), and that size."""

    async def frontier(self, trail: Trail) -> Frontier:
        """Gives a trail's tree as it stands."""

    async def append(self, trail: Trail, batches: Sequence[Batch]) -> list[int | DomainError]:
        """Appends batches."""

    async def last_sequence(self, trail: Trail, emitter: str) -> int:
        """Gives the number of an emitter's last event in a trail."""


class Statements:
    """States the chains.

    Args:
        log: The log.
        sign: Signs events as this process: the first one's number, the events.
        nanoseconds: Since the epoch.
        randomness: Gives random bytes, for the ids of events.
    """

    def __init__(
        self,
        log: Heads,
        sign: Callable[[int, Sequence[bytes]], SignedEvents],
        nanoseconds: Callable[[], int],
        randomness: Callable[[int], bytes],
    ) -> None:
        self._log = log
        self._sign = sign
        self._nanoseconds = nanoseconds
        self._randomness = randomness
        self._stated: dict[Trail, int] = {}

    async def state(self, trail: Trail) -> bool:
        """States where the chains of a trail stand, if it grew since; says whether it did.

        Raises:
            DomainError: It cannot be logged now.
        """
        size, heads = await self._log.heads(trail, None)
        if size == self._stated.get(trail, 0):
            return False
        event = encode_event(
            {
                "actor": f"service:{EMITTER}",
                "count": len(heads),
                "digest": map_root(map_leaves(heads)).hex(),
                "id": self._randomness(16).hex(),
                "name": "CHAINS_STATED",
                "outcome": "SUCCEEDED",
                "size": size,
                "target": trail.word,
                "time": time_text(self._nanoseconds()),
            }
        )
        await self._append(trail, new_event(event))
        # Our own statement makes no other due; what others logged meanwhile does.
        now = (await self._log.frontier(trail)).size
        self._stated[trail] = now if now == size + 1 else size
        return True

    async def _append(self, trail: Trail, event: NewEvent) -> None:
        sequence = await self._log.last_sequence(trail, EMITTER) + 1
        signed = self._sign(sequence, [event.event])
        batch = Batch(EMITTER, sequence, [event], signed.signature, signed.chain)
        (answer,) = await self._log.append(trail, [batch])
        if isinstance(answer, DomainError):
            raise answer


def map_leaves(heads: dict[str, Head]) -> list[Leaf]:
    """Gives the map's leaves of these heads, as they stand in it."""
    return sorted(Leaf(map_key(workspace), head) for workspace, head in heads.items())
