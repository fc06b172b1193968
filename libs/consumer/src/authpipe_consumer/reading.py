"""Opening records: they come with their sealed keys, and are opened here."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from authpipe.types.v1 import records_pb2 as pb
from authpipe_consumer.calling import PAUSES, PENDING, StoreCaller, wire_ref
from authpipe_consumer.keeping import Kept, KeptRecord, Name
from authpipe_consumer.words import Opened, Want
from authpipe_envelope import HEADER_SIZE, Header, IntegrityError, RecordClass, RecordKey, open_record
from authpipe_grants import GrantError, Kind, ReleasedKey
from authpipe_rpc import Coalescer, PeerRefused, PeerUnavailable
from authpipe_sensitive import DomainError, Secret, Status

# What says nothing of one record.
_OF_THE_CALL = (PeerUnavailable, GrantError)


class _Again(NamedTuple):
    """What is about to be opened again."""

    want: Want
    kept: KeptRecord


@dataclass(slots=True)
class _Item:
    """One opening of a batch.

    Args:
        want: What is opened, as the first that wants it asks.
        requests: How many want it.
    """

    want: Want
    requests: int = 1


class RecordReader:
    """Opens records of one store.

    Args:
        store: The store.
    """

    def __init__(self, store: StoreCaller) -> None:
        self._store = store
        self._kept = Kept()
        self._opening: Coalescer[Want, Opened] = Coalescer(self.open_once)
        self._reusing: Coalescer[_Again, bool] = Coalescer(self._reuse)

    async def open_one(self, want: Want) -> Opened:
        """Opens a record: all that are asked for in the moment share one rpc, one select, one insert of events, one HPKE seal.

        It is asked for again for five seconds while a customer's KMS is still being asked, which holds up nobody else.
        What was kept of it is opened with that, when its store allows it.

        Raises:
            PeerRefused: It was refused.
            PeerUnavailable: The store or what is behind it is away.
            GrantError: What came was not sealed by keyservice as the answer to that very call.
        """
        if want.keep and (opened := await self._open_kept(want)) is not None:
            return opened
        for pause in PAUSES:
            try:
                return await self._opening.submit(want)
            except DomainError as error:
                if error.reason not in PENDING:
                    raise
            await asyncio.sleep(pause)
        return await self._opening.submit(want)

    async def open(self, wants: Sequence[Want]) -> list[Opened | DomainError]:
        """Opens records, together with what others ask for in the moment; one that is refused does not touch the others.

        Raises:
            PeerUnavailable: The store or what is behind it is away.
            GrantError: What came was not sealed by keyservice as the answer to that very call.
        """
        if len(wants) == 1:
            # The usual case does not pay for a task of its own.
            try:
                return [await self.open_one(wants[0])]
            except _OF_THE_CALL:
                raise
            except DomainError as error:
                return [error]
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
        challenge = self._store.key.new_challenge()
        items, places = _together(wants)
        request = pb.GetRecordsRequest(
            consumer_public_key=self._store.key.public,
            challenge=challenge,
            grants=grants,
            items=[
                pb.RecordWanted(
                    ref=wire_ref(item.want.workspace, item.want.connection, item.want.record_class or 0),
                    grant_index=position[item.want.grant],
                    request_id=item.want.request_id,
                    request_count=item.requests if item.requests > 1 else 0,
                )
                for item in items
            ],
        )
        response = await self._store.peer.call_idempotent(lambda stub: stub.GetRecords, request)
        if len(response.items) != len(items):
            raise GrantError
        keys = self._store.open_keys(response.keys, challenge, Kind.RECORD_KEYS)
        # By salt: one record may be asked for by several requests of the batch.
        by_salt = {key.salt: key for key in keys.values()}
        try:
            opened = [
                self._open_one(item.want, found, by_salt) for item, found in zip(items, response.items, strict=True)
            ]
        finally:
            for key in keys.values():
                key.material.destroy()
        return _handed_out(opened, places)

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
            consumer_public_key=self._store.key.public,
            grants=grants,
            items=[
                pb.RecordKept(
                    ref=wire_ref(want.workspace, want.connection, int(kept.record.ref.record_class)),
                    version=kept.key.version,
                    digest=kept.digest,
                    grant_index=position[want.grant],
                    request_id=want.request_id,
                )
                for want, kept in asked
            ],
        )
        response = await self._store.peer.call_idempotent(lambda stub: stub.ReuseRecords, request)
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
            name = (want.workspace, want.connection, record_class)
            context = self._store.context(name, released.version, record.provider, record.hosts_digest)
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


def _name_of(want: Want) -> Name:
    return Name(want.workspace, want.connection, int(want.record_class or 0))


def _together(wants: Sequence[Want]) -> tuple[list[_Item], list[int]]:
    """Gives what is opened for a batch, and of each want which of that is its own: what is shared is opened once."""
    items: list[_Item] = []
    places: list[int] = []
    shared: dict[Want, int] = {}
    for want in wants:
        place = shared.setdefault(want._replace(request_id=""), len(items)) if want.shared else len(items)
        if place == len(items):
            items.append(_Item(want))
        else:
            items[place].requests += 1
        places.append(place)
    return items, places


def _handed_out(opened: Sequence[Opened | DomainError], places: Sequence[int]) -> list[Opened | DomainError]:
    """Gives each want its own: whoever destroys a plaintext destroys no other's."""
    given: set[int] = set()
    answers = []
    for place in places:
        answer = opened[place]
        if place in given and isinstance(answer, Opened):
            answer = answer._replace(plaintext=answer.plaintext.copy())
        given.add(place)
        answers.append(answer)
    return answers
