"""Other services, in authority's own words: audit alone."""

from __future__ import annotations

from collections.abc import Sequence

from authpipe.audit.v1 import audit_pb2, audit_pb2_grpc
from authpipe_rpc import Peer


class AuditPeer:
    """Where events are delivered.

    Args:
        peer: The connection to audit.
    """

    def __init__(self, peer: Peer[audit_pb2_grpc.AuditAsyncStub]) -> None:
        self._peer = peer

    async def append(self, events: Sequence[bytes], first_sequence: int) -> None:
        """Delivers events; returns when they are durable there."""
        request = audit_pb2.AppendRequest(events=events, first_sequence=first_sequence)
        await self._peer.call(lambda stub: stub.Append, request)
