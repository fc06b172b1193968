"""Delivers what is in the outbox to audit: in order, at least once, each batch signed with our leaf.

One relay works at a time (a PostgreSQL advisory lock), so that order holds with any number of replicas. Sequence numbers
are given out here and advance in the transaction that deletes: a repeat has the numbers it had, and audit compares and
drops it. So a relay that dies between delivery and deletion does no harm. What is being sent is written down before it is
sent: a row may become visible late, behind others with higher ids, and must not take the numbers of what was sent already.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Sequence
from typing import Protocol, cast

from authpipe_database import Database, Outbox
from authpipe_grants import SignedBatch
from authpipe_sensitive import DomainError, Label, get_log
from authpipe_telemetry import counter, gauge

_ADVISORY_LOCK = 0x4155_4449
_BATCH_ROWS = 64


class EventSink(Protocol):
    """Delivers events to `audit`."""

    async def append(self, batch: SignedBatch) -> int:
        """Delivers a batch; gives the number of our last event that is durable there.

        Raises:
            DomainError: Nothing of it is.
        """


class Relay:
    """Delivers what is in the outbox.

    Args:
        database: The process's own database.
        outbox: Says when there is something to deliver.
        sink: Where to.
        sign: Signs a batch as this process: its first sequence number, its events.
        most_rows: With so many rows waiting the outbox is full: nothing more is begun until the sink takes some.
        gather_seconds: How long events are gathered before a delivery, and the first wait when the sink is away.
        look_seconds: How often to look for what another process of the same kind left behind.
    """

    def __init__(
        self,
        database: Database,
        outbox: Outbox,
        sink: EventSink,
        sign: Callable[[int, Sequence[bytes]], SignedBatch],
        most_rows: int,
        gather_seconds: float = 0.25,
        look_seconds: float = 1.0,
    ) -> None:
        self._database = database
        self._outbox = outbox
        self._sink = sink
        self._sign = sign
        self._gather = gather_seconds
        self._look = look_seconds
        self._most = most_rows
        self._looked = 0.0
        self._waiting = gauge("authpipe.audit.waiting")
        self._delivered = counter("authpipe.audit.delivered")

    async def run(self, stop: asyncio.Event) -> None:
        """Delivers until told to stop. A sink or database that is away is waited for, with back-off to 5 s."""
        pause = self._gather
        while not stop.is_set():
            try:
                await self._look_how_much_waits()
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

    async def _look_how_much_waits(self) -> None:
        """Notes, once in a while, whether there is room in the outbox. Every replica looks, also when another delivers."""
        if time.monotonic() - self._looked < self._look:
            return
        self._looked = time.monotonic()
        async with self._database.hot() as connection:
            # Rows go at one end and come at the other: what lies between their numbers is how many there are, or a few
            # more. Counting a million takes a tenth of a second; this takes none.
            cursor = await connection.execute("select coalesce(max(id) - min(id) + 1, 0) from audit_outbox")
            row = await cursor.fetchone()
        waiting = cast("int", row[0]) if row else 0
        self._waiting.set(waiting)
        if self._outbox.is_full != (waiting >= self._most):
            self._outbox.is_full = waiting >= self._most
            state = Label("full" if self._outbox.is_full else "has-room")
            get_log().error("audit outbox", state=state, rows=waiting, most=self._most)

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
        async with self._database.hot() as connection:
            await connection.execute(_SEND_NEXT, (_BATCH_ROWS,))
        async with self._database.hot() as connection, connection.transaction():
            # In a statement of its own: what is read next must see what the relay before us deleted.
            locked = await connection.execute("select pg_try_advisory_xact_lock(%s)", (_ADVISORY_LOCK,))
            if await locked.fetchone() != (True,):
                return 0
            rows = await (await connection.execute(_SENDING, binary=True)).fetchall()
            if not rows:
                # Chosen while the relay before us delivered them.
                await connection.execute(_SENT)
                return 0
            events = [bytes(event) for row in rows for event in cast("list[bytes]", row[1])]
            last = cast("int", rows[0][2])
            logged = await self._sink.append(self._sign(last + 1, events)) - last
            delivered, counted = [], 0
            for row in rows:
                amount = len(cast("list[bytes]", row[1]))
                if counted + amount > logged:
                    # The batch began with what a relay before us had delivered: the rest goes as a batch of its own.
                    break
                delivered.append(row[0])
                counted += amount
            rest = [row[0] for row in rows[len(delivered) :]]
            await connection.execute(_DELIVERED, (delivered, last + counted, rest))
        self._delivered.add(counted)
        return len(delivered)


_SEND_NEXT = """
update audit_sequence set sending = array(select id from audit_outbox order by id limit %s)
where sending = '{}' and exists (select from audit_outbox)
"""
_SENDING = """
select o.id, o.events, s.last from audit_sequence s join audit_outbox o on o.id = any(s.sending) order by o.id
"""
_SENT = "update audit_sequence set sending = '{}' where sending <> '{}'"
_DELIVERED = """
with delivered as (delete from audit_outbox where id = any(%b::bigint[]))
update audit_sequence set last = %s, sending = %b::bigint[]
"""


async def _wait(event: asyncio.Event, seconds: float) -> None:
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(event.wait(), seconds)
