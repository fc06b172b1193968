"""Incidents: what detectors found, with its evidence, until somebody has looked into it; and by when customers must be told.

An incident is opened by the first finding of a detector about a subject, and further ones become evidence of it until it is
closed. It is never changed: each change is a row, and an event in the log, of its own.
"""

from __future__ import annotations

import datetime as dt
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple, Protocol

from authpipe_audit.domain.detecting.words import Finding, Severity
from authpipe_audit.domain.growing import Batch
from authpipe_audit.domain.reading import new_event
from authpipe_audit.domain.stating import EMITTER, SignedEvents
from authpipe_audit.domain.trails import Trail
from authpipe_audit.errors import IncidentStateError, NoSuchIncidentError
from authpipe_transparency import encode_event, time_text

# By when a customer has to be told of what may have exposed credentials, and how long before we remind of it.
NOTIFY_WITHIN = dt.timedelta(hours=24)
REMINDERS: Mapping[str, dt.timedelta] = {
    "DUE_IN_12_HOURS": dt.timedelta(hours=12),
    "DUE_IN_4_HOURS": dt.timedelta(hours=4),
    "DUE_IN_1_HOUR": dt.timedelta(hours=1),
    "OVERDUE": dt.timedelta(0),
}
OPENED, CHANGED = "OPENED", "CHANGED"
MOST_EVIDENCE = 20


class IncidentState(IntEnum):
    """Where the work on an incident stands. It goes forward only."""

    OPEN = 1
    ACKNOWLEDGED = 2
    CUSTOMER_NOTIFIED = 3
    CLOSED = 4


class Place(NamedTuple):
    """Where an event stands in the log."""

    trail: Trail
    leaf_index: int


@dataclass(frozen=True, slots=True)
class Incident:
    """An incident.

    Args:
        id: Its id; the same finding makes the same.
        detector: Who found it.
        severity: How bad it is.
        workspace: Whose; empty: the installation's.
        subject: A connection, API key, workspace, Provider.
        opened_at: When.
        notify_by: By when the customer has to be told; None: there is nothing to tell.
        state: Where it stands.
        changed_at: Since when.
        evidence: The events.
    """

    id: str
    detector: str
    severity: Severity
    workspace: str
    subject: str
    opened_at: dt.datetime
    notify_by: dt.datetime | None
    state: IncidentState
    changed_at: dt.datetime
    evidence: tuple[Place, ...] = ()


class Notice(NamedTuple):
    """What a sink is told.

    Args:
        incident: Of which incident, as it stands now.
        kind: OPENED, CHANGED, or one of the reminders.
        number: With CHANGED: of which change; otherwise 0.
    """

    incident: Incident
    kind: str
    number: int


class Table(Protocol):
    """The incidents in the log's database. Rows are added, none is changed."""

    async def open(
        self, findings: Sequence[tuple[Incident, Finding]], make: Callable[[int, Sequence[Incident]], Batch]
    ) -> None:
        """Opens incidents, in one transaction with the events that `make` makes of those that are new.

        A finding of a subject of which the detector has an incident that is not closed becomes evidence of that one.
        """

    async def change(
        self,
        incident_id: str,
        state: IncidentState,
        actor: str,
        at: dt.datetime,
        make: Callable[[int, Incident], Batch],
    ) -> Incident | None:
        """Adds a change, in one transaction with its event, when the state is a later one; gives the incident before it.

        None: there is no such incident.
        """


class Incidents:
    """The rules over incidents.

    Args:
        table: The incidents.
        sign: Signs events as this process: the first one's number, the events.
        nanoseconds: Since the epoch.
        randomness: Gives random bytes, for the ids of events.
    """

    def __init__(
        self,
        table: Table,
        sign: Callable[[int, Sequence[bytes]], SignedEvents],
        nanoseconds: Callable[[], int],
        randomness: Callable[[int], bytes],
    ) -> None:
        self._table = table
        self._sign = sign
        self._nanoseconds = nanoseconds
        self._randomness = randomness

    async def raise_all(self, findings: Sequence[Finding]) -> None:
        """Raises incidents of findings, durable on return; of what was raised already, nothing."""
        now = self._now()
        await self._table.open([(incident_of(finding, now), finding) for finding in findings], self._opened)

    async def change(self, incident_id: str, state: IncidentState, actor: str) -> None:
        """Takes an incident to a later state.

        Raises:
            NoSuchIncidentError: There is none.
            IncidentStateError: It is there already, or further.
        """
        before = await self._table.change(
            incident_id,
            state,
            actor,
            self._now(),
            lambda sequence, incident: self._batch(sequence, [self._event("INCIDENT_CHANGED", incident, actor, state)]),
        )
        if before is None:
            raise NoSuchIncidentError
        if before.state >= state:
            raise IncidentStateError

    def _opened(self, sequence: int, incidents: Sequence[Incident]) -> Batch:
        actor = f"service:{EMITTER}"
        return self._batch(
            sequence, [self._event("INCIDENT_OPENED", each, actor, IncidentState.OPEN) for each in incidents]
        )

    def _batch(self, sequence: int, events: Sequence[bytes]) -> Batch:
        signed = self._sign(sequence, events)
        return Batch(EMITTER, sequence, [new_event(each) for each in events], signed.signature, signed.chain)

    def _event(self, name: str, incident: Incident, actor: str, state: IncidentState) -> bytes:
        return encode_event(
            {
                "actor": actor,
                "id": self._randomness(16).hex(),
                "name": name,
                "outcome": "SUCCEEDED",
                "reason": incident.detector if state is IncidentState.OPEN else state.name,
                "target": incident.id,
                "time": time_text(self._nanoseconds()),
                "workspace": incident.workspace,
            }
        )

    def _now(self) -> dt.datetime:
        return dt.datetime.fromtimestamp(self._nanoseconds() / 10**9, dt.UTC)


def incident_of(finding: Finding, now: dt.datetime) -> Incident:
    """Makes the incident of a finding. The same finding makes the same id."""
    seen, subject = finding.seen, finding.subject
    name = f"{finding.detector}\n{subject.workspace}\n{subject.name}\n{int(seen.trail)}\n{seen.leaf_index}"
    concerns = bool(subject.workspace) and finding.severity > Severity.LOW
    return Incident(
        f"inc_{hashlib.sha256(name.encode()).hexdigest()[:24]}",
        finding.detector,
        finding.severity,
        subject.workspace,
        subject.name,
        now,
        now + NOTIFY_WITHIN if concerns else None,
        IncidentState.OPEN,
        now,
        (Place(seen.trail, seen.leaf_index),),
    )
