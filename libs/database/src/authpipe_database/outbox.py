"""The audit outbox: an event commits with the change it tells of. A relay (libs/relay) delivers it to audit.

Events stand here in their canonical encoding (libs/transparency): the bytes that were durable with the change are the
bytes that their emitter signs and that the log commits to.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Container, Sequence

import psycopg
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql
from sqlalchemy.ext.asyncio import AsyncConnection

from authpipe.types.v1 import effects_pb2
from authpipe.types.v1 import events_pb2, records_pb2
from authpipe_sensitive import AuditEntry, DomainError, Status
from authpipe_sensitive.duties import note_emitted
from authpipe_telemetry import current_trace_id
from authpipe_transparency import FormatError, encode_event, time_text

_ID_SIZE = 16


OUTBOX_SQL = """
create table audit_outbox (id bigint generated always as identity primary key, events bytea[] not null);
create table audit_sequence (
  only_row boolean primary key default true check (only_row), last bigint not null, sending bigint[] not null default '{}'
);
insert into audit_sequence (last) values (0);
"""


def outbox_grants(role: str) -> str:
    """Gives the SQL that lets a process write and relay events, and nothing more."""
    return f"""
grant select, insert, delete on audit_outbox to {role};
grant select, update on audit_sequence to {role};
"""


class AuditBacklogError(DomainError):
    """The audit log takes no events, and there is no room to keep more. What gives or uses access waits until it does.

    Disconnecting, revoking and erasing go on. Bring audit back; what waits arrives by itself.
    """

    reason = "AUDIT_BACKLOG"
    status = Status.UNAVAILABLE


class Outbox:
    """Writes events beside the change they tell of, and wakes the relay of this process.

    Attributes:
        written: Set when events were written here; the relay clears it.
        is_full: Whether so many wait that nothing more is begun; the relay looks once a second.
    """

    def __init__(self) -> None:
        self.written = asyncio.Event()
        self.is_full = False

    def require_room(self, entries: Sequence[AuditEntry]) -> None:
        """Returns when the acts of these entries may be done.

        Raises:
            AuditBacklogError: One of them gives or uses access, and the outbox is full.
        """
        if self.is_full and any(map(enlarges, entries)):
            raise AuditBacklogError

    def encode(self, entries: Sequence[AuditEntry]) -> list[bytes]:
        """Encodes events for whoever writes them himself, beside a change of his.

        Raises:
            AuditBacklogError: One of them gives or uses access, and the outbox is full.
            FormatError: One of them cannot stand in the log.
        """
        self.require_room(entries)
        return encode(entries)

    async def append(self, connection: AsyncConnection, *entries: AuditEntry) -> None:
        """Writes events inside the caller's transaction. They are durable when it commits, not before."""
        await connection.execute(
            sa.text("insert into audit_outbox (events) values (:events)").bindparams(
                sa.bindparam("events", value=self.encode(entries), type_=postgresql.ARRAY(sa.LargeBinary))
            )
        )
        self.note(entries)

    async def append_hot(
        self, connection: psycopg.AsyncConnection[tuple[object, ...]], entries: Sequence[AuditEntry]
    ) -> None:
        """Writes events on a hot connection: one durable insert for a whole batch. They are durable on return."""
        await connection.execute("insert into audit_outbox (events) values (%b)", (self.encode(entries),))
        self.note(entries)

    def note(self, entries: Sequence[AuditEntry]) -> None:
        """Says that events are in the outbox, whoever wrote them there: the relay has work, and the call did its duty."""
        self.written.set()
        for entry in entries:
            note_emitted(_NAMES[entry.name])


def encode(entries: Sequence[AuditEntry]) -> list[bytes]:
    """Gives entries an id and the time, and encodes each canonically.

    Raises:
        FormatError: A member of one is not what it may be, or not in the catalogue: nothing else can stand in the log.
    """
    # One call of the kernel for a batch: it costs about 7 µs, as much as all the rest of an event.
    ids = os.urandom(_ID_SIZE * len(entries)).hex()
    now, trace = time_text(time.time_ns()), current_trace_id()
    size = 2 * _ID_SIZE
    return [
        encode_event(
            {
                "actor": entry.actor,
                "class": _CLASSES[entry.record_class],
                "count": entry.amount,
                "digest": entry.digest,
                "grant": entry.grant_id,
                "id": ids[size * index : size * (index + 1)],
                "name": _checked(entry.name, _NAMES),
                "outcome": entry.outcome,
                "provider": entry.provider,
                "purpose": _checked(entry.purpose, _PURPOSES),
                "reason": entry.reason,
                "records": " ".join(f"{_CLASSES[number]}:{version}" for number, version in entry.records),
                "request": entry.request_id,
                "source": entry.source,
                "target": entry.target,
                "time": now,
                "trace": trace,
                "until": entry.until,
                "version": entry.record_version,
                "workspace": entry.workspace_id,
            }
        )
        for index, entry in enumerate(entries)
    ]


def _checked(word: str, allowed: Container[str]) -> str:
    if word not in allowed:
        raise FormatError("An event's name or purpose is not in the catalogue (docs/audit-events.md).")
    return word


def enlarges(entry: AuditEntry) -> bool:
    """Says whether an act gives or uses access: it is not done without room for its event."""
    return entry.name in _ENLARGING and entry.outcome == "SUCCEEDED" and entry.purpose != "revoke"


_NAMES = {name.removeprefix("EVENT_NAME_"): number for name, number in events_pb2.EventName.items()}
_ENLARGING = {
    value.name.removeprefix("EVENT_NAME_")
    for value in events_pb2.EventName.DESCRIPTOR.values
    if value.GetOptions().Extensions[effects_pb2.effect] == effects_pb2.EFFECT_ENLARGES
}
_PURPOSES = {name.removeprefix("PURPOSE_").lower() for name, _ in records_pb2.Purpose.items()} | {""}
_CLASSES: dict[int, str] = {
    int(number): name.removeprefix("RECORD_CLASS_").lower() if number else ""
    for name, number in records_pb2.RecordClass.items()
}
