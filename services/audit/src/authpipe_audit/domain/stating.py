"""Every half minute the log says, in an event of its own, where the chains of all workspaces stand in a trail.

An event that is left out of a workspace's chain then contradicts the log itself (authpipe_transparency.chains).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, Protocol

from authpipe_audit.domain.growing import Batch
from authpipe_audit.domain.reading import new_event
from authpipe_audit.domain.trails import Trail
from authpipe_transparency import Frontier, Head, Leaf, encode_event, map_key, map_root, time_text

EMITTER = "audit"


class SignedEvents(NamedTuple):
    """Events as this process signed them; the fields of authpipe_grants.SignedBatch."""

    first_sequence: int
    events: Sequence[bytes]
    signature: bytes
    chain: tuple[bytes, ...]


class Chains(Protocol):
    """The trails, with their chains."""

    async def frontier(self, trail: Trail) -> Frontier:
        """Gives a trail's tree as it stands."""

    async def append_of(self, trail: Trail, make: Callable[[int, Mapping[str, Head], int], Batch]) -> int:
        """Appends one batch that is made of the trail as it stands, in one step; gives the size of the tree then.

        Args:
            trail: Which.
            make: Makes it of the size of the tree, the head of every workspace's chain, and our next number.
        """


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
        log: Chains,
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
        if (await self._log.frontier(trail)).size == self._stated.get(trail, 0):
            return False
        # Our own statement makes no other due.
        self._stated[trail] = await self._log.append_of(
            trail, lambda size, heads, sequence: self._statement(trail, size, heads, sequence)
        )
        return True

    def _statement(self, trail: Trail, size: int, heads: Mapping[str, Head], sequence: int) -> Batch:
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
        signed = self._sign(sequence, [event])
        return Batch(EMITTER, sequence, [new_event(event)], signed.signature, signed.chain)


def map_leaves(heads: Mapping[str, Head]) -> list[Leaf]:
    """Gives the map's leaves of these heads, as they stand in it."""
    return sorted(Leaf(map_key(workspace), head) for workspace, head in heads.items())
