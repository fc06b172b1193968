"""audit, in edge's own words."""

from __future__ import annotations

import datetime as dt

from authpipe.audit.v1 import audit_pb2, audit_pb2_grpc
from authpipe.types.v1 import events_pb2, records_pb2
from authpipe_gateway_edge.domain.logged import Event, EventFilter, Events, Export, RecordVersion
from authpipe_gateway_edge.domain.words import Verdict
from authpipe_gateway_edge.errors import NotFoundError
from authpipe_gateway_edge.peers.reading import to_time
from authpipe_rpc import Peer


class AuditPeer:
    """The audit log.

    Args:
        peer: The connection to it.
    """

    def __init__(self, peer: Peer[audit_pb2_grpc.AuditAsyncStub]) -> None:
        self._peer = peer

    async def list_events(self, verdict: Verdict, wanted: EventFilter) -> Events:
        """Gives a page of events, newest first."""
        name = events_pb2.EventName.DESCRIPTOR.values_by_name.get(f"EVENT_NAME_{wanted.event}")
        outcome = events_pb2.Outcome.DESCRIPTOR.values_by_name.get(f"OUTCOME_{wanted.outcome.upper()}")
        if (wanted.event and name is None) or (wanted.outcome and outcome is None):
            return Events([], "", {})
        request = audit_pb2.ListRequest(
            grant=verdict.manage_grant,
            name=name.number if wanted.event and name else 0,  # type: ignore[arg-type]
            target=wanted.target,
            actor=wanted.actor,
            outcome=outcome.number if wanted.outcome and outcome else 0,  # type: ignore[arg-type]
            some_id=wanted.some_id,
            trail=_trail(wanted.trail) if wanted.trail else 0,  # type: ignore[arg-type]
            since=to_time(wanted.since),
            until=to_time(wanted.until),
            page_size=wanted.page_size,
            page_token=wanted.page_token,
        )
        response = await self._peer.call_idempotent(lambda stub: stub.List, request)
        sizes = {_trail_word(each.trail): each.size for each in response.tree_sizes}
        return Events([_event(each) for each in response.events], response.next_page_token, sizes)

    async def export(self, verdict: Verdict, wanted: Export, cursor: str) -> tuple[bytes, str]:
        """Gives lines of an export, and where they ended; empty: that was all.

        Raises:
            NotFoundError: There is no such trail.
        """
        request = audit_pb2.ExportRequest(
            grant=verdict.manage_grant,
            trail=_trail(wanted.trail),  # type: ignore[arg-type]
            since=to_time(wanted.since),
            until=to_time(wanted.until),
            seen_size=wanted.seen_size,
            cursor=cursor,
        )
        response = await self._peer.call_idempotent(lambda stub: stub.Export, request)
        return response.lines, response.cursor

    async def add_cosignatures(self, trail: str, size: int, signatures: str) -> int:
        """Brings what witnesses have cosigned; gives how many of it is kept.

        Raises:
            NotFoundError: There is no such trail.
            PeerRefused: COSIGNATURE_REFUSED.
        """
        request = audit_pb2.AddCosignaturesRequest(
            trail=_trail(trail),  # type: ignore[arg-type]
            size=size,
            signatures=signatures,
        )
        return (await self._peer.call_idempotent(lambda stub: stub.AddCosignatures, request)).kept_count

    async def checkpoint(self, trail: str, *, is_pending: bool) -> str:
        """Gives a trail's newest checkpoint; or the newest that is signed, also when witnesses are waited for.

        Raises:
            NotFoundError: There is no such trail.
        """
        request = audit_pb2.GetCheckpointRequest(trail=_trail(trail), is_pending=is_pending)  # type: ignore[arg-type]
        return (await self._peer.call_idempotent(lambda stub: stub.GetCheckpoint, request)).checkpoint

    async def tile(self, trail: str, path: str) -> bytes:
        """Gives a tile or an entry bundle.

        Raises:
            NotFoundError: There is no such trail.
            PeerRefused: NO_SUCH_TILE.
        """
        request = audit_pb2.GetTileRequest(trail=_trail(trail), path=path)  # type: ignore[arg-type]
        return (await self._peer.call_idempotent(lambda stub: stub.GetTile, request)).data


def _trail(word: str) -> int:
    number = _TRAILS.get(word)
    if number is None:
        raise NotFoundError
    return number


def _trail_word(number: int) -> str:
    return audit_pb2.Trail.Name(number).removeprefix("TRAIL_").lower().replace("_", "-")  # type: ignore[arg-type]


_TRAILS = {_trail_word(number): number for number in audit_pb2.Trail.values() if number}


def _event(logged: audit_pb2.LoggedEvent) -> Event:
    event = logged.event
    return Event(
        event_id=event.event_id,
        name=events_pb2.EventName.Name(event.name).removeprefix("EVENT_NAME_"),
        time=event.time.ToDatetime(dt.UTC),
        emitter=event.emitter,
        sequence=event.sequence,
        workspace=event.workspace_id,
        actor=event.actor,
        target=event.target,
        purpose=_word(records_pb2.Purpose.Name(event.purpose), "PURPOSE_"),
        record_class=_class(event.record_class),
        record_version=event.record_version,
        outcome=_word(events_pb2.Outcome.Name(event.outcome), "OUTCOME_"),
        reason=event.reason,
        request_id=event.request_id,
        grant_id=event.grant_id,
        trace_id=event.trace_id,
        source_address=event.source_address,
        digest=event.digest,
        count=event.count,
        until=event.until_time.ToDatetime(dt.UTC) if event.HasField("until_time") else None,
        tree_size=event.tree_size,
        provider=event.provider,
        records=tuple(RecordVersion(_class(each.record_class), each.record_version) for each in event.records),
        trail=_trail_word(logged.trail),
        leaf_index=logged.leaf_index,
    )


def _class(number: records_pb2.RecordClass.ValueType) -> str:
    return _word(records_pb2.RecordClass.Name(number), "RECORD_CLASS_")


def _word(name: str, prefix: str) -> str:
    word = name.removeprefix(prefix)
    return "" if word == "UNSPECIFIED" else word.lower()
