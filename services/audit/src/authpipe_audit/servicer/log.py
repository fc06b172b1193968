"""The log: appended to, listed, exported, published."""

from __future__ import annotations

import datetime as dt
from collections.abc import Awaitable, Callable, Sequence

from google.protobuf.timestamp_pb2 import Timestamp

from authpipe.audit.v1 import audit_pb2 as pb
from authpipe.types.v1 import events_pb2, records_pb2
from authpipe_audit.domain.exporting import Cursor, Exporting
from authpipe_audit.domain.growing import Batch
from authpipe_audit.domain.pages import PageToken, Wanted
from authpipe_audit.domain.publishing import Publishing
from authpipe_audit.domain.reading import new_event
from authpipe_audit.domain.trails import Trail, trail_of
from authpipe_audit.domain.witnesses import Witnesses
from authpipe_audit.errors import BatchSignatureError, MalformedEventError, NoSuchTileError, PageTokenError
from authpipe_audit.store import Listing, Log, Name, WriteTable
from authpipe_grants import GrantError
from authpipe_rpc import Coalescer, current_caller
from authpipe_sensitive import DomainError
from authpipe_transparency import ProofError, Record, batch_root, batch_statement, parse_time, verify_batch

_LONGEST_PAGE, _USUAL_PAGE = 200, 50
_MOST_WRITES = 1000
# Of the emitters' batches that come while one transaction of their trail runs, so many share the next.
_MOST_BATCHES = 32
_NAMES = events_pb2.EventName
_CATALOGUE = {name.removeprefix("EVENT_NAME_") for name, _ in _NAMES.items()} - {"UNSPECIFIED", "NOTHING"}


class AuditServicer:
    """Serves Audit.

    Args:
        log: The log.
        listing: Its events.
        publishing: Its trees, for whoever verifies.
        witnesses: Who cosigns its checkpoints.
        exporting: Its events with their proofs.
        writes: What it says is stored.
        verify_chain: Verifies a certificate chain (DER, leaf first) under our CA; gives its public key and SPIFFE path.
        workspace_of: Gives the workspace of a grant to read its log, and refuses any other.
    """

    def __init__(  # one per part
        self,
        log: Log,
        listing: Listing,
        publishing: Publishing,
        witnesses: Witnesses,
        exporting: Exporting,
        writes: WriteTable,
        verify_chain: Callable[[Sequence[bytes]], tuple[object, str]],
        workspace_of: Callable[[str], str],
    ) -> None:
        self._log = log
        self._listing = listing
        self._publishing = publishing
        self._witnesses = witnesses
        self._exporting = exporting
        self._writes = writes
        self._verify_chain = verify_chain
        self._workspace_of = workspace_of
        self._appending = {
            trail: Coalescer(_appender(log, trail), largest=_MOST_BATCHES, outstanding=1) for trail in Trail
        }

    async def Append(self, request: pb.AppendRequest, _: object) -> pb.AppendResponse:
        """Appends a batch of the caller's; who emitted it is what the certificate says."""
        emitter = str(current_caller())
        trail = trail_of(emitter)
        if not request.events:
            return pb.AppendResponse(logged_sequence=await self._log.last_sequence(trail, emitter))
        batch = self._read(request, emitter)
        return pb.AppendResponse(logged_sequence=await self._appending[trail].submit(batch))

    def _read(self, request: pb.AppendRequest, emitter: str) -> Batch:
        try:
            public_key, signer = self._verify_chain(request.chain)
            statement = batch_statement(
                emitter, request.first_sequence, batch_root(request.events), len(request.events)
            )
            verify_batch(public_key, statement, request.signature)
        except (GrantError, ProofError):
            raise BatchSignatureError from None
        if signer != emitter:
            raise BatchSignatureError
        events = [new_event(event) for event in request.events]
        if request.first_sequence < 1 or any(event.name not in _CATALOGUE for event in events):
            raise MalformedEventError
        return Batch(emitter, request.first_sequence, events, request.signature, tuple(request.chain))

    async def List(self, request: pb.ListRequest, _: object) -> pb.ListResponse:
        """Lists a workspace's events, as of one size of each tree."""
        workspace = self._workspace_of(request.grant)
        token = PageToken.decode(request.page_token) if request.page_token else None
        sizes = token.sizes if token else await self._publishing.sizes()
        wanted = Wanted(
            workspace=workspace,
            sizes=sizes,
            trail=Trail(request.trail) if request.trail else None,
            name=_NAMES.Name(request.name).removeprefix("EVENT_NAME_") if request.name else "",
            outcome=_word(events_pb2.Outcome.Name(request.outcome), "OUTCOME_") if request.outcome else "",
            actor=request.actor,
            target=request.target,
            some_id=request.some_id,
            since=request.since.ToDatetime(dt.UTC) if request.HasField("since") else None,
            until=request.until.ToDatetime(dt.UTC) if request.HasField("until") else None,
            after=token.place if token else None,
        )
        size = min(request.page_size or _USUAL_PAGE, _LONGEST_PAGE)
        found = await self._listing.list_events(wanted, size + 1)
        response = pb.ListResponse(
            events=[
                pb.LoggedEvent(
                    event=to_wire(Record(each.record)),
                    leaf_index=each.place.leaf_index,
                    trail=each.place.trail,  # type: ignore[arg-type]
                )
                for each in found[:size]
            ],
            tree_sizes=[pb.TreeSize(trail=int(trail), size=value) for trail, value in sizes.items()],  # type: ignore[arg-type]
        )
        if len(found) > size:
            response.next_page_token = PageToken(sizes, found[size - 1].place).encode()
        return response

    async def GetCheckpoint(self, request: pb.GetCheckpointRequest, _: object) -> pb.GetCheckpointResponse:
        """Gives the newest signed checkpoint."""
        checkpoint = await self._publishing.checkpoint(_trail(request.trail), is_pending=request.is_pending)
        return pb.GetCheckpointResponse(checkpoint=checkpoint)

    async def AddCosignatures(self, request: pb.AddCosignaturesRequest, _: object) -> pb.AddCosignaturesResponse:
        """Keeps what witnesses have cosigned."""
        kept = await self._witnesses.add(_trail(request.trail), request.size, request.signatures)
        return pb.AddCosignaturesResponse(kept_count=kept)

    async def GetTile(self, request: pb.GetTileRequest, _: object) -> pb.GetTileResponse:
        """Gives a tile or an entry bundle."""
        return pb.GetTileResponse(data=await self._publishing.tile(_trail(request.trail), request.path))

    async def GetWrites(self, request: pb.GetWritesRequest, _: object) -> pb.GetWritesResponse:
        """Gives what the log says is stored."""
        if len(request.items) > _MOST_WRITES or not 0 <= request.page_size <= _MOST_WRITES:
            raise PageTokenError
        after = _name(request.after) if request.HasField("after") else None
        names = [_name(item) for item in request.items]
        found = await self._writes.writes(_trail(request.trail), names, after, request.page_size or _MOST_WRITES)
        return pb.GetWritesResponse(
            items=[
                pb.LoggedWrite(
                    ref=records_pb2.RecordRef(
                        workspace_id=each.name.workspace,
                        connection_id=each.name.target,
                        record_class=records_pb2.RecordClass.Value(f"RECORD_CLASS_{each.name.record_class.upper()}"),
                    )
                    if each.name.record_class
                    else records_pb2.RecordRef(workspace_id=each.name.workspace, connection_id=each.name.target),
                    leaf_index=each.leaf,
                    entry=each.entry,
                    record=each.record,
                    salt=each.salt,
                )
                for each in found
            ]
        )

    async def Export(self, request: pb.ExportRequest, _: object) -> pb.ExportResponse:
        """Exports a page of a workspace's events of one trail."""
        workspace, trail = self._workspace_of(request.grant), _trail(request.trail)
        if request.cursor:
            lines, cursor = await self._exporting.page(trail, workspace, Cursor.decode(request.cursor))
        else:
            size = (await self._publishing.sizes())[trail]
            lines, cursor = await self._exporting.begin(
                trail,
                workspace,
                request.since.ToDatetime(dt.UTC) if request.HasField("since") else None,
                request.until.ToDatetime(dt.UTC) if request.HasField("until") else None,
                size,
                request.seen_size,
            )
        return pb.ExportResponse(lines=lines, cursor=cursor.encode() if cursor else "")


