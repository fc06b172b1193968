"""Incidents: rows are added, in one transaction with their events; none is changed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, cast

from authpipe_audit.domain.detecting.words import Finding, Severity
from authpipe_audit.domain.growing import Batch
from authpipe_audit.domain.incidents import (
    CHANGED,
    MOST_EVIDENCE,
    OPENED,
    REMINDERS,
    Incident,
    IncidentState,
    Notice,
    Place,
)
from authpipe_audit.domain.trails import Trail
from authpipe_audit.store.finding import number_of, value_of
from authpipe_audit.store.log import Log
from authpipe_database import Database

_TRAIL = Trail.CONTROL
_COLUMNS = "i.id, i.detector, i.severity, i.workspace_id, i.subject, i.opened_at, i.notify_by, c.state, c.at"
_NEWEST_CHANGE = "cross join lateral (select state, at from incident_changes where incident_id = i.id order by number desc limit 1) c"


class IncidentTable:
    """Incidents in PostgreSQL.

    Args:
        database: audit's own database.
        log: The log.
    """

    def __init__(self, database: Database, log: Log) -> None:
        self._database = database
        self._log = log

    async def open(
        self, findings: Sequence[tuple[Incident, Finding]], make: Callable[[int, Sequence[Incident]], Batch]
    ) -> None:
        """Opens incidents with their events; findings of a subject that has an open one become evidence of that."""
        async with self._log.own(_TRAIL) as own:
            new = []
            for incident, finding in findings:
                found = await own.connection.execute(_OPEN_OF_SUBJECT, _names(incident))
                row = await found.fetchone()
                if row is None:
                    inserted = await own.connection.execute(_INSERT, _values(incident))
                    if inserted.rowcount == 0:
                        continue  # it was raised, and is closed by now
                    new.append(incident)
                of = incident.id if row is None else cast("str", row[0])
                await own.connection.execute(
                    _EVIDENCE,
                    {
                        "incident": of,
                        "trail": int(finding.seen.trail),
                        "leaf": finding.seen.leaf_index,
                        "number": number_of(*finding.subject),
                        "value": value_of(finding.subject.name),
                        "workspace": finding.subject.workspace,
                        "most": MOST_EVIDENCE,
                        "before": MOST_EVIDENCE // 2 if row is None else 0,
                    },
                )
            if new:
                own.batch = make(own.sequence, new)

    async def change(
        self,
        incident_id: str,
        state: IncidentState,
        actor: str,
        at: datetime,
        make: Callable[[int, Incident], Batch],
    ) -> Incident | None:
        """Adds a change with its event, when the state is a later one; gives the incident before it."""
        async with self._log.own(_TRAIL) as own:
            found = await own.connection.execute(
                f"select {_COLUMNS} from incidents i {_NEWEST_CHANGE} where i.id = %s", (incident_id,)
            )
            row = await found.fetchone()
            if row is None:
                return None
            incident = _incident(row)
            if incident.state < state:
                await own.connection.execute(
                    "insert into incident_changes (incident_id, number, state, actor, at) select %s, max(number) + 1, %s,"
                    " %s, %s from incident_changes where incident_id = %s",
                    (incident_id, int(state), actor, at, incident_id),
                )
                own.batch = make(own.sequence, incident)
        return incident

    async def find(self, incident_id: str, workspace: str | None) -> Incident | None:
        """Gives an incident with its evidence; None: there is none, or not of this workspace."""
        async with self._database.hot() as connection:
            found = await connection.execute(
                f"select {_COLUMNS} from incidents i {_NEWEST_CHANGE}"
                " where i.id = %s and (%s::text is null or i.workspace_id = %s)",
                (incident_id, workspace, workspace),
            )
            row = await found.fetchone()
            if row is None:
                return None
            places = await connection.execute(
                "select trail, leaf_index from incident_evidence where incident_id = %s order by trail, leaf_index",
                (incident_id,),
            )
            return _incident(row, tuple(Place(Trail(each[0]), each[1]) for each in await places.fetchall()))  # type: ignore[arg-type]

    async def list_incidents(
        self, workspace: str | None, *, open_only: bool, before: tuple[datetime, str] | None, limit: int
    ) -> list[Incident]:
        """Gives incidents, newest first."""
        values: dict[str, Any] = {"workspace": workspace, "limit": limit, "closed": int(IncidentState.CLOSED)}
        conditions = ["true"]
        if workspace is not None:
            conditions.append("i.workspace_id = %(workspace)s")
        if open_only:
            conditions.append("c.state < %(closed)s")
        if before is not None:
            conditions.append("(i.opened_at, i.id) < (%(at)s, %(id)s)")
            values |= {"at": before[0], "id": before[1]}
        async with self._database.hot() as connection:
            found = await connection.execute(
                f"select {_COLUMNS} from incidents i {_NEWEST_CHANGE} where {' and '.join(conditions)}"
                " order by i.opened_at desc, i.id desc limit %(limit)s",
                values,
            )
            return [_incident(row) for row in await found.fetchall()]

    async def pending(self, sink: str, now: datetime, limit: int) -> list[Notice]:
        """Gives what a sink has not been told yet, the oldest first."""
        values = {
            "sink": sink, "now": now, "limit": limit, "told": int(IncidentState.CUSTOMER_NOTIFIED),
            "kinds": list(REMINDERS), "befores": list(REMINDERS.values()), "opened": OPENED, "changed": CHANGED,
        }  # fmt: skip
        async with self._database.hot() as connection:
            found = await connection.execute(_PENDING, values)
            rows = await found.fetchall()
        return [Notice(_incident(row), cast("str", row[9]), cast("int", row[10])) for row in rows]

    async def note_delivered(self, sink: str, incident_id: str, kind: str, number: int) -> bool:
        """Remembers that a sink has been told; False: there is no such incident."""
        async with self._database.hot() as connection:
            found = await connection.execute("select from incidents where id = %s", (incident_id,))
            if await found.fetchone() is None:
                return False
            await connection.execute(
                "insert into notices_delivered (incident_id, kind, number, sink) values (%s, %s, %s, %s)"
                " on conflict do nothing",
                (incident_id, kind, number, sink),
            )
            return True

    async def evidence(self, incident: Incident) -> list[tuple[Place, bytes, bytes]]:
        """Gives of each piece of evidence that has its body still: place, record, salt."""
        trails = [int(each.trail) for each in incident.evidence]
        leaves = [each.leaf_index for each in incident.evidence]
        async with self._database.hot() as connection:
            found = await connection.execute(_BODIES, (trails, leaves), binary=True)
            return [
                (Place(Trail(row[0]), row[1]), row[2], row[3])  # type: ignore[arg-type, misc]
                for row in await found.fetchall()
            ]


def _incident(row: Sequence[object], evidence: tuple[Place, ...] = ()) -> Incident:
    id_, detector, severity, workspace, subject, opened_at, notify_by, state, changed_at = cast("Any", row[:9])
    return Incident(
        id_, detector, Severity(severity), workspace, subject, opened_at, notify_by, IncidentState(state), changed_at,
        evidence,
    )  # fmt: skip


def _names(incident: Incident) -> dict[str, Any]:
    return {
        "workspace": incident.workspace, "subject": incident.subject, "detector": incident.detector,
        "closed": int(IncidentState.CLOSED),
    }  # fmt: skip


def _values(incident: Incident) -> dict[str, Any]:
    return {
        "id": incident.id, "detector": incident.detector, "severity": int(incident.severity),
        "workspace": incident.workspace, "subject": incident.subject, "opened_at": incident.opened_at,
        "notify_by": incident.notify_by, "open": int(IncidentState.OPEN),
    }  # fmt: skip


_OPEN_OF_SUBJECT = f"""
select i.id from incidents i {_NEWEST_CHANGE} where i.workspace_id = %(workspace)s and i.subject = %(subject)s
and i.detector = %(detector)s and c.state < %(closed)s order by i.opened_at desc limit 1
"""
_INSERT = """
with new as (
    insert into incidents (id, detector, severity, workspace_id, subject, opened_at, notify_by)
    values (%(id)s, %(detector)s, %(severity)s, %(workspace)s, %(subject)s, %(opened_at)s, %(notify_by)s)
    on conflict do nothing returning id)
