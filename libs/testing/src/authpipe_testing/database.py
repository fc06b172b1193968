"""A database of a member's own, for the tests of its store: a real cluster, mutual TLS, the member's migrations and role."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from authpipe_database import Database, DatabaseConfig
from authpipe_database.migrations import upgrade
from authpipe_testing.ca import CertificateAuthority
from authpipe_testing.ports import free_ports
from authpipe_testing.postgres import Cluster


@contextmanager
def own_database(
    folder: Path, role: str, migrations: Path, more_roles: tuple[str, ...] = ()
) -> Iterator[tuple[DatabaseConfig, Cluster]]:
    """Gives a migrated database for the time of a block; about two seconds to make.

    Args:
        folder: An empty folder of the test's own.
        role: The member's role, and the name of its database.
        migrations: The member's `migrations` folder.
        more_roles: Further roles that enter it.
    """
    ca = CertificateAuthority(folder, "ca")
    port = free_ports(1)[0]
    cluster = Cluster(
        role,
        folder / "data",
        port,
        ca,
        folder,
        (role,),
        folder / "postgres.log",
        tuple((role, each) for each in more_roles),
    )
    cluster.prepare()
    cluster.start()
    try:
        cluster.ensure_databases()
        upgrade(config_of(cluster, role, f"{role}_owner"), migrations)
        yield config_of(cluster, role, role), cluster
    finally:
        cluster.stop()


def config_of(cluster: Cluster, database: str, user: str) -> DatabaseConfig:
    """Gives where a database is, for a role."""
    leaf = cluster.client(user)
    return DatabaseConfig(
        host=cluster.host,
        address="127.0.0.1",
        port=cluster.port,
        name=database,
        user=user,
        certificate=leaf.certificate,
        key=leaf.key,
        ca=cluster.ca.certificate_file,
    )


async def plan_of(database: Database, statement: str) -> str:
    """Gives how PostgreSQL carries out a hot statement, as it plans it: once, for whatever values.

    Args:
        database: In which the statement is at home. In one that is empty nothing is known of how much there will be.
        statement: With psycopg's placeholders.
    """
    numbers = itertools.count(1)
    numbered = re.sub(r"%(\(\w+\))?[bs]", lambda _: f"${next(numbers)}", statement)
    nulls = ", ".join(["null"] * (next(numbers) - 1))
    async with database.hot() as connection:
        await connection.execute(f"prepare planned as {numbered}".encode())
        cursor = await connection.execute(f"explain execute planned ({nulls})".encode())
        plan = "\n".join(str(row[0]) for row in await cursor.fetchall())
        await connection.execute("deallocate planned")
    return plan
