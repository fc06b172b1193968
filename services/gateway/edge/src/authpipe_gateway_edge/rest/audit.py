"""The log: a workspace's events at /v1/audit, and for anybody who verifies, its checkpoints and tiles at /log."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import datetime
from typing import Annotated, Literal

from fastapi import APIRouter, Query, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ConfigDict, Field

from authpipe_gateway_edge.domain import logged
from authpipe_gateway_edge.domain.ocsf import lines_to_ocsf
from authpipe_gateway_edge.domain.ports import AuditLog
from authpipe_gateway_edge.rest.api import ERRORS, Api, CallerDep, PageSize, PageToken
from authpipe_gateway_edge.rest.schemas import with_zone

_TEXT, _BYTES = "text/plain; charset=utf-8", "application/octet-stream"
# What a checkpoint has, it has for ever; the newest checkpoint is another one in a second (C2SP tlog-tiles).
_FOR_EVER, _FOR_A_MOMENT = "public, max-age=31536000, immutable", "public, max-age=1"
Filter = Annotated[str, Query(max_length=96)]
Trail = Annotated[Literal["user-credentials", "client-secrets", "control"], Query()]


class RecordVersionOut(BaseModel):
    """A version of a record."""

    record_class: str
    record_version: int


class EventOut(BaseModel):
    """An audit event with its place in the tree of its trail."""

    event_id: str
    event: str
    time: datetime
    emitter: str
    sequence: int
    actor: str
    target: str
    purpose: str
    record_class: str
    record_version: int
    outcome: str
    reason: str
    request_id: str
    grant_id: str
    trace_id: str
    source_address: str
    digest: str
    count: int
    until_time: datetime | None
    tree_size: int
    provider: str
    records: list[RecordVersionOut]
    trail: str
    leaf_index: int

    @classmethod
    def of(cls, event: logged.Event) -> EventOut:
        """Shows an event."""
        return cls(
            event_id=event.event_id,
            event=event.name,
            time=event.time,
            emitter=event.emitter,
            sequence=event.sequence,
            actor=event.actor,
            target=event.target,
            purpose=event.purpose,
            record_class=event.record_class,
            record_version=event.record_version,
            outcome=event.outcome,
            reason=event.reason,
            request_id=event.request_id,
            grant_id=event.grant_id,
            trace_id=event.trace_id,
            source_address=event.source_address,
            digest=event.digest,
            count=event.count,
            until_time=event.until,
            tree_size=event.tree_size,
            provider=event.provider,
            records=[RecordVersionOut(**each._asdict()) for each in event.records],
            trail=event.trail,
            leaf_index=event.leaf_index,
        )


class CosignaturesIn(BaseModel):
    """Cosignatures of the checkpoint of a size: signature lines, as a witness has answered."""

    model_config = ConfigDict(extra="forbid")

    size: int = Field(ge=1, lt=10**18)
    signatures: str = Field(max_length=16_384)


class EventPage(BaseModel):
    """A page of audit events, newest first, as of the sizes of the trees."""

    events: list[EventOut]
    next_page_token: str
    tree_sizes: dict[str, int]


def router(api: Api) -> APIRouter:
    """Makes the routes of /v1/audit."""
    routes = APIRouter(prefix="/v1/audit", responses=ERRORS, tags=["Audit"])

    @routes.get("/events")
    async def list_audit_events(  # one per filter
        caller: CallerDep,
        event: Filter = "",
        target: Filter = "",
        actor: Filter = "",
        outcome: Filter = "",
        some_id: Annotated[str, Query(max_length=96, alias="id")] = "",
        trail: Filter = "",
        since: datetime | None = None,
        until: datetime | None = None,
        page_size: PageSize = 50,
        page_token: PageToken = "",
    ) -> EventPage:
        """Lists the workspace's log, newest first.

        The pages are of the trees as they were signed when the first was asked for: what happens meanwhile does not
        move them. `id` finds an id wherever it stands: target, actor, request, grant, trace, event.
        """
        wanted = logged.EventFilter(
            event, target, actor, outcome, some_id, trail, with_zone(since), with_zone(until), page_size, page_token
        )
        found = await api.managing.list_events(caller, wanted)
        return EventPage(
            events=[EventOut.of(each) for each in found.events],
            next_page_token=found.next_page_token,
            tree_sizes=found.tree_sizes,
        )

    @routes.get("/export", response_class=Response)
    async def export_audit_log(
        caller: CallerDep,
        trail: Trail,
        since: datetime | None = None,
        until: datetime | None = None,
        seen_size: Annotated[int, Query(ge=0, lt=10**18)] = 0,
        form: Annotated[Literal["proofs", "ocsf"], Query(alias="format")] = "proofs",
    ) -> Response:
        """Exports the workspace's log with its proofs, as lines of JSON, for `authpipe audit verify`.

        It is of the newest checkpoint. `seen_size` is the size of a tree whose checkpoint you have: what comes proves
        that the tree extends that one. Without `since` and `until` it is all there is, and nothing can be left out.
        With `format=ocsf` the events alone come, as OCSF 1.3 API Activity.
        """
        pieces = api.managing.export(caller, logged.Export(trail, with_zone(since), with_zone(until), seen_size))
        # What is refused is refused before the answer begins; one that breaks off has no last line.
        first = await anext(pieces)
        whole = _continued(first, pieces)
        shown = _as_ocsf(whole, trail) if form == "ocsf" else whole
        return StreamingResponse(shown, media_type="application/x-ndjson")

    return routes


async def _as_ocsf(pieces: AsyncIterator[bytes], trail: str) -> AsyncIterator[bytes]:
    async for piece in pieces:
        yield lines_to_ocsf(piece, trail)


async def _continued(first: bytes, others: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    async for piece in others:
        yield piece


def public_router(log: AuditLog) -> APIRouter:
    """Makes the routes of /log: the log as C2SP tlog-tiles has it, one for each trail. Nobody needs a key for them."""
    routes = APIRouter(prefix="/log/{trail}", tags=["Log"])

    @routes.get("/checkpoint")
    async def get_checkpoint(trail: str) -> Response:
        """Gives the newest signed checkpoint (C2SP tlog-checkpoint)."""
        headers = {"cache-control": _FOR_A_MOMENT}
        return Response(await log.checkpoint(trail, is_pending=False), headers=headers, media_type=_TEXT)

    @routes.get("/pending")
    async def get_pending(trail: str) -> Response:
        """Gives the newest checkpoint that is signed, for witnesses to cosign it before it is published."""
        headers = {"cache-control": "no-store"}
        return Response(await log.checkpoint(trail, is_pending=True), headers=headers, media_type=_TEXT)

    @routes.post("/cosignatures", status_code=204)
    async def add_cosignatures(trail: str, body: CosignaturesIn) -> None:
        """Brings what witnesses have cosigned (C2SP tlog-cosignature): whoever brings it, it proves itself."""
        await log.add_cosignatures(trail, body.size, body.signatures)

    @routes.get("/tile/{path:path}")
    async def get_tile(trail: str, path: str) -> Response:
        """Gives a tile of hashes, or under `entries/` a bundle of entries (C2SP tlog-tiles)."""
        headers = {"cache-control": _FOR_EVER}
        return Response(await log.tile(trail, path), headers=headers, media_type=_BYTES)

    return routes
