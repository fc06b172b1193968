"""What audit-log signs: one tree, that grows. Whoever asks, in whatever order and however many at once."""

from __future__ import annotations

import asyncio
import dataclasses
import uuid

import pytest
from authpipe_database import Database
from authpipe_keyservice.domain.checkpoints import require_growth
from authpipe_keyservice.errors import CheckpointBaseError, ForkError
from authpipe_keyservice.store import CheckpointTable
from authpipe_sensitive import DomainError
from authpipe_transparency import Checkpoint, consistency_ranges, leaf_hash, root_of


class Tree:
    """A tree of a log, honest or not."""

    def __init__(self, *entries: str) -> None:
        self.leaves = [leaf_hash(entry.encode()) for entry in entries]

    def checkpoint(self, size: int) -> Checkpoint:
        """Gives its head at a size."""
        return Checkpoint("", size, root_of(self.leaves[:size]))

    def proof(self, old: int, size: int) -> list[bytes]:
        """Proves that it grew."""
        return [root_of(self.leaves[part.start : part.end]) for part in consistency_ranges(old, size)]


GOOD = Tree(*(f"event {number}" for number in range(20)))
FORKED = Tree(*(f"event {number}" for number in range(5)), *(f"other {number}" for number in range(15)))


class Asking:
    """Asks for signatures of a log of its own, as the servicer does before it signs."""

    def __init__(self, table: CheckpointTable) -> None:
        self._table = table
        self._origin = f"example.com/{uuid.uuid4().hex}"

    async def __call__(self, tree: Tree, size: int, old: int) -> Checkpoint:
        """Asks."""
        wanted, proof = tree.checkpoint(size), tree.proof(old, size) if old <= size else []
        wanted = dataclasses.replace(wanted, origin=self._origin)
        await self._table.replace_checkpoint(wanted, lambda signed: require_growth(signed, wanted, old, proof))
        return wanted


@pytest.fixture
def table(clean: Database) -> CheckpointTable:
    """What was signed."""
    return CheckpointTable(clean)


@pytest.mark.case(29)
@pytest.mark.promise("P31")
async def test_only_a_tree_that_extends_the_last_is_signed(table: CheckpointTable) -> None:
    ask = Asking(table)
    await ask(GOOD, 7, 0)
    await ask(GOOD, 12, 7)
    await ask(GOOD, 12, 12)  # again: it died before it had the signature
    for tree, size, old, error in (
        (FORKED, 13, 12, ForkError),  # other events after the fifth
        (FORKED, 12, 12, ForkError),  # another root for the same size
        (GOOD, 11, 11, ForkError),  # yesterday's tree
        (GOOD, 15, 7, CheckpointBaseError),  # a proof from another tree than the last
        (FORKED, 15, 4, CheckpointBaseError),
        (GOOD, 15, 0, CheckpointBaseError),
    ):
        with pytest.raises(error):
            await ask(tree, size, old)
    await ask(GOOD, 20, 12)


@pytest.mark.case(29)
@pytest.mark.promise("P31")
async def test_of_two_trees_asked_for_at_once_one_is_signed(table: CheckpointTable) -> None:
    """An audit that was taken over asks for both at the same moment: both extend what was signed last."""
    for _ in range(10):
        ask = Asking(table)
        await ask(GOOD, 5, 0)
        asked = [ask(tree, size, 5) for size in (9, 10, 11) for tree in (GOOD, FORKED)]
        answers = await asyncio.gather(*asked, return_exceptions=True)
        signed = [answer for answer in answers if isinstance(answer, Checkpoint)]
        assert len(signed) == 1
        assert all(isinstance(answer, Checkpoint | DomainError) for answer in answers)


async def test_the_first_checkpoint_of_a_log_needs_no_proof_and_takes_none(table: CheckpointTable) -> None:
    ask = Asking(table)
    with pytest.raises(CheckpointBaseError) as told:
        await ask(GOOD, 7, 3)
    assert told.value.metadata == {"signed_size": 0}
    await ask(GOOD, 7, 0)
    with pytest.raises(CheckpointBaseError) as told:
        await ask(GOOD, 9, 3)
    assert told.value.metadata == {"signed_size": 7}
