"""What authority refuses, and what helps."""

from __future__ import annotations

from authpipe_sensitive import DomainError, Status


class ApiKeyError(DomainError):
    """The API key is not valid: malformed, unknown or revoked. Send `Authorization: Bearer ap_…` with a current key."""

    reason = "API_KEY_INVALID"
    status = Status.UNAUTHENTICATED


class ScopeError(DomainError):
    """The API key does not have the scope that this needs. Use a key that has it, or create one."""

    reason = "SCOPE_MISSING"
    status = Status.PERMISSION_DENIED


class SessionError(DomainError):
    """The session has ended, or there is none. Sign in again."""

    reason = "SESSION_INVALID"
    status = Status.UNAUTHENTICATED


class RoleError(DomainError):
    """Your role in the workspace does not allow this. Ask somebody whose role does."""

    reason = "ROLE_INSUFFICIENT"
    status = Status.PERMISSION_DENIED


class SignInError(DomainError):
    """The passkey was not accepted. Begin again; if it was removed, ask for a new invitation.

    Args:
        why: What the log says of it; whoever is outside is not told.
    """

    reason = "SIGN_IN_REFUSED"
    status = Status.UNAUTHENTICATED

    def __init__(self, why: str = "PASSKEY_MALFORMED") -> None:
        super().__init__()
        self.why = why


class InvitationError(SignInError):
    """The invitation was used, has ended, or is none of ours. Ask for a new one."""

    reason = "INVITATION_INVALID"

    def __init__(self) -> None:
        super().__init__("INVITATION_INVALID")


class TooManySignInsError(DomainError):
    """Too many sign-ins were tried from this address within a minute. Wait a minute."""

    reason = "TOO_MANY_SIGN_INS"
    status = Status.RESOURCE_EXHAUSTED


class NoSuchMemberError(DomainError):
    """There is no such member in the workspace."""

    reason = "NOT_FOUND"
    status = Status.NOT_FOUND


class MemberExistsError(DomainError):
    """There is a member of this e-mail address. Remove them first, to invite them anew."""

    reason = "MEMBER_EXISTS"
    status = Status.ALREADY_EXISTS


class MembersFullError(DomainError):
    """A workspace has 500 members at most. Remove somebody first."""

    reason = "MEMBERS_FULL"


class LastOwnerError(DomainError):
    """A workspace keeps an owner. Make somebody else one first."""

    reason = "LAST_OWNER"


class ForgedRowError(DomainError):
    """The row of this API key, member or session in the database was not written by us. Access is refused and an alarm was raised."""

    reason = "API_KEY_INVALID"
    status = Status.UNAUTHENTICATED


class FrozenError(DomainError):
    """The workspace is frozen: nothing of it is served or changed, and nothing is lost. Ask whoever runs Authpipe."""

    reason = "WORKSPACE_FROZEN"
    status = Status.PERMISSION_DENIED


class MalformedError(DomainError):
    """A field of the request is missing, too long or not of its list."""

    reason = "REQUEST_MALFORMED"
    status = Status.INVALID_ARGUMENT


class WorkspaceNotFoundError(DomainError):
    """There is no such workspace or API key."""

    reason = "NOT_FOUND"
    status = Status.NOT_FOUND
