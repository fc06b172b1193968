"""Connections to a database that goes and comes back: nobody who asks afterwards hears of it, and who asks meanwhile hears why."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from authpipe_database import Database, DatabaseConfig, DatabaseUnavailableError
from authpipe_testing.database import own_database
from authpipe_testing.postgres import Cluster

MIGRATIONS = Path(__file__).parents[2] / "relay" / "tests" / "migrations"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[DatabaseConfig, Cluster]]:
    """A cluster with a database."""
    with own_database(tmp_path_factory.mktemp("database"), "member", MIGRATIONS) as made:
        yield made


async def in_transaction(database: Database) -> int:
    async with database.transaction() as connection:
        return int((await connection.execute(sa.text("select 1"))).scalar_one())


async def in_one_statement(database: Database) -> int:
    async with database.statement() as connection:
        return int((await connection.execute(sa.text("select 1"))).scalar_one())


async def hot(database: Database) -> int:
    async with database.hot() as connection:
        row = await (await connection.execute("select 1")).fetchone()
        assert row is not None
        return int(str(row[0]))


@pytest.mark.parametrize("asked_meanwhile", [False, True])
async def test_a_database_that_was_restarted_costs_nobody_a_failed_request(
    server: tuple[DatabaseConfig, Cluster],
    asked_meanwhile: bool,
) -> None:
    config, cluster = server
    database = Database(config)
    await database.open()
    try:
        # As many connections as there are, of both kinds.
        for ask in (in_transaction, in_one_statement, hot):
            assert await asyncio.gather(*(ask(database) for _ in range(12))) == [1] * 12
        cluster.crash()
        for ask in (in_transaction, in_one_statement, hot) if asked_meanwhile else ():
            with pytest.raises(DatabaseUnavailableError):
                await ask(database)
        cluster.start()
        await asyncio.sleep(0.6)
        for ask in (in_transaction, in_one_statement, hot):
            assert await asyncio.gather(*(ask(database) for _ in range(12))) == [1] * 12
    finally:
        await database.close()


async def test_a_statement_is_a_transaction_of_its_own_and_those_after_it_on_its_connection_are_not(
    server: tuple[DatabaseConfig, Cluster],
) -> None:
    config, _ = server
    database = Database(config.model_copy(update={"pool_size": 1}))
    write, count = (
        sa.text("insert into audit_outbox (events) values ('{}')"),
        sa.text("select count(*) from audit_outbox"),
    )
    try:
        for door, stays in ((database.statement, 1), (database.transaction, 1), (database.statement, 2)):
            with pytest.raises(RuntimeError):
                async with door() as connection:
                    await connection.execute(write)
                    raise RuntimeError("The block failed.")
            async with database.statement() as connection:
                assert await connection.scalar(count) == stays
    finally:
        await database.close()
