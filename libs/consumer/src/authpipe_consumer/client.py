"""Asking a store: records come with their sealed keys and are opened here; writes are prepared, sealed here, and put."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import NamedTuple, Protocol, cast

from authpipe.types.v1 import records_pb2 as pb
from google.protobuf.message import DecodeError
from authpipe_consumer.keeping import Kept, KeptRecord, Name
from authpipe_consumer.words import Opened, PackedWrite, Sealing, SealedWrite, Want, WriteKey
from authpipe_envelope import (
    HEADER_SIZE,
    Context,
    Header,
    IntegrityError,
    RecordClass,
    RecordKey,
    open_record,
    seal_record,
)
from authpipe_grants import ConsumerKey, GrantError, Kind, ReleasedKey, SealedBundle, TrustAnchor
from authpipe_rpc import Coalescer, Peer, PeerRefused, PeerUnavailable
from authpipe_sensitive import DomainError, Secret, Status


# The same question has another answer in a moment: keyservice is still asking a customer's KMS, which lets nobody wait in a
# batch with others; or the record was written again between its store and keyservice.
_PENDING = {"CUSTOMER_KEY_PENDING", "RECORD_SUPERSEDED"}
_PAUSES = (0.01, 0.02, 0.04, 0.08, 0.15, 0.3, 0.5, 0.8, 1.0, 1.0, 1.0)
# A message is four times as long at most.
_LONGEST_BATCH = 4 * 1024 * 1024
# What says nothing of one record.
_OF_THE_CALL = (PeerUnavailable, GrantError)


class _Intent(NamedTuple):
    """What is about to be written of a connection."""

    workspace: str
    connection: str
    classes: tuple[RecordClass, ...]
    grant: str
    request_id: str


class _Again(NamedTuple):
    """What is about to be opened again."""

    want: Want
    kept: KeptRecord


class StoreStub(Protocol):
    """The generated stub of vault or clientsecrets; the last of these is vault's alone."""

    @property
    def PrepareWrites(self) -> Callable[..., Awaitable[pb.PrepareWritesResponse]]: ...
    @property
    def PutRecords(self) -> Callable[..., Awaitable[pb.PutRecordsResponse]]: ...
    @property
    def GetRecords(self) -> Callable[..., Awaitable[pb.GetRecordsResponse]]: ...
    @property
    def ReuseRecords(self) -> Callable[..., Awaitable[pb.ReuseRecordsResponse]]: ...


