"""Other services, in audit's own words: the signer of checkpoints."""

from __future__ import annotations

from collections.abc import Sequence

from authpipe.keyservice.v1 import keyservice_pb2, keyservice_pb2_grpc
from authpipe_audit.errors import SignedLaterError
from authpipe_rpc import Peer, PeerRefused
from authpipe_transparency import Checkpoint


class SignerPeer:
    """keyservice audit-log.

    Args:
        peer: The connection to it.
    """

    def __init__(self, peer: Peer[keyservice_pb2_grpc.CheckpointSignerAsyncStub]) -> None:
        self._peer = peer

    async def sign(self, checkpoint: Checkpoint, old_size: int, proof: Sequence[bytes]) -> bytes:
        """Has a checkpoint signed; 64 bytes.

        Raises:
            SignedLaterError: It has signed another tree last.
            PeerRefused: It does not sign this one: the tree does not extend what it signed.
            PeerUnavailable: It is away.
        """
        request = keyservice_pb2.SignRequest(
            origin=checkpoint.origin,
            tree_size=checkpoint.size,
            root_hash=checkpoint.root,
            old_size=old_size,
            proof=proof,
        )
        try:
            return (await self._peer.call_idempotent(lambda stub: stub.Sign, request)).signature
        except PeerRefused as refused:
            if refused.reason == "CHECKPOINT_BASE_DIFFERS":
                raise SignedLaterError(int(refused.metadata["signed_size"])) from None
            raise

    async def public_key(self) -> bytes:
        """Gives the verification key, 32 bytes."""
        request = keyservice_pb2.GetPublicKeyRequest()
        return (await self._peer.call_idempotent(lambda stub: stub.GetPublicKey, request)).public_key
