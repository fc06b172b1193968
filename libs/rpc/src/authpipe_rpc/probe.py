"""Asking a peer for its health, which any process of the installation may."""

from __future__ import annotations

from typing import Any

from grpc_health.v1 import health_pb2, health_pb2_grpc

from authpipe_rpc.channel import Peer
from authpipe_rpc.config import Files, PeerConfig
from authpipe_sensitive import DomainError


class Probe:
    """The health of one peer.

    Args:
        config: Its name and address.
        files: Our certificate, key and CA.
    """

    def __init__(self, config: PeerConfig, files: Files) -> None:
        self._peer: Peer[Any] = Peer(config, files, health_pb2_grpc.HealthStub, timeout_seconds=2)

    async def is_serving(self) -> bool:
        """Says whether the peer answers and says that it serves."""
        try:
            answer = await self._peer.call(lambda stub: stub.Check, health_pb2.HealthCheckRequest())
        except DomainError:
            return False
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)

    async def close(self) -> None:
        """Closes the connection."""
        await self._peer.close()
