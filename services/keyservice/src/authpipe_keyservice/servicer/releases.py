"""KeyService on the wire: what a store asks for its consumers."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence

from authpipe.keyservice.v1 import keyservice_pb2 as pb
from authpipe.types.v1 import records_pb2
from authpipe_envelope import RecordClass
from authpipe_grants import Kind
from authpipe_keyservice.domain.keeping import Keeping
from authpipe_keyservice.domain.release import Direction, KeyState, Wanted
from authpipe_keyservice.domain.replicas import Replica
from authpipe_keyservice.domain.asking import Ask, told_together
from authpipe_keyservice.domain.releasing import Batch, IndexedKey, Releasing
from authpipe_keyservice.errors import PurposeError
from authpipe_keyservice.store import KeyTable
from authpipe_rpc import current_caller
from authpipe_grants.leaf import Leaf
from authpipe_sensitive import AuditEntry, DomainError
from authpipe_sensitive.duties import note_nothing_done


class KeyServicer:
    """Serves KeyService for one key domain.

    Args:
        releasing: The rules.
        store: Connection keys and floors.
        replica: Tells the other replicas to forget a key.
        leaf: Signs what is sealed.
        keeping: The rules over keys that are kept.
    """

    def __init__(self, releasing: Releasing, store: KeyTable, replica: Replica, leaf: Leaf, keeping: Keeping) -> None:
        self._releasing = releasing
        self._keeping = keeping
        self._store = store
        self._replica = replica
        self._leaf = leaf

    async def ReleaseRecordKeys(self, request: pb.ReleaseRecordKeysRequest, _: object) -> pb.ReleaseRecordKeysResponse:
        """Releases the keys of stored records."""
        asks = [
            Ask(
                _wanted(item.ref, item.version, Direction.READ),
                _grant(request.grants, item.grant_index),
                item.request_id,
                item.header,
                item.request_count,
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
                item.request_id,
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
                request_id=item.request_id,
                workspace_id=item.ref.workspace_id,
                target=item.ref.connection_id,
                record_class=int(item.ref.record_class),
                record_version=item.version,
            )
            for item in request.items
        ]
        await self._store.acknowledge(items, told_together(entries))
        return pb.AcknowledgeVersionResponse()

    async def RestrictContextKey(
        self, request: pb.RestrictContextKeyRequest, _: object
    ) -> pb.RestrictContextKeyResponse:
        """Restricts a connection key to revocation."""
        await self._set_state(request, KeyState.RESTRICTED, "CONTEXT_KEY_RESTRICTED")
        return pb.RestrictContextKeyResponse()

    async def KeepContextKey(self, request: pb.KeepContextKeyRequest, _: object) -> pb.KeepContextKeyResponse:
        """Keeps a connection key."""
        until = request.keep_until.ToDatetime(dt.UTC)
        await self._keeping.keep(
            request.workspace_id, request.connection_id, until, current_caller(), request.request_id
        )
        return pb.KeepContextKeyResponse()

    async def RestoreContextKey(self, request: pb.RestoreContextKeyRequest, _: object) -> pb.RestoreContextKeyResponse:
        """Takes a connection key back."""
        await self._keeping.restore(request.grant, request.request_id)
        return pb.RestoreContextKeyResponse()

    async def DestroyContextKey(self, request: pb.DestroyContextKeyRequest, _: object) -> pb.DestroyContextKeyResponse:
        """Destroys a connection key."""
        order = await self._set_state(request, KeyState.DESTROYED, "CONTEXT_KEY_DESTROYED")
        return pb.DestroyContextKeyResponse(outstanding_replicas=await self._replica.all_obeyed(order))

    async def _set_state(
        self, request: pb.RestrictContextKeyRequest | pb.DestroyContextKeyRequest, state: KeyState, name: str
    ) -> int:
        entry = AuditEntry(
            name=name,
            outcome="SUCCEEDED",
            actor=f"service:{current_caller()}",
            request_id=request.request_id,
            workspace_id=request.workspace_id,
            target=request.connection_id,
        )
        return await self._store.set_state(request.workspace_id, request.connection_id, state, entry)

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
