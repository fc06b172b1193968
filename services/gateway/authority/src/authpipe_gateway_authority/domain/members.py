"""Members and their sessions as stored, each row under a MAC; what a role may do; and who may change whom.

No role has a scope by which a credential is served, refreshed or used: a session of the dashboard never yields one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from authpipe_gateway_authority.domain.row_mac import is_genuine, row_mac
from authpipe_gateway_authority.errors import LastOwnerError, MemberExistsError, MembersFullError, NoSuchMemberError
from authpipe_gateway_authority.errors import RoleError
from authpipe_sensitive import Secret

_AUDITOR = ("audit:read", "connections:read", "provider_configs:read", "members:read")
_DEVELOPER = (*_AUDITOR, "connect_sessions:write")
_ADMIN = (*_DEVELOPER, "connections:write", "provider_configs:write", "workspace:contain", "members:write")
# From the least to the most. An owner may do what an admin may, and to other owners too.
ROLES: Mapping[str, tuple[str, ...]] = {
    "auditor": _AUDITOR,
    "developer": _DEVELOPER,
    "admin": _ADMIN,
    "owner": _ADMIN,
}
_RANK = {role: rank for rank, role in enumerate(ROLES)}
MOST_MEMBERS = 500


@dataclass(frozen=True, slots=True)
class MemberRow:
    """A member as stored.

    Args:
        workspace: The workspace.
        member_id: The id.
        email: An address to show, and to write to.
        role: One of ROLES.
        state: "invited", "active" or "removed".
        invitation_hash: Keyed hash of the invitation; empty: it was used.
        invited_until: Until when the invitation is good, seconds of Unix time.
        credential_id: The id of the passkey; empty: none yet.
        credential: The passkey: its public key, as WebAuthn's attested credential data has it (section 6.5.2).
        sign_count: How often the passkey has signed, as it says; always 0 with one that is synchronised.
        epoch: The workspace's epoch when the row was written.
        mac: The MAC over all of it.
    """

    workspace: str
    member_id: str
    email: str
    role: str
    state: str
    invitation_hash: bytes = b""
    invited_until: int = 0
    credential_id: bytes = b""
    credential: bytes = b""
    sign_count: int = 0
    epoch: int = 0
    mac: bytes = b""

    def fields(self) -> tuple[str, ...]:
        """Gives the fields under the MAC: all but the MAC."""
        return (
            self.workspace,
            self.member_id,
            self.email,
            self.role,
            self.state,
            self.invitation_hash.hex(),
            str(self.invited_until),
            self.credential_id.hex(),
            self.credential.hex(),
            str(self.sign_count),
            str(self.epoch),
        )

    def sealed(self, key: Secret, epoch: int) -> MemberRow:
        """Gives the row with its MAC, in an epoch."""
        row = replace(self, epoch=epoch)
        return replace(row, mac=row_mac(key, "members", row.fields()))

    def is_genuine(self, key: Secret) -> bool:
        """Says whether the row is as we wrote it."""
        return is_genuine(key, "members", self.fields(), self.mac)


@dataclass(frozen=True, slots=True)
class SessionRow:
    """A session of the dashboard as stored.

    Args:
        workspace: The workspace.
        session_id: The id.
        member_id: Whose.
        token_hash: The keyed hash of its token, 32 bytes.
        expires_at: When it ends, seconds of Unix time.
        epoch: The workspace's epoch when the row was written.
        mac: The MAC over all of it.
    """

    workspace: str
    session_id: str
    member_id: str
    token_hash: bytes
    expires_at: int
    epoch: int = 0
    mac: bytes = b""

    def fields(self) -> tuple[str, ...]:
        """Gives the fields under the MAC: all but the MAC."""
        return (
            self.workspace,
            self.session_id,
            self.member_id,
            self.token_hash.hex(),
            str(self.expires_at),
            str(self.epoch),
        )

    def sealed(self, key: Secret, epoch: int) -> SessionRow:
        """Gives the row with its MAC, in an epoch."""
        row = replace(self, epoch=epoch)
        return replace(row, mac=row_mac(key, "dashboard_sessions", row.fields()))

    def is_genuine(self, key: Secret) -> bool:
        """Says whether the row is as we wrote it."""
        return is_genuine(key, "dashboard_sessions", self.fields(), self.mac)


class Change(NamedTuple):
    """What a change writes.

    Args:
        member: The member as it is to be.
        takes_away: Whether access is taken away: the member's sessions end, and the workspace moves to its next epoch.
    """

    member: MemberRow
    takes_away: bool


def invited(members: Sequence[MemberRow], acting: str, new: MemberRow) -> Change:
    """Gives the change that invites somebody.

    Args:
        members: The workspace's members.
        acting: The member who invites; empty: an operator.
        new: The member to be.

    Raises:
        RoleError: Nobody gives a role above their own.
        MemberExistsError: There is a member of this address.
        MembersFullError: There are as many members as there may be.
    """
    _require_rank(members, acting, new.role)
    here = [each for each in members if each.state != "removed"]
    if any(each.email.lower() == new.email.lower() for each in here):
        raise MemberExistsError
    if len(here) >= MOST_MEMBERS:
        raise MembersFullError
    return Change(new, takes_away=False)


def given_role(members: Sequence[MemberRow], acting: str, member_id: str, role: str) -> Change:
    """Gives the change by which a member has another role.

    Raises:
        NoSuchMemberError: There is no such member.
        RoleError: Nobody changes their own role, that of somebody above them, or gives one above their own.
        LastOwnerError: Nobody would be an owner any more.
    """
    member = _found(members, member_id)
    if member_id == acting:
        raise RoleError
    _require_rank(members, acting, role)
    _require_rank(members, acting, member.role)
    if role != "owner":
        _require_another_owner(members, member)
    return Change(replace(member, role=role), takes_away=True)


def removed(members: Sequence[MemberRow], acting: str, member_id: str) -> Change:
    """Gives the change that removes a member: somebody who is not above who does it, also oneself.

    Raises:
        NoSuchMemberError: There is no such member.
        RoleError: It is somebody above who does it.
        LastOwnerError: Nobody would be an owner any more.
    """
    member = _found(members, member_id)
    _require_rank(members, acting, member.role)
    _require_another_owner(members, member)
    # Nothing of the person stays but the id, by which the log knows them.
    gone = replace(
        member, email="", state="removed", invitation_hash=b"", credential_id=b"", credential=b"", sign_count=0
    )
    return Change(gone, takes_away=True)


def _found(members: Sequence[MemberRow], member_id: str) -> MemberRow:
    for member in members:
        if member.member_id == member_id and member.state != "removed":
            return member
    raise NoSuchMemberError


def _require_rank(members: Sequence[MemberRow], acting: str, role: str) -> None:
    """The role that counts is the one that the acting member has now, not the one of when the grant was signed."""
    if not acting:
        return
    mine = next((each for each in members if each.member_id == acting and each.state == "active"), None)
    if mine is None or "members:write" not in ROLES[mine.role] or _RANK[mine.role] < _RANK[role]:
        raise RoleError


def _require_another_owner(members: Sequence[MemberRow], member: MemberRow) -> None:
    owners = [each for each in members if each.role == "owner" and each.state == "active"]
    if owners == [member]:
        raise LastOwnerError
