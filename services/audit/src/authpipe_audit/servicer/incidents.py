"""Incidents: listed, shown with their evidence, changed, and what is to be told of them."""

from __future__ import annotations

import base64
import binascii
import datetime as dt
import re
from collections.abc import Callable
from typing import Protocol

from google.protobuf.timestamp_pb2 import Timestamp

from authpipe.audit.v1 import audit_pb2 as pb
from authpipe.types.v1 import events_pb2
from authpipe_audit.domain.evidence import Evidences
from authpipe_audit.domain.incidents import Incident, Incidents, IncidentState, Notice
from authpipe_audit.errors import IncidentStateError, NoSuchIncidentError, PageTokenError
from authpipe_rpc import current_caller
from authpipe_sensitive.duties import note_emitted

_LONGEST_PAGE, _USUAL_PAGE = 200, 50
_TOKEN = re.compile(r"([0-9]{1,18})\.(inc_[0-9a-f]{24})", re.ASCII)
_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_MICROSECOND = dt.timedelta(microseconds=1)


class Stored(Protocol):
    """The incidents, as they are read."""

    async def find(self, incident_id: str, workspace: str | None) -> Incident | None:
        """Gives an incident with its evidence; None: there is none, or not of this workspace."""

    async def list_incidents(
        self, workspace: str | None, *, open_only: bool, before: tuple[dt.datetime, str] | None, limit: int
    ) -> list[Incident]:
        """Gives incidents, newest first."""

    async def pending(self, sink: str, now: dt.datetime, limit: int) -> list[Notice]:
        """Gives what a sink has not been told yet."""

    async def note_delivered(self, sink: str, incident_id: str, kind: str, number: int) -> bool:
        """Remembers that a sink has been told."""


class IncidentsServicer:
    """Serves Incidents.

    Args:
        incidents: The rules over them.
        stored: The incidents.
        evidences: Their evidence.
        workspace_of: Gives the workspace of a grant to read its log, and refuses any other.
    """

    def __init__(
        self, incidents: Incidents, stored: Stored, evidences: Evidences, workspace_of: Callable[[str], str]
    ) -> None:
        self._incidents = incidents
        self._stored = stored
        self._evidences = evidences
        self._workspace_of = workspace_of

    async def ListIncidents(self, request: pb.ListIncidentsRequest, _: object) -> pb.ListIncidentsResponse:
        """Lists incidents, newest first."""
        workspace = self._workspace(request.grant, request.workspace_id)
        size = min(request.page_size or _USUAL_PAGE, _LONGEST_PAGE)
        before = _decode(request.page_token) if request.page_token else None
        found = await self._stored.list_incidents(workspace, open_only=request.open_only, before=before, limit=size + 1)
        return pb.ListIncidentsResponse(
            incidents=map(_wire, found[:size]),
            next_page_token=_encode(found[size - 1]) if len(found) > size else "",
        )

    async def GetIncident(self, request: pb.GetIncidentRequest, _: object) -> pb.GetIncidentResponse:
        """Gives an incident with its evidence."""
        found = await self._stored.find(request.incident_id, self._workspace(request.grant, ""))
        if found is None:
            raise NoSuchIncidentError
        return pb.GetIncidentResponse(
            incident=_wire(found),
            evidence=[
                pb.Evidence(
                    trail=int(each.place.trail),  # type: ignore[arg-type]
                    leaf_index=each.place.leaf_index,
                    record=each.record,
                    salt=each.salt,
                    proof=each.proof,
                )
                for each in await self._evidences.of(found)
            ],
        )

    async def ChangeIncident(self, request: pb.ChangeIncidentRequest, _: object) -> pb.ChangeIncidentResponse:
        """Takes an incident to a later state."""
        try:
            state = IncidentState(request.state)
        except ValueError:
            raise IncidentStateError from None
        await self._incidents.change(request.incident_id, state, f"operator:{current_caller()}")
        note_emitted(events_pb2.EVENT_NAME_INCIDENT_CHANGED)
        return pb.ChangeIncidentResponse()

    async def ListNotices(self, request: pb.ListNoticesRequest, _: object) -> pb.ListNoticesResponse:
        """Gives what a sink has not been told yet."""
        limit = min(request.page_size or _USUAL_PAGE, _LONGEST_PAGE)
        found = await self._stored.pending(request.sink, dt.datetime.now(dt.UTC), limit)
        return pb.ListNoticesResponse(
            notices=[pb.Notice(incident=_wire(each.incident), kind=each.kind, number=each.number) for each in found]
        )

    async def ConfirmNotice(self, request: pb.ConfirmNoticeRequest, _: object) -> pb.ConfirmNoticeResponse:
        """Remembers that a sink has been told."""
        if not await self._stored.note_delivered(request.sink, request.incident_id, request.kind, request.number):
            raise NoSuchIncidentError
        return pb.ConfirmNoticeResponse()

    def _workspace(self, grant: str, wanted: str) -> str | None:
        """Gives whose incidents the caller sees: an operator the one he wants, None: everybody's; edge the grant's alone."""
        return (wanted or None) if current_caller().startswith("operator/") else self._workspace_of(grant)


def _wire(incident: Incident) -> pb.Incident:
    return pb.Incident(
        incident_id=incident.id,
        detector=incident.detector,
        severity=int(incident.severity),  # type: ignore[arg-type]
        workspace_id=incident.workspace,
        subject=incident.subject,
        opened_at=_timestamp(incident.opened_at),
        notify_by=_timestamp(incident.notify_by) if incident.notify_by else None,
        state=int(incident.state),  # type: ignore[arg-type]
        changed_at=_timestamp(incident.changed_at),
    )


def _timestamp(time: dt.datetime) -> Timestamp:
    timestamp = Timestamp()
    timestamp.FromDatetime(time)
    return timestamp


def _encode(last: Incident) -> str:
    micros = (last.opened_at - _EPOCH) // _MICROSECOND
    return base64.urlsafe_b64encode(f"{micros}.{last.id}".encode()).decode()


def _decode(token: str) -> tuple[dt.datetime, str]:
    try:
        found = _TOKEN.fullmatch(base64.urlsafe_b64decode(token).decode())
        if found is None:
            raise PageTokenError
        return _EPOCH + int(found[1]) * _MICROSECOND, found[2]
    except (ValueError, OverflowError, binascii.Error):
        raise PageTokenError from None
