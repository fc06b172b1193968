"""How hot statements find their rows while PostgreSQL has no statistics yet: along primary keys, however large the log is."""

from __future__ import annotations

import pytest
from authpipe_audit.store.exporting import _BATCHES
from authpipe_audit.store.incidents import _EVIDENCE
from authpipe_audit.store.tree import _LEAVES, _TILE_HASHES
from authpipe_audit.store.writes import _OF
from authpipe_database import Database
from authpipe_testing.database import plan_of


@pytest.mark.parametrize(
    ("statement", "found_by"),
    [
        (_LEAVES, ["leaves_pkey on leaves", "(leaf_index >= w.first)"]),
        (_TILE_HASHES, ["tile_hashes_pkey on tile_hashes", "(hash_index >= w.first)"]),
        (_BATCHES, ["batches_pkey on batches", "(first_leaf = "]),
        (_OF, ["writes_pkey on writes d"]),
        (_EVIDENCE, ['("time" >= ']),
    ],
    ids=["leaves", "tile hashes", "batches", "writes", "evidence"],
)
async def test_what_is_asked_of_the_log_is_found_without_going_through_it(
    database: Database, statement: str, found_by: list[str]
) -> None:
    plan = await plan_of(database, statement)
    conditions = [line for line in plan.splitlines() if "Join Filter" not in line]
    assert all(any(words in line for line in conditions) for words in found_by), plan
