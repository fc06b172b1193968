"""The replicas of this key domain that are alive, and what they were told to forget."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from authpipe_database import Database
from authpipe_keyservice.domain.replicas import Order

CHANNEL = "cache_orders"
# A replica that has not been seen for so long holds no key: what it cached is bound to a look-up it cannot make.
LIVE = "seen_at > now() - interval '10 seconds'"
# One statement, as each replica makes it every second.
_BEAT = """
with dead as (delete from replicas where seen_at < now() - interval '1 minute' and replica_id <> :replica returning replica_id),
     unproven as (delete from kek_proofs where replica_id in (select replica_id from dead)),
     obeyed as (delete from cache_orders where id < (select min(obeyed) from replicas))
insert into replicas (replica_id, seen_at, obeyed)
values (:replica, now(), (select coalesce(max(id), 0) from cache_orders))
on conflict (replica_id) do update set seen_at = now() returning xmax = 0
"""


class ReplicaTable:
    """Replicas in PostgreSQL.

    Args:
        database: keyservice's own database.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    async def beat(self, replica: str) -> bool:
        """Says that a replica is alive; forgets those that were not seen for a minute, and orders that all obeyed.

        Returns:
            True: it was not among the living.
        """
        async with self._database.statement() as connection:
            return bool(await connection.scalar(sa.text(_BEAT).bindparams(replica=replica)))

    async def leave(self, replica: str) -> None:
        """Says that a replica has ended."""
        async with self._database.transaction() as connection:
            for table in ("kek_proofs", "replicas"):
                ended = sa.text(f"delete from {table} where replica_id = :replica")
                await connection.execute(ended.bindparams(replica=replica))

    async def count(self) -> int:
        """Gives how many replicas are alive."""
        async with self._database.statement() as connection:
            return int(await connection.scalar(sa.text(f"select count(*) from replicas where {LIVE}")) or 0)

    async def orders(self, replica: str) -> list[Order]:
        """Gives the orders that a replica has not obeyed yet, oldest first."""
        async with self._database.statement() as connection:
            rows = await connection.execute(
                sa.text(
                    "select id, workspace_id, connection_id from cache_orders"
                    " where id > (select obeyed from replicas where replica_id = :replica) order by id"
                ).bindparams(replica=replica)
            )
            return [Order(int(row.id), row.workspace_id, row.connection_id) for row in rows]

    async def obey(self, replica: str, order: int) -> None:
        """Notes that a replica has obeyed all orders up to one."""
        async with self._database.statement() as connection:
            obeyed = sa.text("update replicas set obeyed = greatest(obeyed, :order) where replica_id = :replica")
            await connection.execute(obeyed.bindparams(replica=replica, order=order))

    async def outstanding(self, order: int) -> int:
        """Gives how many live replicas have not obeyed an order."""
        async with self._database.statement() as connection:
            counted = sa.text(f"select count(*) from replicas where {LIVE} and obeyed < :order")
            return int(await connection.scalar(counted.bindparams(order=order)) or 0)


async def order_to_forget(connection: AsyncConnection, workspace: str, connection_id: str) -> int:
    """Tells all replicas, inside the caller's transaction, to forget a connection's keys, or all of a workspace.

    Returns:
        The order's number.
    """
    # Numbers are given out in the order of commits, so that none is skipped by a replica that has obeyed a later one.
    await connection.execute(sa.text("select pg_advisory_xact_lock(72)"))
    number = await connection.scalar(
        sa.text(
            "insert into cache_orders (workspace_id, connection_id) values (:workspace, :connection) returning id"
        ).bindparams(workspace=workspace, connection=connection_id)
    )
    await connection.execute(sa.text(f"notify {CHANNEL}"))
    return int(number)
