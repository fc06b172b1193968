"""Containment: decoys, and rotations of tokens."""

from __future__ import annotations

import datetime as dt

from google.protobuf.timestamp_pb2 import Timestamp

from authpipe.oauth.v1 import coordinator_pb2 as pb
from authpipe.oauth.v1 import types_pb2
from authpipe_oauth_coordinator.domain.decoys import Decoys
from authpipe_oauth_coordinator.domain.rotating import Rotating, Rotation, Target
from authpipe_oauth_coordinator.domain.words import Acting
from authpipe_oauth_coordinator.errors import MalformedError
from authpipe_oauth_coordinator.servicer.acting import ActingOf
from authpipe_rpc import current_actor, current_caller
from authpipe_sensitive import Label


class ContainmentServicer:
    """Serves Containment.

    Args:
        decoys: The rules over decoys.
        rotating: The rules over rotations.
        acting_of: Says on whose behalf, from a grant.
    """

    def __init__(self, decoys: Decoys, rotating: Rotating, acting_of: ActingOf) -> None:
        self._decoys = decoys
        self._rotating = rotating
        self._acting_of = acting_of

    async def PlaceDecoy(self, request: pb.PlaceDecoyRequest, _: object) -> pb.PlaceDecoyResponse:
        """Makes a connection a decoy."""
        acting = self._acting_of(request.grant, request.request_id, "place_decoy", request.connection_id)
        await self._decoys.place(acting, request.connection_id)
        return pb.PlaceDecoyResponse()

    async def BeginRotation(self, request: pb.BeginRotationRequest, _: object) -> pb.BeginRotationResponse:
        """Begins to rotate tokens."""
        acting = self._acting(request.grant, request.workspace_id, request.request_id)
        target = Target(acting.workspace, request.connection_id, request.provider_config_id)
        wanted = [request.everything, bool(request.connection_id), bool(request.provider_config_id)]
        # Everything is nobody's but an operator's, and is said, not left out.
        if sum(wanted) > 1 or request.everything == bool(acting.workspace):
            raise MalformedError(field=Label("target"))
        now = dt.datetime.now(dt.UTC)
        rotation = await self._rotating.begin(acting, target, now, dry_run=request.dry_run)
        return pb.BeginRotationResponse(rotation=_rotation(rotation))

    async def GetRotation(self, request: pb.GetRotationRequest, _: object) -> pb.GetRotationResponse:
        """Says how far a rotation is."""
        acting = self._acting(request.grant, "", "")
        workspace = None if current_caller().startswith("operator/") else acting.workspace
        return pb.GetRotationResponse(rotation=_rotation(await self._rotating.get(workspace, request.rotation_id)))

    def _acting(self, token: str, workspace: str, request_id: str) -> Acting:
        """Says on whose behalf tokens are rotated: an operator's, or of who has a grant for that."""
        if current_caller().startswith("operator/"):
            return Acting(workspace, current_actor(), request_id)
        return self._acting_of(token, request_id, "rotate")


def _rotation(rotation: Rotation) -> types_pb2.Rotation:
    return types_pb2.Rotation(
        rotation_id=rotation.id,
        workspace_id=rotation.workspace,
        total_count=rotation.total,
        rotated_count=rotation.rotated,
        failed_count=rotation.failed,
        irreplaceable_count=rotation.irreplaceable,
        begin_time=_time(rotation.began_at),
        end_time=_time(rotation.ended_at) if rotation.ended_at else None,
    )


def _time(moment: dt.datetime) -> Timestamp:
    wire = Timestamp()
    wire.FromDatetime(moment)
    return wire
