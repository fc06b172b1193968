"""authority, in an operator's own words."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import Any

from authpipe_rpc import Peer  # first: it sets grpc's cipher list

from authpipe.authority.v1 import authority_pb2, members_pb2
from authpipe_admin.peers.requests import new_request_id
from authpipe_sensitive import Secret


class AuthorityPeer:
    """authority.

    Args:
        peer: The connection to it.
    """

    def __init__(self, peer: Peer[Any]) -> None:
        self._peer = peer

    async def close(self) -> None:
        """Closes the connection."""
        await self._peer.close()

    async def set_audit_retention(self, workspace: str, days: int) -> None:
        """Puts on record for how many days the bodies of a workspace's events are kept."""
        request = authority_pb2.SetAuditRetentionRequest(workspace_id=workspace, days=days, request_id=new_request_id())
        await self._peer.call_idempotent(lambda stub: stub.SetAuditRetention, request)

    async def revoke_api_keys(self, workspace: str, *, dry_run: bool) -> int:
        """Revokes all API keys of a workspace; gives how many were active."""
        request = authority_pb2.RevokeApiKeysRequest(
            workspace_id=workspace, dry_run=dry_run, request_id=new_request_id()
        )
        return int((await self._peer.call_idempotent(lambda stub: stub.RevokeApiKeys, request)).revoked_count)

    async def freeze(self, workspace: str, *, dry_run: bool) -> bool:
        """Freezes a workspace; says whether it was frozen already."""
        request = authority_pb2.FreezeWorkspaceRequest(
            workspace_id=workspace, dry_run=dry_run, request_id=new_request_id()
        )
        return bool((await self._peer.call_idempotent(lambda stub: stub.FreezeWorkspace, request)).was_frozen)

    async def unfreeze(self, workspace: str) -> bool:
        """Has a workspace served again; says whether it was frozen."""
        request = authority_pb2.UnfreezeWorkspaceRequest(workspace_id=workspace, request_id=new_request_id())
        return bool((await self._peer.call_idempotent(lambda stub: stub.UnfreezeWorkspace, request)).was_frozen)


@dataclass(frozen=True, slots=True)
class Member:
    """Somebody of a workspace, as shown."""

    id: str
    email: str
    role: str
    state: str


@dataclass(frozen=True, slots=True)
class Invitation:
    """An invitation, shown once: the page at which one joins, with what one joins by behind its `#`."""

    member_id: str
    url: Secret
    expires: dt.datetime


class MembersPeer:
    """A workspace's members.

    Args:
        peer: The connection to authority.
    """

    def __init__(self, peer: Peer[Any]) -> None:
        self._peer = peer

    async def close(self) -> None:
        """Closes the connection."""
        await self._peer.close()

    async def invite(self, workspace: str, email: str, role: str) -> Invitation:
        """Invites somebody."""
        request = members_pb2.InviteMemberRequest(
            workspace_id=workspace, email=email, role=role, request_id=new_request_id()
        )
        answer = await self._peer.call(lambda stub: stub.InviteMember, request)
        url = Secret(answer.join_url.encode() + b"#" + answer.invitation)
        return Invitation(answer.member_id, url, answer.expire_time.ToDatetime(dt.UTC))

    async def list_members(self, workspace: str) -> list[Member]:
        """Gives who is a member or invited."""
        request = members_pb2.ListMembersRequest(workspace_id=workspace)
        answer = await self._peer.call_idempotent(lambda stub: stub.ListMembers, request)
        return [Member(each.member_id, each.email, each.role, each.state) for each in answer.members]

    async def change_role(self, workspace: str, member_id: str, role: str) -> None:
        """Gives a member another role."""
        request = members_pb2.ChangeMemberRoleRequest(
            workspace_id=workspace, member_id=member_id, role=role, request_id=new_request_id()
        )
        await self._peer.call(lambda stub: stub.ChangeMemberRole, request)

    async def remove(self, workspace: str, member_id: str) -> None:
        """Removes a member, with all sessions."""
        request = members_pb2.RemoveMemberRequest(
            workspace_id=workspace, member_id=member_id, request_id=new_request_id()
        )
        await self._peer.call(lambda stub: stub.RemoveMember, request)
