"""authority's members and sign-in, in edge's own words."""

from __future__ import annotations

import datetime as dt

from authpipe.authority.v1 import members_pb2 as pb
from authpipe.authority.v1 import members_pb2_grpc
from authpipe_gateway_edge.domain.people import Invitation, Member, Members, Session
from authpipe_gateway_edge.domain.words import Verdict
from authpipe_rpc import Peer
from authpipe_sensitive import Secret


class MembersPeer:
    """A workspace's members.

    Args:
        peer: The connection to authority.
    """

    def __init__(self, peer: Peer[members_pb2_grpc.MembersAsyncStub]) -> None:
        self._peer = peer

    async def invite(self, verdict: Verdict, email: str, role: str, request_id: str) -> Invitation:
        """Invites somebody."""
        request = pb.InviteMemberRequest(grant=verdict.manage_grant, email=email, role=role, request_id=request_id)
        answer = await self._peer.call(lambda stub: stub.InviteMember, request)
        url = Secret(answer.join_url.encode() + b"#" + answer.invitation)
        return Invitation(answer.member_id, url, answer.expire_time.ToDatetime(dt.UTC))

    async def list_members(self, verdict: Verdict) -> Members:
        """Gives the members."""
        request = pb.ListMembersRequest(grant=verdict.manage_grant)
        answer = await self._peer.call_idempotent(lambda stub: stub.ListMembers, request)
        members = [Member(each.member_id, each.email, each.role, each.state) for each in answer.members]
        return Members(members, answer.workspace_display_name, answer.own_member_id)

    async def change_role(self, verdict: Verdict, member_id: str, role: str, request_id: str) -> None:
        """Gives a member another role."""
        request = pb.ChangeMemberRoleRequest(
            grant=verdict.manage_grant, member_id=member_id, role=role, request_id=request_id
        )
        await self._peer.call(lambda stub: stub.ChangeMemberRole, request)

    async def remove(self, verdict: Verdict, member_id: str, request_id: str) -> None:
        """Removes a member."""
        request = pb.RemoveMemberRequest(grant=verdict.manage_grant, member_id=member_id, request_id=request_id)
        await self._peer.call(lambda stub: stub.RemoveMember, request)


class SignInPeer:
    """Passkeys and sessions.

    Args:
        peer: The connection to authority.
    """

    def __init__(self, peer: Peer[members_pb2_grpc.SignInAsyncStub]) -> None:
        self._peer = peer

    async def begin_joining(self, invitation: Secret, request_id: str, source: str) -> str:
        """Gives what a passkey is made by."""
        request = pb.BeginJoiningRequest(
            invitation=bytes(invitation.expose()), request_id=request_id, source_address=source
        )
        return (await self._peer.call_idempotent(lambda stub: stub.BeginJoining, request)).options

    async def finish_joining(self, invitation: Secret, credential: str, request_id: str, source: str) -> Session:
        """Gives the session of somebody who has joined."""
        request = pb.FinishJoiningRequest(
            invitation=bytes(invitation.expose()), credential=credential, request_id=request_id, source_address=source
        )
        return _session(await self._peer.call(lambda stub: stub.FinishJoining, request))

    async def begin_sign_in(self) -> str:
        """Gives what a passkey is to sign."""
        return (await self._peer.call_idempotent(lambda stub: stub.BeginSignIn, pb.BeginSignInRequest())).options

    async def finish_sign_in(self, credential: str, request_id: str, source: str) -> Session:
        """Gives the session of somebody who has signed in."""
        request = pb.FinishSignInRequest(credential=credential, request_id=request_id, source_address=source)
        return _session(await self._peer.call(lambda stub: stub.FinishSignIn, request))

    async def sign_out(self, session: Secret, request_id: str, source: str) -> None:
        """Ends a session."""
        request = pb.SignOutRequest(session=bytes(session.expose()), request_id=request_id, source_address=source)
        await self._peer.call_idempotent(lambda stub: stub.SignOut, request)


def _session(answer: pb.FinishJoiningResponse | pb.FinishSignInResponse) -> Session:
    return Session(Secret(answer.session), answer.expire_time.ToDatetime(dt.UTC))
