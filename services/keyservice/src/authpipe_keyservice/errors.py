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


class SupersededError(DomainError):
    """The record was written again while this reader was on its way. Ask again: the newer one is stored."""

    reason = "RECORD_SUPERSEDED"
    status = Status.ABORTED


class NotDueError(DomainError):
    """The token is not due for refresh yet, or was force-refreshed within the last ten seconds."""

    reason = "REFRESH_NOT_DUE"


class RecordCurrentError(DomainError):
    """The record is on the newest version of its connection key; there is nothing to seal again."""

    reason = "RECORD_KEY_CURRENT"


class FenceError(DomainError):
    """A newer lease exists: whoever holds this one has been passed over and must not write."""

    reason = "FENCE_OUTDATED"
    status = Status.ABORTED


class NotActiveError(DomainError):
    """The connection is being disconnected. It is not served any more; connect the account again."""

    reason = "CONNECTION_DISCONNECTED"


class NotKeptError(DomainError):
    """The connection's key is not kept, or not any more: nothing of it opens. Connect the account anew."""

    reason = "CONNECTION_NOT_KEPT"


class KeptTooLongError(DomainError):
    """A connection is kept for thirty days at most. Nothing was changed."""

    reason = "KEPT_TOO_LONG"
    status = Status.INVALID_ARGUMENT


class ErasedError(DomainError):
    """The connection's key does not exist or was destroyed: nothing of it opens."""

    reason = "CONNECTION_KEY_ERASED"
    status = Status.NOT_FOUND


class BudgetError(DomainError):
    """More record keys were asked for than this workspace, signer or consumer may have. An alarm was raised; wait a minute."""

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
    """The tree to sign does not extend the one signed last. Signing stops rather than fork the log.

    Somebody has changed or set back the log's database; docs/audit.md says what to do.
    """

    reason = "CHECKPOINT_FORKED"
    status = Status.DATA_LOSS


class CheckpointBaseError(DomainError):
    """Another tree than this was signed last; `signed_size` in the metadata is its size. Prove that yours extends it."""

    reason = "CHECKPOINT_BASE_DIFFERS"
    status = Status.ABORTED


class UnknownLogError(DomainError):
    """No log of this origin is signed here. Set `origins` of keyservice audit-log to the origins of audit's trails."""

    reason = "LOG_UNKNOWN"
    status = Status.NOT_FOUND


class WorkspaceErasedError(DomainError):
    """The workspace's keys are destroyed or about to be. An erasure whose delay is not over can be cancelled."""

    reason = "WORKSPACE_KEYS_ERASED"
    status = Status.NOT_FOUND


class ContendedError(DomainError):
    """Others moved the same keys at the same time, again and again; nothing was changed. Ask again."""

    reason = "KEYS_CONTENDED"
    status = Status.ABORTED


class KekDisabledError(DomainError):
    """The KEK version that wraps this key is disabled. Enable it: authpipe-admin keys enable."""

    reason = "KEK_DISABLED"
    status = Status.FAILED_PRECONDITION


class KekStateError(DomainError):
    """A KEK version cannot be moved from its state to this one; see the table of moves in docs/keys.md."""

    reason = "KEK_STATE"
    status = Status.FAILED_PRECONDITION


class KekInUseError(DomainError):
    """DEKs are still wrapped by this KEK version. Wait until they are re-wrapped: authpipe-admin keys list."""

    reason = "KEK_IN_USE"
    status = Status.FAILED_PRECONDITION


class GracePeriodError(DomainError):
    """The KEK version was disabled too short a time ago to be destroyed; `not_before_s` says from when on it can be."""

    reason = "KEK_GRACE_PERIOD"
    status = Status.FAILED_PRECONDITION


class NoSuchKeyError(DomainError):
    """There is no such key, workspace or version in this key domain. List them: authpipe-admin keys list."""

    reason = "KEY_NOT_FOUND"
    status = Status.NOT_FOUND


class DelayError(DomainError):
    """An erasure can be delayed by 0 to 30 days."""

    reason = "ERASURE_DELAY"
    status = Status.INVALID_ARGUMENT


class CustomerKeyUnavailableError(DomainError):
    """The customer's KMS refuses: the key is disabled or deleted, or our permission was removed. The customer gives it back."""

    reason = "CUSTOMER_KEY_UNAVAILABLE"
    status = Status.FAILED_PRECONDITION


class CustomerKmsUnavailableError(DomainError):
    """The customer's KMS does not answer as it should, or asks to slow down. Nothing was lost; try again shortly."""

    reason = "CUSTOMER_KMS_UNAVAILABLE"
    status = Status.UNAVAILABLE


class CustomerKeyPendingError(DomainError):
    """The customer's KMS is being asked. Nobody waits for it in a batch with others: ask again in a moment."""

    reason = "CUSTOMER_KEY_PENDING"
    status = Status.UNAVAILABLE


class CustomerKeyUnfitError(DomainError):
    """The key does not do what it has to: give back what it wrapped, and refuse it under a changed context."""

    reason = "CUSTOMER_KEY_UNFIT"
    status = Status.FAILED_PRECONDITION


class CustomerKeyLocatorError(DomainError):
    """This is not where a customer's key can be: an unknown provider, a field that is missing, or a host not allowed."""

    reason = "CUSTOMER_KEY_LOCATOR"
    status = Status.INVALID_ARGUMENT
