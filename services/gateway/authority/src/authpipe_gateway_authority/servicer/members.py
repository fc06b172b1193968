"""The wire side of members, and of how they sign in."""

from __future__ import annotations

import secrets
from collections.abc import Callable

from google.protobuf.timestamp_pb2 import Timestamp

from authpipe.authority.v1 import members_pb2 as pb
from authpipe_gateway_authority.domain.acting import Asked
from authpipe_gateway_authority.domain.membership import Membership
from authpipe_gateway_authority.domain.signing_in import Attempt, NewSession, SigningIn
from authpipe_gateway_authority.key_format import Form, hash_of, hash_token, new_token
from authpipe_rpc import current_caller
from authpipe_sensitive import Secret


class MembersServicer:
    """Serves Members.

    Args:
        membership: The rules over members.
        hash_key: The key of the invitations' hash.
        key_kind: The middle of new invitations.
        randomness: Gives random bytes.
        dashboard_url: Where the dashboard is.
    """

    def __init__(
        self,
        membership: Membership,
        hash_key: Secret,
        key_kind: str,
        randomness: Callable[[int], bytes],
        dashboard_url: str,
    ) -> None:
        self._membership = membership
        self._hash_key = hash_key
        self._key_kind = key_kind
        self._randomness = randomness
        self._dashboard_url = dashboard_url

    async def InviteMember(self, request: pb.InviteMemberRequest, _: object) -> pb.InviteMemberResponse:
        """Invites somebody."""
        member_id = f"mem_{secrets.token_hex(8)}"
        with new_token(Form.INVITATION, self._key_kind, self._randomness) as invitation:
            until = await self._membership.invite(
                _asked(request), member_id, request.email, request.role, hash_token(self._hash_key, invitation)
            )
            return pb.InviteMemberResponse(
                member_id=member_id,
                invitation=bytes(invitation.expose()),
                expire_time=Timestamp(seconds=until),
                join_url=f"{self._dashboard_url}/dashboard/join",
            )

    async def ListMembers(self, request: pb.ListMembersRequest, _: object) -> pb.ListMembersResponse:
        """Lists members."""
        asked = Asked(current_caller(), request.grant, request.workspace_id, "")
        listed = await self._membership.list_members(asked)
        return pb.ListMembersResponse(
            members=[
                pb.Member(member_id=each.member_id, email=each.email, role=each.role, state=each.state)
                for each in listed.members
            ],
            workspace_display_name=listed.workspace,
            own_member_id=listed.own,
        )

    async def ChangeMemberRole(self, request: pb.ChangeMemberRoleRequest, _: object) -> pb.ChangeMemberRoleResponse:
        """Gives a member another role."""
        await self._membership.change_role(_asked(request), request.member_id, request.role)
        return pb.ChangeMemberRoleResponse()

    async def RemoveMember(self, request: pb.RemoveMemberRequest, _: object) -> pb.RemoveMemberResponse:
        """Removes a member."""
        await self._membership.remove(_asked(request), request.member_id)
        return pb.RemoveMemberResponse()

    async def ListOwners(self, request: pb.ListOwnersRequest, _: object) -> pb.ListOwnersResponse:
        """Says who has to be told."""
        name, emails = await self._membership.owners(request.workspace_id)
        return pb.ListOwnersResponse(workspace_display_name=name, emails=emails)


class SignInServicer:
    """Serves SignIn.

    Args:
        signing_in: The rules over signing in.
        hash_key: The key of the tokens' hash.
        key_kind: The middle of new tokens.
        randomness: Gives random bytes.
        forget: Drops what is remembered of sessions.
    """

    def __init__(
        self,
        signing_in: SigningIn,
        hash_key: Secret,
        key_kind: str,
        randomness: Callable[[int], bytes],
        forget: Callable[[], None],
    ) -> None:
        self._signing_in = signing_in
        self._hash_key = hash_key
        self._key_kind = key_kind
        self._randomness = randomness
        self._forget = forget

    async def BeginJoining(self, request: pb.BeginJoiningRequest, _: object) -> pb.BeginJoiningResponse:
        """Begins to register a passkey."""
        options = await self._signing_in.begin_joining(self._invitation(request), _attempt(request))
        return pb.BeginJoiningResponse(options=options)

    async def FinishJoining(self, request: pb.FinishJoiningRequest, _: object) -> pb.FinishJoiningResponse:
        """Registers a passkey, and signs in."""
        with new_token(Form.SESSION, self._key_kind, self._randomness) as session:
            ends = await self._signing_in.finish_joining(
                self._invitation(request), request.credential, self._new(session, request)
            )
            return pb.FinishJoiningResponse(session=bytes(session.expose()), expire_time=Timestamp(seconds=ends))

    async def BeginSignIn(self, _: pb.BeginSignInRequest, __: object) -> pb.BeginSignInResponse:
        """Begins to sign in."""
        return pb.BeginSignInResponse(options=await self._signing_in.begin_sign_in())

    async def FinishSignIn(self, request: pb.FinishSignInRequest, _: object) -> pb.FinishSignInResponse:
        """Signs in."""
        with new_token(Form.SESSION, self._key_kind, self._randomness) as session:
            ends = await self._signing_in.finish_sign_in(request.credential, self._new(session, request))
            return pb.FinishSignInResponse(session=bytes(session.expose()), expire_time=Timestamp(seconds=ends))

    async def SignOut(self, request: pb.SignOutRequest, _: object) -> pb.SignOutResponse:
        """Ends a session."""
        token_hash = hash_of(self._hash_key, Form.SESSION, request.session)
        await self._signing_in.sign_out(token_hash, _attempt(request))
        self._forget()
        return pb.SignOutResponse()

    def _invitation(self, request: pb.BeginJoiningRequest | pb.FinishJoiningRequest) -> bytes | None:
        return hash_of(self._hash_key, Form.INVITATION, request.invitation)

    def _new(self, session: Secret, request: pb.FinishJoiningRequest | pb.FinishSignInRequest) -> NewSession:
        session_id = f"ses_{secrets.token_hex(8)}"
        token_hash = hash_token(self._hash_key, session)
        return NewSession(session_id, token_hash, _attempt(request))


def _attempt(
    request: pb.BeginJoiningRequest | pb.FinishJoiningRequest | pb.FinishSignInRequest | pb.SignOutRequest,
) -> Attempt:
    return Attempt(request.request_id, request.source_address)


def _asked(request: pb.InviteMemberRequest | pb.ChangeMemberRoleRequest | pb.RemoveMemberRequest) -> Asked:
    return Asked(current_caller(), request.grant, request.workspace_id, request.request_id)
