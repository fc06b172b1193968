"""The wire side of a store: protobuf to rules and back. vault and clientsecrets serve the same messages."""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Sequence
from typing import cast

from authpipe.types.v1 import records_pb2 as pb
from authpipe_recordstore.domain.records import Asking, Put, Reading, Records
from authpipe_recordstore.domain.reusing import Again, Reusing
from authpipe_recordstore.domain.words import Record, Ref
from authpipe_recordstore.peers import wire_ref
from authpipe_rpc import current_caller
from authpipe_sensitive import DomainError
from authpipe_sensitive.duties import note_nothing_done


class RecordServicer:
    """Serves records.

    Args:
        records: The rules.
        reusing: The rules over what a consumer has and opens again; vault alone is asked for that.
    """

    def __init__(self, records: Records, reusing: Reusing) -> None:
        self._records = records
        self._reusing = reusing

    async def GetDigests(self, request: pb.GetDigestsRequest, _: object) -> pb.GetDigestsResponse:
        """Gives digests of what is stored."""
        after = _ref(request.after) if request.HasField("after") else None
        found = await self._records.digests([_ref(item) for item in request.items], after, request.page_size)
        return pb.GetDigestsResponse(
            items=[pb.RecordDigest(ref=wire_ref(each.ref), version=each.version, digest=each.digest) for each in found]
        )

    async def PrepareWrites(self, request: pb.PrepareWritesRequest, _: object) -> pb.PrepareWritesResponse:
        """Relays sealed write keys."""
        asking = Asking(request.consumer_public_key, request.challenge, request.grants)
        items = [(_ref(item.ref), item.grant_index, item.request_id) for item in request.items]
        answers, keys = await self._records.prepare(asking, items)
        return pb.PrepareWritesResponse(
            items=[
                pb.PreparedWrite(refusal=_refusal(answer))
                if isinstance(answer, DomainError)
                else pb.PreparedWrite(version=answer)
                for answer in answers
            ],
            keys=cast("pb.SealedKeys | None", keys),
        )

    async def PutRecords(self, request: pb.PutRecordsRequest, _: object) -> pb.PutRecordsResponse:
        """Stores sealed records."""
        asked = [
            Put(
                [_record(item) for item in write.records],
                [_ref(ref) for ref in write.consumed],
                write.grant,
                write.request_id,
            )
            for write in request.writes
        ]
        answers = await self._records.put(current_caller(), asked, int(time.time() * 1000))
        if all(answers):
            note_nothing_done()
        return pb.PutRecordsResponse(
            answers=[
                pb.WriteAnswer(refusal=_refusal(answer)) if answer is not None else pb.WriteAnswer()
                for answer in answers
            ]
        )

    async def GetRecords(self, request: pb.GetRecordsRequest, _: object) -> pb.GetRecordsResponse:
        """Gives records with sealed keys."""
        asking = Asking(request.consumer_public_key, request.challenge, request.grants)
        items = [
            Reading(_ref(item.ref), item.grant_index, item.request_id, item.request_count) for item in request.items
        ]
        answers, keys = await self._records.get(current_caller(), asking, items)
        return pb.GetRecordsResponse(
            items=[
                pb.FoundRecord(refusal=_refusal(answer))
                if isinstance(answer, DomainError)
                else pb.FoundRecord(record=_wire(answer))
                for answer in answers
            ],
            keys=cast("pb.SealedKeys | None", keys),
        )

    async def ReuseRecords(self, request: pb.ReuseRecordsRequest, _: object) -> pb.ReuseRecordsResponse:
        """Allows records to be opened again with keys that were kept."""
        asked = [
            Again(
                _ref(item.ref),
                item.version,
                item.digest,
                _grant_of(request.grants, item.grant_index),
                item.request_id,
            )
            for item in request.items
        ]
        allowed = await self._reusing.reuse(current_caller(), request.consumer_public_key, asked)
        if not any(allowed):
            note_nothing_done()
        return pb.ReuseRecordsResponse(allowed=allowed)

    async def GetMasked(self, request: pb.GetMaskedRequest, _: object) -> pb.GetMaskedResponse:
        """Gives masked prefixes."""
        found = await self._records.masked(current_caller(), request.grant, [_ref(item) for item in request.items])
        return pb.GetMaskedResponse(
            items=[
                pb.MaskedRecord(masked=record.masked, version=record.version) if record else pb.MaskedRecord()
                for record in found
            ]
        )

    async def WithholdRecords(self, request: pb.WithholdRecordsRequest, _: object) -> pb.WithholdRecordsResponse:
        """Stops serving a connection."""
        await self._records.withhold(current_caller(), request.workspace_id, request.connection_id, request.request_id)
        return pb.WithholdRecordsResponse()

    async def KeepRecords(self, request: pb.KeepRecordsRequest, _: object) -> pb.KeepRecordsResponse:
        """Keeps a disconnected connection."""
        until = request.keep_until.ToDatetime(dt.UTC)
        await self._records.keep(
            current_caller(), request.workspace_id, request.connection_id, until, request.request_id
        )
        return pb.KeepRecordsResponse()

    async def RestoreRecords(self, request: pb.RestoreRecordsRequest, _: object) -> pb.RestoreRecordsResponse:
        """Takes a connection back that was kept."""
        await self._records.restore(current_caller(), request.grant, request.request_id)
        return pb.RestoreRecordsResponse()

    async def DeleteRecords(self, request: pb.DeleteRecordsRequest, _: object) -> pb.DeleteRecordsResponse:
        """Erases a connection."""
        count = await self._records.delete(
            current_caller(), request.workspace_id, request.connection_id, request.request_id
        )
        return pb.DeleteRecordsResponse(deleted_count=count)


def _grant_of(grants: Sequence[str], index: int) -> str:
    """Gives the grant that an item points to; an empty one, which nothing is allowed by, where there is none."""
    return grants[index] if index < len(grants) else ""


def _ref(ref: pb.RecordRef) -> Ref:
    return Ref(ref.workspace_id, ref.connection_id, int(ref.record_class))


def _record(item: pb.SealedRecord) -> Record:
    expires = item.expire_time.ToDatetime(dt.UTC) if item.HasField("expire_time") else None
    return Record(
        _ref(item.ref), item.version, item.record, item.provider, item.hosts_digest, item.masked, expires, item.fence
    )


def _wire(record: Record) -> pb.SealedRecord:
    wire = pb.SealedRecord(
        ref=wire_ref(record.ref),
        version=record.version,
        record=record.data,
        provider=record.provider,
        hosts_digest=record.hosts,
        masked=record.masked,
        fence=record.fence,
    )
    if record.expires_at is not None:
        wire.expire_time.FromDatetime(record.expires_at)
    return wire


def _refusal(error: DomainError) -> pb.Refusal:
    return pb.Refusal(reason=error.reason, code=int(error.status))
