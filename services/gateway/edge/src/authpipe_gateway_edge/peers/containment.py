"""coordinator, for the day on which something is stolen, in edge's own words."""

from __future__ import annotations

import datetime as dt

from authpipe.oauth.v1 import coordinator_pb2 as pb
from authpipe.oauth.v1 import coordinator_pb2_grpc, types_pb2
from authpipe_gateway_edge.domain.words import Rotation, Verdict
from authpipe_rpc import Peer


class ContainmentPeer:
    """Decoys, and rotations of tokens.

    Args:
        peer: The connection to coordinator.
    """

    def __init__(self, peer: Peer[coordinator_pb2_grpc.ContainmentAsyncStub]) -> None:
        self._peer = peer

    async def place_decoy(self, verdict: Verdict, connection_id: str, request_id: str) -> None:
        """Makes a connection a decoy."""
        request = pb.PlaceDecoyRequest(grant=verdict.manage_grant, connection_id=connection_id, request_id=request_id)
        await self._peer.call_idempotent(lambda stub: stub.PlaceDecoy, request)

    async def begin(
        self, verdict: Verdict, connection_id: str, config_id: str, request_id: str, *, dry_run: bool
    ) -> Rotation:
        """Begins to rotate tokens."""
        request = pb.BeginRotationRequest(
            grant=verdict.manage_grant,
            connection_id=connection_id,
            provider_config_id=config_id,
            dry_run=dry_run,
            request_id=request_id,
        )
        return _rotation((await self._peer.call(lambda stub: stub.BeginRotation, request)).rotation)

    async def get(self, verdict: Verdict, rotation_id: str) -> Rotation:
        """Says how far a rotation is."""
        request = pb.GetRotationRequest(grant=verdict.manage_grant, rotation_id=rotation_id)
        return _rotation((await self._peer.call_idempotent(lambda stub: stub.GetRotation, request)).rotation)


def _rotation(wire: types_pb2.Rotation) -> Rotation:
    return Rotation(
        id=wire.rotation_id,
        total=wire.total_count,
        rotated=wire.rotated_count,
        failed=wire.failed_count,
        irreplaceable=wire.irreplaceable_count,
        began_at=wire.begin_time.ToDatetime(dt.UTC),
        ended_at=wire.end_time.ToDatetime(dt.UTC) if wire.HasField("end_time") else None,
    )
