"""Other services, in audit's own words: the signer of checkpoints."""

from __future__ import annotations

from authpipe.keyservice.v1 import keyservice_pb2, keyservice_pb2_grpc
from authpipe_rpc import Peer


class SignerPeer:
    """keyservice audit-log.

    Args:
        peer: The connection to it.
    """

    def __init__(self, peer: Peer[keyservice_pb2_grpc.CheckpointSignerAsyncStub]) -> None:
        self._peer = peer

    async def sign(self, origin: str, size: int, root: bytes) -> bytes:
        """Has a checkpoint signed; 64 bytes."""
        request = keyservice_pb2.SignRequest(origin=origin, tree_size=size, root_hash=root)
        return (await self._peer.call_idempotent(lambda stub: stub.Sign, request)).signature

    async def public_key(self) -> bytes:
        """Gives the verification key, 32 bytes."""
        request = keyservice_pb2.GetPublicKeyRequest()
        return (await self._peer.call_idempotent(lambda stub: stub.GetPublicKey, request)).public_key
