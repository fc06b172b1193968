"""audit, in edge's own words."""

from __future__ import annotations

import datetime as dt


from authpipe.audit.v1 import audit_pb2, audit_pb2_grpc
from authpipe.types.v1 import events_pb2, records_pb2
from authpipe_gateway_edge.domain.words import (
    Event,
    EventFilter,
    Verdict,
)
from authpipe_gateway_edge.peers.reading import to_time
from authpipe_rpc import Peer


class AuditPeer:
    """The audit log.

    Args:
        peer: The connection to it.
    """

    def __init__(self, peer: Peer[audit_pb2_grpc.AuditAsyncStub]) -> None:
        self._peer = peer

    async def list_events(self, verdict: Verdict, wanted: EventFilter) -> tuple[list[Event], str]:
        """Gives a page of events, newest first."""
        number = events_pb2.EventName.DESCRIPTOR.values_by_name.get(f"EVENT_NAME_{wanted.event}")
        if wanted.event and number is None:
            return [], ""
        request = audit_pb2.ListRequest(
            grant=verdict.manage_grant,
            name=number.number if wanted.event and number else 0,  # type: ignore[arg-type]
            target=wanted.target,
            since=to_time(wanted.since),
            until=to_time(wanted.until),
            page_size=wanted.page_size,
            page_token=wanted.page_token,
        )
        response = await self._peer.call_idempotent(lambda stub: stub.List, request)
        return [_event(each) for each in response.events], response.next_page_token


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
        record_class=_word(records_pb2.RecordClass.Name(event.record_class), "RECORD_CLASS_"),
        record_version=event.record_version,
        outcome=_word(events_pb2.Outcome.Name(event.outcome), "OUTCOME_"),
        reason=event.reason,
        request_id=event.request_id,
        grant_id=event.grant_id,
        leaf_index=logged.leaf_index,
    )


def _word(name: str, prefix: str) -> str:
    word = name.removeprefix(prefix)
    return "" if word == "UNSPECIFIED" else word.lower()
