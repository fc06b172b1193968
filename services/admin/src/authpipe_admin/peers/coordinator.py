"""coordinator, in an operator's own words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from authpipe_rpc import Peer  # first: it sets grpc's cipher list

from authpipe.oauth.v1 import coordinator_pb2
from authpipe_admin.peers.requests import new_request_id


@dataclass(frozen=True, slots=True)
class Rotation:
    """How far a rotation of tokens is; without an id it was only counted."""

    id: str
    total: int
    rotated: int
    failed: int
    irreplaceable: int
    ended: bool


class CoordinatorPeer:
    """The coordinator.

    Args:
        peer: The connection to it.
    """

    def __init__(self, peer: Peer[Any]) -> None:
        self._peer = peer

    async def close(self) -> None:
        """Closes the connection."""
        await self._peer.close()

    async def reseal(self, workspace: str, target: str, domain: str) -> int:
        """Has a connection's or provider configuration's records sealed again; gives how many were not up to date."""
        field = "provider_config_id" if domain == "client-secrets" else "connection_id"
        request = coordinator_pb2.ResealRecordsRequest(
            workspace_id=workspace, request_id=new_request_id(), **{field: target}
        )
        return int((await self._peer.call(lambda stub: stub.ResealRecords, request)).resealed_count)


class ContainmentPeer:
    """Rotations of tokens.

    Args:
        peer: The connection to coordinator.
    """

    def __init__(self, peer: Peer[Any]) -> None:
        self._peer = peer

    async def close(self) -> None:
        """Closes the connection."""
        await self._peer.close()

    async def begin(self, workspace: str, connection: str, config: str, *, dry_run: bool) -> Rotation:
        """Begins to rotate tokens; without a workspace all there are."""
        request = coordinator_pb2.BeginRotationRequest(
            workspace_id=workspace,
            connection_id=connection,
            provider_config_id=config,
            everything=not workspace,
            dry_run=dry_run,
            request_id=new_request_id(),
        )
        return _rotation((await self._peer.call(lambda stub: stub.BeginRotation, request)).rotation)

    async def get(self, rotation_id: str) -> Rotation:
        """Says how far a rotation is."""
        request = coordinator_pb2.GetRotationRequest(rotation_id=rotation_id)
        return _rotation((await self._peer.call_idempotent(lambda stub: stub.GetRotation, request)).rotation)


def _rotation(wire: Any) -> Rotation:
    return Rotation(
        wire.rotation_id,
        wire.total_count,
        wire.rotated_count,
        wire.failed_count,
        wire.irreplaceable_count,
        wire.HasField("end_time"),
    )
