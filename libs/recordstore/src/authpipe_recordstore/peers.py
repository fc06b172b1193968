"""keyservice and audit, in a store's own words. What keyservice sealed is handed on as it is."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence

from authpipe.keyservice.v1 import keyservice_pb2 as pb
from authpipe.keyservice.v1 import keyservice_pb2_grpc
from authpipe.types.v1 import records_pb2
from authpipe_recordstore.domain.records import Asking, Reading, Sealed
from authpipe_recordstore.domain.words import Ref
from authpipe_rpc import Peer, PeerRefused, PeerUnavailable
from authpipe_sensitive import DomainError, Status, get_log


class KeyservicePeer:
    """The keyservice of this store's key domain.

    Args:
        peer: The connection to it.
    """

    def __init__(self, peer: Peer[keyservice_pb2_grpc.KeyServiceAsyncStub]) -> None:
        self._peer = peer

    async def release(self, asking: Asking, items: Sequence[tuple[Reading, int, bytes]]) -> Sealed:
        """Has keys of stored records sealed."""
        request = pb.ReleaseRecordKeysRequest(
            consumer_public_key=asking.public_key,
            challenge=asking.challenge,
            grants=asking.grants,
            items=[
                pb.RecordHeader(
                    ref=wire_ref(reading.ref),
                    version=version,
                    header=header,
                    grant_index=reading.grant_index,
                    request_id=reading.request_id,
                    request_count=reading.request_count,
                )
                for reading, version, header in items
            ],
        )
        response = await self._peer.call_idempotent(lambda stub: stub.ReleaseRecordKeys, request)
        return Sealed(tuple(map(_answer, response.items)), response.keys)

    async def prepare(self, asking: Asking, items: Sequence[tuple[Ref, int, int, str]]) -> Sealed:
        """Has write keys sealed."""
        request = pb.ReleaseWriteKeysRequest(
            consumer_public_key=asking.public_key,
            challenge=asking.challenge,
            grants=asking.grants,
            items=[
                pb.WriteHeader(ref=wire_ref(ref), stored_version=version, grant_index=grant, request_id=request_id)
                for ref, version, grant, request_id in items
            ],
        )
        response = await self._peer.call_idempotent(lambda stub: stub.ReleaseWriteKeys, request)
        return Sealed(tuple(map(_answer, response.items)), response.keys)

    async def acknowledge(self, items: Sequence[tuple[Ref, int, int, str]]) -> None:
        """Raises floors. What does not arrive is made up for at the first release, so a failure is logged only."""
        request = pb.AcknowledgeVersionRequest(
            items=[
                pb.CommittedVersion(
                    ref=wire_ref(ref), version=version, refresh_not_before_ms=not_before, request_id=request_id
                )
                for ref, version, not_before, request_id in items
            ],
        )
        try:
            await self._peer.call_idempotent(lambda stub: stub.AcknowledgeVersion, request)
        except PeerUnavailable as error:
            get_log().warning("version not acknowledged", error=error)

    async def restrict(self, workspace: str, connection: str, request_id: str) -> None:
        """Restricts the connection key to revocation."""
        request = pb.RestrictContextKeyRequest(workspace_id=workspace, connection_id=connection, request_id=request_id)
        await self._peer.call_idempotent(lambda stub: stub.RestrictContextKey, request)

    async def destroy(self, workspace: str, connection: str, request_id: str) -> None:
        """Destroys the connection key."""
        request = pb.DestroyContextKeyRequest(workspace_id=workspace, connection_id=connection, request_id=request_id)
        await self._peer.call_idempotent(lambda stub: stub.DestroyContextKey, request)

    async def keep(self, workspace: str, connection: str, until: dt.datetime, request_id: str) -> None:
        """Keeps the connection key: it opens nothing."""
        request = pb.KeepContextKeyRequest(workspace_id=workspace, connection_id=connection, request_id=request_id)
        request.keep_until.FromDatetime(until)
        await self._peer.call_idempotent(lambda stub: stub.KeepContextKey, request)

    async def restore(self, grant: str, request_id: str) -> None:
        """Takes the connection key back, under a grant for that."""
        request = pb.RestoreContextKeyRequest(grant=grant, request_id=request_id)
        await self._peer.call_idempotent(lambda stub: stub.RestoreContextKey, request)


def wire_ref(ref: Ref) -> records_pb2.RecordRef:
    """Gives a record's name as it goes over the wire."""
    return records_pb2.RecordRef(
        workspace_id=ref.workspace,
        connection_id=ref.connection,
        record_class=ref.record_class,  # type: ignore[arg-type]  # the stub's enum is a NewType of int
    )


def _answer(item: pb.Release) -> int | DomainError:
    if item.HasField("refusal"):
        return PeerRefused(item.refusal.reason, Status(item.refusal.code))
    return item.version
