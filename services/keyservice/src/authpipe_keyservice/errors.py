"""What keyservice refuses, and what helps."""

from __future__ import annotations

from authpipe_sensitive import DomainError, Status


class PurposeError(DomainError):
    """No purpose allows this signer, consumer, record class and direction together; see the table in domain/release."""

    reason = "PURPOSE_NOT_ALLOWED"
    status = Status.PERMISSION_DENIED


class RolledBackError(DomainError):
    """The store offers an older version of this record than the one in force. It was not opened; restore the newest."""

    reason = "RECORD_ROLLED_BACK"
    status = Status.DATA_LOSS


class NotDueError(DomainError):
    """The token is not due for refresh yet, or was force-refreshed within the last ten seconds."""

    reason = "REFRESH_NOT_DUE"


class FenceError(DomainError):
    """A newer lease exists: whoever holds this one has been passed over and must not write."""

    reason = "FENCE_OUTDATED"
    status = Status.ABORTED


class NotActiveError(DomainError):
    """The connection is being disconnected. It is not served any more; connect the account again."""

    reason = "CONNECTION_DISCONNECTED"


class ErasedError(DomainError):
    """The connection's key does not exist or was destroyed: nothing of it opens."""

    reason = "CONNECTION_KEY_ERASED"
    status = Status.NOT_FOUND


class BudgetError(DomainError):
    """More record keys were asked for in a minute than this workspace or signer may have. An alarm was raised; wait."""

    reason = "RELEASE_BUDGET_EXCEEDED"
    status = Status.RESOURCE_EXHAUSTED


class KeyTamperedError(DomainError):
    """A wrapped key does not unwrap in its place: a row was changed or moved. It is not retried; restore the row."""

    reason = "WRAPPED_KEY_TAMPERED"
    status = Status.DATA_LOSS


class HsmUnavailableError(DomainError):
    """The HSM does not answer. Nothing was released; it is tried again until the token is back."""

    reason = "HSM_UNAVAILABLE"
    status = Status.UNAVAILABLE


class ForkError(DomainError):
    """The tree to sign is smaller than, or differs from, one signed before. Signing stops rather than fork the log."""

    reason = "CHECKPOINT_FORKED"
    status = Status.DATA_LOSS
