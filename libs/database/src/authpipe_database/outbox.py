"""The audit outbox: an event commits with the change it tells of, and a relay delivers it, in order, at least once.

`audit` drops repeats by id, so a relay that dies between delivery and deletion does no harm. One relay works at a time
(a PostgreSQL advisory lock), so that order holds with any number of replicas. Sequence numbers are given out by the
relay and advance in the transaction that deletes: a repeat has the numbers it had.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Sequence
from typing import Protocol

import psycopg
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql
from sqlalchemy.ext.asyncio import AsyncConnection

from authpipe.types.v1 import events_pb2, records_pb2
from authpipe_database.connect import Database
from authpipe_sensitive import AuditEntry, DomainError, get_log
from authpipe_sensitive.duties import note_emitted
from authpipe_telemetry import counter

_ADVISORY_LOCK = 0x4155_4449
_BATCH_ROWS = 64


OUTBOX_SQL = """
create table audit_outbox (id bigint generated always as identity primary key, events bytea[] not null);
create table audit_sequence (only_row boolean primary key default true check (only_row), last bigint not null);
insert into audit_sequence (last) values (0);
"""


def outbox_grants(role: str) -> str:
    """Gives the SQL that lets a process write and relay events, and nothing more."""
    return f"""
grant select, insert, delete on audit_outbox to {role};
grant select, update on audit_sequence to {role};
"""


class EventSink(Protocol):
    """Delivers events to `audit`."""

    async def append(self, events: Sequence[bytes], first_sequence: int) -> None:
        """Delivers events; returns when they are durable there.

        Raises:
            DomainError: They are not.
        """


class Outbox:
    """Writes events beside the change they tell of."""

    async def append(self, connection: AsyncConnection, *entries: AuditEntry) -> None:
        """Writes events inside the caller's transaction. They are durable when it commits, not before."""
        encoded = [encode(entry) for entry in entries]
        await connection.execute(
            sa.text("insert into audit_outbox (events) values (:events)").bindparams(
                sa.bindparam("events", value=encoded, type_=postgresql.ARRAY(sa.LargeBinary))
            )
        )
        for entry in entries:
            note_emitted(_NAMES[entry.name])

    async def append_hot(
        self, connection: psycopg.AsyncConnection[tuple[object, ...]], entries: Sequence[AuditEntry]
    ) -> None:
        """Writes events on a hot connection: one durable insert for a whole batch. They are durable on return."""
        await connection.execute(
            "insert into audit_outbox (events) values (%b)", ([encode(entry) for entry in entries],)
        )
        for entry in entries:
            note_emitted(_NAMES[entry.name])


def encode(entry: AuditEntry) -> bytes:
    """Gives an entry its id and time and encodes it as an AuditEvent.

    Raises:
        KeyError: A name, purpose or outcome is not in the catalogue.
    """
    event = events_pb2.AuditEvent(
        event_id=secrets.token_hex(16),
        name=_NAMES[entry.name],
        workspace_id=entry.workspace_id,
        actor=entry.actor,
        target=entry.target,
        purpose=_PURPOSES[entry.purpose],
        record_class=entry.record_class,  # type: ignore[arg-type]
        record_version=entry.record_version,
        outcome=_OUTCOMES[entry.outcome],
        reason=entry.reason,
        request_id=entry.request_id,
        grant_id=entry.grant_id,
    )
    event.time.FromNanoseconds(time.time_ns())
    return event.SerializeToString()


_NAMES = {name.removeprefix("EVENT_NAME_"): number for name, number in events_pb2.EventName.items()}
_OUTCOMES = {name.removeprefix("OUTCOME_"): number for name, number in events_pb2.Outcome.items()}
_PURPOSES = {name.removeprefix("PURPOSE_").lower(): number for name, number in records_pb2.Purpose.items()}
_PURPOSES[""] = records_pb2.PURPOSE_UNSPECIFIED


class Relay:
    """Delivers what is in the outbox.

    Args:
        database: The process's own database.
        sink: Where to.
        pause_seconds: How long to wait after a batch that was not full, or when the sink is away.
    """

    def __init__(self, database: Database, sink: EventSink, pause_seconds: float = 0.25) -> None:
        self._database = database
        self._sink = sink
        self._pause = pause_seconds
        self._delivered = counter("authpipe.audit.delivered")

    async def run(self, stop: asyncio.Event) -> None:
        """Delivers until told to stop. A sink or database that is away is waited for, with back-off to 5 s."""
        pause = self._pause
        while not stop.is_set():
            try:
                delivered = await self.deliver_batch()
                pause = self._pause
            except DomainError as error:
                get_log().warning("audit events wait for delivery", error=error)
                delivered = 0
                pause = min(5.0, pause * 2)
            # Only a full batch is followed at once: a delivery costs about 3 ms of CPU on its way, whatever is in it,
            # and what waits a moment is durable already.
            if delivered < _BATCH_ROWS:
                try:
                    await asyncio.wait_for(stop.wait(), pause)
                except TimeoutError:
                    continue

    async def deliver_batch(self) -> int:
        """Delivers the oldest events and deletes them; gives how many.

        Raises:
            DomainError: The sink or the database is away. Nothing is lost; they are delivered again.
        """
        async with self._database.transaction() as connection:
            locked = await connection.scalar(
                sa.text("select pg_try_advisory_xact_lock(:key)").bindparams(key=_ADVISORY_LOCK)
            )
            if not locked:
                return 0
            rows = (
                await connection.execute(
                    sa.text("select id, events from audit_outbox order by id limit :rows").bindparams(rows=_BATCH_ROWS)
                )
            ).all()
            events = [bytes(event) for row in rows for event in row.events]
            if not events:
                return 0
            last = await connection.scalar(sa.text("select last from audit_sequence"))
            assert last is not None  # the migration puts the row there  # noqa: S101  # the migration or _rebuild put it there
            await self._sink.append(events, int(last) + 1)
            await connection.execute(
                sa.text("delete from audit_outbox where id = any(:ids)").bindparams(ids=[row.id for row in rows])
            )
            await connection.execute(
                sa.text("update audit_sequence set last = :last").bindparams(last=int(last) + len(events))
            )
        self._delivered.add(len(events))
        return len(events)
