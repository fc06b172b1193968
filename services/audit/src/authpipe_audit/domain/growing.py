"""How a trail grows: batches of events become leaves, bodies, tile hashes, and the heads of chains. No I/O in here.

A batch is one emitter's, signed, with its sequence numbers. It is taken when it follows what the emitter sent last; what
it repeats must be what is there; a gap is refused, for then events were lost between the emitter and us, or from us.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Self

from authpipe_audit.domain.trails import Trail
from authpipe_audit.errors import EventsDifferError, EventsMissingError
from authpipe_transparency import (
    SALT_SIZE,
    TILE_HEIGHT,
    Frontier,
    Head,
    chain_next,
    chain_start,
    commitment,
    leaf_hash,
    node_hash,
    record_of,
)


@dataclass(frozen=True, slots=True)
class NewEvent:
    """An event about to be logged: what is found by, and its encoding.

    Args:
        workspace: The tenant; empty: the installation.
        name: The event's.
        outcome: SUCCEEDED, FAILED or REFUSED.
        actor: On whose behalf.
        target: On what.
        time: By the emitter's clock.
        ids: Every id in it, by which it is found.
        event: Its canonical encoding.
        write: Where it tells that a record was written, or records were deleted: class and version; a deletion has no
            class, and version 0 says that it is gone.
    """

    workspace: str
    name: str
    outcome: str
    actor: str
    target: str
    time: datetime
    ids: tuple[str, ...]
    event: bytes
    write: tuple[str, int] | None = None


@dataclass(frozen=True, slots=True)
class Batch:
    """Events of one emitter, in its order, as it signed them."""

    emitter: str
    first_sequence: int
    events: Sequence[NewEvent]
    signature: bytes
    chain: tuple[bytes, ...]

    @property
    def last_sequence(self) -> int:
        """Gives the sequence number of its last event."""
        return self.first_sequence + len(self.events) - 1


@dataclass(slots=True)
class TrailHead:
    """Where a trail stands: its tree, the newest head of each chain and the last number of each emitter that matter now."""

    trail: Trail
    frontier: Frontier
    chains: dict[str, Head]
    sequences: dict[str, int]


@dataclass(frozen=True, slots=True)
class NewLeaf:
    """A leaf and, apart from it, its body: leaves stay, bodies go with retention."""

    index: int
    entry: bytes
    head: Head
    event: NewEvent
    record: bytes
    salt: bytes


@dataclass(slots=True)
class Growth:
    """What a trail grows by, in one transaction.

    Args:
        before: Where it stood; changed when all of it is committed, and not before.
        frontier: Its tree, with what was added.
        leaves: The new leaves, in their order.
        batches: The new batches, each with the index of its first leaf.
        tile_hashes: Level, index and hash of every subtree that became full and stands in a tile above the leaves.
    """

    before: TrailHead
    frontier: Frontier
    leaves: list[NewLeaf] = field(default_factory=list)
    batches: list[tuple[int, Batch]] = field(default_factory=list)
    tile_hashes: list[tuple[int, int, bytes]] = field(default_factory=list)
    _chains: dict[str, Head] = field(default_factory=dict)
    _sequences: dict[str, int] = field(default_factory=dict)

    @classmethod
    def after(cls, head: TrailHead) -> Self:
        """Begins where a trail stands."""
        return cls(head, Frontier(head.frontier.size, head.frontier.roots))

    @property
    def trail(self) -> Trail:
        """Gives the trail."""
        return self.before.trail

    def last_sequence(self, emitter: str) -> int:
        """Gives the number of an emitter's last event in the trail; 0: it has none."""
        return self._sequences.get(emitter, self.before.sequences.get(emitter, 0))

    def committed(self) -> TrailHead:
        """Gives where the trail stands after all of it: what it began with, brought forward."""
        self.before.frontier = Frontier(self.frontier.size, self.frontier.roots)
        self.before.chains |= self._chains
        self.before.sequences |= self._sequences
        return self.before

    def add(self, batch: Batch, origin: str, randomness: Callable[[int], bytes]) -> None:
        """Adds a batch.

        Args:
            batch: It follows what its emitter sent last, without a gap and without a repeat.
            origin: The trail's, which its chains begin with.
            randomness: Gives random bytes, for salts.

        Raises:
            EventsMissingError: It does not follow. Nothing of it was added.
        """
        if batch.first_sequence != self.last_sequence(batch.emitter) + 1:
            raise EventsMissingError
        self.batches.append((self.frontier.size, batch))
        self._sequences[batch.emitter] = batch.last_sequence
        salts = randomness(SALT_SIZE * len(batch.events))
        for offset, event in enumerate(batch.events):
            salt = salts[SALT_SIZE * offset : SALT_SIZE * (offset + 1)]
            record = record_of(batch.emitter, batch.first_sequence + offset, event.event)
            entry = commitment(salt, record)
            hashed = leaf_hash(entry)
            before = self._chains.get(event.workspace) or self.before.chains.get(event.workspace)
            if before is None:
                before = Head(0, chain_start(origin, event.workspace))
            after = Head(before.position + 1, chain_next(before.chain, hashed))
            self._chains[event.workspace] = after
            self.leaves.append(NewLeaf(self.frontier.size, entry, after, event, record, salt))
            self._grow(hashed)

    def _grow(self, hashed: bytes) -> None:
        """Adds a leaf to the tree, and notes the hashes of the tiles that it completes (C2SP tlog-tiles)."""
        at, height = self.frontier.size, 0
        while at & 1:
            hashed = node_hash(self.frontier.roots.pop(), hashed)
            at, height = at >> 1, height + 1
            if height % TILE_HEIGHT == 0:
                self.tile_hashes.append((height // TILE_HEIGHT, at, hashed))
        self.frontier.roots.append(hashed)
        self.frontier.size += 1


def require_same(batch: Batch, known: Mapping[int, bytes]) -> None:
    """Returns when what a batch repeats is what was logged under those numbers, and nothing else.

    Args:
        batch: What came again.
        known: By sequence number, the encodings that are still there; bodies beyond retention are not.

    Raises:
        EventsDifferError: It is not: the emitter's database was set back, or somebody invents its events.
    """
    for offset, event in enumerate(batch.events):
        if known.get(batch.first_sequence + offset, event.event) != event.event:
            raise EventsDifferError
