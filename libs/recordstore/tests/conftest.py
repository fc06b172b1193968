"""A store's tables in PostgreSQL, for each file of tests."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import authpipe_recordstore
import pytest
from authpipe_database import Database
from authpipe_testing.database import own_database


@pytest.fixture(scope="module")
async def database(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Database]:
    """A database of a store, with its tables."""
    migrations = Path(authpipe_recordstore.__file__).parent / "migrations"
    with own_database(tmp_path_factory.mktemp("database"), "store", migrations) as (config, _):
        made = Database(config)
        await made.open()
        yield made
        await made.close()
