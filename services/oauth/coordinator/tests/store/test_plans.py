"""How hot statements find their rows while PostgreSQL has no statistics yet: by primary key, however much there is."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import authpipe_oauth_coordinator
import pytest
from authpipe_database import Database
from authpipe_oauth_coordinator.store.connections import _CLAIM, _GET
from authpipe_oauth_coordinator.store.leases import _END
from authpipe_testing.database import own_database, plan_of


@pytest.fixture(scope="module")
async def empty(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Database]:
    """A database in which nothing is."""
    migrations = Path(authpipe_oauth_coordinator.__file__).parent / "migrations"
    with own_database(tmp_path_factory.mktemp("empty"), "coordinator", migrations) as (config, _):
        made = Database(config)
        await made.open()
        yield made
        await made.close()


@pytest.mark.parametrize(("statement", "times"), [(_GET, 1), (_END, 2), (_CLAIM, 2)], ids=["get", "end", "claim"])
async def test_a_connection_is_found_without_going_through_its_workspace(
    empty: Database, statement: str, times: int
) -> None:
    plan = await plan_of(empty, statement)
    assert plan.count("using connections_pkey on connections") == times, plan
    assert "connections_newest" not in plan
    assert "connections_of_end_user" not in plan
