"""The log and its incidents, in an operator's own words."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from authpipe_rpc import Peer  # first: it sets grpc's cipher list

from authpipe.audit.v1 import audit_pb2
from authpipe.types.v1 import records_pb2
from authpipe_admin.stores import PAGE, Kept, Logged, Name, logged_of


class StorePeer:
    """vault or clientsecrets.

    Args:
        peer: The connection to it.
    """

    def __init__(self, peer: Peer[Any]) -> None:
        self._peer = peer

    async def digests(self, names: Sequence[Name], after: Name | None) -> dict[Name, Kept]:
        """Gives what the store has of these; of none: the next page of all, in its order."""
        if not names and after is None:
            after = Name("", "", 0)
        request = records_pb2.GetDigestsRequest(
            items=[_ref(name) for name in names], after=_ref(after) if after else None, page_size=PAGE
        )
        response = await self._peer.call_idempotent(lambda stub: stub.GetDigests, request)
        return {_name(each.ref): Kept(each.version, each.digest) for each in response.items}


class LogPeer:
    """audit, of one trail.

    Args:
        peer: The connection to it.
        trail: The trail's number.
    """

    def __init__(self, peer: Peer[Any], trail: int) -> None:
        self._peer = peer
        self._trail = trail

    async def writes(self, names: Sequence[Name], after: Name | None) -> dict[Name, Logged]:
        """Gives what the log has of these and no deletion followed; of none: the next page of all, in its order."""
        request = audit_pb2.GetWritesRequest(
            trail=self._trail,  # type: ignore[arg-type]  # the stub's enum is a NewType of int
            items=[_ref(name) for name in names],
            after=_ref(after) if after else None,
            page_size=PAGE,
        )
        response = await self._peer.call_idempotent(lambda stub: stub.GetWrites, request)
        return {
            _name(each.ref): logged_of(each.record, each.salt, each.entry, each.leaf_index) for each in response.items
        }


def _ref(name: Name) -> records_pb2.RecordRef:
    return records_pb2.RecordRef(
        workspace_id=name.workspace,
        connection_id=name.connection,
        record_class=name.record_class,  # type: ignore[arg-type]  # the stub's enum is a NewType of int
    )


def _name(ref: records_pb2.RecordRef) -> Name:
    return Name(ref.workspace_id, ref.connection_id, int(ref.record_class))


@dataclass(frozen=True, slots=True)
class Incident:
    """An incident as shown; `notify_by` is None where there is nothing to tell a customer."""

    id: str
    detector: str
    severity: str
    workspace: str
    subject: str
    state: str
    opened_at: dt.datetime
    notify_by: dt.datetime | None


@dataclass(frozen=True, slots=True)
class Evidence:
    """An event of an incident: where it stands, its record (empty: expired), its salt, its proof."""

    trail: str
    leaf_index: int
    record: str
    salt: str
    proof: str


class IncidentsPeer:
    """The incidents.

    Args:
        peer: The connection to audit.
    """

    def __init__(self, peer: Peer[Any]) -> None:
        self._peer = peer

    async def close(self) -> None:
        """Closes the connection."""
        await self._peer.close()

    async def list_incidents(self, workspace: str, *, open_only: bool) -> list[Incident]:
        """Gives all incidents, newest first."""
        found, token = [], ""
        while True:
            request = audit_pb2.ListIncidentsRequest(
                workspace_id=workspace, open_only=open_only, page_size=200, page_token=token
            )
            response = await self._peer.call_idempotent(lambda stub: stub.ListIncidents, request)
            found += [_incident(each) for each in response.incidents]
            token = response.next_page_token
            if not token:
                return found

    async def get(self, incident_id: str) -> tuple[Incident, list[Evidence]]:
        """Gives an incident with its evidence."""
        request = audit_pb2.GetIncidentRequest(incident_id=incident_id)
        response = await self._peer.call_idempotent(lambda stub: stub.GetIncident, request)
        return _incident(response.incident), [
            Evidence(
                audit_pb2.Trail.Name(each.trail).removeprefix("TRAIL_").lower().replace("_", "-"),
                each.leaf_index,
                each.record.decode(),
                each.salt.hex(),
                each.proof,
            )
            for each in response.evidence
        ]

    async def change(self, incident_id: str, state: str) -> None:
        """Takes an incident to a later state."""
        number = audit_pb2.IncidentState.Value(f"INCIDENT_STATE_{state.upper()}")
        request = audit_pb2.ChangeIncidentRequest(incident_id=incident_id, state=number)
        await self._peer.call(lambda stub: stub.ChangeIncident, request)


def _incident(wire: audit_pb2.Incident) -> Incident:
    return Incident(
        wire.incident_id,
        wire.detector,
        audit_pb2.Severity.Name(wire.severity).removeprefix("SEVERITY_").lower(),
        wire.workspace_id,
        wire.subject,
        audit_pb2.IncidentState.Name(wire.state).removeprefix("INCIDENT_STATE_").lower(),
        wire.opened_at.ToDatetime(dt.UTC),
        wire.notify_by.ToDatetime(dt.UTC) if wire.HasField("notify_by") else None,
    )
