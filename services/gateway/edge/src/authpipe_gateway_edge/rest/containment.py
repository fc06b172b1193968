"""Incidents, and what takes access away in one act, at /v1."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field

from authpipe_gateway_edge.domain import logged, words
from authpipe_gateway_edge.rest.api import ERRORS, Api, CallerDep, PageSize, PageToken


class EvidenceOut(BaseModel):
    """An event, with what proves that it is in the log; an empty record is expired, an empty proof comes in a second."""

    trail: str
    leaf_index: int
    record: str
    salt: str
    proof: str


class IncidentOut(BaseModel):
    """Something alarming that was found in the workspace's log (docs/alarms.md). A list shows no evidence."""

    id: str
    detector: str
    severity: str
    subject: str
    state: str
    open_time: datetime
    change_time: datetime
    notify_by: datetime | None
    evidence: list[EvidenceOut]

    @classmethod
    def of(cls, incident: logged.Incident) -> IncidentOut:
        """Shows an incident."""
        return cls(
            id=incident.id,
            detector=incident.detector,
            severity=incident.severity,
            subject=incident.subject,
            state=incident.state,
            open_time=incident.opened_at,
            change_time=incident.changed_at,
            notify_by=incident.notify_by,
            evidence=[
                EvidenceOut(
                    trail=each.trail, leaf_index=each.leaf_index, record=each.record, salt=each.salt, proof=each.proof
                )
                for each in incident.evidence
            ],
        )


class IncidentPage(BaseModel):
    """A page of incidents, newest first."""

    incidents: list[IncidentOut]
    next_page_token: str


class RotationIn(BaseModel):
    """What is to be rotated; with neither id everything of the workspace."""

    model_config = ConfigDict(extra="forbid")

    connection_id: str = Field(default="", max_length=80)
    provider_config_id: str = Field(default="", max_length=80)
    dry_run: bool = False


class RotationOut(BaseModel):
    """How far a rotation is. Of those that failed each has its REFRESH_FAILED in the log; the irreplaceable are yours."""

    id: str
    total_count: int
    rotated_count: int
    failed_count: int
    irreplaceable_count: int
    begin_time: datetime
    end_time: datetime | None

    @classmethod
    def of(cls, rotation: words.Rotation) -> RotationOut:
        """Shows a rotation."""
        return cls(
            id=rotation.id,
            total_count=rotation.total,
            rotated_count=rotation.rotated,
            failed_count=rotation.failed,
            irreplaceable_count=rotation.irreplaceable,
            begin_time=rotation.began_at,
            end_time=rotation.ended_at,
        )


class ActIn(BaseModel):
    """An act on the whole workspace. With `dry_run` it is only said what it would do."""

    model_config = ConfigDict(extra="forbid")

    dry_run: bool = False


class RevokedOut(BaseModel):
    """How many API keys were active, and are revoked."""

    revoked_count: int


class FrozenOut(BaseModel):
    """Whether the workspace was frozen already."""

    was_frozen: bool


def router(api: Api) -> APIRouter:
    """Makes the routes."""
    routes = APIRouter(prefix="/v1", responses=ERRORS, tags=["Containment"])

    @routes.post("/connections/{connection_id}/decoy", status_code=204)
    async def place_decoy(caller: CallerDep, connection_id: str) -> None:
        """Makes a connection a decoy: whoever uses it raises an alarm. That it is one shows nowhere but in the log."""
        await api.containing.place_decoy(caller, connection_id)

    @routes.get("/incidents")
    async def list_incidents(
        caller: CallerDep,
        *,
        open_only: Annotated[bool, Query(alias="open")] = False,
        page_size: PageSize = 50,
        page_token: PageToken = "",
    ) -> IncidentPage:
        """Lists what was found alarming in the workspace's log, newest first."""
        found, following = await api.containing.list_incidents(caller, page_size, page_token, open_only=open_only)
        return IncidentPage(incidents=[IncidentOut.of(each) for each in found], next_page_token=following)

    @routes.get("/incidents/{incident_id}")
    async def get_incident(caller: CallerDep, incident_id: str) -> IncidentOut:
        """Gives an incident with its evidence: events, each with the proof that it is in the log (C2SP tlog-proof)."""
        return IncidentOut.of(await api.containing.get_incident(caller, incident_id))

    @routes.post("/rotations", status_code=202)
    async def rotate_tokens(caller: CallerDep, body: RotationIn) -> RotationOut:
        """Begins to rotate every token of a connection, a provider configuration, or the workspace."""
        found = await api.containing.rotate(caller, body.connection_id, body.provider_config_id, dry_run=body.dry_run)
        return RotationOut.of(found)

    @routes.get("/rotations/{rotation_id}")
    async def get_rotation(caller: CallerDep, rotation_id: str) -> RotationOut:
        """Says how far a rotation is. It goes on whoever asks, also when a part of us dies."""
        return RotationOut.of(await api.containing.get_rotation(caller, rotation_id))

    @routes.post("/api-keys:revoke-all")
    async def revoke_api_keys(caller: CallerDep, body: ActIn) -> RevokedOut:
        """Revokes all API keys of the workspace, also the one that asks."""
        return RevokedOut(revoked_count=await api.containing.revoke_api_keys(caller, dry_run=body.dry_run))

    @routes.post("/workspace:freeze")
    async def freeze_workspace(caller: CallerDep, body: ActIn) -> FrozenOut:
        """Freezes the workspace: nothing is served or changed, tokens are kept alive. Only an operator undoes it."""
        return FrozenOut(was_frozen=await api.containing.freeze(caller, dry_run=body.dry_run))

    return routes