insert into incident_changes (incident_id, number, state, actor, at)
select id, 0, %(open)s, 'service:audit', %(opened_at)s from new
"""
# The event at which it became alarming, and some of the same subject from the hours around it, in whichever trail.
_EVIDENCE = """
insert into incident_evidence (incident_id, trail, leaf_index)
select %(incident)s, trail, leaf_index from (
    select %(trail)s::smallint as trail, %(leaf)s::bigint as leaf_index
    union
    (select b.trail, b.leaf_index from bodies b
     where b.workspace_id = %(workspace)s and b.found_by @> array[%(number)s::bigint]
     and position(%(value)s in b.record) > 0
     and not (b.trail = %(trail)s and b.leaf_index >= %(leaf)s)
     and b.time >= (select time - interval '1 hour' from bodies where trail = %(trail)s and leaf_index = %(leaf)s)
     and b.time <= (select time + interval '1 hour' from bodies where trail = %(trail)s and leaf_index = %(leaf)s)
     order by b.time desc limit %(before)s)) as all_of_it
where (select count(*) from incident_evidence where incident_id = %(incident)s) < %(most)s
on conflict do nothing
"""
_PENDING = f"""
select {_COLUMNS}, n.kind, n.number from incidents i {_NEWEST_CHANGE}
cross join lateral (
    select %(opened)s as kind, 0 as number, i.opened_at as at
    union all
    select %(changed)s, number, incident_changes.at from incident_changes where incident_id = i.id and number > 0
    union all
    select kind, 0, i.notify_by - before from unnest(%(kinds)s::text[], %(befores)s::interval[]) as r(kind, before)
    where c.state < %(told)s and i.notify_by - before <= %(now)s) as n
where n.at > %(now)s - interval '7 days' and not exists (
    select from notices_delivered d where d.incident_id = i.id and d.kind = n.kind and d.number = n.number
    and d.sink = %(sink)s)
order by n.at, i.id, n.number limit %(limit)s
"""
_BODIES = """
select trail, leaf_index, b.record, b.salt from unnest(%b::smallint[], %b::bigint[]) as w(trail, leaf_index)
join bodies b using (trail, leaf_index)
"""
