"""Writing records: writes are prepared, sealed here, and put."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import NamedTuple, cast

from authpipe.types.v1 import records_pb2 as pb
from google.protobuf.message import DecodeError
from authpipe_consumer.calling import PAUSES, PENDING, StoreCaller, wire_ref
from authpipe_consumer.words import PackedWrite, Sealing, SealedWrite, WriteKey
from authpipe_envelope import RecordClass, RecordKey, seal_record
from authpipe_grants import GrantError, Kind, ReleasedKey
from authpipe_rpc import Coalescer, PeerRefused
from authpipe_sensitive import DomainError, Secret, Status

# A message is four times as long at most.
_LONGEST_BATCH = 4 * 1024 * 1024


class _Intent(NamedTuple):
    """What is about to be written of a connection."""

    workspace: str
    connection: str
    classes: tuple[RecordClass, ...]
    grant: str
    request_id: str


class RecordWriter:
    """Writes records of one store.

    Args:
        store: The store.
    """

    def __init__(self, store: StoreCaller) -> None:
        self._store = store
        self._preparing: Coalescer[_Intent, dict[RecordClass, WriteKey]] = Coalescer(self._prepare)
        self._putting: Coalescer[pb.Write, None] = Coalescer(self._put)

    async def prepare(
        self, workspace: str, connection: str, classes: Sequence[RecordClass], grant: str, request_id: str
    ) -> dict[RecordClass, WriteKey]:
        """Has write keys of the next versions released; asks again while a customer's KMS is still being asked.

        Raises:
            DomainError: One of them was refused: none is usable.
        """
        wanted = _Intent(workspace, connection, tuple(classes), grant, request_id)
        for pause in PAUSES:
            try:
                return await self._preparing.submit(wanted)
            except PeerRefused as error:
                if error.reason not in PENDING:
                    raise
            await asyncio.sleep(pause)
        return await self._preparing.submit(wanted)

    async def _prepare(self, wanted: Sequence[_Intent]) -> list[dict[RecordClass, WriteKey] | DomainError]:
        """Has write keys released: one rpc for the batch; what is refused does not touch the others."""
        grants = list(dict.fromkeys(each.grant for each in wanted))
        position = {grant: index for index, grant in enumerate(grants)}
        challenge = self._store.key.new_challenge()
        names = [(each, record_class) for each in wanted for record_class in each.classes]
        request = pb.PrepareWritesRequest(
            consumer_public_key=self._store.key.public,
            challenge=challenge,
            grants=grants,
            items=[
                pb.WriteIntent(
                    ref=wire_ref(each.workspace, each.connection, record_class),
                    grant_index=position[each.grant],
                    request_id=each.request_id,
                )
                for each, record_class in names
            ],
        )
        response = await self._store.peer.call_idempotent(lambda stub: stub.PrepareWrites, request)
        if len(response.items) != len(names):
            raise GrantError
        keys = self._store.open_keys(response.keys, challenge, Kind.WRITE_KEYS)
        answers: list[dict[RecordClass, WriteKey] | DomainError] = []
        first = 0
        for each in wanted:
            items = response.items[first : first + len(each.classes)]
            answers.append(_prepared(each, items, [keys.get(first + index) for index in range(len(items))]))
            first += len(each.classes)
        return answers

    def seal(self, write: WriteKey, sealing: Sealing, plaintext: Secret) -> SealedWrite:
        """Seals a plaintext as the next version of a record. The write key is used up."""
        name = (write.workspace, write.connection, write.record_class)
        context = self._store.context(name, write.version, sealing.provider, sealing.hosts)
        sealed = pb.SealedRecord(
            ref=wire_ref(write.workspace, write.connection, write.record_class),
            version=write.version,
            record=seal_record(write.key, context, plaintext.expose()),
            provider=sealing.provider,
            hosts_digest=sealing.hosts,
            masked=sealing.masked,
            fence=sealing.fence,
        )
        if sealing.expires_at is not None:
            sealed.expire_time.FromDatetime(sealing.expires_at)
        return SealedWrite(sealed)

    def pack(self, write: SealedWrite) -> bytes:
        """Gives a sealed record as bytes, to be kept while its store is away. It is ciphertext."""
        return cast("pb.SealedRecord", write.message).SerializeToString(deterministic=True)

    def unpack(self, packed: bytes) -> PackedWrite | None:
        """Takes such a record out of its packing; None: it is none."""
        try:
            message = pb.SealedRecord.FromString(packed)
        except DecodeError:
            return None
        ref = message.ref
        return PackedWrite(ref.workspace_id, ref.connection_id, message.fence, SealedWrite(message))

    async def put(
        self,
        records: Sequence[SealedWrite],
        consumed: Sequence[tuple[str, str, RecordClass]],
        grant: str,
        request_id: str,
    ) -> None:
        """Stores sealed records, all or none. The same bytes may be put again after an answer was lost.

        Raises:
            DomainError: Nothing was stored.
        """
        await self._putting.submit(
            pb.Write(
                grant=grant,
                records=[cast("pb.SealedRecord", record.message) for record in records],
                consumed=[wire_ref(workspace, connection, each) for workspace, connection, each in consumed],
                request_id=request_id,
            )
        )

    async def _put(self, writes: Sequence[pb.Write]) -> list[DomainError | None]:
        """Stores: one rpc for the batch, or as many as its size needs; a write that is refused does not touch the others."""
        answers: list[DomainError | None] = []
        while len(answers) < len(writes):
            request = pb.PutRecordsRequest()
            size = 0
            for write in writes[len(answers) :]:
                size += write.ByteSize()
                if request.writes and size > _LONGEST_BATCH:
                    break
                request.writes.append(write)
            try:
                response = await self._store.peer.call_idempotent(lambda stub: stub.PutRecords, request)
            except DomainError as error:
                # What went before is stored, and its writers hear so.
                return [*answers, *[error] * (len(writes) - len(answers))]
            if len(response.answers) != len(request.writes):
                raise GrantError
            answers += [
                PeerRefused(answer.refusal.reason, Status(answer.refusal.code)) if answer.HasField("refusal") else None
                for answer in response.answers
            ]
        return answers


def _prepared(
    wanted: _Intent, items: Sequence[pb.PreparedWrite], keys: Sequence[ReleasedKey | None]
) -> dict[RecordClass, WriteKey] | DomainError:
    """Gives the write keys of a connection; one that was refused: none is usable, and none stays in memory."""
    refusal = next((item.refusal for item in items if item.HasField("refusal")), None)
    if refusal is not None or None in keys:
        for key in keys:
            if key is not None:
                key.material.destroy()
        return PeerRefused(refusal.reason, Status(refusal.code)) if refusal is not None else GrantError()
    workspace, connection, classes, grant, _ = wanted
    return {
        record_class: WriteKey(
            workspace,
            connection,
            record_class,
            released.version,
            RecordKey(released.material, released.key_version, released.salt),
            grant,
        )
        for record_class, released in zip(classes, keys, strict=True)
        if released is not None
    }
