"""A workspace's members at /v1/members. Only a member who is signed in to the dashboard is served, never an API key."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from fastapi import APIRouter, Response
from pydantic import BaseModel, ConfigDict, Field

from authpipe_gateway_edge.rest.api import ERRORS, Api, CallerDep

Role = Literal["auditor", "developer", "admin", "owner"]


class MemberOut(BaseModel):
    """Somebody of the workspace."""

    id: str
    email: str
    role: str
    state: str


class MembersOut(BaseModel):
    """The members of the workspace, and which of them asks."""

    workspace: str
    own_id: str
    members: list[MemberOut]


class InvitationIn(BaseModel):
    """Who is invited, in which role: none above your own."""

    model_config = ConfigDict(extra="forbid")

    email: str = Field(min_length=3, max_length=320)
    role: Role


class InvitationOut(BaseModel):
    """The invitation, shown this once: whoever opens the address within three days becomes the member."""

    member_id: str
    url: str
    expire_time: datetime


class RoleIn(BaseModel):
    """The other role."""

    model_config = ConfigDict(extra="forbid")

    role: Role


def router(api: Api) -> APIRouter:
    """Makes the routes."""
    routes = APIRouter(prefix="/v1/members", responses=ERRORS, tags=["Members"])

    @routes.get("")
    async def list_members(caller: CallerDep) -> MembersOut:
        """Lists who is a member or invited."""
        found = await api.membering.list_members(caller)
        members = [MemberOut(id=each.id, email=each.email, role=each.role, state=each.state) for each in found.members]
        return MembersOut(workspace=found.workspace, own_id=found.own_id, members=members)

    @routes.post("", status_code=201)
    async def invite_member(caller: CallerDep, body: InvitationIn, response: Response) -> InvitationOut:
        """Invites somebody. Send them the address by a way that only they read."""
        invitation = await api.membering.invite(caller, body.email, body.role)
        response.headers["cache-control"] = "no-store"
        return InvitationOut(
            member_id=invitation.member_id,
            url=invitation.url.expose().decode(),
            expire_time=invitation.expires_at,
        )

    @routes.patch("/{member_id}", status_code=204)
    async def change_member_role(caller: CallerDep, member_id: str, body: RoleIn) -> None:
        """Gives a member another role; the member has to sign in again. Nobody changes their own."""
        await api.membering.change_role(caller, member_id, body.role)

    @routes.delete("/{member_id}", status_code=204)
    async def remove_member(caller: CallerDep, member_id: str) -> None:
        """Removes a member: their sessions end within seconds. The last owner stays."""
        await api.membering.remove(caller, member_id)

    return routes
