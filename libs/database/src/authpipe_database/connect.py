"""Connections: SQLAlchemy Core for what is read by people, a psycopg pool for what is hot (FACTS: 395 against 139 µs)."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psycopg
import sqlalchemy as sa
from psycopg_pool import AsyncConnectionPool, PoolTimeout
from pydantic import BaseModel, ConfigDict
from sqlalchemy.exc import DBAPIError, InterfaceError, InvalidatePoolError, OperationalError
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine

from authpipe_sensitive import DomainError, Status

_RESTED_SECONDS = 0.5
_SEEN = "seen"
# Hot statements look up by key. PostgreSQL is told so: it plans them once, and not by statistics that it does not have yet
# (an audit table filled a minute ago cost 190 µs of its CPU a request instead of 45).
_HOT = "-c plan_cache_mode=force_generic_plan -c enable_seqscan=off -c enable_hashjoin=off -c enable_mergejoin=off -c jit=off"
_HotConnection = psycopg.AsyncConnection[tuple[object, ...]]


class DatabaseUnavailableError(DomainError):
    """This service's database cannot be reached. Nothing was changed; try again shortly."""

    reason = "DATABASE_UNAVAILABLE"
    status = Status.UNAVAILABLE


class DatabaseConfig(BaseModel):
    """Where a database is, and who we are there.

    Args:
        host: The DNS name in its certificate.
        address: The address to connect to.
        port: The port.
        name: The database.
        user: The role: the CN of our certificate.
        certificate: PEM of our certificate.
        key: PEM of our key.
        ca: PEM of the CA that signed theirs.
        pool_size: How many connections at most.
        outbox_rows: With so many rows of events waiting for audit, nothing is begun that gives or uses access.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    host: str
    address: str
    port: int
    name: str
    user: str
    certificate: Path
    key: Path
    ca: Path
    pool_size: int = 6
    outbox_rows: int = 500_000

    def conninfo(self) -> dict[str, str | int]:
        """Gives libpq's keywords: mutual TLS 1.3, the server's name checked, short waits."""
        return {
            "host": self.host,
            "hostaddr": self.address,
            "port": self.port,
            "dbname": self.name,
            "user": self.user,
            "sslmode": "verify-full",
            "sslcert": str(self.certificate),
            "sslkey": str(self.key),
            "sslrootcert": str(self.ca),
            "ssl_min_protocol_version": "TLSv1.3",
            "gssencmode": "disable",
            "connect_timeout": 3,
            "application_name": self.user,
        }


class _Connection(_HotConnection):
    """A hot connection that knows when it was last seen to work."""

    seen: float = 0.0


async def _check(connection: _HotConnection) -> None:
    """Pings a connection that has rested, so that a database that was restarted costs nobody a failed request."""
    assert isinstance(connection, _Connection)  # noqa: S101  # the pool makes no others
    now = time.monotonic()
    if now - connection.seen > _RESTED_SECONDS:
        await AsyncConnectionPool.check_connection(connection)
    connection.seen = now


def columns(rows: Sequence[Sequence[Any]], count: int) -> list[list[Any]]:
    """Gives rows as so many columns, also where there are none: what `unnest` takes a batch as."""
    return [[row[index] for row in rows] for index in range(count)]


class Database:
    """A process's own database.

    Args:
        config: Where it is.
    """

    def __init__(self, config: DatabaseConfig) -> None:
        self._conninfo = config.conninfo()
        self._engine = create_async_engine(
            "postgresql+psycopg://",
            connect_args=config.conninfo(),
            pool_size=config.pool_size,
            max_overflow=0,
            pool_timeout=3,
            pool_use_lifo=True,  # who was just used need not be pinged
            hide_parameters=True,
        )
        self._single = self._engine.execution_options(isolation_level="AUTOCOMMIT")
        sa.event.listen(self._engine.sync_engine, "checkout", self._ping)
        self.pool: AsyncConnectionPool[_HotConnection] = AsyncConnectionPool(
            kwargs={**config.conninfo(), "options": _HOT, "autocommit": True, "prepare_threshold": 1},
            min_size=1,
            max_size=config.pool_size,
            timeout=3,
            open=False,
            connection_class=_Connection,
            check=_check,
        )

    def _ping(self, connection: Any, record: Any, _: object) -> None:
        """Pings a connection that has rested, as for hot ones; the library's own way pings it each time."""
        now = time.monotonic()
        try:
            if now - record.info.get(_SEEN, now) > _RESTED_SECONDS:
                self._engine.sync_engine.dialect.do_ping(connection)
        except psycopg.Error:
            # The server was restarted: none of them is any good.
            raise InvalidatePoolError from None
        record.info[_SEEN] = now

    async def open(self) -> None:
        """Opens the pool of hot connections.

        Raises:
            DatabaseUnavailableError: The database is not there.
        """
        try:
            await self.pool.open(wait=True, timeout=10)
        except PoolTimeout:
            raise DatabaseUnavailableError from None

    async def close(self) -> None:
        """Closes all connections."""
        await self.pool.close()
        await self._engine.dispose()

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncConnection]:
        """Gives a connection inside a transaction that is committed when the block ends well.

        Raises:
            DatabaseUnavailableError: The database is not there, or went away.
        """
        async with self._translating(), self._engine.begin() as connection:
            yield connection

    @asynccontextmanager
    async def statement(self) -> AsyncIterator[AsyncConnection]:
        """Gives a connection for one statement, which is a transaction of its own: a third of the round trips of `transaction`.

        Raises:
            DatabaseUnavailableError: The database is not there, or went away.
        """
        async with self._translating(), self._single.connect() as connection:
            yield connection

    async def check(self) -> None:
        """Asks the database for nothing.

        Raises:
            DatabaseUnavailableError: It does not answer.
        """
        async with self.hot() as connection:
            await connection.execute("select 1")

    async def listen(self, channel: str, wake: asyncio.Event, stop: asyncio.Event) -> None:
        """Sets an event whenever a channel is notified, until told to stop; a lost connection is made anew.

        A notification may be missed meanwhile: whoever waits for the event looks from time to time too.

        Args:
            channel: The channel, a name of ours.
            wake: What to set.
            stop: Set when to stop.
        """
        while not stop.is_set():
            try:
                connection = await psycopg.AsyncConnection.connect(**self._conninfo, autocommit=True)  # type: ignore[arg-type]
                async with connection:
                    await connection.execute(f"listen {channel}".encode())
                    wake.set()
                    while not stop.is_set():
                        async for _ in connection.notifies(timeout=_RESTED_SECONDS):
                            wake.set()
            except psycopg.OperationalError:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(stop.wait(), _RESTED_SECONDS)

    @asynccontextmanager
    async def _translating(self) -> AsyncIterator[None]:
        try:
            yield
        except (OperationalError, InterfaceError, sa.exc.TimeoutError):
            raise DatabaseUnavailableError from None
        except DBAPIError as error:
            if error.connection_invalidated:
                raise DatabaseUnavailableError from None
            raise

    def hot(self) -> _Hot:
        """Gives a pooled connection in autocommit, for the time of a block.

        Raises:
            DatabaseUnavailableError: The database is not there, or went away.
        """
        return _Hot(self.pool)


class _Hot:
    """A hot connection for the time of a block. By hand: the pool's own way costs two generators more on each use."""

    __slots__ = ("_connection", "_pool")

    def __init__(self, pool: AsyncConnectionPool[_HotConnection]) -> None:
        self._pool = pool

    async def __aenter__(self) -> _HotConnection:
        try:
            self._connection = await self._pool.getconn()
        except (psycopg.OperationalError, PoolTimeout):
            raise DatabaseUnavailableError from None
        return self._connection

    async def __aexit__(self, kind: object, error: BaseException | None, _: object) -> None:
        # What is given back in the middle of a transaction, the pool rolls back.
        await self._pool.putconn(self._connection)
        if isinstance(error, psycopg.OperationalError | psycopg.InterfaceError):
            raise DatabaseUnavailableError from None
