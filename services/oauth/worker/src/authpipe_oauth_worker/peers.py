"""coordinator, in the worker's own words: it alone says whether an answer may still be stored."""

from __future__ import annotations

from typing import Any

from authpipe.oauth.v1 import coordinator_pb2
from authpipe_rpc import Peer


class CoordinatorPeer:
    """coordinator.

    Args:
        peer: The connection to it.
        thumbprint: Of this worker's HPKE key, to which the grant is bound.
    """

    def __init__(self, peer: Peer[Any], thumbprint: str) -> None:
        self._peer = peer
        self._thumbprint = thumbprint

    async def claim_answer(self, workspace: str, connection: str, fence: int, request_id: str) -> str:
        """Gives the grant to store an answer."""
        request = coordinator_pb2.ClaimAnswerRequest(
            workspace_id=workspace,
            connection_id=connection,
            fence=fence,
            consumer_thumbprint=self._thumbprint,
            request_id=request_id,
        )
        return str((await self._peer.call_idempotent(lambda stub: stub.ClaimAnswer, request)).grant)

    async def report_answer(self, workspace: str, connection: str, fence: int, request_id: str) -> None:
        """Says that an answer is stored."""
        request = coordinator_pb2.ReportAnswerRequest(
            workspace_id=workspace, connection_id=connection, fence=fence, request_id=request_id
        )
        await self._peer.call_idempotent(lambda stub: stub.ReportAnswer, request)
