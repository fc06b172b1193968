"""audit, for what was found in the log, in edge's own words."""

from __future__ import annotations

import datetime as dt

from authpipe.audit.v1 import audit_pb2 as pb
from authpipe.audit.v1 import audit_pb2_grpc
from authpipe_gateway_edge.domain.logged import Evidence, Incident
from authpipe_gateway_edge.domain.words import Verdict
from authpipe_rpc import Peer


class IncidentsPeer:
    """The incidents.

    Args:
        peer: The connection to audit.
    """

    def __init__(self, peer: Peer[audit_pb2_grpc.IncidentsAsyncStub]) -> None:
        self._peer = peer

    async def list_incidents(
        self, verdict: Verdict, *, open_only: bool, size: int, token: str
    ) -> tuple[list[Incident], str]:
        """Gives a page of incidents, newest first."""
        request = pb.ListIncidentsRequest(
            grant=verdict.manage_grant, open_only=open_only, page_size=size, page_token=token
        )
        response = await self._peer.call_idempotent(lambda stub: stub.ListIncidents, request)
        return [_incident(each) for each in response.incidents], response.next_page_token

    async def get(self, verdict: Verdict, incident_id: str) -> Incident:
        """Gives an incident with its evidence."""
        request = pb.GetIncidentRequest(grant=verdict.manage_grant, incident_id=incident_id)
        response = await self._peer.call_idempotent(lambda stub: stub.GetIncident, request)
        return _incident(response.incident, tuple(map(_evidence, response.evidence)))


def _incident(wire: pb.Incident, evidence: tuple[Evidence, ...] = ()) -> Incident:
    return Incident(
        id=wire.incident_id,
        detector=wire.detector,
        severity=pb.Severity.Name(wire.severity).removeprefix("SEVERITY_").lower(),
        subject=wire.subject,
        state=pb.IncidentState.Name(wire.state).removeprefix("INCIDENT_STATE_").lower(),
        opened_at=wire.opened_at.ToDatetime(dt.UTC),
        changed_at=wire.changed_at.ToDatetime(dt.UTC),
        notify_by=wire.notify_by.ToDatetime(dt.UTC) if wire.HasField("notify_by") else None,
        evidence=evidence,
    )


def _evidence(wire: pb.Evidence) -> Evidence:
    return Evidence(
        trail=pb.Trail.Name(wire.trail).removeprefix("TRAIL_").lower().replace("_", "-"),
        leaf_index=wire.leaf_index,
        record=wire.record.decode(),
        salt=wire.salt.hex(),
        proof=wire.proof,
    )
