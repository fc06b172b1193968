"""CheckpointSigner on the wire: served by audit-log alone."""

from __future__ import annotations

from collections.abc import Collection

from authpipe.keyservice.v1 import keyservice_pb2 as pb
from authpipe_keyservice.domain.checkpoints import require_growth
from authpipe_keyservice.errors import ForkError, UnknownLogError
from authpipe_keyservice.hsm import Hsm
from authpipe_keyservice.store import CheckpointTable
from authpipe_transparency import Checkpoint

_ROOT_SIZE = 32


class CheckpointSigner:
    """Serves CheckpointSigner in audit-log.

    Args:
        hsm: The token of audit-log.
        label: Its signing key.
        public_key: That key's public half, 32 bytes.
        store: What was signed.
        origins: The logs that are signed here.
    """

    def __init__(
        self, hsm: Hsm, label: str, public_key: bytes, store: CheckpointTable, origins: Collection[str]
    ) -> None:
        self._hsm = hsm
        self._label = label
        self._public_key = public_key
        self._store = store
        self._origins = origins

    async def Sign(self, request: pb.SignRequest, _: object) -> pb.SignResponse:
        """Signs a checkpoint that is proved to extend the last one."""
        if request.origin not in self._origins:
            raise UnknownLogError
        if len(request.root_hash) != _ROOT_SIZE:
            raise ForkError
        wanted = Checkpoint(request.origin, request.tree_size, request.root_hash)
        await self._store.replace_checkpoint(
            wanted, lambda signed: require_growth(signed, wanted, request.old_size, request.proof)
        )
        return pb.SignResponse(signature=await self._hsm.sign(self._label, wanted.text.encode()))

    async def GetPublicKey(self, _: pb.GetPublicKeyRequest, __: object) -> pb.GetPublicKeyResponse:
        """Gives the verification key."""
        return pb.GetPublicKeyResponse(public_key=self._public_key)
