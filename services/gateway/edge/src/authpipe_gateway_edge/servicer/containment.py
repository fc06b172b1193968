"""Incidents, and what takes access away in one act."""

from __future__ import annotations

from authpipe.gateway.v1 import gateway_pb2 as pb
from authpipe_gateway_edge.domain import logged, words
from authpipe_gateway_edge.domain.containing import Containing
from authpipe_gateway_edge.domain.sources import Sources
from authpipe_gateway_edge.domain.words import Caller
from authpipe_gateway_edge.servicer.public import Context, PublicServicer, after, page_size, to_wire_time


class ContainmentServicer(PublicServicer):
    """Serves authpipe.gateway.v1.Containment.

    Args:
        containing: The rules over incidents and containment.
        sources: Tells where requests come from.
    """

    def __init__(self, containing: Containing, sources: Sources) -> None:
        super().__init__(sources)
        self._containing = containing

    async def PlaceDecoy(self, request: pb.PlaceDecoyRequest, context: Context) -> pb.PlaceDecoyResponse:
        """Makes a connection a decoy."""
        return await self.run(
            context,
            lambda caller: after(
                self._containing.place_decoy(caller, request.connection_id), lambda _: pb.PlaceDecoyResponse()
            ),
        )

    async def ListIncidents(self, request: pb.ListIncidentsRequest, context: Context) -> pb.ListIncidentsResponse:
        """Lists what was found."""

        async def work(caller: Caller) -> pb.ListIncidentsResponse:
            found, token = await self._containing.list_incidents(
                caller, page_size(request.page_size), request.page_token, open_only=request.open_only
            )
            return pb.ListIncidentsResponse(incidents=map(_incident, found), next_page_token=token)

        return await self.run(context, work)

    async def GetIncident(self, request: pb.GetIncidentRequest, context: Context) -> pb.Incident:
        """Gives an incident with its evidence."""
        return await self.run(
            context, lambda caller: after(self._containing.get_incident(caller, request.incident_id), _incident)
        )

    async def RotateTokens(self, request: pb.RotateTokensRequest, context: Context) -> pb.Rotation:
        """Begins to rotate tokens."""
        return await self.run(
            context,
            lambda caller: after(
                self._containing.rotate(
                    caller, request.connection_id, request.provider_config_id, dry_run=request.dry_run
                ),
                _rotation,
            ),
        )

    async def GetRotation(self, request: pb.GetRotationRequest, context: Context) -> pb.Rotation:
        """Says how far a rotation is."""
        return await self.run(
            context, lambda caller: after(self._containing.get_rotation(caller, request.rotation_id), _rotation)
        )

    async def RevokeApiKeys(self, request: pb.RevokeApiKeysRequest, context: Context) -> pb.RevokeApiKeysResponse:
        """Revokes all API keys of the workspace."""
        return await self.run(
            context,
            lambda caller: after(
                self._containing.revoke_api_keys(caller, dry_run=request.dry_run),
                lambda count: pb.RevokeApiKeysResponse(revoked_count=count),
            ),
        )

    async def FreezeWorkspace(self, request: pb.FreezeWorkspaceRequest, context: Context) -> pb.FreezeWorkspaceResponse:
        """Freezes the workspace."""
        return await self.run(
            context,
            lambda caller: after(
                self._containing.freeze(caller, dry_run=request.dry_run),
                lambda was_frozen: pb.FreezeWorkspaceResponse(was_frozen=was_frozen),
            ),
        )


def _incident(incident: logged.Incident) -> pb.Incident:
    return pb.Incident(
        incident_id=incident.id,
        detector=incident.detector,
        severity=incident.severity,
        subject=incident.subject,
        state=incident.state,
        open_time=to_wire_time(incident.opened_at),
        change_time=to_wire_time(incident.changed_at),
        notify_by=to_wire_time(incident.notify_by),
        evidence=[
            pb.Evidence(
                trail=each.trail, leaf_index=each.leaf_index, record=each.record, salt=each.salt, proof=each.proof
            )
            for each in incident.evidence
        ],
    )


def _rotation(rotation: words.Rotation) -> pb.Rotation:
    return pb.Rotation(
        rotation_id=rotation.id,
        total_count=rotation.total,
        rotated_count=rotation.rotated,
        failed_count=rotation.failed,
        irreplaceable_count=rotation.irreplaceable,
        begin_time=to_wire_time(rotation.began_at),
        end_time=to_wire_time(rotation.ended_at),
    )
