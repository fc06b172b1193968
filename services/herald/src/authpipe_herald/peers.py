"""Other services, in herald's own words: audit and authority."""

from __future__ import annotations

import datetime as dt

from authpipe.audit.v1 import audit_pb2, audit_pb2_grpc
from authpipe.authority.v1 import members_pb2, members_pb2_grpc
from authpipe_herald.domain.words import Notice
from authpipe_rpc import Peer


class AuditPeer:
    """audit.

    Args:
        peer: The connection to it.
    """

    def __init__(self, peer: Peer[audit_pb2_grpc.IncidentsAsyncStub]) -> None:
        self._peer = peer

    async def pending(self, sink: str) -> list[Notice]:
        """Gives what a sink has not been told yet, the oldest first."""
        request = audit_pb2.ListNoticesRequest(sink=sink)
        response = await self._peer.call_idempotent(lambda stub: stub.ListNotices, request)
        return [_notice(each) for each in response.notices]

    async def confirm(self, sink: str, notice: Notice) -> None:
        """Says that it has been told."""
        request = audit_pb2.ConfirmNoticeRequest(
            sink=sink, incident_id=notice.incident, kind=notice.kind, number=notice.number
        )
        await self._peer.call_idempotent(lambda stub: stub.ConfirmNotice, request)


class AuthorityPeer:
    """authority, which knows who owns a workspace.

    Args:
        peer: The connection to it.
    """

    def __init__(self, peer: Peer[members_pb2_grpc.MembersAsyncStub]) -> None:
        self._peer = peer

    async def owners(self, workspace: str) -> tuple[str, list[str]]:
        """Gives a workspace's name and its owners' addresses."""
        request = members_pb2.ListOwnersRequest(workspace_id=workspace)
        answer = await self._peer.call_idempotent(lambda stub: stub.ListOwners, request)
        return answer.workspace_display_name, list(answer.emails)


def _notice(notice: audit_pb2.Notice) -> Notice:
    incident = notice.incident
    return Notice(
        incident=incident.incident_id,
        kind=notice.kind,
        number=notice.number,
        detector=incident.detector,
        severity=audit_pb2.Severity.Name(incident.severity).removeprefix("SEVERITY_"),
        workspace=incident.workspace_id,
        subject=incident.subject,
        opened_at=incident.opened_at.ToDatetime(dt.UTC),
        notify_by=incident.notify_by.ToDatetime(dt.UTC) if incident.HasField("notify_by") else None,
        state=audit_pb2.IncidentState.Name(incident.state).removeprefix("INCIDENT_STATE_"),
    )
