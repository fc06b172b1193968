"""The audit outbox: an event commits with the change it tells of, and a relay delivers it, in order, at least once.

`audit` drops repeats by id, so a relay that dies between delivery and deletion does no harm. One relay works at a time
(a PostgreSQL advisory lock), so that order holds with any number of replicas. Sequence numbers are given out by the
relay and advance in the transaction that deletes: a repeat has the numbers it had.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Sequence
from typing import Protocol, cast

import psycopg
import sqlalchemy as sa
from google.protobuf.timestamp_pb2 import Timestamp
from sqlalchemy.dialects import postgresql
from sqlalchemy.ext.asyncio import AsyncConnection

from authpipe.types.v1 import events_pb2, records_pb2
from authpipe_database.connect import Database
from authpipe_sensitive import AuditEntry, DomainError, get_log
from authpipe_sensitive.duties import note_emitted
from authpipe_telemetry import counter

_ADVISORY_LOCK = 0x4155_4449
_BATCH_ROWS = 64
_ID_SIZE = 16


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
    """Writes events beside the change they tell of, and wakes the relay of this process.

    Attributes:
        written: Set when events were written here; the relay clears it.
    """

    def __init__(self) -> None:
        self.written = asyncio.Event()

    async def append(self, connection: AsyncConnection, *entries: AuditEntry) -> None:
        """Writes events inside the caller's transaction. They are durable when it commits, not before."""
        await connection.execute(
            sa.text("insert into audit_outbox (events) values (:events)").bindparams(
                sa.bindparam("events", value=encode(entries), type_=postgresql.ARRAY(sa.LargeBinary))
            )
        )
        self.note(entries)

    async def append_hot(
        self, connection: psycopg.AsyncConnection[tuple[object, ...]], entries: Sequence[AuditEntry]
    ) -> None:
        """Writes events on a hot connection: one durable insert for a whole batch. They are durable on return."""
        await connection.execute("insert into audit_outbox (events) values (%b)", (encode(entries),))
        self.note(entries)

    def note(self, entries: Sequence[AuditEntry]) -> None:
        """Says that events are in the outbox, whoever wrote them there: the relay has work, and the call did its duty."""
        self.written.set()
        for entry in entries:
            note_emitted(_NAMES[entry.name])


def encode(entries: Sequence[AuditEntry]) -> list[bytes]:
    """Gives entries an id and the time and encodes each as an AuditEvent.

    Raises:
        KeyError: A name, purpose or outcome is not in the catalogue.
    """
    # One call of the kernel for a batch: it costs about 7 µs, as much as all the rest of an event.
    ids = os.urandom(_ID_SIZE * len(entries)).hex()
    now = Timestamp()
    now.FromNanoseconds(time.time_ns())
    size = 2 * _ID_SIZE
    return [
        events_pb2.AuditEvent(
            event_id=ids[size * index : size * (index + 1)],
            time=now,
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
        ).SerializeToString()
        for index, entry in enumerate(entries)
    ]


_NAMES = {name.removeprefix("EVENT_NAME_"): number for name, number in events_pb2.EventName.items()}
_OUTCOMES = {name.removeprefix("OUTCOME_"): number for name, number in events_pb2.Outcome.items()}
_PURPOSES = {name.removeprefix("PURPOSE_").lower(): number for name, number in records_pb2.Purpose.items()}
_PURPOSES[""] = records_pb2.PURPOSE_UNSPECIFIED


class Relay:
    """Delivers what is in the outbox.

    Args:
        database: The process's own database.
        outbox: Says when there is something to deliver.
        sink: Where to.
        gather_seconds: How long events are gathered before a delivery, and the first wait when the sink is away.
        look_seconds: How often to look for what another process of the same kind left behind.
    """

    def __init__(
        self,
        database: Database,
        outbox: Outbox,
        sink: EventSink,
        gather_seconds: float = 0.25,
        look_seconds: float = 1.0,
    ) -> None:
        self._database = database
        self._outbox = outbox
        self._sink = sink
        self._gather = gather_seconds
        self._look = look_seconds
        self._delivered = counter("authpipe.audit.delivered")

    async def run(self, stop: asyncio.Event) -> None:
        """Delivers until told to stop. A sink or database that is away is waited for, with back-off to 5 s."""
        pause = self._gather
        while not stop.is_set():
            try:
                delivered = await self.deliver_batch()
            except DomainError as error:
                get_log().warning("audit events wait for delivery", error=error)
                pause = min(5.0, pause * 2)
                await _wait(stop, pause)
                continue
            pause = self._gather
            # Only a full batch is followed at once: a delivery costs about 3 ms of CPU on its way, whatever is in it,
            # and what waits a moment is durable already.
            if delivered < _BATCH_ROWS:
                await self._rest(stop)

    async def _rest(self, stop: asyncio.Event) -> None:
        """Waits until there is something to deliver, then for what comes with it."""
        looks_again = time.monotonic() + self._look
        while not stop.is_set() and not self._outbox.written.is_set() and time.monotonic() < looks_again:
            await _wait(self._outbox.written, self._gather)
        self._outbox.written.clear()
        await _wait(stop, self._gather)

    async def deliver_batch(self) -> int:
        """Delivers the oldest events and deletes them; gives how many rows of them.

        Raises:
            DomainError: The sink or the database is away. Nothing is lost; they are delivered again.
        """
        async with self._database.hot() as connection, connection.transaction():
            # In a statement of its own: what is read next must see what the relay before us deleted.
            locked = await connection.execute("select pg_try_advisory_xact_lock(%s)", (_ADVISORY_LOCK,))
            if await locked.fetchone() != (True,):
                return 0
            rows = await (await connection.execute(_OLDEST, (_BATCH_ROWS,), binary=True)).fetchall()
            if not rows:
                return 0
            events = [bytes(event) for row in rows for event in cast("list[bytes]", row[1])]
            last = cast("int", rows[0][2])
            await self._sink.append(events, last + 1)
            await connection.execute(_DELIVERED, ([row[0] for row in rows], last + len(events)))
        self._delivered.add(len(events))
        return len(rows)


_OLDEST = """
select id, events, (select last from audit_sequence) from audit_outbox order by id limit %s
"""
_DELIVERED = """
with delivered as (delete from audit_outbox where id = any(%b::bigint[])) update audit_sequence set last = %s
"""


async def _wait(event: asyncio.Event, seconds: float) -> None:
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(event.wait(), seconds)
