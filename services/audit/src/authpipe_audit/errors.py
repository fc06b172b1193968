"""What audit refuses, and what helps."""

from __future__ import annotations

from authpipe_sensitive import DomainError, Status


class MalformedEventError(DomainError):
    """An event cannot be read, or has no id or name. Nothing of the batch was appended."""

    reason = "EVENT_MALFORMED"
    status = Status.INVALID_ARGUMENT


class PageTokenError(DomainError):
    """The page token is not one that a page ended with. Begin again without it."""

    reason = "PAGE_TOKEN_INVALID"
    status = Status.INVALID_ARGUMENT


class NoCheckpointError(DomainError):
    """No checkpoint has been signed yet. Try again in a second."""

    reason = "NO_CHECKPOINT_YET"
    status = Status.UNAVAILABLE
