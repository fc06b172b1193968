"""CheckpointSigner on the wire: served by audit-log alone."""

from __future__ import annotations

import base64

from authpipe.keyservice.v1 import keyservice_pb2 as pb
from authpipe_keyservice.domain.checkpoints import checkpoint_body, require_growth
from authpipe_keyservice.hsm import Hsm
from authpipe_keyservice.store import CheckpointTable


class CheckpointSigner:
    """Serves CheckpointSigner in audit-log.

    Args:
        hsm: The token of audit-log.
        label: Its signing key.
        public_key: That key's public half, 32 bytes.
        store: What was signed.
    """

    def __init__(self, hsm: Hsm, label: str, public_key: bytes, store: CheckpointTable) -> None:
        self._hsm = hsm
        self._label = label
        self._public_key = public_key
        self._store = store

    async def Sign(self, request: pb.SignRequest, _: object) -> pb.SignResponse:
        """Signs a checkpoint that grows the last one."""
        size, root = await self._store.last_checkpoint(request.origin)
        require_growth(size, root, request.tree_size, request.root_hash)
        await self._store.put_checkpoint(request.origin, request.tree_size, request.root_hash)
        root_base64 = base64.b64encode(request.root_hash).decode()
        body = checkpoint_body(request.origin, request.tree_size, root_base64)
        return pb.SignResponse(signature=await self._hsm.sign(self._label, body))

    async def GetPublicKey(self, _: pb.GetPublicKeyRequest, __: object) -> pb.GetPublicKeyResponse:
        """Gives the verification key."""
        return pb.GetPublicKeyResponse(public_key=self._public_key)
