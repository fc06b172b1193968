"""The wire side of audit: protobuf to rules and back."""

from __future__ import annotations

import base64
import binascii
import datetime as dt
from collections.abc import Callable

from google.protobuf.message import DecodeError

from authpipe.audit.v1 import audit_pb2 as pb
from authpipe.types.v1 import events_pb2
from authpipe_audit.errors import MalformedEventError, NoCheckpointError, PageTokenError
from authpipe_audit.store import NewEvent, Store
from authpipe_grants import Grant, GrantError
from authpipe_rpc import current_caller

_LONGEST_PAGE, _USUAL_PAGE = 200, 50


class AuditServicer:
    """Serves Audit.

    Args:
        store: The log.
        verify: Verifies grants.
        audience: What a grant must name to list here.
    """

    def __init__(self, store: Store, verify: Callable[[str], Grant], audience: str) -> None:
        self._store = store
        self._verify = verify
        self._audience = audience

    async def Append(self, request: pb.AppendRequest, _: object) -> pb.AppendResponse:
        """Appends events; who emitted them is what the certificate says."""
        emitter = str(current_caller())
        events = [
            _new_event(data, emitter, request.first_sequence + offset) for offset, data in enumerate(request.events)
        ]
        return pb.AppendResponse(tree_size=await self._store.append(events))

    async def List(self, request: pb.ListRequest, _: object) -> pb.ListResponse:
        """Lists a workspace's events."""
        grant = self._verify(request.grant)
        wrong_place = self._audience not in grant.audience or grant.consumer != current_caller()
        if grant.purpose != "manage.read_audit" or grant.issuer != "gateway/authority" or wrong_place:
            raise GrantError
        size = min(request.page_size or _USUAL_PAGE, _LONGEST_PAGE)
        rows = await self._store.list_events(
            grant.workspace,
            name=int(request.name),
            target=request.target,
            since=request.since.ToDatetime(dt.UTC) if request.HasField("since") else None,
            until=request.until.ToDatetime(dt.UTC) if request.HasField("until") else None,
            before=_decode_token(request.page_token),
            limit=size + 1,
        )
        response = pb.ListResponse(
            events=[
                pb.LoggedEvent(event=events_pb2.AuditEvent.FromString(body), leaf_index=index)
                for index, body in rows[:size]
            ]
        )
        if len(rows) > size:
            response.next_page_token = base64.urlsafe_b64encode(b"%d" % rows[size - 1][0]).decode()
        return response

    async def GetCheckpoint(self, _: pb.GetCheckpointRequest, __: object) -> pb.GetCheckpointResponse:
        """Gives the newest signed checkpoint."""
        found = await self._store.checkpoint()
        if found is None:
            raise NoCheckpointError
        return pb.GetCheckpointResponse(checkpoint=found[1])


def _new_event(data: bytes, emitter: str, sequence: int) -> NewEvent:
    try:
        event = events_pb2.AuditEvent.FromString(data)
    except DecodeError:
        raise MalformedEventError from None
    if not event.event_id or event.name < events_pb2.EVENT_NAME_RECORD_KEY_RELEASED or not event.HasField("time"):
        raise MalformedEventError
    event.emitter = emitter
    event.sequence = sequence
    return NewEvent(
        event.event_id,
        event.workspace_id,
        int(event.name),
        event.target,
        event.time.ToDatetime(dt.UTC),
        event.SerializeToString(deterministic=True),
    )


def _decode_token(token: str) -> int | None:
    if not token:
        return None
    try:
        return int(base64.urlsafe_b64decode(token).decode())
    except (ValueError, binascii.Error):
        raise PageTokenError from None
