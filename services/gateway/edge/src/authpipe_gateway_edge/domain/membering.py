"""A workspace's members, for those who are members. No API key can do any of it: a stolen one makes nobody a member."""

from __future__ import annotations

from authpipe_gateway_edge.domain.ports import Act, Authority, Membership, SignIn
from authpipe_gateway_edge.domain.people import Invitation, Members
from authpipe_gateway_edge.domain.words import Caller, require_id, require_plain
from authpipe_sensitive import Secret


class Membering:
    """Acts for a workspace.

    Args:
        authority: May I?
        membership: Keeps members.
        sign_in: Keeps sessions.
    """

    def __init__(self, authority: Authority, membership: Membership, sign_in: SignIn) -> None:
        self._authority = authority
        self._membership = membership
        self._sign_in = sign_in

    async def list_members(self, caller: Caller) -> Members:
        """Lists members."""
        verdict = await self._authority.authorize(caller, Act.READ_MEMBERS, "")
        return await self._membership.list_members(verdict)

    async def invite(self, caller: Caller, email: str, role: str) -> Invitation:
        """Invites somebody."""
        verdict = await self._authority.authorize(caller, Act.INVITE_MEMBER, "")
        require_plain(role, "role")
        return await self._membership.invite(verdict, require_plain(email, "email"), role, caller.request_id)

    async def change_role(self, caller: Caller, member_id: str, role: str) -> None:
        """Gives a member another role."""
        verdict = await self._authority.authorize(caller, Act.CHANGE_MEMBER_ROLE, "")
        require_plain(role, "role")
        await self._membership.change_role(verdict, require_id(member_id), role, caller.request_id)
        self._authority.forget()

    async def remove(self, caller: Caller, member_id: str) -> None:
        """Removes a member, with all sessions."""
        verdict = await self._authority.authorize(caller, Act.REMOVE_MEMBER, "")
        await self._membership.remove(verdict, require_id(member_id), caller.request_id)
        self._authority.forget()

    async def sign_out(self, session: Secret, request_id: str, source: str) -> None:
        """Ends a session, here at once and at other replicas of ours when their verdicts end, in seconds."""
        await self._sign_in.sign_out(session, request_id, source)
        self._authority.forget()
