"""audit on the wire, as those see it who deliver events."""

from __future__ import annotations

from typing import Any

from authpipe_rpc import Files, Peer, PeerConfig  # first: it sets grpc's cipher list

from authpipe.audit.v1 import audit_pb2, audit_pb2_grpc
from authpipe_grants import SignedBatch

# A sink that hangs is a sink that failed.
_PATIENCE_SECONDS = 0.5


class AuditSink:
    """audit.

    Args:
        config: Where it is.
        files: Who we are.
    """

    def __init__(self, config: PeerConfig, files: Files) -> None:
        self._peer: Peer[Any] = Peer(config, files, audit_pb2_grpc.AuditStub, timeout_seconds=_PATIENCE_SECONDS)

    async def append(self, batch: SignedBatch) -> int:
        """Delivers a batch; returns when what is there is durable.

        Returns:
            The number of our last event in the log.

        Raises:
            DomainError: audit is away, slow, or refuses; nothing is lost, it is delivered again.
        """
        request = audit_pb2.AppendRequest(
            events=batch.events, first_sequence=batch.first_sequence, signature=batch.signature, chain=batch.chain
        )
        response = await self._peer.call(lambda stub: stub.Append, request)
        return int(response.logged_sequence)

    async def require_reachable(self) -> None:
        """Returns when the log and its database take events now.

        Raises:
            DomainError: They do not.
        """
        await self._peer.call_idempotent(lambda stub: stub.Append, audit_pb2.AppendRequest())
