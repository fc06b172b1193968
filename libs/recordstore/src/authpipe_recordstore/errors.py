"""What a store refuses, and what helps."""

from __future__ import annotations

from authpipe_sensitive import DomainError, Status


class NotFoundError(DomainError):
    """There is no such record."""

    reason = "RECORD_NOT_FOUND"
    status = Status.NOT_FOUND


class WithheldError(DomainError):
    """The connection is disconnected; nothing of it is served or written. Connect the account again."""

    reason = "CONNECTION_DISCONNECTED"


class VersionConflictError(DomainError):
    """Another version of this record was stored meanwhile. Nothing was changed; read it and decide again."""

    reason = "RECORD_VERSION_CONFLICT"
    status = Status.ABORTED


class FenceError(DomainError):
    """A newer lease exists: whoever holds this one has been passed over and must not write."""

    reason = "FENCE_OUTDATED"
    status = Status.ABORTED


class MalformedError(DomainError):
    """The record is not an AP1 record, or a name in the request is missing. Nothing was stored."""

    reason = "RECORD_MALFORMED"
    status = Status.INVALID_ARGUMENT