class RecordClient:
    """A consumer of one store.

    Args:
        peer: The connection to the store.
        key: This consumer's HPKE key.
        anchor: Our CA.
        deployment: The installation, as bound in contexts.
        region: The region, as bound in contexts.
        key_domain: The store's key domain; its keyservice is ``keyservice/<key domain>``.
        clock: Gives the time, with zone.
    """

    def __init__(  # required means argument
        self,
        peer: Peer[StoreStub],
        key: ConsumerKey,
        anchor: TrustAnchor,
        deployment: str,
        region: str,
        key_domain: str,
        clock: Callable[[], dt.datetime],
    ) -> None:
        self._peer = peer
        self._key = key
        self._anchor = anchor
        self._deployment = deployment
        self._region = region
        self._key_domain = key_domain
        self._clock = clock
        self._kept = Kept()
        self._opening: Coalescer[Want, Opened] = Coalescer(self.open_once)
        self._reusing: Coalescer[_Again, bool] = Coalescer(self._reuse)
        self._preparing: Coalescer[_Intent, dict[RecordClass, WriteKey]] = Coalescer(self._prepare)
        self._putting: Coalescer[pb.Write, None] = Coalescer(self._put)

    async def open_one(self, want: Want) -> Opened:
        """Opens a record: all that are asked for in the moment share one rpc, one select, one event, one HPKE seal.

        It is asked for again for five seconds while a customer's KMS is still being asked, which holds up nobody else.
        What was kept of it is opened with that, when its store allows it.

        Raises:
            PeerRefused: It was refused.
            PeerUnavailable: The store or what is behind it is away.
            GrantError: What came was not sealed by keyservice as the answer to that very call.
        """
        if want.keep and (opened := await self._open_kept(want)) is not None:
            return opened
        for pause in _PAUSES:
            try:
                return await self._opening.submit(want)
            except DomainError as error:
                if error.reason not in _PENDING:
                    raise
            await asyncio.sleep(pause)
        return await self._opening.submit(want)

    async def open(self, wants: Sequence[Want]) -> list[Opened | DomainError]:
        """Opens records, together with what others ask for in the moment; one that is refused does not touch the others.

        Raises:
            PeerUnavailable: The store or what is behind it is away.
            GrantError: What came was not sealed by keyservice as the answer to that very call.
        """
        answers = await asyncio.gather(*map(self.open_one, wants), return_exceptions=True)
        found: list[Opened | DomainError] = []
        failed: BaseException | None = None
        for answer in answers:
            if isinstance(answer, Opened) or (isinstance(answer, DomainError) and not isinstance(answer, _OF_THE_CALL)):
                found.append(answer)
            else:
                failed = answer
        if failed is None:
            return found
        # Nobody is given the others: they must not lie about.
        for each in found:
            if isinstance(each, Opened):
                each.plaintext.destroy()
        raise failed

    async def open_once(self, wants: Sequence[Want]) -> list[Opened | DomainError]:
        """Opens records: one rpc for the batch; an item that is refused does not touch the others.

        Raises:
            PeerUnavailable: The store or what is behind it is away.
            GrantError: What came was not sealed by keyservice as the answer to this very call.
        """
        grants = list(dict.fromkeys(want.grant for want in wants))
        position = {grant: index for index, grant in enumerate(grants)}
        challenge = self._key.new_challenge()
        request = pb.GetRecordsRequest(
            consumer_public_key=self._key.public,
            challenge=challenge,
            grants=grants,
            items=[
                pb.RecordWanted(
                    ref=_ref(want.workspace, want.connection, want.record_class or 0),
                    grant_index=position[want.grant],
                    request_id=want.request_id,
                )
                for want in wants
            ],
        )
        response = await self._peer.call_idempotent(lambda stub: stub.GetRecords, request)
        if len(response.items) != len(wants):
            raise GrantError
        keys = self._open_keys(response.keys, challenge, Kind.RECORD_KEYS)
        # By salt: one record may be asked for by several requests of the batch.
        by_salt = {key.salt: key for key in keys.values()}
        try:
            return [self._open_one(want, item, by_salt) for want, item in zip(wants, response.items, strict=True)]
        finally:
            for key in keys.values():
                key.material.destroy()

    async def _open_kept(self, want: Want) -> Opened | None:
        """Opens what was kept of a record; None: nothing was, or its store does not allow it, or its time is over."""
        name = _name_of(want)
        kept = self._kept.get(name)
        if kept is None:
            return None
        try:
            allowed = await self._reusing.submit(_Again(want, kept))
        except PeerRefused:
            # Who asks anew hears why.
            allowed = False
        if self._kept.get(name) is not kept:
            return None
        opened = self._open_record(want, kept.record, kept.key) if allowed else None
        if not isinstance(opened, Opened):
            self._kept.forget(name)
            return None
        return opened

    async def _reuse(self, asked: Sequence[_Again]) -> Sequence[bool]:
        """Asks whether records may be opened again: one rpc, one statement for the batch."""
        grants = list(dict.fromkeys(again.want.grant for again in asked))
        position = {grant: index for index, grant in enumerate(grants)}
        request = pb.ReuseRecordsRequest(
            consumer_public_key=self._key.public,
            grants=grants,
            items=[
                pb.RecordKept(
                    ref=_ref(want.workspace, want.connection, int(kept.record.ref.record_class)),
                    version=kept.key.version,
                    digest=kept.digest,
                    grant_index=position[want.grant],
                    request_id=want.request_id,
                )
                for want, kept in asked
            ],
        )
        response = await self._peer.call_idempotent(lambda stub: stub.ReuseRecords, request)
        return response.allowed

    def _open_one(self, want: Want, item: pb.FoundRecord, keys: Mapping[bytes, ReleasedKey]) -> Opened | DomainError:
        if item.HasField("refusal"):
            return PeerRefused(item.refusal.reason, Status(item.refusal.code))
        try:
            released = keys.get(Header.parse(item.record.record[:HEADER_SIZE]).salt)
        except DomainError as error:
            return error
        if released is None or want.record_class not in {None, int(item.record.ref.record_class)}:
            return IntegrityError()
        opened = self._open_record(want, item.record, released)
        if want.keep and released.keep_seconds and isinstance(opened, Opened):
            self._kept.keep(_name_of(want), item.record, released._replace(material=released.material.copy()))
        return opened

    def _open_record(self, want: Want, record: pb.SealedRecord, released: ReleasedKey) -> Opened | DomainError:
        try:
            record_class = RecordClass(int(record.ref.record_class))
            # The context is what we asked for and what keyservice released the key for; not what the store says.
            context = Context(
                deployment=self._deployment,
                region=self._region,
                key_domain=self._key_domain,
                workspace=want.workspace,
                connection=want.connection,
                record_class=int(record_class),
                version=released.version,
                provider=record.provider,
                hosts=record.hosts_digest,
            )
            key = RecordKey(Secret(released.material.expose()), released.key_version, released.salt)
            plaintext = open_record(key, context, record.record)
        except ValueError:
            return IntegrityError()
        except DomainError as error:
            return error
        expires = record.expire_time.ToDatetime(dt.UTC) if record.HasField("expire_time") else None
        return Opened(
            plaintext=plaintext,
            record_class=record_class,
            version=released.version,
            provider=record.provider,
            hosts=record.hosts_digest,
            expires_at=expires,
            masked=record.masked,
            fence=record.fence,
        )

    async def prepare(
        self, workspace: str, connection: str, classes: Sequence[RecordClass], grant: str, request_id: str
    ) -> dict[RecordClass, WriteKey]:
        """Has write keys of the next versions released; asks again while a customer's KMS is still being asked.

        Raises:
            DomainError: One of them was refused: none is usable.
        """
        wanted = _Intent(workspace, connection, tuple(classes), grant, request_id)
        for pause in _PAUSES:
            try:
                return await self._preparing.submit(wanted)
            except PeerRefused as error:
                if error.reason not in _PENDING:
                    raise
            await asyncio.sleep(pause)
        return await self._preparing.submit(wanted)

    async def _prepare(self, wanted: Sequence[_Intent]) -> list[dict[RecordClass, WriteKey] | DomainError]:
        """Has write keys released: one rpc for the batch; what is refused does not touch the others."""
        grants = list(dict.fromkeys(each.grant for each in wanted))
        position = {grant: index for index, grant in enumerate(grants)}
        challenge = self._key.new_challenge()
        names = [(each, record_class) for each in wanted for record_class in each.classes]
        request = pb.PrepareWritesRequest(
            consumer_public_key=self._key.public,
            challenge=challenge,
            grants=grants,
            items=[
                pb.WriteIntent(
                    ref=_ref(each.workspace, each.connection, record_class),
                    grant_index=position[each.grant],
                    request_id=each.request_id,
                )
                for each, record_class in names
            ],
        )
        response = await self._peer.call_idempotent(lambda stub: stub.PrepareWrites, request)
        if len(response.items) != len(names):
            raise GrantError
        keys = self._open_keys(response.keys, challenge, Kind.WRITE_KEYS)
        answers: list[dict[RecordClass, WriteKey] | DomainError] = []
        first = 0
        for each in wanted:
            items = response.items[first : first + len(each.classes)]
            answers.append(_prepared(each, items, [keys.get(first + index) for index in range(len(items))]))
            first += len(each.classes)
        return answers

    def seal(self, write: WriteKey, sealing: Sealing, plaintext: Secret) -> SealedWrite:
        """Seals a plaintext as the next version of a record. The write key is used up."""
        context = Context(
            deployment=self._deployment,
            region=self._region,
            key_domain=self._key_domain,
            workspace=write.workspace,
            connection=write.connection,
            record_class=int(write.record_class),
            version=write.version,
            provider=sealing.provider,
            hosts=sealing.hosts,
        )
        sealed = pb.SealedRecord(
            ref=_ref(write.workspace, write.connection, write.record_class),
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
                consumed=[_ref(workspace, connection, each) for workspace, connection, each in consumed],
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
                response = await self._peer.call_idempotent(lambda stub: stub.PutRecords, request)
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

    def _open_keys(self, keys: pb.SealedKeys, challenge: bytes, kind: Kind) -> Mapping[int, ReleasedKey]:
        if not keys.sealed:
            return {}
        bundle = SealedBundle(keys.sealed, keys.signature, tuple(keys.chain))
        keyservice = f"keyservice/{self._key_domain}"
        return self._key.open_keys(bundle, challenge, kind, self._anchor, keyservice, self._clock())


def _name_of(want: Want) -> Name:
    return Name(want.workspace, want.connection, int(want.record_class or 0))


def _ref(workspace: str, connection: str, record_class: int) -> pb.RecordRef:
    return pb.RecordRef(
        workspace_id=workspace,
        connection_id=connection,
        record_class=record_class,  # type: ignore[arg-type]  # the stub's enum is a NewType of int
    )


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
