"""The wire side of keyservice: protobuf to rules and back."""

from __future__ import annotations

import base64
from collections.abc import Sequence

from authpipe.keyservice.v1 import keyservice_pb2 as pb
from authpipe.types.v1 import records_pb2
from authpipe_envelope import RecordClass
from authpipe_grants import Kind
from authpipe_keyservice.domain.checkpoints import checkpoint_body, require_growth
from authpipe_keyservice.domain.release import Direction, KeyState, Wanted
from authpipe_keyservice.domain.releasing import Ask, Batch, IndexedKey, Releasing
from authpipe_keyservice.errors import PurposeError
from authpipe_keyservice.hsm import Hsm
from authpipe_keyservice.store import Store
from authpipe_rpc import current_caller
from authpipe_grants.leaf import Leaf
from authpipe_sensitive import AuditEntry, DomainError
from authpipe_sensitive.duties import note_nothing_done


class KeyServicer:
    """Serves KeyService for one key domain.

    Args:
        releasing: The rules.
        store: keyservice's own tables.
        leaf: Signs what is sealed.
        key_domain: The key domain.
    """

    def __init__(self, releasing: Releasing, store: Store, leaf: Leaf, key_domain: str) -> None:
        self._releasing = releasing
        self._store = store
        self._leaf = leaf
        self._key_domain = key_domain

    async def ReleaseRecordKeys(self, request: pb.ReleaseRecordKeysRequest, _: object) -> pb.ReleaseRecordKeysResponse:
        """Releases the keys of stored records."""
        asks = [
            Ask(
                _wanted(item.ref, item.version, Direction.READ),
                _grant(request.grants, item.grant_index),
                item.request_id,
                item.header,
            )
            for item in request.items
        ]
        batch = await self._release(request, Kind.RECORD_KEYS, asks)
        return pb.ReleaseRecordKeysResponse(items=map(_release, batch.answers), keys=batch.sealed)

    async def ReleaseWriteKeys(self, request: pb.ReleaseWriteKeysRequest, _: object) -> pb.ReleaseWriteKeysResponse:
        """Releases the write keys of the next versions."""
        asks = [
            Ask(
                _wanted(item.ref, item.stored_version + 1, Direction.WRITE),
                _grant(request.grants, item.grant_index),
                request.request_id,
            )
            for item in request.items
        ]
        batch = await self._release(request, Kind.WRITE_KEYS, asks)
        return pb.ReleaseWriteKeysResponse(items=map(_release, batch.answers), keys=batch.sealed)

    async def AcknowledgeVersion(
        self, request: pb.AcknowledgeVersionRequest, _: object
    ) -> pb.AcknowledgeVersionResponse:
        """Raises floors."""
        actor = f"service:{current_caller()}"
        items = [
            (
                item.ref.workspace_id,
                item.ref.connection_id,
                int(item.ref.record_class),
                item.version,
                item.refresh_not_before_ms,
            )
            for item in request.items
        ]
        entries = [
            AuditEntry(
                name="VERSION_ACKNOWLEDGED",
                outcome="SUCCEEDED",
                actor=actor,
                request_id=request.request_id,
                workspace_id=workspace,
                target=connection,
                record_class=record_class,
                record_version=version,
            )
            for workspace, connection, record_class, version, _ in items
        ]
        await self._store.acknowledge(items, entries)
        return pb.AcknowledgeVersionResponse()

    async def RestrictContextKey(
        self, request: pb.RestrictContextKeyRequest, _: object
    ) -> pb.RestrictContextKeyResponse:
        """Restricts a connection key to revocation."""
        await self._set_state(request, KeyState.RESTRICTED, "CONTEXT_KEY_RESTRICTED")
        return pb.RestrictContextKeyResponse()

    async def DestroyContextKey(self, request: pb.DestroyContextKeyRequest, _: object) -> pb.DestroyContextKeyResponse:
        """Destroys a connection key."""
        await self._set_state(request, KeyState.DESTROYED, "CONTEXT_KEY_DESTROYED")
        return pb.DestroyContextKeyResponse()

    async def GetKeyState(self, request: pb.GetKeyStateRequest, _: object) -> pb.GetKeyStateResponse:
        """Says which keys a workspace has."""
        kek, dek, count = await self._store.describe(request.workspace_id)
        return pb.GetKeyStateResponse(
            key_domain=self._key_domain, kek_version=kek, dek_version=dek, connection_key_count=count
        )

    async def _set_state(
        self, request: pb.RestrictContextKeyRequest | pb.DestroyContextKeyRequest, state: KeyState, name: str
    ) -> None:
        entry = AuditEntry(
            name=name,
            outcome="SUCCEEDED",
            actor=f"service:{current_caller()}",
            request_id=request.request_id,
            workspace_id=request.workspace_id,
            target=request.connection_id,
        )
        await self._store.set_state(request.workspace_id, request.connection_id, state, entry)
        if state is KeyState.DESTROYED:
            self._releasing.forget(request.workspace_id, request.connection_id)

    async def _release(
        self, request: pb.ReleaseRecordKeysRequest | pb.ReleaseWriteKeysRequest, kind: Kind, asks: Sequence[Ask]
    ) -> Batch[records_pb2.SealedKeys]:
        consumer, challenge = request.consumer_public_key, request.challenge

        def seal(keys: Sequence[IndexedKey]) -> records_pb2.SealedKeys | None:
            if not keys:
                note_nothing_done()
                return None
            bundle = self._leaf.seal(consumer, challenge, kind, keys)
            return records_pb2.SealedKeys(sealed=bundle.sealed, signature=bundle.signature, chain=bundle.chain)

        return await self._releasing.release(consumer, asks, seal)


class CheckpointSigner:
    """Serves CheckpointSigner in audit-log.

    Args:
        hsm: The token of audit-log.
        label: Its signing key.
        public_key: That key's public half, 32 bytes.
        store: keyservice's own tables.
    """

    def __init__(self, hsm: Hsm, label: str, public_key: bytes, store: Store) -> None:
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


def _wanted(ref: records_pb2.RecordRef, version: int, direction: Direction) -> Wanted:
    try:
        record_class = RecordClass(int(ref.record_class))
    except ValueError:
        raise PurposeError from None
    return Wanted(ref.workspace_id, ref.connection_id, record_class, version, direction)


def _grant(grants: Sequence[str], index: int) -> str | None:
    return grants[index] if index < len(grants) else None


def _release(answer: int | DomainError) -> pb.Release:
    if isinstance(answer, DomainError):
        return pb.Release(refusal=records_pb2.Refusal(reason=answer.reason, code=int(answer.status)))
    return pb.Release(version=answer)