def _appender(log: Log, trail: Trail) -> Callable[[Sequence[Batch]], Awaitable[Sequence[int | DomainError]]]:
    async def append(batches: Sequence[Batch]) -> Sequence[int | DomainError]:
        return await log.append(trail, batches)

    return append


def _name(ref: records_pb2.RecordRef) -> Name:
    word = records_pb2.RecordClass.Name(ref.record_class).removeprefix("RECORD_CLASS_").lower()
    return Name(ref.workspace_id, ref.connection_id, "" if word == "unspecified" else word)


def _trail(number: int) -> Trail:
    try:
        return Trail(number)
    except ValueError:
        raise NoSuchTileError from None


def to_wire(record: Record) -> events_pb2.AuditEvent:
    """Gives an event as it is shown."""
    return events_pb2.AuditEvent(
        event_id=record["id"],
        name=_NAMES.Value(f"EVENT_NAME_{record['name']}"),
        time=_timestamp(record["time"]),
        emitter=record.emitter,
        sequence=record.sequence,
        workspace_id=record.get("workspace", ""),
        actor=record["actor"],
        target=record.get("target", ""),
        purpose=records_pb2.Purpose.Value(f"PURPOSE_{record.get('purpose', 'unspecified').upper()}"),
        record_class=records_pb2.RecordClass.Value(f"RECORD_CLASS_{record.get('class', 'unspecified').upper()}"),
        record_version=int(record.get("version", 0)),
        outcome=events_pb2.Outcome.Value(f"OUTCOME_{record['outcome']}"),
        reason=record.get("reason", ""),
        request_id=record.get("request", ""),
        grant_id=record.get("grant", ""),
        trace_id=record.get("trace", ""),
        source_address=record.get("source", ""),
        digest=record.get("digest", ""),
        count=int(record.get("count", 0)),
        until_time=_timestamp(record["until"]) if "until" in record else None,
        tree_size=int(record.get("size", 0)),
        provider=record.get("provider", ""),
        records=map(_record_version, record.get("records", "").split()),
    )


def _record_version(text: str) -> events_pb2.RecordVersion:
    word, _, version = text.partition(":")
    return events_pb2.RecordVersion(
        record_class=records_pb2.RecordClass.Value(f"RECORD_CLASS_{word.upper()}"), record_version=int(version)
    )


def _timestamp(text: str) -> Timestamp:
    timestamp = Timestamp()
    timestamp.FromDatetime(parse_time(text))
    return timestamp


def _word(name: str, prefix: str) -> str:
    return name.removeprefix(prefix)
