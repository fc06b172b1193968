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


class ForgedRowError(DomainError):
    """This API key's row in the database was not written by us. Access is refused and an alarm was raised."""

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
